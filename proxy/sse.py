"""Parses and writes server-sent events; no I/O."""

from typing import NamedTuple

EVENT_BYTES_MAX = 16 * 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class StreamTooLarge(ValueError):
    """An event does not end within the bound; the stream cannot be read on."""


class Event(NamedTuple):
    """One event; the name is empty where the stream gave none."""

    name: bytes
    data: bytes


class EventParser:
    """Turns chunks that are cut anywhere into events; the same bytes give the same events.

    LF, CRLF and CR end a line; comments and unknown fields are skipped; several data lines are
    joined by LF. An event without a data line, or one that the stream's end cuts off, is none.
    """

    __slots__ = ("_event_bytes_max", "_has_begun", "_has_cr", "_parts", "_parts_bytes")

    def __init__(self, *, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._event_bytes_max = event_bytes_max
        # What came of the unfinished event. A list, because joining at every chunk would copy a
        # large event as often as it has chunks.
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._has_cr = False
        self._has_begun = False

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that this chunk completes. Raises StreamTooLarge."""
        if self._has_cr or b"\r" in chunk:
            chunk = self._without_cr(chunk)
        if not chunk:
            return []
        parts = self._parts
        if parts:
            is_cut_in_the_gap = parts[-1].endswith(b"\n") and chunk.startswith(b"\n")
            parts.append(chunk)
            if not is_cut_in_the_gap and b"\n\n" not in chunk:
                self._keep(len(chunk))
                return []
            chunk = b"".join(parts)
            parts.clear()
            self._parts_bytes = 0
        blocks = chunk.split(b"\n\n")
        rest = blocks.pop()
        if rest:
            parts.append(rest)
            self._keep(len(rest))
        if blocks and not self._has_begun:
            self._has_begun = True
            blocks[0] = blocks[0].removeprefix(_BYTE_ORDER_MARK)
        return [event for block in blocks if (event := self._event_of(block)) is not None]

    def _keep(self, size: int) -> None:
        self._parts_bytes += size
        # One more than an event may have: the line end before the empty line is not its own.
        if self._parts_bytes > self._event_bytes_max + 1:
            raise StreamTooLarge(f"An event passes {self._event_bytes_max} bytes.")

    def _event_of(self, block: bytes) -> Event | None:
        """The one shape that upstreams really send is taken at once: a name and one data line."""
        if len(block) > self._event_bytes_max:
            raise StreamTooLarge(f"An event passes {self._event_bytes_max} bytes.")
        end = block.find(b"\n")
        is_plain = block.startswith(b"event: ") and block.startswith(b"data: ", end + 1)
        if is_plain and block.find(b"\n", end + 1) == -1:
            return Event(block[7:end], block[end + 7 :])
        return _event_of_lines(block)

    def _without_cr(self, chunk: bytes) -> bytes:
        """The chunk with LF line ends. A CR at its end is a line end; an LF after it is none."""
        if not chunk:
            return chunk
        has_cr, self._has_cr = self._has_cr, chunk.endswith(b"\r")
        if has_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def write_event(name: bytes, data: bytes) -> bytes:
    """An event as bytes: its name, a data line for each line, and the empty line."""
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\ndata: ")
    return b"event: %b\ndata: %b\n\n" % (name, lines)


def write_data(data: bytes) -> bytes:
    """An event without a name, as OpenAI's streams have them."""
    return b"data: %b\n\n" % data


PING = write_event(b"ping", b'{"type":"ping"}')
DONE = write_data(b"[DONE]")


def _event_of_lines(block: bytes) -> Event | None:
    """Any block, by the standard's rules for lines."""
    name = b""
    lines: list[bytes] = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            lines.append(value)
        elif field == b"event":
            name = value
    return Event(name, b"\n".join(lines)) if lines else None
