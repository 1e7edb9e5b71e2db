"""One connection to an upstream, which carries one exchange at a time. Used by client.py alone."""

import asyncio
import select
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools
import msgspec

from proxy.asgi import Headers
from proxy.turn_writes import turn_writes_of
from proxy.upstreams.errors import (
    ConnectionLost,
    HeadersTimeout,
    ProtocolError,
    ReadTimeout,
    SendFailed,
    UpstreamError,
)
from turnpike.kernel import clock

HEADERS_MAX = 100
HEAD_BYTES_MAX = 64 * 1024
INTERIM_ANSWERS_MAX = 10
# Beyond this unread, the socket is left alone until the caller reads on.
UNREAD_BYTES_MAX = 256 * 1024
WRITE_PIECE_BYTES = 256 * 1024

_TOO_MANY = f"More than {HEADERS_MAX} headers or {HEAD_BYTES_MAX} bytes of them."


class Exchange(msgspec.Struct, eq=False):
    """One request's answer as it comes in: head, body pieces, end or error."""

    is_reused: bool  # its connection had served before
    status: int = 0
    headers: Headers = []
    chunks: list[bytes] = []
    body_bytes: int = 0
    taken_bytes: int = 0
    is_sent: bool = False
    rest: deque[memoryview] | None = None  # of the request, where it does not fit at once
    is_complete: bool = False
    error: UpstreamError | None = None
    waiter: asyncio.Future[None] | None = None
    # Takes what comes while somebody waits for it, or says False: then the waiter is woken.
    tap: Callable[[bytes], bool] | None = None

    def __repr__(self) -> str:
        """Without what the answer says."""
        return object.__repr__(self)

    @property
    def unread_bytes(self) -> int:
        """How much of the body came and was not taken yet."""
        return self.body_bytes - self.taken_bytes

    @property
    def is_framed(self) -> bool:
        """Whether the body's end is marked; otherwise it ends with the connection."""
        return self.status in (204, 304) or _is_framed(self.headers)

    def take_body(self) -> bytes:
        """All of the body that came and was not taken yet."""
        chunks, self.chunks = self.chunks, []
        self.taken_bytes = self.body_bytes
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def wake(self) -> None:
        """Let whoever waits for this exchange look at it."""
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Connection(asyncio.Protocol):
    """The protocol of one socket: calls `on_idle` when it may serve again, `on_gone` at its end."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        on_idle: Callable[["Connection"], None],
        on_gone: Callable[["Connection"], None],
    ) -> None:
        self.idle_since = 0.0  # by the loop's time
        self.asked_at = 0.0  # when the last request began to go out
        self.is_reused = False
        self.is_gone = False
        self._loop = loop
        # Bound once: the loop's methods are made anew each time that they are looked up.
        self.time, self._create_future = loop.time, loop.create_future
        self._writes = turn_writes_of(loop)
        self._on_idle = on_idle
        self._on_gone = on_gone
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._head: Headers = []
        self._head_bytes = 0
        self._trailers = 0
        self._trailer_bytes = 0
        self._interim_answers = 0
        self._violation = ""
        self._keeps_alive = False
        self._is_head_done = False
        self._is_clean = True
        self._is_reading = True
        self._is_writable = True
        self._poll: select.poll | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._deadline = 0.0
        self._timeout_seconds = 0.0

    # The caller's side.

    def begin(self, request: list[bytes], timeout_seconds: float) -> Exchange:
        """Write a request, given in pieces, head and body, as they go out.

        One that does not fit at once is written by `write_rest`. The answer may come before all is
        out: `news_of` is awaited until the exchange has a status or an error.
        """
        assert self._exchange is None
        exchange = self._exchange = Exchange(self.is_reused)
        self._interim_answers = self._head_bytes = 0
        self._trailers = self._trailer_bytes = 0
        self._arm(timeout_seconds)
        self.asked_at = clock.monotonic_seconds()
        size = 0
        for part in request:
            size += len(part)
        if self._is_writable and size <= WRITE_PIECE_BYTES:
            self._writes.put(self._write_whole, b"".join(request))
        else:
            exchange.rest = _pieces_of(request)
        return exchange

    def _write_whole(self, data: bytes) -> None:
        """Write all of a request, unless it was given up before the turn's end."""
        if self._exchange is not None and not self._transport.is_closing():
            self._transport.write(data)
            self._exchange.is_sent = True

    async def write_rest(self, exchange: Exchange) -> None:
        """Write what did not fit as the socket takes it, until all is out or the answer comes."""
        rest = exchange.rest
        while rest and not exchange.status and exchange.error is None:
            if self._is_writable:
                self._transport.write(rest.popleft())
            else:
                await self.news_of(exchange)
        exchange.is_sent = not rest

    async def read(self, exchange: Exchange, timeout_seconds: float) -> bytes:
        """All bytes of the body that came since the last call; empty at its end.

        With a tap: those that it did not take.
        """
        while not exchange.chunks:
            if exchange.error is not None:
                raise exchange.error
            if exchange.is_complete:
                return b""
            self._arm(timeout_seconds)
            await self.news_of(exchange)
        body = exchange.take_body()
        if not self._is_reading and self._exchange is exchange:
            self._is_reading = True
            self._transport.resume_reading()
        return body

    def is_stale(self) -> bool:
        """Whether the peer closed or spoke while the connection was idle, as the kernel sees it."""
        if self.is_gone:
            return True
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(self._poll.poll(0))

    def abort(self) -> None:
        """Drop the socket at once."""
        if not self.is_gone:
            self._is_clean = False
            self._transport.abort()

    def news_of(self, exchange: Exchange) -> asyncio.Future[None]:
        """To be awaited: done when something of the exchange has changed."""
        waiter = exchange.waiter = self._create_future()
        return waiter

    # Time. One timer for all waits of the connection: it looks again when it fires too early.

    def _arm(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._deadline = self.time() + timeout_seconds
        if self._timer is not None:
            if self._timer_at <= self._deadline:
                return
            self._timer.cancel()
        self._start_timer()

    def _start_timer(self) -> None:
        self._timer_at = self._deadline
        self._timer = self._loop.call_at(self._deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        exchange = self._exchange
        if exchange is None or exchange.waiter is None or exchange.waiter.done():
            return
        if self.time() < self._deadline:
            self._start_timer()
        elif exchange.status:
            self._fail(ReadTimeout("The upstream paused for too long.", is_reused=self.is_reused))
        elif not exchange.is_sent:
            self._fail(
                SendFailed("The upstream took the request too slowly.", is_reused=self.is_reused)
            )
        else:
            self._fail(
                HeadersTimeout("The upstream did not answer in time.", is_reused=self.is_reused)
            )

    def _fail(self, error: UpstreamError) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.error = error
            exchange.wake()
        self.abort()

    # The socket's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not an assert: the transports of uvloop share no base class with asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            # Nothing was asked, so this answers nothing: the connection is of no more use.
            self.abort()
            return
        self._parse(data, exchange)
        if self._violation:
            self._fail(ProtocolError(self._violation, is_reused=self.is_reused))
            return
        if exchange.chunks and exchange.tap is not None:
            self._offer(exchange, exchange.tap)
        if exchange.is_complete:
            self._finish()
        elif exchange.chunks and self._is_reading and exchange.unread_bytes > UNREAD_BYTES_MAX:
            self._is_reading = False
            self._transport.pause_reading()

    def _parse(self, data: bytes, exchange: Exchange) -> None:
        if not self._is_head_done:
            # The parser holds unfinished lines itself, so bytes are counted as they come; what of
            # them is body already is taken off where the head is complete.
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if exchange.is_complete:
                self._is_clean = False
            else:
                self._violation = f"Not an HTTP answer: {type(error).__name__}."
        if not self._is_head_done and self._head_bytes > HEAD_BYTES_MAX:
            self._violation = f"The head of the answer passes {HEAD_BYTES_MAX} bytes."

    def _offer(self, exchange: Exchange, tap: Callable[[bytes], bool]) -> None:
        """Let the tap take what this read from the socket brought."""
        body = exchange.take_body()
        if tap(body):
            self._deadline = self.time() + self._timeout_seconds
        else:
            exchange.chunks.append(body)
            exchange.taken_bytes -= len(body)
            exchange.wake()

    def eof_received(self) -> bool:
        exchange = self._exchange
        if exchange is not None and exchange.status and not exchange.is_framed:
            # A body without a length ends with the connection.
            exchange.is_complete = True
            self._is_clean = False
            self._finish()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_gone = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.error = self._error_of_loss(exchange)
            exchange.wake()
        self._on_gone(self)

    def pause_writing(self) -> None:
        self._is_writable = False

    def resume_writing(self) -> None:
        self._is_writable = True
        if self._exchange is not None and not self._exchange.is_sent:
            self._exchange.wake()

    def _error_of_loss(self, exchange: Exchange) -> UpstreamError:
        has_answered = bool(exchange.status or self._head_bytes)
        if not has_answered and not exchange.is_sent:
            return SendFailed("The connection broke while sending.", is_reused=self.is_reused)
        return ConnectionLost(
            "The connection broke before the end of the answer.",
            is_reused=self.is_reused,
            bytes_received=exchange.body_bytes,
        )

    def _finish(self) -> None:
        """The answer is complete: hand the connection back, or close it where that is not safe."""
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        is_reusable = self._is_clean and self._keeps_alive and exchange.is_sent
        if is_reusable and self._transport.get_write_buffer_size() == 0:
            self._is_head_done = False
            if not self._is_reading:
                self._is_reading = True
                self._transport.resume_reading()
            self.is_reused = True
            self.idle_since = self.time()
            self._on_idle(self)
        else:
            self.abort()
        if exchange.waiter is not None:
            exchange.wake()

    def _count_trailer(self, size: int) -> None:
        # Trailers are counted and otherwise left alone.
        self._trailers += 1
        self._trailer_bytes += size
        if self._trailers > HEADERS_MAX or self._trailer_bytes > HEAD_BYTES_MAX:
            self._violation = _TOO_MANY

    # The parser's side.

    def on_message_begin(self) -> None:
        if self._exchange is None or self._exchange.is_complete:
            self._is_clean = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_head_done:
            self._count_trailer(len(name) + len(value))
            return
        # Counted when all are there: their bytes are bounded as they come.
        self._head.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        exchange = self._exchange
        head, self._head = self._head, []
        if len(head) > HEADERS_MAX or (
            self._head_bytes > HEAD_BYTES_MAX and _size_of(head) > HEAD_BYTES_MAX
        ):
            self._violation = _TOO_MANY
        if exchange is None or exchange.is_complete or status < 200 or self._violation:
            return
        self._is_head_done = True
        exchange.headers = head
        exchange.status = status
        if exchange.waiter is not None:
            exchange.wake()

    def on_body(self, body: bytes) -> None:
        exchange = self._exchange
        # No bytes are no news: to whoever reads they would be the end.
        if body and exchange is not None and not exchange.is_complete:
            exchange.chunks.append(body)
            exchange.body_bytes += len(body)
            if exchange.tap is None and exchange.waiter is not None:
                exchange.wake()

    def on_message_complete(self) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        if exchange.status:
            exchange.is_complete = True
            self._keeps_alive = self._parser.should_keep_alive()
            return
        self._interim_answers += 1
        if self._interim_answers > INTERIM_ANSWERS_MAX:
            self._violation = f"More than {INTERIM_ANSWERS_MAX} interim answers."


def _size_of(headers: Headers) -> int:
    return sum([len(name) + len(value) for name, value in headers])


def _is_framed(headers: Headers) -> bool:
    for name, value in headers:
        if name == b"content-length":
            return True
        if name == b"transfer-encoding" and value.lower().endswith(b"chunked"):
            return True
    return False


def _pieces_of(request: list[bytes]) -> deque[memoryview]:
    """The request in writes of bounded size."""
    pieces: deque[memoryview] = deque()
    for part in request:
        view = memoryview(part)
        pieces.extend(
            view[start : start + WRITE_PIECE_BYTES]
            for start in range(0, len(part), WRITE_PIECE_BYTES)
        )
    return pieces
