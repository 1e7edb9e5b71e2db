"""What happens at this moment, over all tenants: requests under way, queues, breakers.

All of it is the data plane's own state in Redis, read in a bounded number of round trips. Raises
redis.RedisError where Redis is away.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from turnpike.control.redis import redis_client, text_of
from turnpike.kernel import clock, ids, keyspace

OPEN_READ_MAX = 200  # of each shard
DETAILS_MAX = 500
GATEWAY_LIVES_MS = 15_000
REFUSED_READ_MAX = 100
NOT_FOUND, RATE_LIMITED, ACCEPTED = "not_found", "rate_limited", "accepted"
HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequest:
    """A request under way; model and key are empty where its record is gone by now."""

    tenant: int
    rid: UUID
    started_at: datetime
    model: str
    key: int | None
    is_stream: bool
    hold_nano: int

    @property
    def public_id(self) -> str:
        """The request's id as its response header names it."""
        return ids.public_id(ids.REQUEST, self.rid)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequests:
    """What is under way. `requests` are the oldest of those that were read."""

    count: int
    by_tenant: Mapping[int, int]
    requests: tuple[OpenRequest, ...]

    @property
    def oldest_at(self) -> datetime | None:
        """When the oldest of them began."""
        return self.requests[0].started_at if self.requests else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Queues:
    """What waits to be posted, and who is there to serve."""

    waiting: int
    unposted: int
    oldest_unposted_at: datetime | None
    gateways: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """What the gateways think of an upstream: closed, open, or half open after its time."""

    is_open: bool
    open_until: datetime | None
    opens: int
    changed_at: datetime | None
    resting_credentials: int

    @property
    def state(self) -> str:
        """One word for it."""
        if not self.is_open:
            return "closed"
        is_over = self.open_until is not None and self.open_until <= clock.utc_now()
        return "half_open" if is_over else "open"


def read_open_requests(*, tenant: int | None = None) -> OpenRequests:
    """The requests that are under way now, of all tenants or of one."""
    client = redis_client()
    pipeline = client.pipeline(transaction=False)
    now_ms = clock.now_ms()
    for shard in range(keyspace.SHARDS):
        name = keyspace.open_requests(shard)
        pipeline.zcount(name, now_ms, "+inf")
        pipeline.zrangebyscore(name, now_ms, "+inf", start=0, num=OPEN_READ_MAX)
    answers = pipeline.execute()
    members = [_member(text_of(raw)) for found in answers[1::2] for raw in found]
    known = [item for item in members if item is not None and tenant in (None, item[0])]
    # Ids begin with the time, so the smallest is the oldest.
    known.sort(key=lambda item: item[1])
    counted = Counter(number for number, _rid in known)
    return OpenRequests(
        count=sum(map(int, answers[0::2])) if tenant is None else counted[tenant],
        by_tenant=dict(counted.most_common()),
        requests=_details(known[:DETAILS_MAX]),
    )


def read_queues() -> Queues:
    """How much usage waits, and since when."""
    pipeline = redis_client().pipeline(transaction=False)
    for shard in range(keyspace.SHARDS):
        pipeline.xlen(keyspace.usage_stream(shard))
        pipeline.zcard(keyspace.unposted(shard))
        pipeline.zrange(keyspace.unposted(shard), 0, 0, withscores=True)
    pipeline.zcount(keyspace.GATEWAYS, clock.now_ms() - GATEWAY_LIVES_MS, "+inf")
    *answers, gateways = pipeline.execute()
    oldest = [int(score) for rows in answers[2::3] for _name, score in rows]
    return Queues(
        waiting=sum(map(int, answers[0::3])),
        unposted=sum(map(int, answers[1::3])),
        oldest_unposted_at=clock.datetime_of_us(min(oldest) * 1_000) if oldest else None,
        gateways=int(gateways),
    )


def read_breakers(upstreams: Collection[int]) -> Mapping[int, Breaker]:
    """What the gateways last told each other about upstreams."""
    pipeline = redis_client().pipeline(transaction=False)
    for upstream in upstreams:
        pipeline.hgetall(keyspace.upstream_health(upstream))
    return {
        upstream: _breaker({text_of(name): text_of(value) for name, value in fields.items()})
        for upstream, fields in zip(upstreams, pipeline.execute(), strict=True)
    }


def count_outcomes(tenants: Collection[int], *, hours: int) -> Mapping[int, Mapping[str, int]]:
    """How requests of some tenants ended in the last hours, the current one included."""
    this_hour = clock.utc_now().replace(minute=0, second=0, microsecond=0)
    names = [(this_hour - back * HOUR).strftime("%Y-%m-%dT%H") for back in range(hours)]
    pipeline = redis_client().pipeline(transaction=False)
    for tenant in tenants:
        for name in names:
            pipeline.hgetall(keyspace.outcome_counts(tenant, name))
    answers = iter(pipeline.execute())
    found: dict[int, Mapping[str, int]] = {}
    for tenant in tenants:
        counts: Counter[str] = Counter()
        for _name in names:
            for outcome, count in next(answers).items():
                counts[text_of(outcome)] += int(count)
        found[tenant] = counts
    return found


def read_unknown_models(tenants: Collection[int], *, since: datetime) -> Mapping[str, Counter[int]]:
    """Names that were asked for and are not sold, with how often by tenant, since an instant.

    Read from the last refusals that the data plane keeps of each tenant.
    """
    pipeline = redis_client().pipeline(transaction=False)
    for tenant in tenants:
        pipeline.lrange(keyspace.refusals(tenant), 0, REFUSED_READ_MAX - 1)
    since_us = int(since.timestamp() * 1_000_000)
    found: dict[str, Counter[int]] = {}
    for tenant, rows in zip(tenants, pipeline.execute(), strict=True):
        for raw in rows:
            row = _object(raw)
            if row.get("status") == 404 and int(row.get("at_us", 0)) >= since_us:
                found.setdefault(str(row.get("model", "")), Counter())[tenant] += 1
    return dict(sorted(found.items(), key=lambda item: -item[1].total()))


def _details(known: list[tuple[int, UUID]]) -> tuple[OpenRequest, ...]:
    pipeline = redis_client().pipeline(transaction=False)
    for tenant, rid in known:
        pipeline.hmget(keyspace.record(tenant, str(rid)), ["base", "hold"])
    return tuple(
        _open_request(tenant, rid, base, hold)
        for (tenant, rid), (base, hold) in zip(known, pipeline.execute(), strict=True)
    )


def _open_request(tenant: int, rid: UUID, base: Any, hold: Any) -> OpenRequest:
    known = _object(base)
    return OpenRequest(
        tenant=tenant,
        rid=rid,
        started_at=clock.datetime_of_us(ids.uuid7_ms(rid) * 1_000),
        model=str(known.get("model", "")),
        key=known.get("key"),
        is_stream=bool(known.get("stream")),
        hold_nano=int(hold or 0) * 1_000,
    )


def _member(text: str) -> tuple[int, UUID] | None:
    tenant, _bar, rid = text.partition("|")
    try:
        return int(tenant), UUID(rid)
    except ValueError:
        return None


def _object(raw: Any) -> dict[str, Any]:
    try:
        found = json.loads(raw) if raw else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _breaker(fields: Mapping[str, str]) -> Breaker:
    parts = [int(part) for part in fields.get("breaker", "").split(":") if part.isdecimal()]
    is_open, until_ms, opens, changed_ms = parts if len(parts) == 4 else (0, 0, 0, 0)
    now_ms = clock.now_ms()
    return Breaker(
        is_open=bool(is_open),
        open_until=clock.datetime_of_us(until_ms * 1_000) if is_open else None,
        opens=opens,
        changed_at=clock.datetime_of_us(changed_ms * 1_000) if changed_ms else None,
        resting_credentials=sum(
            int(value) > now_ms
            for name, value in fields.items()
            if name.startswith("c:") and value.isdecimal()
        ),
    )
