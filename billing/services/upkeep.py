"""sweep_unposted, refresh_wallets: what repairs a publication or a delivery that was missed.

Both may run at any time, twice at once, and beside the ingest: they only repeat what is harmless.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import redis
from django.db.models import Max

from accounts.models import Tenant
from billing.models.ledger import Wallet
from billing.models.usage import DeadLetter, UsageEvent
from billing.services.holds import committed_holds, void_dead_hold
from billing.services.posting import publish_wallet
from billing.snapshots import publish_terms
from turnpike.contracts.usage import RANK_RECONCILED, RANK_VOID
from turnpike.control.redis import redis_client, text_of, time_at
from turnpike.control.scope import platform_scope
from turnpike.kernel import keyspace

logger = logging.getLogger(__name__)

SWEEP_AFTER_MS = 60_000
SWEPT_AT_ONCE_MAX = 1_000
TENANTS_AT_ONCE_MAX = 500
CONSUMER_IDLE_MS_MAX = 3_600_000
# What a record is that hold.lua wrote: it has no event, PostgreSQL takes it over as it is.
HOLD = b"hold"


@dataclass(slots=True, kw_only=True)
class Swept:
    """What a sweep found among the requests that were settled and not published."""

    published: int = 0
    appended: int = 0
    waiting: int = 0
    forgotten: int = 0


def sweep_unposted(*, after_ms: int = SWEEP_AFTER_MS) -> Swept:
    """Publish what PostgreSQL has, append again what is neither there nor under way."""
    client, swept = redis_client(), Swept()
    for shard in range(keyspace.SHARDS):
        seconds, microseconds = time_at(keyspace.unposted(shard))
        settled_before_ms = seconds * 1_000 + microseconds // 1_000 - after_ms
        found: Any = client.zrange(
            keyspace.unposted(shard),
            "-inf",
            settled_before_ms,
            byscore=True,
            offset=0,
            num=SWEPT_AT_ONCE_MAX,
            withscores=True,
        )
        settled: dict[int, dict[str, int]] = defaultdict(dict)
        for member, score in found:
            tenant, _, rid = text_of(member).partition("|")
            settled[int(tenant)][rid] = int(score)
        for number, requests in settled.items():
            _sweep_tenant(client, number, requests, swept)
        _forget_consumers(client, shard)
    return swept


def refresh_wallets() -> int:
    """Publish tenants that the data plane misses, and those whose wallet there is behind."""
    client = redis_client()
    refreshed = sum(_warm(client, shard) for shard in range(keyspace.SHARDS))
    for versions in _wallet_batches():
        pipeline = client.pipeline(transaction=False)
        for tenant in versions:
            pipeline.hget(keyspace.wallet(tenant), "ver")
            pipeline.hget(keyspace.budgets(tenant), "ver")
        seen = pipeline.execute()
        for (tenant, version), *pair in zip(versions.items(), seen[::2], seen[1::2], strict=True):
            if any(value is None or int(value) < version for value in pair):
                publish_wallet(tenant=tenant)
                refreshed += 1
    return refreshed


def _sweep_tenant(
    client: "redis.Redis", tenant: int, settled_ms: Mapping[str, int], swept: Swept
) -> None:
    with platform_scope("sweep unposted"):
        holds = committed_holds(settled_ms)
        posted = {
            str(row["request_id"]): row["best"]
            for row in UsageEvent.objects.filter(request_id__in=list(settled_ms))
            .values("request_id")
            .annotate(best=Max("rank"))
        }
        buried = {
            str(request): resolution
            for request, resolution in DeadLetter.objects.filter(
                request_id__in=list(settled_ms)
            ).values_list("request_id", "resolution")
        }
    posted |= dict.fromkeys(holds, RANK_VOID)
    discarded = {
        rid: RANK_RECONCILED
        for rid, resolution in buried.items()
        if resolution == DeadLetter.Resolution.DISCARDED and rid not in posted
    }
    if posted or discarded:
        publish_wallet(tenant=tenant, posted={**posted, **discarded})
        swept.published += len(posted) + len(discarded)
    for rid, at_ms in settled_ms.items():
        if rid not in discarded and not (rid in buried and rid not in posted):
            _deliver_again(client, tenant, rid, at_ms=at_ms, posted=posted, swept=swept)


def _deliver_again(
    client: "redis.Redis",
    tenant: int,
    rid: str,
    *,
    at_ms: int,
    posted: Mapping[str, int],
    swept: Swept,
) -> None:
    """Append a record's event again, unless the stream still holds entries of its time."""
    shard = keyspace.shard_of(tenant)
    key, member = keyspace.record(tenant, rid), f"{tenant}|{rid}"
    state, rank, event, kind = client.hmget(key, "st", "rank", "event", "kind")
    if kind == HOLD and rid not in posted:
        swept.forgotten += void_dead_hold(tenant=tenant, hold=rid)
        return
    if state is None or int(rank or 0) <= posted.get(rid, -1):
        # Published above, or its record has ended: nothing is held for it any more.
        client.zrem(keyspace.unposted(shard), member)
        swept.forgotten += rid not in posted
        return
    if event is None or _oldest_entry_ms(client, shard) <= at_ms:
        swept.waiting += 1
        return
    pipeline = client.pipeline(transaction=True)
    pipeline.xadd(keyspace.usage_stream(shard), {keyspace.EVENT_FIELD: event})
    # Counted from now, so that it is not appended once more before it could be posted.
    seconds, microseconds = time_at(key)
    pipeline.zadd(keyspace.unposted(shard), {member: seconds * 1_000 + microseconds // 1_000})
    pipeline.execute()
    swept.appended += 1
    logger.warning("sweep.appended", extra={"tenant": tenant, "request": rid})


def _oldest_entry_ms(client: "redis.Redis", shard: int) -> float:
    """When the oldest entry of a stream was written: whatever is older has left it."""
    entries: Any = client.xrange(keyspace.usage_stream(shard), count=1)
    return int(text_of(entries[0][0]).partition("-")[0]) if entries else float("inf")


def _forget_consumers(client: "redis.Redis", shard: int) -> None:
    """Remove readers that ended long ago and left nothing behind."""
    stream = keyspace.usage_stream(shard)
    if not client.exists(stream):
        return
    groups = {group["name"] for group in client.xinfo_groups(stream)}
    if keyspace.CONSUMER_GROUP.encode() not in groups:
        return
    for consumer in client.xinfo_consumers(stream, keyspace.CONSUMER_GROUP):
        if consumer["pending"] == 0 and consumer["idle"] > CONSUMER_IDLE_MS_MAX:
            client.xgroup_delconsumer(stream, keyspace.CONSUMER_GROUP, consumer["name"])


def _warm(client: "redis.Redis", shard: int) -> int:
    named = {int(member) for member in client.smembers(keyspace.cold_tenants(shard))}
    with platform_scope("refresh cold tenants"):
        known = set(Tenant.objects.filter(pk__in=named).values_list("pk", flat=True))
    for tenant in sorted(known):
        publish_terms(tenant)
        publish_wallet(tenant=tenant)
    if named:
        client.srem(keyspace.cold_tenants(shard), *named)
    return len(known)


def _wallet_batches() -> Iterator[dict[int, int]]:
    last = 0
    while True:
        with platform_scope("refresh wallets"):
            rows = Wallet.objects.filter(tenant_id__gt=last).order_by("tenant_id")
            batch = dict(rows.values_list("tenant_id", "version")[:TENANTS_AT_ONCE_MAX])
        if not batch:
            return
        yield batch
        last = max(batch)
