"""The name of every Redis key and stream, and who may write it.

The braces keep a shard's keys and its stream on one node of a cluster, so that one script may touch
them all. A tenant's shard is CRC16 of its decimal id modulo SHARDS, which is fixed for good.
"""

from binascii import crc_hqx

SHARDS = 16
SLOTS = 16_384  # of a Redis Cluster

PLANE = "tp:plane"  # hash: tiers, models, prices, routes, upstreams. Writer: billing.snapshots
GATEWAYS = "tp:gw"  # zset: live gateway workers, beaten every 5 s. Writer: proxy
LOOKS = "tp:looks"  # list: looks at components, until PostgreSQL has them. Writer: billing
MOVES = "tp:moves"  # zset: `conversation:upstream` -> ms when it came to live there. Writer: proxy
RATIOS = "tp:ratios"  # hash: model -> what was learned of its tokens, as JSON. Writer: proxy
CONSUMER_GROUP = "ingest"
EVENT_FIELD = "e"  # the stream entry's one field: the usage event as JSON
GLOBAL_VERSION = "*"


def shard_of(tenant: int | str) -> int:
    """The shard of a tenant: XMODEM CRC16, as Redis Cluster computes it, of the decimal id."""
    return crc_hqx(str(tenant).encode(), 0) % SHARDS


def tag(shard: int) -> str:
    """The prefix that all keys of a shard share, for example ``tp:{s7}``."""
    return f"tp:{{s{shard}}}"


def slot_of(key: bytes) -> int:
    """The slot of a key in a Redis Cluster: what stands in its first braces decides, if any."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1)
    if start >= 0 and end > start + 1:
        key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS


def key_snapshot(digest: str) -> str:
    """String: KeySnapshot as JSON. Writer: accounts.snapshots; deleted on revoke."""
    return f"tp:key:{digest}"


def tenant_snapshot(tenant: int | str) -> str:
    """Hash: `who` (accounts.snapshots) and `terms` (billing.snapshots)."""
    return f"{tag(shard_of(tenant))}:t:{tenant}"


def policy(shard: int) -> str:
    """Hash: `*` and tenants' versions, `epoch`, `opens_at_ms`. Writer: policy.lua."""
    return f"{tag(shard)}:pol"


def buckets(tenant: int | str) -> str:
    """Hash: bucket -> theoretical arrival time in us; `z:<bucket>` -> start of the busy period."""
    return f"{tag(shard_of(tenant))}:b:{tenant}"


def slots(tenant: int | str, scope: str) -> str:
    """Sorted set: request -> end of its lease in ms. Writer: admit, beat, settle."""
    return f"{tag(shard_of(tenant))}:c:{tenant}:{scope}"


def wallet(tenant: int | str) -> str:
    """Hash: `posted`, `ver`, `limit` (publish.lua) and `held` (moved by all scripts), in micros."""
    return f"{tag(shard_of(tenant))}:w:{tenant}"


def budgets(tenant: int | str) -> str:
    """Hash: `ver`, `s:<scope>:<period>` spent (publish.lua), `h:<scope>` held, in micros."""
    return f"{tag(shard_of(tenant))}:g:{tenant}"


def record(tenant: int | str, rid: str) -> str:
    """Hash: one request from admission to its tombstone. Writers: admit, beat, settle, publish."""
    return f"{tag(shard_of(tenant))}:r:{tenant}:{rid}"


def open_requests(shard: int) -> str:
    """Sorted set: `tenant|rid` -> end of its lease in ms; what the reaper walks."""
    return f"{tag(shard)}:open"


def unposted(shard: int) -> str:
    """Sorted set: `tenant|rid` -> time of settlement in ms; what the sweeper walks."""
    return f"{tag(shard)}:unposted"


def usage_stream(shard: int) -> str:
    """Stream: usage events. Writer: settle. Reader: ingest, which deletes what it has committed."""
    return f"{tag(shard)}:usage"


def cold_tenants(shard: int) -> str:
    """Set: tenants whose wallet or terms were missing. The proxy adds, refresh drains."""
    return f"{tag(shard)}:cold"


def refusals(tenant: int | str) -> str:
    """List: a tenant's last 1,000 refusals as JSON, newest first. Writer: proxy."""
    return f"{tag(shard_of(tenant))}:refusals:{tenant}"


def outcome_counts(tenant: int | str, hour: str) -> str:
    """Hash: outcome -> count in one UTC hour (``2026-11-21T10``), kept 40 days. Writer: proxy."""
    return f"{tag(shard_of(tenant))}:outcomes:{tenant}:{hour}"


def owned_object(tenant: int | str, kind: str, ident: str) -> str:
    """String with an expiry: the upstream where a tenant's object lives. Writer: proxy."""
    return f"{tag(shard_of(tenant))}:own:{tenant}:{kind}:{ident}"


def owned_count(tenant: int | str, day: int) -> str:
    """Counter with an expiry: objects that answers to a tenant named on a day. Writer: proxy."""
    return f"{tag(shard_of(tenant))}:owns:{tenant}:{day}"


def idempotent(tenant: int | str, workspace: int | str, digest: str) -> str:
    """Hash with an expiry: a request with an Idempotency-Key, and its answer. Writer: proxy."""
    return f"{tag(shard_of(tenant))}:once:{tenant}:{workspace}:{digest}"


def idempotent_bytes(tenant: int | str, hour: int) -> str:
    """Counter with an expiry: the bytes of answers kept for a tenant in an hour. Writer: proxy."""
    return f"{tag(shard_of(tenant))}:onces:{tenant}:{hour}"


def gateway_facts(worker: str) -> str:
    """Hash with an expiry of 20 s: what one gateway knows of itself. Writer: proxy, every 5 s.

    `at_ms`, `open`, `unconfirmed`, `oldest_started_ms` (0: nothing waits), `journal_bytes`,
    `is_writable`, `fallback_admitted`, `redis_connects`, `round_errors`, `pid`. Numbers as text;
    counts since the process began.
    """
    return f"tp:gateway:{worker}"


def job_record(task: str) -> str:
    """Hash: how a task's runs went. Writer: turnpike.control.job_records."""
    return f"tp:job:{task}"


def upstream_tag(upstream: int) -> str:
    """The prefix that all keys of an upstream share, for example ``tp:{u:9}``."""
    return f"tp:{{u:{upstream}}}"


def upstream_health(upstream: int) -> str:
    """Hash: `breaker`, and `c:<credential>` -> end of its rest in ms. Writer: proxy, on changes."""
    return f"{upstream_tag(upstream)}:health"


def upstream_check(upstream: int) -> str:
    """String with an expiry: the worker whose turn it is to look whether the upstream answers."""
    return f"{upstream_tag(upstream)}:check"


def upstream_rates(upstream: int) -> str:
    """Hash: `u` or `c<credential>` -> theoretical arrival time in us. Writer: caps.lua."""
    return f"{upstream_tag(upstream)}:rates"


def upstream_slots(upstream: int, scope: str) -> str:
    """Sorted set: attempt -> end of its lease in ms; `u` or `c<credential>`. Writer: caps.lua."""
    return f"{upstream_tag(upstream)}:slots:{scope}"
