"""Monthly partitions of events and attempts: made ahead, or on demand for a month without.

A month that was dropped after its time takes nothing more: what comes so late becomes a dead
letter, for nobody could tell whether it was charged before.
"""

from collections.abc import Iterable
from datetime import date, timedelta
from uuid import UUID

from django.db import connection

from billing.models.upkeep import ForgottenMonth
from turnpike.kernel import clock, ids
from turnpike.kernel.errors import Conflict

MONTHS_AHEAD = 3
# The database drops no month that is younger.
DAYS_KEPT_MIN = 62
FORGOTTEN = "The events of that month were dropped after their time; nothing is added to them."

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
        if is_forgotten(month):
            raise Conflict(FORGOTTEN)
        _make(month, ahead=0)
        if month >= _oldest_sure():
            _known.add(month)


def is_forgotten(day: date) -> bool:
    """Whether the events of a day's month were dropped."""
    month = day.replace(day=1)
    return month < _oldest_sure() and ForgottenMonth.objects.filter(month=month).exists()


def forgotten_until() -> date | None:
    """The first day from which all events are here, where earlier months were dropped."""
    last = ForgottenMonth.objects.order_by("-month").values_list("month", flat=True).first()
    return None if last is None else (last + timedelta(days=31)).replace(day=1)


def _oldest_sure() -> date:
    return clock.utc_now().date() - timedelta(days=DAYS_KEPT_MIN)


def _make(month: date, *, ahead: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT billing_make_partitions(%s, %s)", [month, ahead])
        return int(cursor.fetchone()[0])
