"""Holds what one turn of the event loop writes to sockets, and writes it in one go.

A write to a socket whose reader sleeps wakes that reader, which takes a third of the write's time,
and the kernel's code pushes the interpreter's out of the caches. Written together, the first wakes
it for all, and each finds the kernel's code where the one before has left it, at the price of one
more turn of the loop for a lone one. ADR 0007 has the figures.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import lru_cache
from typing import cast

logger = logging.getLogger(__name__)

# Beyond it nothing waits for the turn's end: it bounds memory, and lets a slow reader be noticed.
HELD_BYTES_MAX = 64 * 1024

Write = Callable[[bytes], None]


class TurnWrites:
    """The writes of a turn, in order."""

    __slots__ = ("_call_soon", "_held", "_held_bytes")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._call_soon = loop.call_soon
        self._held: list[tuple[Write, bytes]] = []
        self._held_bytes = 0

    def put(self, write: Write, data: bytes) -> None:
        """Have `write` called with `data` when the callbacks that are due now have run."""
        held = self._held
        if not held:
            self._call_soon(self.flush)
        held.append((write, data))
        self._held_bytes += len(data)
        if self._held_bytes > HELD_BYTES_MAX:
            self.flush()

    def flush(self) -> None:
        """Write what is held, at once."""
        held, self._held = self._held, []
        self._held_bytes = 0
        for write, data in held:
            try:
                write(data)
            except Exception:  # one socket's trouble is not the next one's
                logger.exception("socket.write_failed")


@lru_cache(maxsize=1)  # a process has one loop; a second one would only begin anew
def turn_writes_of(loop: asyncio.AbstractEventLoop) -> TurnWrites:
    """The ones that all sockets of a loop share."""
    return TurnWrites(loop)


class TurnTransport:
    """A transport that holds its writes until the turn's end; all else passes through.

    Whoever closes it gets everything out that was written before.
    """

    __slots__ = (
        "_transport",
        "_write_held",
        "_writes",
        "abort",
        "get_extra_info",
        "get_write_buffer_size",
        "is_closing",
        "pause_reading",
        "resume_reading",
        "set_protocol",
    )

    def __init__(self, transport: asyncio.Transport, writes: TurnWrites) -> None:
        self._transport = transport
        self._writes = writes
        self._write_held = self._write  # made once, not at each write
        self.abort = transport.abort
        self.get_extra_info = transport.get_extra_info
        self.get_write_buffer_size = transport.get_write_buffer_size
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self.set_protocol = transport.set_protocol

    def write(self, data: bytes) -> None:
        """Write at the turn's end, after all that was written before."""
        self._writes.put(self._write_held, data)

    def close(self) -> None:
        """Write what is held, and close when it is out."""
        self._writes.flush()
        self._transport.close()

    def _write(self, data: bytes) -> None:
        if not self.is_closing():
            self._transport.write(data)


def with_turn_writes(
    transport: asyncio.Transport, loop: asyncio.AbstractEventLoop
) -> asyncio.Transport:
    """The transport, with its writes held until the end of each turn."""
    return cast(asyncio.Transport, TurnTransport(transport, turn_writes_of(loop)))
