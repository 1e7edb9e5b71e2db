"""OpenAI-compatible upstreams: what they are sent, and their answers in the shape of Messages.

The pipeline relays, meters and journals Messages alone; it need not know who answered.
"""

import dataclasses
from collections.abc import Callable, Iterable

import msgspec

from proxy.api_errors import ApiError
from proxy.asgi import Headers
from proxy.body import MessagesBody
from proxy.conversion.chat_response import Unreadable
from proxy.conversion.messages_errors import messages_error
from proxy.conversion.messages_request import ConvertedBody, chat_body_of
from proxy.conversion.messages_response import message_of
from proxy.conversion.messages_stream import MessagesStream
from proxy.conversion.traits import traits_of
from proxy.routing import Route
from proxy.upstreams.client import UpstreamResponse
from proxy.upstreams.selection import Hop
from turnpike.contracts.snapshots import UPSTREAM_OPENAI


def with_chat_bodies(route: Route, body: MessagesBody) -> Route:
    """The route with the bodies of those hops that need another than the client's.

    Hops that cannot take the request are left out. Raises ApiError 400 when none is left.
    """
    for hop in route.hops:
        if hop.upstream.kind == UPSTREAM_OPENAI:
            return _converted(route, body)
    return route


def _converted(route: Route, body: MessagesBody) -> Route:
    traits = traits_of(route.model)
    hops: list[Hop] = []
    refusal: ApiError | None = None
    # Of many upstreams most know the model by the same name, and get the same body.
    made: dict[str, ConvertedBody] = {}
    for hop in route.hops:
        if hop.upstream.kind != UPSTREAM_OPENAI:
            hops.append(hop)
            continue
        try:
            name = hop.upstream_model
            converted = made.get(name) or chat_body_of(
                body.fields, upstream_model=name, traits=traits
            )
        except ApiError as error:
            refusal = error
        else:
            made[name] = converted
            hops.append(dataclasses.replace(hop, body=converted.body, ignored=converted.ignored))
    if refusal is not None and not hops:
        raise refusal
    return msgspec.structs.replace(route, hops=tuple(hops))


class ChatAnswer(UpstreamResponse):
    """An answer of such an upstream, read as an answer of Messages.

    `is_estimated`: the upstream has not said what it used, as far as it was read.
    """

    __slots__ = (
        "_inner",
        "_input_estimate",
        "_is_over",
        "_model",
        "_request_id",
        "_stream",
        "is_estimated",
    )

    def __init__(
        self, inner: UpstreamResponse, *, model: str, request_id: str, input_estimate: int
    ) -> None:
        # Not the parent's: whatever touches the connection is asked of the answer inside.
        self.status = inner.status
        self.headers = _renamed(inner.headers)
        self.is_reused = inner.is_reused
        self.is_estimated = True
        self._inner = inner
        self._model = model
        self._request_id = request_id
        self._input_estimate = input_estimate
        self._is_over = False
        self._stream = MessagesStream(
            message_id=self._message_id,
            model=model,
            input_estimate=input_estimate,
            request_id=request_id,
        )

    @property
    def _message_id(self) -> str:
        return "msg_" + self._request_id.removeprefix("req_")

    async def read_chunk(self, timeout_seconds: float) -> bytes:
        """The events of what came; waits until there is one, and is empty at a clean end."""
        while not self._is_over:
            chunk = await self._inner.read_chunk(timeout_seconds)
            self._is_over = not chunk
            events = self._stream.feed(chunk) if chunk else self._stream.finish()
            self.is_estimated = self._stream.is_estimated
            if events:
                return events
        return b""

    def set_tap(self, tap: Callable[[bytes], bool] | None) -> None:
        """No tap: what comes is converted before anybody may have it."""

    def take_whole(self, limit_bytes: int) -> bytes | None:
        """Nothing at once: it is converted first."""
        return None

    async def read_all(self, limit_bytes: int, timeout_seconds: float) -> bytes:
        """The whole answer or error, converted; what cannot be converted comes as it is."""
        payload = await self._inner.read_all(limit_bytes, timeout_seconds)
        if self.status >= 400:
            return messages_error(self.status, payload, request_id=self._request_id)
        try:
            converted = message_of(
                payload,
                message_id=self._message_id,
                model=self._model,
                input_estimate=self._input_estimate,
            )
        except Unreadable:
            return payload
        self.is_estimated = converted.is_estimated
        return converted.body

    def close(self) -> None:
        """Done with it."""
        self._inner.close()


def is_estimated(response: UpstreamResponse) -> bool:
    """Whether the usage that was read is our own guess."""
    return isinstance(response, ChatAnswer) and response.is_estimated


def _renamed(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """With the request's id under the name that Messages has for it."""
    return [
        (b"request-id" if name.lower() == b"x-request-id" else name, value)
        for name, value in headers
    ]
