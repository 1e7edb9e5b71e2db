"""Time: microseconds and datetimes are the same instants."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnpike.kernel import clock

INSTANTS = st.integers(0, 2 * 10**17).map(
    lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
)


@given(at=INSTANTS)
def test_microseconds_and_datetimes_convert_exactly(at: datetime) -> None:
    assert clock.datetime_of_us(clock.us_of_datetime(at)) == at


@given(microseconds=st.integers(0, 10**17))
def test_datetimes_and_microseconds_convert_exactly(microseconds: int) -> None:
    assert clock.us_of_datetime(clock.datetime_of_us(microseconds)) == microseconds


def test_an_instant_is_the_same_in_every_zone() -> None:
    at = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
    elsewhere = at.astimezone(timezone(timedelta(hours=-5)))

    assert clock.us_of_datetime(elsewhere) == clock.us_of_datetime(at)
    assert clock.rfc3339(elsewhere) == "2026-11-21T10:00:00Z"


def test_a_naive_time_is_a_mistake() -> None:
    with pytest.raises(AssertionError):
        clock.us_of_datetime(datetime(2026, 1, 1))  # noqa: DTZ001


def test_rfc3339_has_microseconds_only_where_there_are_some() -> None:
    assert clock.rfc3339(datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)) == (
        "2026-01-02T03:04:05.000006Z"
    )


@given(at=INSTANTS)
def test_rfc3339_reads_back(at: datetime) -> None:
    assert datetime.fromisoformat(clock.rfc3339(at)) == at


def test_the_readings_agree() -> None:
    before = clock.now_us()
    now = clock.us_of_datetime(clock.utc_now())
    after = clock.now_us()

    assert before <= now <= after
    assert abs(clock.now_ms() - before // 1_000) < 60_000
    assert clock.monotonic_seconds() <= clock.monotonic_seconds()
