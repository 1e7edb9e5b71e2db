"""Tables as files: CSV and Parquet, written chunk by chunk in bounded memory.

A table is its columns and a way to read the rows that come after a place. Columns keep their names,
kinds and order: programs rely on them, new ones are added at the end.
"""

import csv
import io
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from asgiref.sync import sync_to_async

from turnpike.control.formats import spreadsheet_cell
from turnpike.kernel import clock
from turnpike.kernel.errors import LimitReached
from turnpike.kernel.money import AMOUNT_DECIMALS, format_amount

if TYPE_CHECKING:
    pass

MONEY_DIGITS = 38
# Files that a process reads at once: each keeps a thread and a connection for as long as it lasts.
STREAMS_MAX = 8

_places = threading.BoundedSemaphore(STREAMS_MAX)


class Kind(StrEnum):
    """What a column holds; None in all of them is nothing."""

    TEXT = "text"
    WHOLE = "whole number"
    MONEY = "amount"
    TIME = "time"
    FLAG = "true or false"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column; money is nanos in a row, and a decimal of the major unit in a file."""

    name: str
    kind: Kind = Kind.TEXT


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some rows of a table, and the place after which the next ones come; None: there are none."""

    rows: Sequence[Sequence[Any]]
    next_place: Any


class Encoder(Protocol):
    """Writes one file; `write` may be called any number of times between `begin` and `end`."""

    media_type: str
    ending: str

    def begin(self, columns: Sequence[Column]) -> bytes:
        """What stands before the rows."""

    def write(self, rows: Sequence[Sequence[Any]]) -> bytes:
        """Some rows."""

    def end(self) -> bytes:
        """What stands after the rows."""


class CsvEncoder:
    """UTF-8 with a header; times are RFC 3339, text that looks like a formula begins with '."""

    media_type = "text/csv; charset=utf-8"
    ending = "csv"

    def begin(self, columns: Sequence[Column]) -> bytes:
        """The header."""
        self._cells = [_CELLS[column.kind] for column in columns]
        return csv_lines([[column.name for column in columns]])

    def write(self, rows: Sequence[Sequence[Any]]) -> bytes:
        """A line for each row."""
        cells = self._cells
        return csv_lines(
            ["" if value is None else cell(value) for cell, value in zip(cells, row, strict=True)]
            for row in rows
        )

    def end(self) -> bytes:
        """Nothing."""
        return b""


class ParquetEncoder:
    """A row group for each chunk; money is decimal128(38, 9), times are microseconds in UTC."""

    media_type = "application/vnd.apache.parquet"
    ending = "parquet"

    def begin(self, columns: Sequence[Column]) -> bytes:
        """The file's magic number."""
        # Loaded where somebody wants it: it is large.
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {
            Kind.TEXT: pa.string(),
            Kind.WHOLE: pa.int64(),
            Kind.MONEY: pa.decimal128(MONEY_DIGITS, AMOUNT_DECIMALS),
            Kind.TIME: pa.timestamp("us", tz="UTC"),
            Kind.FLAG: pa.bool_(),
        }
        self._kinds = [column.kind for column in columns]
        self._schema: pa.Schema = pa.schema(
            [pa.field(column.name, kinds[column.kind]) for column in columns]
        )
        self._sink = _Sink()
        self._writer = pq.ParquetWriter(self._sink, self._schema, compression="zstd")
        return self._sink.drain()

    def write(self, rows: Sequence[Sequence[Any]]) -> bytes:
        """One row group."""
        import pyarrow as pa

        if not rows:
            return b""
        arrays = [
            pa.array(_decimals(values) if kind == Kind.MONEY else values, field.type)
            for values, kind, field in zip(
                zip(*rows, strict=True), self._kinds, self._schema, strict=True
            )
        ]
        table = pa.Table.from_arrays(arrays, schema=self._schema)
        self._writer.write_table(table, row_group_size=len(rows))
        return self._sink.drain()

    def end(self) -> bytes:
        """The file's index."""
        self._writer.close()
        return self._sink.drain()


ENCODERS: dict[str, type[CsvEncoder | ParquetEncoder]] = {
    CsvEncoder.ending: CsvEncoder,
    ParquetEncoder.ending: ParquetEncoder,
}


class TableStream:
    """A file in parts, the rows after None first. `read` opens a transaction of its own.

    Raises LimitReached where this process reads as many files already as it may. An answer closes
    what it streams, also when its reader has gone.
    """

    def __init__(
        self, columns: Sequence[Column], read: Callable[[Any], Chunk], encoder: Encoder
    ) -> None:
        self._is_open = _places.acquire(blocking=False)
        if not self._is_open:
            raise LimitReached("Too many files are being read. Try again shortly.")
        self._parts = _parts(columns, read, encoder)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._parts)
        except BaseException:
            # At its end, broken or given up: nothing follows.
            self.close()
            raise

    def close(self) -> None:
        """Let another file be read; a second call changes nothing."""
        if self._is_open:
            self._is_open = False
            _places.release()

    def __del__(self) -> None:
        self.close()


async def _parts(
    columns: Sequence[Column], read: Callable[[Any], Chunk], encoder: Encoder
) -> AsyncIterator[bytes]:
    yield encoder.begin(columns)
    after: Any = None
    while True:
        part, after = await sync_to_async(_next_part)(read, encoder, after)
        if part:
            yield part
        if after is None:
            break
    yield encoder.end()


def csv_lines(rows: Iterable[Sequence[Any]]) -> bytes:
    """Rows as CSV. Text that people chose goes through `spreadsheet_cell` before."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _next_part(read: Callable[[Any], Chunk], encoder: Encoder, after: Any) -> tuple[bytes, Any]:
    chunk = read(after)
    return encoder.write(chunk.rows), chunk.next_place


def _flag_cell(value: object) -> str:
    return "true" if value else "false"


_CELLS: dict[Kind, Callable[[Any], Any]] = {
    Kind.TEXT: spreadsheet_cell,
    Kind.WHOLE: str,
    # May begin with a minus, and is a number all the same.
    Kind.MONEY: format_amount,
    Kind.TIME: clock.rfc3339,
    Kind.FLAG: _flag_cell,
}


def _decimals(values: Iterable[int | None]) -> list[Decimal | None]:
    return [None if nanos is None else Decimal(nanos).scaleb(-AMOUNT_DECIMALS) for nanos in values]


class _Sink(io.RawIOBase):
    """Keeps what was written until it is taken, and knows how much it was in all."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._place = 0

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: Any) -> int:
        """Keep it."""
        part = bytes(data)
        self._parts.append(part)
        self._place += len(part)
        return len(part)

    def tell(self) -> int:
        """Where the next byte will stand in the file."""
        return self._place

    def drain(self) -> bytes:
        """What was written since the last time."""
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken
