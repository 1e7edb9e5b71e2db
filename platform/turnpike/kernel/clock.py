"""The only place that reads the time; tests pass a clock of their own."""

import time
from datetime import UTC, datetime


def utc_now() -> datetime:
    """The time now, aware and in UTC."""
    return datetime.now(UTC)


def now_us() -> int:
    """Microseconds since 1970 by this machine's clock; decides nothing that costs money."""
    return time.time_ns() // 1_000


def now_ms() -> int:
    """Milliseconds since 1970 by this machine's clock."""
    return time.time_ns() // 1_000_000


# Seconds that never run backwards: for durations and deadlines. The very function, since a request
# asks for it several times, and a call of ours around it costs more than the answer.
monotonic_seconds = time.monotonic


def datetime_of_us(microseconds: int) -> datetime:
    """Microseconds since 1970 as an aware datetime in UTC, exactly."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)


def us_of_datetime(at: datetime) -> int:
    """An aware datetime as microseconds since 1970, exactly."""
    assert at.tzinfo is not None
    delta = at - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def rfc3339(at: datetime) -> str:
    """An aware datetime as RFC 3339 in UTC: microseconds only where there are some."""
    text = at.astimezone(UTC).isoformat()
    return text.replace("+00:00", "Z")
