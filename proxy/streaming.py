"""Relays a response chunk by chunk; handles a disconnect on either side.

Bytes go out as they come in, one send for one read from the socket. The journal's line is written
before the bytes it counts go to the client, so that nobody ever sees an answer that nobody noted.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from enum import Enum

from proxy.asgi import Message, Receive, Send
from proxy.http_cycle import cycle_of
from proxy.metering import StreamMeter
from proxy.metrics import METRICS
from proxy.sse import StreamTooLarge
from proxy.upstreams.client import ReadTimeout, UpstreamError, UpstreamResponse

PING_SECONDS = 15.0
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
EVENT_ENDS = (b"\n\n", b"\r\n\r\n")


class StreamEnd(Enum):
    """How the upstream's side of a stream ended."""

    CLEAN = "clean"
    LOST = "lost"
    SILENT = "silent"
    UNREADABLE = "unreadable"


class Pulse:
    """Keeps a client's side of a stream alive while the upstream thinks.

    `tick` is called every second or so, and sends a ping where nothing came for a while: between
    two events only, and only while the relay waits for the upstream.
    """

    __slots__ = ("_quiet_since", "_seen", "_send", "ping", "waiting_after")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._seen: bytes | None = None
        self._quiet_since = 0.0
        self.waiting_after: bytes | None = None
        self.ping: asyncio.Task[None] | None = None

    def tick(self, now: float) -> None:
        """Look whether anything came since the last call."""
        chunk = self.waiting_after
        if chunk is None or chunk is not self._seen:
            self._seen, self._quiet_since = chunk, now
        elif now - self._quiet_since >= PING_SECONDS and chunk.endswith(EVENT_ENDS):
            self._quiet_since = now
            if self.ping is None or self.ping.done():
                METRICS.pings.inc()
                message = {"type": "http.response.body", "body": PING, "more_body": True}
                self.ping = asyncio.ensure_future(self._send_ping(message))

    async def settle(self) -> None:
        """Wait until the ping that is being sent is out: two sends must not overlap."""
        ping, self.ping = self.ping, None
        if ping is not None:
            await ping

    async def _send_ping(self, message: Message) -> None:
        with suppress(OSError):
            await self._send(message)


class Relay:
    """Passes one stream on. `note` writes down what the meter knows.

    While it waits, most chunks are taken in the socket's own turn, without waking anybody. Whatever
    needs more than that (a client that reads slowly, one that left, a ping under way, an API that
    is converted) goes through the loop.
    """

    __slots__ = (
        "_cycle",
        "_is_client_gone",
        "_is_unreadable",
        "_meter",
        "_note",
        "_pulse",
        "_response",
        "_send",
        "_silence_seconds",
        "_version",
    )

    def __init__(
        self,
        response: UpstreamResponse,
        *,
        meter: StreamMeter,
        send: Send,
        note: Callable[[], None],
        is_client_gone: Callable[[], bool],
        silence_seconds: float,
        pulse: Pulse,
    ) -> None:
        self._response = response
        self._meter = meter
        self._send = send
        self._cycle = cycle_of(send)
        self._note = note
        self._is_client_gone = is_client_gone
        self._silence_seconds = silence_seconds
        self._pulse = pulse
        self._version = -1
        self._is_unreadable = False

    async def run(self, first: bytes) -> StreamEnd:
        """Relay the stream, beginning with a chunk that the meter has read already.

        Once the client is gone nothing is sent any more; whether reading goes on is decided by who
        closes the response.
        """
        chunk = first
        while chunk:
            self._write_down()
            if not self._is_client_gone():
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
            try:
                chunk = await self._next_after(chunk)
            except ReadTimeout:
                return StreamEnd.SILENT
            except UpstreamError:
                return StreamEnd.LOST
            except StreamTooLarge:
                return StreamEnd.UNREADABLE
        return StreamEnd.CLEAN

    async def _next_after(self, chunk: bytes) -> bytes:
        """The next chunk that has to go through the loop, metered; empty at the end."""
        pulse, response = self._pulse, self._response
        pulse.waiting_after = chunk
        if self._cycle is not None:
            response.set_tap(self._take)
        try:
            chunk = await response.read_chunk(self._silence_seconds)
            if self._is_unreadable:
                raise StreamTooLarge
            self._meter.feed(chunk)
        finally:
            response.set_tap(None)
            pulse.waiting_after = None
            if pulse.ping is not None:
                await pulse.settle()
        return chunk

    def _take(self, chunk: bytes) -> bool:
        """Pass a chunk on at once; False where it has to go through the loop."""
        cycle = self._cycle
        if cycle is None or not cycle.is_ready or self._is_client_gone():
            return False
        if self._pulse.ping is not None:
            return False
        try:
            self._meter.feed(chunk)
        except StreamTooLarge:
            self._is_unreadable = True
            return False
        self._write_down()
        cycle.write(chunk)
        self._pulse.waiting_after = chunk
        return True

    def _write_down(self) -> None:
        if self._meter.version != self._version:
            self._note()
            self._version = self._meter.version


async def wait_for_disconnect(receive: Receive, on_gone: Callable[[], None]) -> None:
    """Wait until the client hangs up, and say so. Runs beside the relay, cancelled at its end."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            on_gone()
            return
