"""One request and its answer on a client's connection: what the app reads and writes.

Head and first body bytes leave in one write, headers are checked all at once, and a body that came
with its head is in the scope at once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from proxy.asgi import App, Message, Scope, Send

logger = logging.getLogger("uvicorn.error")

# Where an app may find a whole body without asking: what came before the app first ran.
BODY_IN_SCOPE = "turnpike.body"
# Beyond this unread, the socket is left alone until the app asks for more. uvloop reads as much in
# one go, so a body of 100 KB is never waited for.
UNREAD_BYTES_MAX = 256 * 1024

Fields = Sequence[tuple[bytes, bytes]]

_FRAMING = (b"content-length", b"transfer-encoding", b"connection")
_BODILESS = frozenset((204, 304))
_CR, _LF, _NUL = b"\r\n\0"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Done:
    """Awaited, it is done at once: a coroutine that never waits costs ten times as much."""

    def __await__(self) -> Any:
        return iter(())


DONE = _Done()


class Cycle(msgspec.Struct, eq=False):
    """One request and its answer, as ASGI sees them."""

    scope: Scope
    _transport: asyncio.Transport
    _flow: FlowControl
    _default_lines: bytes
    _on_response: Callable[[], None]
    keep_alive: bool
    expects_continue: bool
    task: asyncio.Task[None] | None = None
    disconnected: bool = False
    response_started: bool = False
    response_complete: bool = False
    _pieces: list[bytes] = []
    _unread_bytes: int = 0
    _is_whole: bool = False
    _is_body_told: bool = False
    _waiter: asyncio.Future[None] | None = None
    _head: bytes = b""
    _is_chunked: bool = False
    _left_bytes: int = 0

    def __repr__(self) -> str:
        """Without what the client sent: its headers hold a key."""
        return object.__repr__(self)

    # The protocol's side.

    def take(self, piece: bytes) -> None:
        """More of the body came in."""
        self._pieces.append(piece)
        self._unread_bytes += len(piece)
        if self._unread_bytes > UNREAD_BYTES_MAX:
            self._flow.pause_reading()
        if self._waiter is not None:
            self.wake()

    def finish_body(self) -> None:
        """The body is complete."""
        self._is_whole = True
        if not self._is_body_told and not self.expects_continue and len(self._pieces) <= 1:
            self.scope[BODY_IN_SCOPE] = self._pieces[0] if self._pieces else b""
        if self._waiter is not None:
            self.wake()

    def take_whole(self, body: bytes) -> None:
        """The body came with the head, and nothing is to follow."""
        self._pieces.append(body)
        self._is_whole = True
        self.scope[BODY_IN_SCOPE] = body

    def wake(self) -> None:
        """Let `receive` look again."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def run(self, app: App, tasks: set[asyncio.Task[None]]) -> None:
        """Let the app answer; what it leaves undone becomes a 500 or ends the connection.

        The task takes itself out of `tasks` at its end: a callback would be one more turn.
        """
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException:
            logger.exception("Exception in ASGI application")
            await self._give_up()
        else:
            if not self.response_complete and not self.disconnected:
                logger.error("The ASGI application returned without completing its answer.")
                await self._give_up()
        finally:
            if self.task is not None:
                tasks.discard(self.task)
                self.task = None

    async def _give_up(self) -> None:
        """Say 500 while nothing has left, else close."""
        if self.response_complete or (self.response_started and not self._head):
            self._transport.close()
            return
        self.response_started = False
        words = b"Internal Server Error"
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(words)),
        ]
        self.keep_alive = False
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self.send({"type": "http.response.body", "body": words})

    # The app's side.

    async def receive(self) -> Message:
        """The next part of the body; then the news that the client is gone or has its answer."""
        if self.expects_continue and not self._transport.is_closing():
            self._transport.write(_CONTINUE)
            self.expects_continue = False
        while not (self.disconnected or self.response_complete):
            if self._pieces or (self._is_whole and not self._is_body_told):
                pieces, self._pieces = self._pieces, []
                self._unread_bytes = 0
                self._is_body_told = self._is_whole
                body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                return {"type": "http.request", "body": body, "more_body": not self._is_whole}
            self._flow.resume_reading()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take the head, which waits for the first body bytes, or a part of the body."""
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        if self.disconnected:
            return
        expected = "http.response.body" if self.response_started else "http.response.start"
        if message["type"] != expected or self.response_complete:
            raise RuntimeError(f"Not the time for the ASGI message {message['type']!r}.")
        if self.response_started:
            self._write(message.get("body", b""), has_more=message.get("more_body", False))
        else:
            self._head = self._head_of(message["status"], message.get("headers", ()))
            self.response_started = True
            self.expects_continue = False

    @property
    def is_ready(self) -> bool:
        """Whether a part of the body may be written now, without waiting for the client."""
        return (
            self.response_started
            and not (self.response_complete or self.disconnected)
            and not self._flow.write_paused
        )

    def write(self, body: bytes) -> None:
        """Write a part of the body, not the last one; only while `is_ready`."""
        self._write(body, has_more=True)

    def answer(self, status: int, headers: Fields, body: bytes) -> Awaitable[None]:
        """A whole answer in one call; names are in lower case, the length is added here."""
        if self._flow.write_paused and not self.disconnected:
            return self._answer_later(status, headers, body)
        self._answer(status, headers, body)
        return DONE

    async def _answer_later(self, status: int, headers: Fields, body: bytes) -> None:
        await self._flow.drain()
        self._answer(status, headers, body)

    def _answer(self, status: int, headers: Fields, body: bytes) -> None:
        if self.disconnected:
            return
        if self.response_started:
            raise RuntimeError("The answer has begun already.")
        head = self._lines(status, headers, b"content-length: %d" % len(body))
        self.response_started = True
        if self.expects_continue:
            self.expects_continue = False
        self._transport.write(head if self.scope["method"] == "HEAD" else head + body)
        self._finish()

    def _head_of(self, status: int, headers: Fields) -> bytes:
        self._left_bytes, self._is_chunked = -1, False
        names = {name.lower(): value for name, value in headers}  # apps need not send lower case
        for name in _FRAMING:
            if name in names:
                self._note_framing(name, names[name])
        if b"connection" in names:  # that is ours to speak of
            headers = [field for field in headers if field[0].lower() != b"connection"]
        framing = b""
        if self._left_bytes < 0:
            has_body = self.scope["method"] != "HEAD" and status not in _BODILESS
            if has_body and not self._is_chunked:
                self._is_chunked = True
                framing = b"transfer-encoding: chunked"
            self._left_bytes = 0
        return self._lines(status, headers, framing)

    def _lines(self, status: int, headers: Fields, framing: bytes) -> bytes:
        """A head. Raises RuntimeError where a header could pass for more than itself."""
        lines = [*map(b": ".join, headers)]  # without a bytecode for each header
        if framing:
            lines.append(framing)
        if not self.keep_alive:
            lines.append(b"connection: close")
        # Looked for before ours are put between: RFC 9110, 5.5, names these three as dangerous.
        text = b"".join(lines)
        if _LF in text or _CR in text or _NUL in text:
            raise RuntimeError("A header holds a line break or a NUL.")
        lines += (b"", b"")
        return STATUS_LINE[status] + self._default_lines + b"\r\n".join(lines)

    def _note_framing(self, name: bytes, value: bytes) -> None:
        if name == b"content-length":
            self._left_bytes = int(value)
        elif name == b"transfer-encoding":
            self._is_chunked = value.lower() == b"chunked"
        elif b"close" in value.lower():
            self.keep_alive = False

    def _write(self, body: bytes, *, has_more: bool) -> None:
        if self.scope["method"] == "HEAD":
            self._left_bytes, content = 0, b""
        elif self._is_chunked:
            content = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not has_more:
                content += b"0\r\n\r\n"
        else:
            self._left_bytes -= len(body)
            if self._left_bytes < 0 or (self._left_bytes and not has_more):
                raise RuntimeError("The content is not as long as its content-length.")
            content = body
        head, self._head = self._head, b""
        if head or content:
            self._transport.write(head + content if head else content)
        if not has_more:
            self._finish()

    def _finish(self) -> None:
        self.response_complete = True
        if self._waiter is not None:
            self.wake()
        if not self.keep_alive:
            self._transport.close()
        self._on_response()


def cycle_of(send: Send) -> Cycle | None:
    """The cycle behind a `send`, where that is our own server's and nothing stands between."""
    cycle = getattr(send, "__self__", None)
    return cycle if type(cycle) is Cycle else None
