"""Sums of usage over time: hours and days from the rollups, minutes from the events."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import Max

from billing.models.usage import CHARGE_COLUMNS, NUMBER_COLUMNS, UsageRollup
from turnpike.kernel import ids

BUCKET = timedelta(minutes=15)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Ids are made when requests start; parsing refuses events where the two are further apart.
ID_SLACK = timedelta(days=1)
WORDS = ("workspace_id", "api_key_id", "model", "tier", "context_window")
SUMS = ("requests", *NUMBER_COLUMNS)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuery:
    """What to sum: a span cut into buckets, by words, narrowed to some of their values."""

    tenant: int
    since: datetime
    until: datetime
    width: timedelta
    group_by: tuple[str, ...] = ()
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSum:
    """The sums of one bucket and one combination of words."""

    bucket_at: datetime
    words: Mapping[str, Any]
    sums: Mapping[str, int]

    @property
    def charges(self) -> Mapping[str, int]:
        """What was charged by component, in nanos."""
        return {name: self.sums[column] for name, column in CHARGE_COLUMNS.items()}


def requests_once(condition: str) -> str:
    """SQL of one row a request: its newest words, the sums of its revisions, its start as `at`."""
    sums = ", ".join(f"sum({name}) OVER revisions AS {name}" for name in NUMBER_COLUMNS)
    return (
        "SELECT DISTINCT ON (request_id) tenant_id, started_at AS at,"  # noqa: S608 - our names
        f" {', '.join(WORDS)}, 1 AS requests, {sums}"
        f" FROM billing_usage_event WHERE {condition}"
        " WINDOW revisions AS (PARTITION BY request_id) ORDER BY request_id, revision DESC"
    )


def floor_to(at: datetime, width: timedelta) -> datetime:
    """The start of the bucket (UTC) that contains an instant."""
    return EPOCH + (at - EPOCH) // width * width


def sum_usage(query: UsageQuery) -> list[UsageSum]:
    """The sums, the oldest bucket first; buckets without usage are left out."""
    assert set(query.group_by) <= set(WORDS)
    assert set(query.only) <= set(WORDS)
    words = "".join(f", {name}" for name in query.group_by)
    conditions = "".join(f" AND {name} = ANY(%({name})s)" for name in query.only)
    source = _EVENTS if query.width < BUCKET else _ROLLUPS
    totals = ", ".join(f"sum({name})::bigint" for name in SUMS)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT date_bin(%(width)s::interval, at, 'epoch') AS bucket{words}, {totals}"  # noqa: S608
            f" FROM ({source}) AS used WHERE TRUE{conditions}"
            f" GROUP BY bucket{words} ORDER BY bucket{words}",
            {
                "width": f"{query.width.total_seconds()} seconds",
                "tenant": query.tenant,
                "since": query.since,
                "until": query.until,
                "first": ids.uuid7_floor(query.since - ID_SLACK),
                "last": ids.uuid7_floor(query.until + ID_SLACK),
                **{name: list(values) for name, values in query.only.items()},
            },
        )
        rows = cursor.fetchall()
    width = 1 + len(query.group_by)
    return [
        UsageSum(
            bucket_at=row[0],
            words=dict(zip(query.group_by, row[1:width], strict=True)),
            sums=dict(zip(SUMS, row[width:], strict=True)),
        )
        for row in rows
    ]


def last_used_at(*, tenant: int, since: datetime) -> Mapping[int, datetime]:
    """The quarter of an hour in which each key of a tenant was last used."""
    rows = UsageRollup.objects.filter(tenant_id=tenant, bucket_at__gte=since)
    last = rows.order_by("api_key_id").values("api_key_id").annotate(at=Max("bucket_at"))
    return {row["api_key_id"]: row["at"] for row in last}


_ROLLUPS = f"""
SELECT bucket_at AS at, {", ".join(WORDS)}, {", ".join(SUMS)} FROM billing_usage_rollup
WHERE tenant_id = %(tenant)s AND bucket_at >= %(since)s AND bucket_at < %(until)s
"""  # noqa: S608 - our names
_EVENTS = requests_once(
    "tenant_id = %(tenant)s AND request_id >= %(first)s AND request_id < %(last)s"
    " AND started_at >= %(since)s AND started_at < %(until)s"
)


def sum_span(
    *,
    tenant: int,
    since: datetime,
    until: datetime,
    group_by: tuple[str, ...] = (),
    only: Mapping[str, tuple[Any, ...]] | None = None,
) -> list[UsageSum]:
    """The sums of a whole span, one row for each combination of the words grouped by."""
    rows = sum_usage(
        UsageQuery(
            tenant=tenant,
            since=since,
            until=until,
            width=until - EPOCH,
            group_by=group_by,
            only=only or {},
        )
    )
    return fold(rows, by=group_by)


def fold(rows: Iterable[UsageSum], *, by: tuple[str, ...] = ()) -> list[UsageSum]:
    """Rows of all buckets added up, one for each combination of some of their words."""
    found: dict[tuple[Any, ...], UsageSum] = {}
    for row in rows:
        key = tuple(row.words[name] for name in by)
        known = found.get(key)
        sums = dict.fromkeys(SUMS, 0) if known is None else known.sums
        found[key] = UsageSum(
            bucket_at=row.bucket_at if known is None else known.bucket_at,
            words=dict(zip(by, key, strict=True)),
            sums={name: sums[name] + row.sums[name] for name in SUMS},
        )
    return list(found.values())


def total(rows: Iterable[UsageSum]) -> Mapping[str, int]:
    """The sums of all rows; zeros of none."""
    folded = fold(rows)
    return folded[0].sums if folded else dict.fromkeys(SUMS, 0)
