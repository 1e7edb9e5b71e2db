"""One HTTP exchange over ASGI: reads the body, replies, or writes a stream chunk by chunk."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from simulator.faults import HEADER, NONE, Faults
from simulator.wire import Refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

BODY_BYTES_MAX = 32 * 1024 * 1024
BATCH_BODY_BYTES_MAX = 256 * 1024 * 1024

JSON_TYPE = (b"content-type", b"application/json")
STREAM_HEADERS: Headers = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
)
# Under `python -m simulator` the scope has an extension of this name.
ABORT = "simulator.abort"
_NOTHING: Message = {"type": "http.response.body", "body": b"", "more_body": True}


class CutShort(Exception):
    """Leaves an answer unfinished, so that the server closes the connection under it."""


class Exchange:
    """One request and the way back to its client."""

    __slots__ = (
        "_receive",
        "_send",
        "_watcher",
        "faults",
        "headers",
        "is_client_gone",
        "method",
        "path",
        "request_id",
        "scope",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, request_id: str) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.request_id = request_id
        self.faults: Faults = NONE
        self.is_client_gone = False
        self._receive = receive
        self._send = send
        self._watcher: asyncio.Task[None] | None = None

    @property
    def query(self) -> dict[str, str]:
        """The query's fields, the last one of each name."""
        return dict(parse_qsl(self.scope["query_string"].decode("latin-1")))

    def header(self, name: bytes) -> str | None:
        """A request header as text."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def is_misdirected(self) -> bool:
        """Did the client ask for faults?"""
        return HEADER in self.headers

    async def body(self, *, bytes_max: int = BODY_BYTES_MAX) -> bytes:
        """The whole body. Raises Refusal (413) when it is too large."""
        message = await self._receive()
        chunk: bytes = message.get("body", b"")
        if not message.get("more_body"):
            return self._checked(chunk, bytes_max)
        parts, length = [chunk], len(chunk)
        while message.get("more_body"):
            message = await self._receive()
            chunk = message.get("body", b"")
            length += len(chunk)
            # What is over the limit is read to its end and dropped, so that the client hears why.
            if length <= bytes_max:
                parts.append(chunk)
        if length > bytes_max:
            raise Refusal("Request exceeds the maximum size", status=413)
        return b"".join(parts)

    @staticmethod
    def _checked(body: bytes, bytes_max: int) -> bytes:
        if len(body) > bytes_max:
            raise Refusal("Request exceeds the maximum size", status=413)
        return body

    async def reply(
        self, body: bytes, *, status: int = 200, headers: Headers = (JSON_TYPE,)
    ) -> None:
        """Answer in one piece."""
        await self._start(status, ((b"content-length", b"%d" % len(body)), *headers))
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def reply_in_part(self, body: bytes) -> None:
        """Promise the whole body, write half of it, and leave."""
        await self._start(200, ((b"content-length", b"%d" % len(body)), JSON_TYPE))
        half = body[: len(body) // 2]
        await self._send({"type": "http.response.body", "body": half, "more_body": True})
        raise CutShort

    async def start_stream(self) -> None:
        """Say 200 and begin to watch for the client's leaving."""
        self._watcher = asyncio.create_task(self._watch())
        await self._start(200, STREAM_HEADERS)

    async def drain(self) -> None:
        """Wait until what was written has left the buffer, or the client has left.

        An empty piece of body is the ASGI way to ask: it waits like any other and writes nothing.
        The server's own mark has to be zero for that, which `python -m simulator` sets.
        """
        await self._send(_NOTHING)

    async def write(self, chunk: bytes) -> None:
        """Write one chunk."""
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self) -> None:
        """End a stream as it should end."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def abort(self) -> None:
        """Close the connection without a byte; where the server cannot, break off the answer."""
        extension = self.scope.get("extensions", {}).get(ABORT)
        if extension is None:
            raise CutShort
        extension["abort"]()
        await self.wait_for_leave()

    async def wait_for_leave(self) -> None:
        """Keep silent until the client hangs up."""
        if self._watcher is not None:
            await self._watcher
            return
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def close(self) -> None:
        """Stop watching."""
        if self._watcher is not None:
            self._watcher.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.is_client_gone = True

    async def _start(self, status: int, headers: Headers) -> None:
        ident = self.request_id.encode()
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*headers, (b"request-id", ident), (b"x-request-id", ident)],
            }
        )
