"""Monthly partitions of events and attempts: made ahead, or on demand for a month without."""

from collections.abc import Iterable
from datetime import date
from uuid import UUID

from django.db import connection

from turnpike.kernel import clock, ids

MONTHS_AHEAD = 3

_known: set[date] = set()


def make_partitions() -> int:
    """Make this month's partitions and those of the next three; returns how many were missing."""
    return _make(clock.utc_now().date().replace(day=1), ahead=MONTHS_AHEAD)


def ensure_partitions(requests: Iterable[UUID]) -> None:
    """Make the partitions that these requests go to, where an old journal needs an old month."""
    months = {
        clock.datetime_of_us(ids.uuid7_ms(request) * 1_000).date().replace(day=1)
        for request in requests
    }
    for month in sorted(months - _known):
        _make(month, ahead=0)
        _known.add(month)


def _make(month: date, *, ahead: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT billing_make_partitions(%s, %s)", [month, ahead])
        return int(cursor.fetchone()[0])
