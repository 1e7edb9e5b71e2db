"""One HTTP/1.1 client for each process; every timeout spelled out.

It sends what it is given and gives back what came: no redirects, no decompression, no cookies, no
retries but one: a request that could not leave on an old connection goes out on a new one.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from functools import cache, partial
from typing import NamedTuple

from proxy.asgi import Headers
from proxy.upstreams.connection import Connection, Exchange
from proxy.upstreams.errors import (
    BodyTooLarge,
    ConnectFailed,
    ConnectionLost,
    HeadersTimeout,
    ProtocolError,
    ReadTimeout,
    SendFailed,
    UpstreamError,
)
from turnpike.kernel import clock

__all__ = [
    "BodyTooLarge",
    "ConnectFailed",
    "ConnectionLost",
    "HeadersTimeout",
    "ProtocolError",
    "ReadTimeout",
    "SendFailed",
    "Target",
    "UpstreamClient",
    "UpstreamError",
    "UpstreamResponse",
    "make_ssl_context",
]

# Asked longer ago than this, a connection is looked at before it is used: the peer may have left.
# Not counted from the answer's end: a worker that stood still finds an answer and a close together,
# and reads the answer first.
TRUSTED_SECONDS = 1.0
CLOSING_TURNS_MAX = 10


class Target(NamedTuple):
    """Where an upstream listens, and the name it is called by."""

    host: str
    port: int
    is_tls: bool
    host_header: bytes


class UpstreamResponse:
    """The answer of an upstream; its body is read piece by piece."""

    __slots__ = ("_connection", "_exchange", "headers", "is_reused", "status")

    def __init__(self, connection: Connection, exchange: Exchange) -> None:
        self.status = exchange.status
        self.headers = exchange.headers
        self.is_reused = exchange.is_reused
        self._connection = connection
        self._exchange = exchange

    def read_chunk(self, timeout_seconds: float) -> Awaitable[bytes]:
        """Everything that came since the last call; waits for more, and is empty at a clean end.

        Raises ReadTimeout, ConnectionLost or ProtocolError, after what came before has been read.
        """
        return self._connection.read(self._exchange, timeout_seconds)

    def set_tap(self, tap: Callable[[bytes], bool] | None) -> None:
        """Offer what comes during a `read_chunk` to the tap first, in the socket's own turn.

        What it takes, and says True to, `read_chunk` does not return; its time begins anew.
        """
        self._exchange.tap = tap

    def take_whole(self, limit_bytes: int) -> bytes | None:
        """The whole body where it is there already, as that of a short answer; else `read_all`."""
        exchange = self._exchange
        if exchange.is_complete and exchange.body_bytes <= limit_bytes:
            return exchange.take_body()
        return None

    async def read_all(self, limit_bytes: int, timeout_seconds: float) -> bytes:
        """The whole body within the time. Raises BodyTooLarge beyond it, and as read_chunk."""
        exchange = self._exchange
        time = self._connection.time
        deadline = time() + timeout_seconds
        pieces: list[bytes] = []
        try:
            while exchange.body_bytes <= limit_bytes:
                if exchange.is_complete and not exchange.chunks:
                    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
                piece = await self.read_chunk(max(0.0, deadline - time()))
                pieces.append(piece)
        finally:
            # An error keeps this frame until garbage is looked for; the body need not wait for it.
            pieces.clear()
        self.close()
        raise BodyTooLarge(f"The body passes {limit_bytes} bytes.", is_reused=self.is_reused)

    def close(self) -> None:
        """Done with it. Unless the answer was complete, the connection is dropped at once."""
        if not self._exchange.is_complete:
            self._connection.abort()


class UpstreamClient:
    """Sends requests over kept connections, at most `connections_max` for each target."""

    def __init__(
        self,
        *,
        connections_max: int,
        idle_seconds: float,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        context = _usual_ssl_context() if ssl_context is None else ssl_context
        if context.verify_mode != ssl.CERT_REQUIRED or not context.check_hostname:
            raise ValueError("Upstream certificates and their names must be verified.")
        self._connections_max = connections_max
        self._idle_seconds = idle_seconds
        self._ssl_context = context
        self._idle: dict[Target, deque[Connection]] = {}
        self._open: dict[Target, set[Connection]] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def open_connections(self) -> int:
        """How many connections are open or being opened, the idle ones included."""
        return sum(len(connections) for connections in self._open.values())

    @property
    def idle_connections(self) -> int:
        """How many connections wait for their next request."""
        return sum(len(connections) for connections in self._idle.values())

    def send(
        self,
        target: Target,
        method: bytes,
        path: bytes,
        headers: Headers,
        body: bytes | list[bytes],
        *,
        connect_timeout_seconds: float,
        headers_timeout_seconds: float,
    ) -> Awaitable[UpstreamResponse]:
        """Send a request and wait for the head of the answer. `host` and the length are added here.

        Raises an UpstreamError that tells whether the request may have been processed.
        """
        parts = [body] if isinstance(body, bytes) else body
        size = sum(map(len, parts))
        rest = b"content-length: %d\r\n\r\n" % size if size or method != b"GET" else b"\r\n"
        return self.send_from(
            target,
            [start_of_head(target, method, path, headers), rest, *parts],
            connect_timeout_seconds,
            headers_timeout_seconds,
        )

    async def send_from(
        self,
        target: Target,
        request: list[bytes],
        connect_timeout_seconds: float,
        headers_timeout_seconds: float,
    ) -> UpstreamResponse:
        """The same for a request in pieces, which are head and body as they go out."""
        while True:
            connection = self._take_idle(target)
            is_kept = connection is not None
            if connection is None:
                connection = await self._connect(target, connect_timeout_seconds)
            try:
                exchange = connection.begin(request, headers_timeout_seconds)
                if exchange.rest is not None:
                    await connection.write_rest(exchange)
                # Waited for here: a wait further down would cost for each coroutine between.
                while not exchange.status and exchange.error is None:
                    await connection.news_of(exchange)
            except BaseException:
                # Cancelled callers too: a connection with half an exchange on it serves nobody.
                connection.abort()
                raise
            if exchange.status:
                return UpstreamResponse(connection, exchange)
            connection.abort()
            assert exchange.error is not None
            # What never left may be tried again; each try uses up an old connection.
            if not (is_kept and isinstance(exchange.error, SendFailed)):
                raise exchange.error

    async def close(self) -> None:
        """Drop all connections, running exchanges included."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._idle.clear()
        for connections in self._open.values():
            for connection in tuple(connections):
                connection.abort()
        # Sockets are really closed in the loop's next turns; TLS takes more than one.
        for _ in range(CLOSING_TURNS_MAX):
            if not self.open_connections:
                break
            await asyncio.sleep(0)

    def _take_idle(self, target: Target) -> Connection | None:
        idle = self._idle.get(target)
        while idle:
            connection = idle.pop()
            # Not the loop's time, which stands still with the worker until the loop turns again.
            if clock.monotonic_seconds() - connection.asked_at <= TRUSTED_SECONDS:
                if not connection.is_gone:
                    return connection
            elif (
                connection.time() - connection.idle_since <= self._idle_seconds
                and not connection.is_stale()
            ):
                return connection
            connection.abort()
        return None

    async def _connect(self, target: Target, timeout_seconds: float) -> Connection:
        loop = asyncio.get_running_loop()
        members = self._open.setdefault(target, set())
        if len(members) >= self._connections_max:
            raise ConnectFailed(f"All {self._connections_max} connections are in use.")
        connection = Connection(
            loop,
            on_idle=partial(self._keep, self._idle.setdefault(target, deque())),
            on_gone=partial(self._forget, target),
        )
        # Counted before it is open: connections that are being made count towards the bound.
        members.add(connection)
        try:
            async with asyncio.timeout(timeout_seconds):
                await loop.create_connection(
                    lambda: connection,
                    target.host,
                    target.port,
                    ssl=self._ssl_context if target.is_tls else None,
                )
        except (OSError, TimeoutError) as error:
            members.discard(connection)
            raise ConnectFailed(f"No connection: {type(error).__name__}.") from error
        except BaseException:
            members.discard(connection)
            raise
        return connection

    def _keep(self, idle: deque[Connection], connection: Connection) -> None:
        idle.append(connection)
        if self._sweeper is None:
            loop = asyncio.get_running_loop()
            self._sweeper = loop.call_later(self._idle_seconds, self._sweep)

    def _forget(self, target: Target, connection: Connection) -> None:
        self._open[target].discard(connection)
        idle = self._idle.get(target)
        if idle and connection in idle:
            idle.remove(connection)

    def _sweep(self) -> None:
        """Close what has been idle for too long. The oldest stand at the left."""
        loop = asyncio.get_running_loop()
        self._sweeper = None
        limit = loop.time() - self._idle_seconds
        for idle in self._idle.values():
            while idle and idle[0].idle_since <= limit:
                idle.popleft().abort()
        if any(self._idle.values()):
            self._sweeper = loop.call_later(self._idle_seconds / 2, self._sweep)


def make_ssl_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Verifies certificates and names; speaks HTTP/1.1 alone."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


@cache
def _usual_ssl_context() -> ssl.SSLContext:
    """One for the process: the machine's authorities are a long list to read."""
    return make_ssl_context()


def start_of_head(target: Target, method: bytes, path: bytes, headers: Headers) -> bytes:
    """A request's head as far as these headers. Raises ValueError for what would break a line."""
    # An answer to HEAD has a length and no body, which the parser cannot know.
    assert method != b"HEAD"
    lines = [
        b"%b %b HTTP/1.1\r\nhost: %b" % (method, path, target.host_header),
        *map(b": ".join, headers),  # without a bytecode for each header
        b"",
    ]
    start = b"\r\n".join(lines)
    # Whatever got into a value, it must not become a header or a request of its own.
    if start.count(b"\n") != len(lines):
        raise ValueError("A header or the path holds a line break.")
    return start
