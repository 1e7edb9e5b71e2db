"""Buckets of time as query parameters ask for them, and pages of them."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils.dateparse import parse_datetime
from rest_framework.request import Request

from billing.queries.usage import floor_to
from turnpike.control.pages import write_cursor
from turnpike.kernel import clock
from turnpike.kernel.errors import InvalidInput

WIDTHS = {"1m": timedelta(minutes=1), "1h": timedelta(hours=1), "1d": timedelta(days=1)}
# How many buckets an answer has if nobody asks, and at most.
LIMITS = {"1m": (60, 1_440), "1h": (24, 168), "1d": (7, 31)}
PAGE_LENGTH_MAX = 200
OLDEST = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketPage:
    """The buckets that one answer covers."""

    since: datetime
    until: datetime
    width: timedelta
    next_page: str | None

    def rows(self, results: Mapping[datetime, list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Every bucket with its results, the oldest first; empty ones included."""
        count = (self.until - self.since) // self.width
        starts = [self.since + number * self.width for number in range(count)]
        return [
            {
                "starting_at": clock.rfc3339(at),
                "ending_at": clock.rfc3339(at + self.width),
                "results": results.get(at, []),
            }
            for at in starts
        ]


def read_buckets(
    request: Request,
    *,
    widths: tuple[str, ...],
    default_since: datetime | None = None,
    cursor: str = "page",
) -> BucketPage:
    """The page of buckets that the query asks for. Raises InvalidInput naming the parameter."""
    name = request.query_params.get("bucket_width", "1d")
    if name not in widths:
        raise InvalidInput(
            f"bucket_width: must be one of {', '.join(widths)}", field="bucket_width"
        )
    width = WIDTHS[name]
    since = read_time(request, "starting_at") or default_since
    if since is None:
        raise InvalidInput("starting_at: Field required", field="starting_at")
    end = read_time(request, "ending_at") or clock.utc_now()
    if end <= since:
        raise InvalidInput("ending_at: must be after starting_at", field="ending_at")
    first = floor_to(since, width)
    page = _read_page(request, cursor)
    if page is not None:
        first = max(first, floor_to(page, width))
    # The last bucket is the one that contains the end; an end on an edge belongs to none.
    last = floor_to(end - timedelta(microseconds=1), width) + width
    until = min(last, first + _limit(request, name) * width)
    return BucketPage(
        since=first,
        until=max(first, until),
        width=width,
        next_page=write_cursor(clock.rfc3339(until)) if until < last else None,
    )


def read_time(request: Request, name: str) -> datetime | None:
    """An RFC 3339 time of the query, or None. Raises InvalidInput."""
    return time_of(request.query_params, name)


def time_of(query: Mapping[str, str], name: str) -> datetime | None:
    """The same, of any page's query."""
    text = query.get(name)
    if text is None:
        return None
    try:
        # In a query, a plus that was not escaped arrives as a space.
        at = parse_datetime(text.strip().replace(" ", "+"))
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise InvalidInput(f"{name}: must be an RFC 3339 time with a zone", field=name)
    if not OLDEST <= at <= clock.utc_now() + timedelta(days=366):
        raise InvalidInput(f"{name}: lies out of the time that is kept", field=name)
    return at.astimezone(UTC)


def _limit(request: Request, width: str) -> int:
    default, maximum = LIMITS[width]
    text = request.query_params.get("limit", str(default))
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= maximum:
        raise InvalidInput(f"limit: must be from 1 to {maximum} with {width}", field="limit")
    return int(text)


def _read_page(request: Request, name: str) -> datetime | None:
    text = request.query_params.get(name)
    if not text:
        return None
    try:
        raw = base64.urlsafe_b64decode(text[:PAGE_LENGTH_MAX] + "=" * (-len(text) % 4)).decode()
        at = datetime.fromisoformat(raw)
    except ValueError as error:
        raise InvalidInput(f"{name}: is not one that we gave out", field=name) from error
    if at.tzinfo is None:
        raise InvalidInput(f"{name}: is not one that we gave out", field=name)
    return at
