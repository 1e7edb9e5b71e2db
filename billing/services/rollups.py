"""Rollups and spend counters: sums of events, kept with them and rebuilt from them alone.

A rollup counts a request once, under its newest revision's words (model, tier, context window),
with the sum of all its revisions' numbers. A counter sums what a tenant, workspace and key was
charged in one UTC day and month of when requests started.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection

from billing.models.usage import NUMBER_COLUMNS
from billing.queries.usage import BUCKET, ID_SLACK, floor_to, requests_once
from billing.services.periods import month_of
from turnpike.control.scope import platform_scope
from turnpike.kernel import ids

DIMENSIONS = (
    "tenant_id",
    "bucket_at",
    "workspace_id",
    "api_key_id",
    "model",
    "tier",
    "context_window",
)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class RollupKey:
    """One row of the rollup."""

    tenant_id: int
    bucket_at: datetime
    workspace_id: int
    api_key_id: int
    model: str
    tier: str
    context_window: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RollupChange:
    """What an event adds to a row of the rollup, or takes from it."""

    key: RollupKey
    requests: int
    numbers: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What an event charges, or gives back, and whom."""

    tenant: int
    workspace: int
    key: int
    started_at: datetime
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RollupDifference:
    """A row that is not the sum of its events; None where one side has no such row."""

    key: tuple[str, ...]
    stored: tuple[int, ...] | None
    rebuilt: tuple[int, ...] | None


def bucket_of(at: datetime) -> datetime:
    """The start of the quarter of an hour that contains an instant."""
    return floor_to(at, BUCKET)


def add_to_rollups(changes: Iterable[RollupChange]) -> None:
    """Add changes to their rows, in the rows' order, so that two writers never wait in a ring."""
    sums: dict[RollupKey, dict[str, int]] = {}
    takes_back = False
    for change in changes:
        takes_back = takes_back or change.requests < 0
        row = sums.setdefault(change.key, defaultdict(int))
        row["requests"] += change.requests
        for name in NUMBER_COLUMNS:
            row[name] += change.numbers[name]
    if not sums:
        return
    rows = [
        {**{name: getattr(key, name) for name in DIMENSIONS}, **sums[key]} for key in sorted(sums)
    ]
    with connection.cursor() as cursor:
        cursor.execute(_UPSERT_ROLLUPS, [json.dumps(rows, default=datetime.isoformat)])
        if takes_back:
            cursor.execute(_DROP_EMPTY_ROLLUPS, [list({key.tenant_id for key in sums})])


def add_to_counters(spendings: Iterable[Spending]) -> None:
    """Add what was charged to the day's and month's counters of tenant, workspace and key."""
    sums: dict[tuple[int, str, str], int] = defaultdict(int)
    for item in spendings:
        day = item.started_at.astimezone(UTC).strftime("%Y-%m-%d")
        for scope in ("t", f"w{item.workspace}", f"k{item.key}"):
            for period in (day, day[:7]):
                sums[item.tenant, period, scope] += item.amount
    keys = sorted(key for key, amount in sums.items() if amount)
    if not keys:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO billing_spend_counter AS stored (tenant_id, period, scope, spent_nano)"
            " SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[])"
            " ON CONFLICT (tenant_id, period, scope)"
            " DO UPDATE SET spent_nano = stored.spent_nano + excluded.spent_nano",
            [
                [tenant for tenant, _, _ in keys],
                [period for _, period, _ in keys],
                [scope for _, _, scope in keys],
                [sums[key] for key in keys],
            ],
        )


def open_counters(*, tenant: int, workspace: int, key: int, at: datetime) -> None:
    """Make the counters of an instant's day and month, empty where there are none."""
    day = at.astimezone(UTC).strftime("%Y-%m-%d")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO billing_spend_counter (tenant_id, period, scope, spent_nano)"
            " SELECT %s, period, scope, 0 FROM unnest(%s::text[]) AS period"
            " CROSS JOIN unnest(%s::text[]) AS scope ORDER BY period, scope"
            " ON CONFLICT (tenant_id, period, scope) DO NOTHING",
            [tenant, [day, day[:7]], ["t", f"w{workspace}", f"k{key}"]],
        )


def rebuild_rollups(*, since: datetime, until: datetime) -> int:
    """Make the rollups of a span anew from events; returns how many rows it has now.

    Both ends are cut to quarters of an hour. Ingest waits meanwhile, and adds to the new rows.
    """
    since, until = bucket_of(since), bucket_of(until)
    with platform_scope("rebuild rollups"), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE billing_usage_rollup IN SHARE ROW EXCLUSIVE MODE")
        cursor.execute(
            "DELETE FROM billing_usage_rollup WHERE bucket_at >= %s AND bucket_at < %s",
            [since, until],
        )
        columns = ", ".join((*DIMENSIONS, "requests", *NUMBER_COLUMNS))
        cursor.execute(
            f"INSERT INTO billing_usage_rollup ({columns}) {_REBUILT}",
            _span(since, until),
        )
        return int(cursor.rowcount)


def compare_rollups(*, since: datetime, until: datetime) -> list[RollupDifference]:
    """The stored rows of a span that differ from what its events come to."""
    since, until = bucket_of(since), bucket_of(until)
    with platform_scope("compare rollups"), connection.cursor() as cursor:
        cursor.execute(_COMPARE, [*_span(since, until), since, until])
        rows = cursor.fetchall()
    width = len(DIMENSIONS)
    return [
        RollupDifference(
            key=tuple(str(value) for value in row[:width]),
            stored=None if row[width] is None else tuple(row[width]),
            rebuilt=None if row[width + 1] is None else tuple(row[width + 1]),
        )
        for row in rows
    ]


def compare_counters(*, since: datetime, until: datetime) -> list[tuple[Any, ...]]:
    """Counters that differ from their events: tenant, period, scope, stored, rebuilt.

    The span is cut to whole UTC months.
    """
    start, end = month_of(since), month_of(month_of(until) + timedelta(days=32))
    with platform_scope("compare counters"), connection.cursor() as cursor:
        cursor.execute(
            _COMPARE_COUNTERS, [*_span(start, end), start.strftime("%Y-%m"), end.strftime("%Y-%m")]
        )
        return list(cursor.fetchall())


def _span(since: datetime, until: datetime) -> list[UUID | datetime]:
    return [ids.uuid7_floor(since - ID_SLACK), ids.uuid7_floor(until + ID_SLACK), since, until]


_NUMBER_TYPES = ", ".join(f"{name} bigint" for name in ("requests", *NUMBER_COLUMNS))
_ALL = ", ".join((*DIMENSIONS, "requests", *NUMBER_COLUMNS))
_SUMS = ", ".join(
    f"{name} = stored.{name} + excluded.{name}" for name in ("requests", *NUMBER_COLUMNS)
)
_UPSERT_ROLLUPS = f"""
INSERT INTO billing_usage_rollup AS stored ({_ALL})
SELECT {_ALL} FROM jsonb_to_recordset(%s::jsonb) AS given (
  tenant_id bigint, bucket_at timestamptz, workspace_id bigint, api_key_id bigint,
  model text, tier text, context_window text, {_NUMBER_TYPES})
ON CONFLICT ({", ".join(DIMENSIONS)}) DO UPDATE SET {_SUMS}
"""  # noqa: S608 - our names
_DROP_EMPTY_ROLLUPS = "DELETE FROM billing_usage_rollup WHERE tenant_id = ANY(%s) AND requests = 0"

_SPAN = "request_id >= %s AND request_id < %s AND started_at >= %s AND started_at < %s"
_REBUILT = f"""
SELECT tenant_id, date_bin('15 minutes', at, 'epoch') AS bucket_at, workspace_id,
  api_key_id, model, tier, context_window, count(*) AS requests,
  {", ".join(f"sum({name})::bigint AS {name}" for name in NUMBER_COLUMNS)}
FROM ({requests_once(_SPAN)}) AS requests_once
GROUP BY tenant_id, date_bin('15 minutes', at, 'epoch'), workspace_id, api_key_id, model, tier,
  context_window
"""  # noqa: S608 - our names
_VALUES = ", ".join(("requests", *NUMBER_COLUMNS))
_COMPARE = f"""
SELECT {", ".join(DIMENSIONS)}, stored.numbers, rebuilt.numbers FROM
  (SELECT {", ".join(DIMENSIONS)}, ARRAY[{_VALUES}] AS numbers FROM ({_REBUILT}) AS anew) AS rebuilt
FULL JOIN
  (SELECT {", ".join(DIMENSIONS)}, ARRAY[{_VALUES}] AS numbers FROM billing_usage_rollup
    WHERE bucket_at >= %s AND bucket_at < %s) AS stored
USING ({", ".join(DIMENSIONS)})
WHERE stored.numbers IS DISTINCT FROM rebuilt.numbers
"""  # noqa: S608 - our names
_COMPARE_COUNTERS = """
WITH spent AS (
  SELECT tenant_id, to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day, amount_nano,
    ARRAY['t', 'w' || workspace_id, 'k' || api_key_id] AS scopes
  FROM billing_usage_event WHERE request_id >= %s AND request_id < %s
    AND started_at >= %s AND started_at < %s
), rebuilt AS (
  SELECT tenant_id, period, scope, sum(amount_nano)::bigint AS nano
  FROM spent, unnest(scopes) AS scope, unnest(ARRAY[day, left(day, 7)]) AS period
  GROUP BY tenant_id, period, scope
), stored AS (
  SELECT tenant_id, period, scope::text, spent_nano AS nano FROM billing_spend_counter
  WHERE period >= %s AND period < %s
)
SELECT tenant_id, period, scope, coalesce(stored.nano, 0), coalesce(rebuilt.nano, 0)
FROM stored FULL JOIN rebuilt USING (tenant_id, period, scope)
WHERE coalesce(stored.nano, 0) <> coalesce(rebuilt.nano, 0)
"""
