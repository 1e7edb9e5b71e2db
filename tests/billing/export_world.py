"""Files of tables, read as their readers read them."""

import csv
import io
from typing import Any

import pyarrow.parquet as pq
from asgiref.sync import async_to_sync
from django.test import Client

OCTOBER = {"starting_at": "2026-10-01T00:00:00Z", "ending_at": "2026-11-01T00:00:00Z"}


def fetch(client: Client, path: str, **query: str) -> bytes:
    """The whole file; the answer must be a stream of one."""
    answer: Any = client.get(path, query)
    assert answer.status_code == 200, answer.content
    assert answer.streaming
    assert answer["content-disposition"].startswith("attachment; filename=")
    return joined(answer)


def joined(answer: Any) -> bytes:
    """All parts of a streamed answer."""

    async def parts() -> bytes:
        return b"".join([part async for part in answer.streaming_content])

    return async_to_sync(parts)()


def csv_rows(data: bytes) -> list[dict[str, str]]:
    """A CSV file's rows by the names of its header."""
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def parquet_rows(data: bytes) -> list[dict[str, Any]]:
    """A Parquet file's rows."""
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(data)).to_pylist()
    return rows
