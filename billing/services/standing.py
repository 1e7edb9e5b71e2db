"""look_at_components, read_standing: whether the parts of the platform answer, and how they did.

Looked at each minute and counted by UTC day: availability is what was measured, with the number of
looks beside it. A day without a look says nothing.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import redis
from django.db import Error, connection

from billing.models.upkeep import Announcement, ComponentDay
from billing.models.upstreams import Upstream
from billing.queries.gateways import read_gateways
from turnpike.control.redis import redis_client, text_of
from turnpike.kernel import clock, keyspace

logger = logging.getLogger(__name__)

API, CONSOLE, USAGE = "api", "console", "usage"
UPSTREAM_PREFIX = "upstream:"
DAYS_SHOWN = 90
LOOKS_WAITING_MAX = 100_000
LOOKS_AT_ONCE_MAX = 5_000
# Usage waits longer than this: its processing counts as down.
LATE_MS = 120_000
# The first number of what the data plane says of an upstream: it is not asked for now.
BROKEN = "1:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """One UTC day of a component."""

    day: date
    checks: int
    failures: int

    @property
    def tone(self) -> str:
        """How it was: nothing known, fine, partly away, or mostly."""
        if not self.checks:
            return ""
        if not self.failures:
            return "ok"
        return "warn" if self.failures * 20 <= self.checks else "danger"


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A part of the platform, its last state and its days, the oldest first."""

    name: str
    is_up: bool | None
    checked_at: datetime | None
    days: tuple[Day, ...]

    @property
    def checks(self) -> int:
        """How often it was looked at."""
        return sum(day.checks for day in self.days)

    @property
    def answered(self) -> int:
        """How often it answered."""
        return self.checks - sum(day.failures for day in self.days)


def look_at_components(*, at: datetime) -> int:
    """Look at every part once and count it; returns how many did not answer.

    Looks wait in Redis until PostgreSQL takes them, so that its own absence is counted too.
    """
    is_database_up = _database_answers()
    states = {API: _api_answers(at), CONSOLE: is_database_up, USAGE: _usage_flows(at)}
    states |= _upstream_states() if is_database_up else {}
    client = redis_client()
    rows = [json.dumps([name, clock.rfc3339(at), is_up]) for name, is_up in states.items()]
    client.rpush(keyspace.LOOKS, *rows)
    client.ltrim(keyspace.LOOKS, -LOOKS_WAITING_MAX, -1)
    if is_database_up:
        _count_looks(client)
    return sum(not is_up for is_up in states.values())


def _count_looks(client: "redis.Redis") -> None:
    waiting: Any = client.lrange(keyspace.LOOKS, 0, LOOKS_AT_ONCE_MAX - 1)
    with connection.cursor() as cursor:
        for name, at, is_up in map(json.loads, waiting):
            cursor.execute(_COUNT, [name, at[:10], int(not is_up), at, is_up])
    client.ltrim(keyspace.LOOKS, len(waiting), -1)


def read_components(*, at: datetime, days: int = DAYS_SHOWN) -> list[Component]:
    """Every component that was ever looked at in these days, our own parts first."""
    first = at.date() - timedelta(days=days - 1)
    rows = ComponentDay.objects.filter(day__gte=first, day__lte=at.date()).order_by("day")
    by_name: dict[str, dict[date, ComponentDay]] = {}
    for row in rows:
        by_name.setdefault(row.component, {})[row.day] = row
    return [
        _component(name, by_name[name], [first + timedelta(days=n) for n in range(days)])
        for name in sorted(by_name, key=_place)
    ]


def list_incidents(*, at: datetime, days: int = DAYS_SHOWN) -> Sequence[Announcement]:
    """Incidents and maintenance of these days and to come, the newest first."""
    rows = Announcement.objects.filter(withdrawn_at=None, starts_at__gte=at - timedelta(days=days))
    kinds = [Announcement.Kind.INCIDENT, Announcement.Kind.MAINTENANCE]
    return list(rows.filter(kind__in=kinds).order_by("-starts_at")[:50])


def _component(name: str, known: Mapping[date, ComponentDay], days: Sequence[date]) -> Component:
    last = known[max(known)]
    return Component(
        name=name,
        is_up=last.is_up,
        checked_at=last.checked_at,
        days=tuple(
            Day(
                day=day,
                checks=known[day].checks if day in known else 0,
                failures=known[day].failures if day in known else 0,
            )
            for day in days
        ),
    )


def _place(name: str) -> tuple[int, str]:
    own = (API, CONSOLE, USAGE)
    return (own.index(name), name) if name in own else (len(own), name)


def _database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Error:
        return False
    return True


def _api_answers(at: datetime) -> bool:
    """Whether a gateway lives, can write its journal, and has been told what to serve."""
    try:
        client = redis_client()
        told = client.hexists(keyspace.policy(0), keyspace.GLOBAL_VERSION)
        gateways = read_gateways(at=at)
    except redis.RedisError:
        return False
    return bool(told) and any(gateway.is_writable for gateway in gateways)


def _usage_flows(at: datetime) -> bool:
    """Whether nothing in the streams waits for longer than a short while."""
    oldest_ms = oldest_waiting_ms()
    return oldest_ms is not None and (
        oldest_ms == 0 or at.timestamp() * 1_000 - oldest_ms < LATE_MS
    )


def oldest_waiting_ms() -> int | None:
    """When the oldest event in a stream was written; 0 where none waits, None without Redis."""
    try:
        pipeline = redis_client().pipeline(transaction=False)
        for shard in range(keyspace.SHARDS):
            pipeline.xrange(keyspace.usage_stream(shard), count=1)
        found = [
            int(text_of(entries[0][0]).partition("-")[0])
            for entries in pipeline.execute()
            if entries
        ]
    except redis.RedisError:
        return None
    return min(found, default=0)


def _upstream_states() -> dict[str, bool]:
    """Each kind of upstream in use, up while one of it is not broken."""
    states: dict[str, bool] = {}
    for row in Upstream.objects.filter(is_enabled=True).order_by("pk"):
        kind = "simulator" if row.is_simulator else str(row.kind)
        name = f"{UPSTREAM_PREFIX}{kind}"
        states[name] = states.get(name, False) or not _is_broken(row.pk)
    return states


def _is_broken(upstream: int) -> bool:
    try:
        fields: Any = redis_client().hgetall(keyspace.upstream_health(upstream))
    except redis.RedisError:
        return False
    return text_of(fields.get(b"breaker", b"")).startswith(BROKEN)


_COUNT = """
INSERT INTO billing_component_day AS known (component, day, checks, failures, checked_at, is_up)
VALUES (%s, %s, 1, %s, %s, %s)
ON CONFLICT (component, day) DO UPDATE SET checks = known.checks + 1,
  failures = known.failures + excluded.failures, checked_at = excluded.checked_at,
  is_up = excluded.is_up
"""
