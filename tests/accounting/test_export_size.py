"""Files of tables take the same memory however many rows they have, and lose none of them."""

import tracemalloc
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal

import pyarrow as pa
import pytest
from asgiref.sync import async_to_sync
from django.db.models import Sum

from billing.models.ledger import LedgerEntry
from billing.models.usage import UsageEvent
from billing.queries import exports
from billing.queries.exports import EXPORTS, Span
from tests.billing.export_world import parquet_rows
from tests.billing.usage_world import make_shop
from tests.scale.bulk import DAYS, fill, make_crowd
from turnpike.control.exports import ENCODERS, Chunk, TableStream
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock

FULL, SMALL = 40_000, 800
# Rows that are read at once: so few that a sixth of all is more than one reading.
CHUNKS_OF_FULL = {"POSTINGS_AT_ONCE": 500, "EVENTS_AT_ONCE": 5_000}
CHUNKS_OF_SMALL = {"POSTINGS_AT_ONCE": 20, "EVENTS_AT_ONCE": 20}
GROWTH_MAX = 1.5
SLACK_BYTES = 2**20


def stream(name: str, form: str, span: Span) -> AsyncIterator[bytes]:
    """A file as its reader gets it."""

    def read(place: object) -> Chunk:
        with platform_scope("tests"):
            return EXPORTS[name].read(span, place)

    return TableStream(EXPORTS[name].columns, read, ENCODERS[form]())


def peak_of(name: str, form: str, span: Span) -> tuple[int, int]:
    """The most memory that a file took while it was read, and its length."""

    async def consume() -> tuple[int, int]:
        most = length = 0
        async for part in stream(name, form, span):
            length += len(part)
            most = max(most, pa.total_allocated_bytes())
        return most, length

    tracemalloc.start()
    try:
        arrow, length = async_to_sync(consume)()
        return tracemalloc.get_traced_memory()[1] + arrow, length
    finally:
        tracemalloc.stop()


async def whole(name: str, span: Span) -> bytes:
    """A Parquet file in one piece."""
    return b"".join([part async for part in stream(name, "parquet", span)])


@pytest.mark.django_db
def test_memory_does_not_grow_with_the_rows(
    is_full: bool, redis_client: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(make_crowd(make_shop(), keys=100), events=FULL if is_full else SMALL)
    for name, rows in (CHUNKS_OF_FULL if is_full else CHUNKS_OF_SMALL).items():
        monkeypatch.setattr(exports, name, rows)
    now = clock.utc_now()
    everything = Span(since=now - timedelta(days=DAYS + 1), until=now)
    recent = Span(since=now - timedelta(days=DAYS // 6), until=now)

    for name in ("usage", "ledger"):
        for form in ENCODERS:
            part, part_length = peak_of(name, form, recent)
            most, length = peak_of(name, form, everything)
            assert length > 2 * part_length, (name, form)
            assert most < part * GROWTH_MAX + SLACK_BYTES, (name, form, part, most)

    with platform_scope("tests"):
        events = UsageEvent.objects.aggregate(nano=Sum("amount_nano"))["nano"]
        entries = LedgerEntry.objects.count()
    usage = parquet_rows(async_to_sync(whole)("usage", everything))
    assert len(usage) >= (FULL if is_full else SMALL) // 2
    assert sum(row["amount"] for row in usage) == Decimal(events).scaleb(-9)
    assert len(parquet_rows(async_to_sync(whole)("ledger", everything))) == entries
