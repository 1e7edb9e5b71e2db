"""The worker's append-only record of requests.

One folder a worker, locked for the worker's life; segments in it hold a line for each step:

    <CRC32, 8 hex digits> <JSON>\\n
    {"t":"A","rid":…,"base":…,"spec":…,"n":1,"upstream":7}
                                           admitted, and the first attempt is about to be sent
    {"t":"S","rid":…,"n":2,"upstream":7}   another attempt is about to be sent
    {"t":"P","rid":…,"usage":…,"output_chars":…,"is_final":…,"hold":…}
                                           known usage, before the bytes it counts go out
    {"t":"F","rid":…,"event":…,"charges":…}  the final event, written before it is settled

Lines survive `kill -9`, since the page cache has them; a host crash loses at most the last interval
between two syncs. A segment is deleted when every request in it is confirmed as posted.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
from binascii import hexlify
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

logger = logging.getLogger(__name__)

SEGMENT_BYTES_MAX = 16 * 1024 * 1024
FSYNC_SECONDS = 0.05
LINE_BYTES_MAX = 4 * 1024 * 1024
LOCK_NAME = "lock"

# Where a line stands, in one integer: the segment's number, and the line's offset in it.
_OFFSET_BITS = 32
_OFFSETS = (1 << _OFFSET_BITS) - 1

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class JournalUnwritable(Exception):
    """The disk refuses the journal's lines; nothing may be admitted."""


@dataclass(slots=True)
class Segment:
    """One file and the requests that still need it."""

    path: Path
    rids: set[str] = field(default_factory=set)


class Journal:
    """Appends lines for one worker. Blocking writes: they end in the page cache."""

    def __init__(
        self, folder: Path, *, fsync: str = "interval", segment_bytes_max: int = SEGMENT_BYTES_MAX
    ) -> None:
        self._folder = folder
        self._fsync = fsync
        self._flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        if fsync == "always":
            self._flags |= os.O_DSYNC
        self._segment_bytes_max = segment_bytes_max
        self._segments: list[Segment] = []
        self._file = -1
        self._lock = -1
        self._number = 0
        self._end = self._limit = 0  # places
        self._closed_bytes = 0
        self._note_rid: Callable[[str], None] = _no_segment
        self.is_writable = False

    @property
    def bytes_written(self) -> int:
        """How much was written since this worker began."""
        return self._closed_bytes + (self._end & _OFFSETS)

    def open(self) -> None:
        """Make and lock the folder, and begin its first segment. Raises JournalUnwritable."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(
                self._folder / LOCK_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600
            )
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._begin_segment()
        except OSError as error:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1
            raise JournalUnwritable(str(error)) from error
        self.is_writable = True

    def append(self, rid: str, data: bytes) -> int:
        """Write one or more lines of one request; where they stand. Raises JournalUnwritable."""
        size = len(data)
        try:
            if self._end + size > self._limit:
                self._begin_segment()
            if os.write(self._file, data) != size:
                # The half of a line is torn, and a reader skips it by its checksum; what follows
                # begins in a segment of its own.
                self._limit = 0
                raise _torn()
        except OSError as error:
            self.is_writable = False
            raise JournalUnwritable(str(error)) from error
        place = self._end
        self._end = place + size
        self._note_rid(rid)
        return place

    def line_at(self, place: int) -> bytes | None:
        """The JSON of a line that `append` wrote there, of a request not confirmed since.

        None where the disk does not give it back.
        """
        try:
            with self._path_of(place >> _OFFSET_BITS).open("rb") as file:
                file.seek(place & _OFFSETS)
                return _json_of(file.readline(LINE_BYTES_MAX))
        except OSError:
            return None

    def confirm(self, rid: str) -> None:
        """The request is posted: forget it, and delete the segments that nobody needs any more."""
        for segment in self._segments:
            segment.rids.discard(rid)
        while len(self._segments) > 1 and not self._segments[0].rids:
            with contextlib.suppress(FileNotFoundError):
                self._segments.pop(0).path.unlink()

    def probe(self) -> None:
        """Try the disk again after it refused a line, in a new segment."""
        if self.is_writable:
            return
        with contextlib.suppress(OSError, JournalUnwritable):
            if self._lock < 0:
                self.open()
                return
            self._begin_segment()
            self._end += os.write(self._file, b"\n")
            self.is_writable = True

    async def sync_forever(self) -> None:
        """Bring lines to the disk every 50 ms, outside the event loop."""
        loop = asyncio.get_running_loop()
        synced = 0
        while self._fsync == "interval":
            await asyncio.sleep(FSYNC_SECONDS)
            if synced != self.bytes_written:
                synced = self.bytes_written
                with contextlib.suppress(OSError):
                    await loop.run_in_executor(None, os.fdatasync, self._file)

    def close(self) -> None:
        """Sync and unlock. The folder goes too when everything in it is confirmed."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                os.fdatasync(self._file)
            os.close(self._file)
            self._file = -1
        if not any(segment.rids for segment in self._segments):
            remove_folder(self._folder)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        self.is_writable = False

    def _begin_segment(self) -> None:
        self._number += 1
        path = self._path_of(self._number)
        file = os.open(path, self._flags, 0o600)
        if self._file >= 0:
            os.close(self._file)
        self._file = file
        self._closed_bytes = self.bytes_written
        self._end = self._number << _OFFSET_BITS
        self._limit = self._end + self._segment_bytes_max
        segment = Segment(path)
        self._segments.append(segment)
        self._note_rid = segment.rids.add

    def _path_of(self, number: int) -> Path:
        return self._folder / f"{number:06d}.log"


def _no_segment(_rid: str) -> None:
    raise AssertionError("The journal is not open.")


def _torn() -> OSError:
    return OSError("The disk took a part of a line.")


def line_of(kind: str, rid: str, *body: bytes) -> bytes:
    """One line: `body` is JSON members without braces, in pieces, for example ``b'"n":1'``."""
    json = b"".join((b'{"t":"', kind.encode(), b'","rid":"', rid.encode(), b'",', *body, b"}"))
    return b"".join((hexlify(crc32(json).to_bytes(4, "big")), b" ", json, b"\n"))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a segment in order; torn and damaged ones are skipped and logged."""
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LINE_BYTES_MAX), b""), start=1):
            if line == b"\n":
                continue
            json = _json_of(line)
            try:
                decoded = None if json is None else _decode(json)
            except ValueError:
                decoded = None
            if decoded is not None:
                yield decoded
            else:
                logger.warning("journal.line_damaged", extra={"segment": path.name, "line": number})


def _json_of(line: bytes) -> bytes | None:
    """The JSON of a line; None where it is torn or damaged."""
    checksum, _, json = line.rstrip(b"\n").partition(b" ")
    try:
        return json if int(checksum, 16) == crc32(json) else None
    except ValueError:
        return None


@dataclass(slots=True)
class Remains:
    """What a dead worker's journal tells of one request."""

    rid: str
    base: dict[str, Any] = field(default_factory=dict)
    spec: Any = None
    attempts: list[dict[str, Any]] = field(default_factory=list)
    usage: dict[str, Any] | None = None
    output_chars: int = 0
    is_final: bool = False
    hold_micro: int | None = None
    event: dict[str, Any] | None = None
    charges: dict[str, int] = field(default_factory=dict)

    def take(self, line: dict[str, Any]) -> None:
        """Add what one line says."""
        kind = line.get("t")
        if kind == "A":
            self.base, self.spec = line["base"], line["spec"]
        if kind == "S" or (kind == "A" and "n" in line):
            self.attempts.append({"n": line["n"], "upstream": line["upstream"]})
        elif kind == "P":
            self.usage, self.output_chars = line["usage"], line["output_chars"]
            self.is_final, self.hold_micro = line["is_final"], line["hold"]
        elif kind == "F":
            self.event, self.charges = line["event"], line["charges"]


class DeadJournal:
    """The folder of a worker that is gone, locked by who settles what it left."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        self._lock = lock

    @classmethod
    def take(cls, folder: Path) -> "DeadJournal | None":
        """Lock a folder; None while its worker lives or another one is at it."""
        try:
            lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return None
        return cls(folder, lock)

    def read(self) -> dict[str, Remains]:
        """What each request in the folder left behind, by rid."""
        remains: dict[str, Remains] = {}
        for path in sorted(self.folder.glob("*.log")):
            for line in read_lines(path):
                rid = line.get("rid")
                if not isinstance(rid, str):
                    continue
                try:
                    remains.setdefault(rid, Remains(rid)).take(line)
                except KeyError:
                    logger.warning("journal.line_unknown", extra={"segment": path.name})
        return remains

    def remove(self) -> None:
        """Delete the folder: everything in it is confirmed."""
        remove_folder(self.folder)
        self.release()

    def release(self) -> None:
        """Unlock the folder and leave it for later."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def remove_folder(folder: Path) -> None:
    """Delete a journal's folder; the lock goes last."""
    with contextlib.suppress(OSError):
        for path in folder.glob("*.log"):
            path.unlink()
        (folder / LOCK_NAME).unlink()
        folder.rmdir()
