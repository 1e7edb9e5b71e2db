"""What a tenant uses of its limits at this moment: the data plane's own buckets, read only.

The arithmetic is that of docs/limits.md, so the numbers are those of the `anthropic-ratelimit-*`
headers: a bucket keeps a theoretical arrival time, and what is left is the distance to it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from accounts.models import ApiKey, Workspace
from turnpike.contracts.snapshots import Limits
from turnpike.control.redis import redis_client, text_of, time_at
from turnpike.kernel import keyspace

MINUTE_US = 60_000_000
BURST_SECONDS, BURST_SECONDS_MAX = 60, 1_800
KINDS = ("requests", "tokens", "input_tokens", "output_tokens")
CONCURRENCY = "concurrency"
KEYS_SHOWN_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose limits they are: ``t``, ``g:<group>``, ``w<number>`` or ``k<number>``."""

    name: str
    kind: str
    title: str
    limits: Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One limit of a scope: how much of it is used now, and when it is whole again."""

    kind: str
    limit: int
    capacity: int
    remaining: int
    full_in_us: int

    @property
    def used(self) -> int:
        """What is in use of the capacity."""
        return max(0, self.capacity - self.remaining)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeLevels:
    """A scope with all its limits."""

    scope: Scope
    levels: tuple[Level, ...]


def read_limits(tenant: int, *, own: Limits, groups: Mapping[str, Limits]) -> list[ScopeLevels]:
    """All limits of a tenant with what is used of them now; RedisError when Redis is away.

    `own` are the limits of its tier with its overrides, `groups` those of groups of models.
    """
    scopes = list_scopes(tenant, own=own, groups=groups)
    client = redis_client()
    seconds, microseconds = time_at(keyspace.buckets(tenant))
    now_us = seconds * 1_000_000 + microseconds
    slotted = [scope.name for scope in scopes if scope.limits.concurrency is not None]
    pipeline = client.pipeline(transaction=False)
    pipeline.hgetall(keyspace.buckets(tenant))
    for name in slotted:
        pipeline.zcount(keyspace.slots(tenant, name), f"({now_us // 1_000}", "+inf")
    raw, *counts = pipeline.execute()
    arrivals = {text_of(name): int(value) for name, value in raw.items()}
    running = dict(zip(slotted, (int(count) for count in counts), strict=True))
    return [
        ScopeLevels(scope=scope, levels=tuple(_levels(scope, arrivals, running, now_us)))
        for scope in scopes
    ]


def list_scopes(tenant: int, *, own: Limits, groups: Mapping[str, Limits]) -> list[Scope]:
    """The scopes of a tenant that limit something, the widest first."""
    scopes = [
        Scope(name="t", kind="tenant", title="", limits=own),
        *(
            Scope(name=f"g:{name}", kind="group", title=name, limits=limits)
            for name, limits in sorted(groups.items())
        ),
    ]
    for workspace in Workspace.objects.filter(tenant_id=tenant, archived_at=None).order_by("pk"):
        name = f"w{workspace.pk}"
        scopes.append(
            Scope(name=name, kind="workspace", title=workspace.name, limits=workspace.limits)
        )
    keys = ApiKey.objects.filter(tenant_id=tenant, revoked_at=None).order_by("name", "pk")
    for key in keys[:KEYS_SHOWN_MAX]:
        scopes.append(Scope(name=f"k{key.pk}", kind="key", title=key.name, limits=key.limits))
    return [scope for scope in scopes if _limits_something(scope.limits)]


def level_of(
    *, kind: str, limit: int, burst_seconds: int | None, arrival_us: int, now_us: int
) -> Level:
    """What a bucket holds now, given its theoretical arrival time."""
    seconds = min(burst_seconds or BURST_SECONDS, BURST_SECONDS_MAX)
    burst_us = seconds * 1_000_000
    if kind == "requests":
        # Each request is rounded up by itself; a full bucket holds the whole limit all the same.
        burst_us = max(burst_us, max(1, limit * seconds // 60) * _cost_of_one(limit))
    left_us = min(burst_us, now_us + burst_us - max(arrival_us, now_us))
    return Level(
        kind=kind,
        limit=limit,
        capacity=_units(kind, limit, burst_us),
        remaining=_units(kind, limit, left_us),
        full_in_us=burst_us - left_us,
    )


def _levels(
    scope: Scope, arrivals: Mapping[str, int], running: Mapping[str, int], now_us: int
) -> Iterable[Level]:
    for kind in KINDS:
        limit = getattr(scope.limits, f"{kind}_per_minute")
        if limit is not None:
            yield level_of(
                kind=kind,
                limit=limit,
                burst_seconds=scope.limits.burst_seconds,
                arrival_us=arrivals.get(f"{scope.name}:{kind}", 0),
                now_us=now_us,
            )
    if scope.limits.concurrency is not None:
        limit, used = scope.limits.concurrency, running[scope.name]
        yield Level(
            kind=CONCURRENCY,
            limit=limit,
            capacity=limit,
            remaining=max(0, limit - used),
            full_in_us=0,
        )


def _limits_something(limits: Limits) -> bool:
    values = [getattr(limits, f"{kind}_per_minute") for kind in KINDS]
    return any(value is not None for value in (*values, limits.concurrency))


def _cost_of_one(limit: int) -> int:
    return -(-MINUTE_US // limit)


def _units(kind: str, limit: int, left_us: int) -> int:
    if left_us <= 0:
        return 0
    return left_us // _cost_of_one(limit) if kind == "requests" else left_us * limit // MINUTE_US
