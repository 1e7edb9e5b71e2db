"""One pipelined Redis connection for the whole worker.

All commands of one turn of the event loop leave in one write, and replies are matched by order. A
call that times out or is cancelled leaves its place in the order, so that its late reply is thrown
away and the next reply still reaches the next caller.

    Unavailable
    └── RedisAway        not connected, too slow, too many pending, or not able to serve
        └── RedisCannot  not able to serve, by its own word: nothing was done
    RedisReplyError      the server answered, and the answer is an error
"""

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

from proxy.prepared_call import PreparedCall, Script
from turnpike.kernel.errors import Unavailable

logger = logging.getLogger(__name__)

Argument = str | bytes | int | float
Command = Sequence[Argument]

# The stub of hiredis knows commands of one word alone.
_pack = cast(Callable[[tuple[Argument, ...]], bytes], hiredis.pack_command)

BACKOFF_FIRST_SECONDS = 0.01
BACKOFF_MAX_SECONDS = 1.0
# A connection that lived as long as this was a good one: the next attempt comes at once again.
SETTLED_SECONDS = 1.0
# With a call overdue by this and not a byte in between, the peer is taken for gone.
STALLED_SECONDS = 3.0

# The server is there and cannot serve this: it starts, it is a replica, or the slot is elsewhere.
AWAY_CODES = frozenset(
    (
        "LOADING",
        "READONLY",
        "MOVED",
        "ASK",
        "CLUSTERDOWN",
        "MASTERDOWN",
        "TRYAGAIN",
        "BUSY",
        "MISCONF",
    )
)
UNKNOWN_SCRIPT = "NOSCRIPT"
# After these the name may lead to another server, so the connection is made anew.
ELSEWHERE_CODES = frozenset(("READONLY", "MOVED"))


class RedisAway(Unavailable):
    """Redis did not answer in time or cannot; whether it did the work is not known."""

    code = "redis_away"


class RedisReplyError(Exception):
    """Redis answered with an error; `code` is its first word, for example ``WRONGTYPE``."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message.partition(" ")[0]


class RedisCannot(RedisAway):
    """Redis said that it cannot serve this, so it did nothing; `reply` has its words."""

    def __init__(self, reply: RedisReplyError) -> None:
        super().__init__(f"Redis cannot serve: {reply.code}.")
        self.reply = reply


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """Where a Redis URL leads, and who we are there."""

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    is_tls: bool = False
    ca_file: str | None = None

    @classmethod
    def parse(cls, url: str) -> "RedisAddress":
        """Read ``redis://``, ``rediss://`` or ``unix://``. Raises ValueError for anything else."""
        parts = urlsplit(url)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        is_unix = parts.scheme == "unix"
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError(f"Not a Redis URL: the scheme is {parts.scheme!r}.")
        database = query.get("db") or ("" if is_unix else parts.path.strip("/")) or "0"
        if not database.isdecimal():
            raise ValueError(f"Not a Redis database number: {database!r}.")
        return cls(
            host=parts.hostname or "localhost",
            port=parts.port or 6379,
            path=unquote(parts.path) if is_unix else None,
            database=int(database),
            username=unquote(parts.username) if parts.username else query.get("username"),
            password=unquote(parts.password) if parts.password else query.get("password"),
            is_tls=parts.scheme == "rediss",
            ca_file=query.get("ssl_ca_certs"),
        )

    def greeting(self) -> list[Command]:
        """What is sent first. The last two tell who answers, and whether it can serve."""
        commands: list[Command] = []
        if self.password is not None:
            name = [self.username] if self.username else []
            commands.append(["AUTH", *name, self.password])
        if self.database:
            commands.append(["SELECT", self.database])
        return [*commands, ["INFO", "server"], ["PING"]]


class _Connection(asyncio.Protocol):
    """One socket: packs nothing, keeps the order of replies."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, leave_codes: frozenset[str] = ELSEWHERE_CODES
    ) -> None:
        # Bound once: the loop's methods are made anew each time that they are looked up.
        self._call_soon, self._time = loop.call_soon, loop.time
        self._create_future = loop.create_future
        self._leave_codes = leave_codes
        self.is_lost = False
        self.lost = asyncio.Event()
        # What waits for its reply, with its deadline.
        self.pending: deque[tuple[asyncio.Future[Any], float]] = deque()
        self.waiting_since = 0.0
        self._out: list[bytes] = []
        self._reader = hiredis.Reader(replyError=RedisReplyError)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not an assert: the transports of uvloop share no base class with asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def send(self, packed: bytes, now: float, deadline: float) -> asyncio.Future[Any]:
        """Queue a packed command for the write of this turn; the future gets its reply."""
        future: asyncio.Future[Any] = self._create_future()
        out = self._out
        if not out:
            self._call_soon(self._flush)
        out.append(packed)
        if not self.pending:
            self.waiting_since = now
        self.pending.append((future, deadline))
        return future

    def _flush(self) -> None:
        out = self._out
        if self._transport is not None and not self.is_lost:
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()

    def data_received(self, data: bytes) -> None:
        self.waiting_since = self._time()
        gets, pending = self._reader.gets, self.pending
        is_elsewhere = False
        try:
            self._reader.feed(data)
            while (reply := gets()) is not False:
                future, _ = pending.popleft()
                if future.done():
                    continue
                if type(reply) is not RedisReplyError:
                    future.set_result(reply)
                elif reply.code in AWAY_CODES:
                    is_elsewhere |= reply.code in self._leave_codes
                    future.set_exception(RedisCannot(reply))
                else:
                    future.set_exception(reply)
        except (hiredis.HiredisError, IndexError):
            # What is not a reply, or answers nothing that was asked: the order is lost.
            logger.warning("redis.out_of_step")
            self.abort()
        if is_elsewhere:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        pending, self.pending = self.pending, deque()
        for future, _ in pending:
            if not future.done():
                future.set_exception(RedisAway("The connection to Redis was lost."))
        self.lost.set()

    def abort(self) -> None:
        """Drop the connection at once; all that is pending fails."""
        self.is_lost = True
        if self._transport is not None:
            self._transport.abort()


class RedisPipe:
    """Commands and scripts over one connection that mends itself in the background."""

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = 0.05,
        pending_max: int = 10_000,
        connect_timeout_seconds: float = 2.0,
        stalled_seconds: float = STALLED_SECONDS,
        leave_codes: frozenset[str] = ELSEWHERE_CODES,
        on_connect: Callable[[str], None] | None = None,
    ) -> None:
        self.run_id: str | None = None
        self.on_connect = on_connect
        self._address = RedisAddress.parse(url)
        self._timeout_seconds = timeout_seconds
        self._pending_max = pending_max
        self._connect_timeout_seconds = connect_timeout_seconds
        self._stalled_seconds = stalled_seconds
        self._leave_codes = leave_codes
        self._connection: _Connection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._watch_at = 0.0

    @property
    def is_connected(self) -> bool:
        """Whether a command sent now would leave."""
        return self._connection is not None and not self._connection.is_lost

    async def start(self) -> None:
        """Try to connect, and go on trying in the background. Never fails: Redis may be away."""
        assert self._keeper is None
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        tried = self._loop.create_future()
        self._keeper = self._loop.create_task(self._keep_connected(tried))
        await tried

    async def stop(self) -> None:
        """Close the connection; what is pending fails."""
        connection = self._connection
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
            if connection is not None:
                await connection.lost.wait()
            # A turn of the loop for the socket of an attempt that was cut short.
            await asyncio.sleep(0)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def execute(
        self, *command: Argument, timeout_seconds: float | None = None
    ) -> asyncio.Future[Any]:
        """Send a command; await the result for its reply. Raises RedisAway or RedisReplyError."""
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        return self._send(_pack(command), seconds)

    def call(
        self, call: PreparedCall, name: str, args: Sequence[bytes], timeout_seconds: float
    ) -> asyncio.Future[Any]:
        """Run a prepared script; await the result for its reply. Raises RedisAway.

        Or RedisReplyError: after NOSCRIPT nothing was done, and `run_script` helps.
        """
        return self._send(call.packed(name, args), timeout_seconds)

    def _send(self, packed: bytes, seconds: float) -> asyncio.Future[Any]:
        connection = self._connection
        if connection is None or connection.is_lost:
            raise RedisAway("Redis is not connected.")
        if len(connection.pending) >= self._pending_max:
            raise RedisAway(f"{self._pending_max} Redis commands are pending.")
        now = self._time()
        deadline = now + seconds
        if self._watch is None or deadline < self._watch_at:
            self._watch_until(deadline)
        return connection.send(packed, now, deadline)

    async def execute_many(
        self, commands: Iterable[Command], *, timeout_seconds: float | None = None
    ) -> list[Any]:
        """Send commands in one write. Error replies are values in the list; RedisAway is raised."""
        return await replies_to(commands, self.execute, timeout_seconds=timeout_seconds)

    async def execute_in_order(self, commands: Sequence[Command]) -> list[Any]:
        """The same as `execute_many`: one connection keeps the order."""
        return await self.execute_many(commands)

    async def run_script(
        self,
        script: Script,
        keys: Sequence[Argument],
        args: Sequence[Argument],
        *,
        timeout_seconds: float | None = None,
    ) -> Any:
        """Run a script by its hash; a server that does not know it is given the source once."""
        command = ("EVALSHA", script.sha, len(keys), *keys, *args)
        try:
            return await self.execute(*command, timeout_seconds=timeout_seconds)
        except RedisReplyError as error:
            if error.code != UNKNOWN_SCRIPT:
                raise
        # In one write, so that nothing comes between the loading and the call.
        loaded = self.execute("SCRIPT", "LOAD", script.source, timeout_seconds=timeout_seconds)
        answer = self.execute(*command, timeout_seconds=timeout_seconds)
        loaded.add_done_callback(_look_at)
        return await answer

    def _watch_until(self, deadline: float) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._watch_at = deadline
        self._watch = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        """Fail what is overdue. One timer for all calls: it is set again for the next deadline."""
        self._watch = None
        connection = self._connection
        if connection is None:
            return  # what was pending failed with the connection
        now, next_at, is_late = self._loop.time(), inf, False
        for future, deadline in connection.pending:
            if future.done():
                continue
            if deadline > now:
                next_at = min(next_at, deadline)
            else:
                future.set_exception(RedisAway("Redis did not answer in time."))
                is_late = True
        if is_late:
            self._drop_if_stalled(now)
        if next_at < inf:
            self._watch_until(next_at)

    def _drop_if_stalled(self, now: float) -> None:
        connection = self._connection
        if connection is None or connection.is_lost:
            return
        if connection.pending and now - connection.waiting_since > self._stalled_seconds:
            logger.warning("redis.stalled", extra={"pending": len(connection.pending)})
            connection.abort()

    async def _keep_connected(self, tried: asyncio.Future[None]) -> None:
        delay_seconds = 0.0
        try:
            while True:
                await asyncio.sleep(delay_seconds)
                delay_seconds = min(
                    max(BACKOFF_FIRST_SECONDS, delay_seconds * 2), BACKOFF_MAX_SECONDS
                )
                connected_at = self._loop.time()
                connection = await self._try_to_connect()
                if not tried.done():
                    tried.set_result(None)
                if connection is None:
                    continue
                await connection.lost.wait()
                self._connection = None
                logger.warning("redis.lost")
                if self._loop.time() - connected_at > SETTLED_SECONDS:
                    delay_seconds = 0.0
        finally:
            if not tried.done():
                tried.set_result(None)
            if self._connection is not None:
                self._connection.abort()
                self._connection = None

    async def _try_to_connect(self) -> _Connection | None:
        connection = _Connection(self._loop, leave_codes=self._leave_codes)
        try:
            async with asyncio.timeout(self._connect_timeout_seconds):
                await self._open(connection)
                replies = [
                    connection.send(_pack(tuple(command)), self._loop.time(), inf)
                    for command in self._address.greeting()
                ]
                info = (await asyncio.gather(*replies))[-2]
        except (OSError, TimeoutError, RedisAway, RedisReplyError) as error:
            connection.abort()
            logger.warning("redis.connect_failed", extra={"reason": type(error).__name__})
            return None
        except BaseException:
            connection.abort()
            raise
        self.run_id = _run_id_of(info)
        self._connection = connection
        logger.info("redis.connected", extra={"run_id": self.run_id})
        if self.on_connect is not None:
            self._loop.call_soon(self.on_connect, self.run_id)
        return connection

    async def _open(self, connection: _Connection) -> None:
        address = self._address
        if address.path is not None:
            await self._loop.create_unix_connection(lambda: connection, address.path)
            return
        context = ssl.create_default_context(cafile=address.ca_file) if address.is_tls else None
        await self._loop.create_connection(
            lambda: connection, address.host, address.port, ssl=context
        )


async def replies_to(
    commands: Iterable[Command],
    execute: Callable[..., asyncio.Future[Any]],
    *,
    timeout_seconds: float | None,
) -> list[Any]:
    """The replies to commands that are sent at once, with error replies as values.

    Raises RedisAway; then nobody waits for the others any more, whatever becomes of them.
    """
    futures: list[asyncio.Future[Any]] = []
    try:
        for command in commands:
            futures.append(execute(*command, timeout_seconds=timeout_seconds))
        return [await _reply_or_error(future) for future in futures]
    finally:
        for future in futures:
            if not future.cancel():
                _look_at(future)  # so that a reply nobody waits for is not reported as forgotten


async def _reply_or_error(future: asyncio.Future[Any]) -> Any:
    try:
        return await future
    except RedisReplyError as error:
        return error


def _look_at(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


def _run_id_of(info: bytes) -> str:
    for line in info.split(b"\r\n"):
        if line.startswith(b"run_id:"):
            return line[7:].decode()
    return ""
