"""The face of /v1/chat/completions: requests in and answers out, converted; the rest is Messages'.

What is admitted, held, journaled, metered and settled is the Messages request that was made of it.
"""

from collections.abc import Awaitable, Callable

import msgspec

from proxy.admission import Ask
from proxy.asgi import Headers, Message, Send
from proxy.body import MessagesBody, read_messages_body
from proxy.conversion.chat_errors import chat_error, chat_headers, convert_error
from proxy.conversion.chat_request import IGNORED_HEADER, messages_body_of
from proxy.conversion.chat_response import Unreadable, completion_of
from proxy.conversion.chat_stream import ChatStream
from proxy.conversion.traits import traits_of
from proxy.snapshots import View
from turnpike.kernel import clock

VERSION = (b"anthropic-version", b"2023-06-01")
SECOND_US = 1_000_000


class ChatFace:
    """One request. It stands in for `send`: what is sent goes out in OpenAI's shape."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._ignored: tuple[str, ...] = ()
        self._has_usage_chunk = False
        self._stream: ChatStream | None = None
        self._head: Message = {}
        self._pieces: list[bytes] = []

    def read(self, raw: bytes, view: View) -> MessagesBody:
        """The body as one of Messages. Raises ApiError 400."""
        find = view.plane.find_model
        converted = messages_body_of(raw, traits_of=lambda name: traits_of(find(name)))
        self._ignored, self._has_usage_chunk = converted.ignored, converted.has_usage_chunk
        return read_messages_body(converted.body)

    def ask_of(self, ask: Ask) -> Ask:
        """The request as a client of Messages would have sent it."""
        return msgspec.structs.replace(
            ask, headers={**ask.headers, VERSION[0]: VERSION[1]}, is_chat=True, memo=None
        )

    @property
    def below(self) -> Send:
        """Where the converted answer goes."""
        return self._send

    async def run_over(self, run: Callable[[Send], Awaitable[None]], send: Send) -> None:
        """Run something that sends to this face, with the converted answer going another way."""
        self._send = send
        await run(self)

    async def __call__(self, message: Message) -> None:
        """Send on what stands for this part of an answer."""
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif message["type"] == "http.response.body":
            await self._go_on(message.get("body", b""), message.get("more_body", False))

    async def _begin(self, message: Message) -> None:
        now_us = clock.now_us()
        headers = self._headers(chat_headers(message["headers"], now_us=now_us))
        self._head = {**message, "headers": headers}
        content_type = dict(headers).get(b"content-type", b"")
        if self._stream is not None:
            # An answer has begun already: the server refuses a second one, as it must.
            await self._send(self._head)
        elif message["status"] == 200 and content_type.startswith(b"text/event-stream"):
            self._stream = ChatStream(
                created=now_us // SECOND_US, has_usage_chunk=self._has_usage_chunk
            )
            await self._send(self._head)

    async def _go_on(self, body: bytes, has_more: bool) -> None:  # noqa: FBT001 - as ASGI has it
        if self._stream is not None:
            converted = self._stream.feed(body)
            if converted or not has_more:
                await self._send(
                    {"type": "http.response.body", "body": converted, "more_body": has_more}
                )
            return
        self._pieces.append(body)
        if not has_more:
            await self._answer(b"".join(self._pieces))

    async def _answer(self, payload: bytes) -> None:
        status = self._head["status"]
        if status == 200:
            try:
                converted = completion_of(payload, created=clock.now_us() // SECOND_US)
            except Unreadable:
                status, converted = chat_error(500, "api_error", "The answer could not be read.")
        else:
            status, converted = convert_error(status, payload)
        headers = [field for field in self._head["headers"] if field[0] != b"content-length"]
        headers.append((b"content-length", b"%d" % len(converted)))
        await self._send({**self._head, "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": converted})

    def _headers(self, headers: Headers) -> Headers:
        """With everything that was left out named in one header."""
        if not self._ignored:
            return headers
        names = [name.encode() for name in self._ignored]
        names += [value for name, value in headers if name == IGNORED_HEADER]
        kept = [field for field in headers if field[0] != IGNORED_HEADER]
        return [*kept, (IGNORED_HEADER, b", ".join(names))]
