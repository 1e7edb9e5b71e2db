"""BoundedBody: no request body grows beyond its bound before Django has read it.

Django keeps what a client sends in memory or a file until it is whole, and asks for its size only
then. The bounds are those that the web server in front has too.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

MIB = 1024 * 1024
BODY_BYTES_MAX = 32 * MIB
BATCH_BYTES_MAX = 256 * MIB
BATCHES_PATH = "/v1/messages/batches"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]


class BoundedBody:
    """An application that never sees more of a body than the bound; the client gets a 413."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        bytes_max = BATCH_BYTES_MAX if scope["path"] == BATCHES_PATH else BODY_BYTES_MAX
        if _declared_bytes(scope) > bytes_max:
            await _refuse(send, bytes_max)
            return
        meter = _Meter(receive, send, bytes_max=bytes_max)
        await self._app(scope, meter.receive, meter.send)
        if meter.is_over and not meter.has_begun:
            await _refuse(send, bytes_max)


class _Meter:
    """Counts what comes in; beyond the bound the application is told that the client has left."""

    def __init__(self, receive: Receive, send: Send, *, bytes_max: int) -> None:
        self._receive = receive
        self._send = send
        self._left = bytes_max
        self.has_begun = False

    @property
    def is_over(self) -> bool:
        """Whether more came than may come."""
        return self._left < 0

    async def receive(self) -> Message:
        """The next message, unless the bound was passed."""
        if not self.is_over:
            message = await self._receive()
            self._left -= len(message.get("body", b""))
            if self._left >= 0:
                return message
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Pass an answer on."""
        self.has_begun = True
        await self._send(message)


def _declared_bytes(scope: Any) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:19])
    return 0


async def _refuse(send: Send, bytes_max: int) -> None:
    error = {
        "type": "request_too_large",
        "message": f"The request body is larger than {bytes_max // MIB} MB. Nothing was done.",
    }
    body = json.dumps({"type": "error", "error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
