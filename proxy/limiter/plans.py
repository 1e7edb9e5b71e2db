"""Which limits a key meets with a model; made once and used for many requests.

A bucket is GCRA: a request of n units costs ceil(n x 60,000,000 / limit) microseconds, so that all
arithmetic is in whole numbers. Scopes nest: tenant, model group, workspace, key; each adds what is
set for it, and the script takes from all of them or from none. docs/limits.md has worked numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import msgspec

from proxy.limiter.scripts import ADMIT, SETTLE, Script
from proxy.prepared_call import PreparedCall
from turnpike.contracts.snapshots import (
    Budget,
    KeySnapshot,
    Limits,
    ModelSnapshot,
    TenantTerms,
    TenantWho,
    TierSnapshot,
)
from turnpike.kernel import keyspace

SCHEMA = 1
MINUTE_US = 60_000_000
BURST_SECONDS = 60
# The state of a bucket is kept for an hour, so burst and debt together stay well below it.
BURST_SECONDS_MAX = 1_800
# How far usage beyond the reservation may delay what comes next.
DEBT_US = 300_000_000
# Lua's numbers are exact up to 2**53; thirty years is beyond every cap of a bucket.
COST_US_MAX = 10**15

KIND_REQUESTS = "requests"
KIND_TOKENS = "tokens"
KIND_INPUT = "input_tokens"
KIND_OUTPUT = "output_tokens"
KINDS = (KIND_REQUESTS, KIND_TOKENS, KIND_INPUT, KIND_OUTPUT)

SCOPE_TENANT = "t"
SCOPE_GROUP = "g:"
SCOPE_WORKSPACE = "w"
SCOPE_KEY = "k"
COUNT_TOKENS_BUCKET = "t:count_tokens"

_PLANS_MAX = 10_000

_encode = msgspec.json.Encoder().encode


class Bucket(
    msgspec.Struct, frozen=True, kw_only=True, rename={"name": "f", "limit_per_minute": "limit"}
):
    """One rate: how fast it refills, how much a full one holds, how deep it may fall."""

    name: str
    kind: str
    limit_per_minute: int
    burst_us: int = msgspec.field(name="burst")
    debt_us: int = msgspec.field(name="debt", default=DEBT_US)

    def cost_us(self, units: int) -> int:
        """What a request of that many units takes, rounded up once for the whole request."""
        limit = self.limit_per_minute
        if limit <= 0:
            return self.burst_us + 1 if units > 0 else 0  # a limit of nothing fits nothing
        cost_us = -(-units * MINUTE_US // limit)
        return cost_us if cost_us < COST_US_MAX else COST_US_MAX

    def units_in(self, left_us: int) -> int:
        """How many units are left: exactly what would still be admitted now, never negative."""
        units, per_us = self.worth
        return left_us * units // per_us if left_us > 0 else 0

    @property
    def worth(self) -> tuple[int, int]:
        """What is left in microseconds is worth so many units for each so many of them."""
        if self.limit_per_minute <= 0:
            return 0, 1
        if self.kind == KIND_REQUESTS:
            return 1, self.cost_us(1)  # each is rounded by itself
        return self.limit_per_minute, MINUTE_US


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests of a scope may run at once."""

    name: str
    limit: int


@dataclass(frozen=True, kw_only=True)
class TenantKeys:
    """The names of a tenant's keys in Redis, all in one slot of a cluster."""

    buckets: str
    wallet: str
    budgets: str
    record_prefix: str
    open: str
    policy: str
    unposted: str
    stream: str
    slots: tuple[str, ...]

    @cached_property
    def before_record(self) -> tuple[str, ...]:
        """What scripts take before the record's key."""
        return self.buckets, self.wallet, self.budgets

    @cached_property
    def after_open_record(self) -> tuple[str, ...]:
        """What admission and beats take after it."""
        return self.open, self.policy, *self.slots

    @cached_property
    def after_ended_record(self) -> tuple[str, ...]:
        """What settlement takes after it."""
        return self.open, self.unposted, self.stream, *self.slots

    @cached_property
    def admission(self) -> PreparedCall:
        """The call of admission: the time, the spec and the base come with each request."""
        return self._call(ADMIT, self.after_open_record, args_count=3)

    @cached_property
    def settlement(self) -> PreparedCall:
        """The call of settlement: the time, the spec, the update and the event come with each."""
        return self._call(SETTLE, self.after_ended_record, args_count=4)

    def _call(self, script: Script, after: tuple[str, ...], *, args_count: int) -> PreparedCall:
        return PreparedCall(
            script,
            before=self.before_record,
            prefix=self.record_prefix,
            after=after,
            args_count=args_count,
        )


class Told(NamedTuple):
    """How a bucket is told of in headers: its limit, and the names of what each answer fills in.

    The rest is what these are worked out with: how much a full bucket holds, and `Bucket.worth`.
    """

    limit: tuple[bytes, bytes]
    remaining_name: bytes
    reset_name: bytes
    burst_us: int
    units: int
    per_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The limits that one key meets with one model; the same for many requests."""

    tenant: int
    buckets: tuple[Bucket, ...]
    slots: tuple[Slot, ...]
    budgets: tuple[tuple[str, Budget], ...]
    output_reserve_max: int | None
    keys: TenantKeys
    admission: PreparedCall  # those of its keys
    settlement: PreparedCall
    text: bytes  # tenant, slots and buckets as the spec's JSON has them
    is_flat: bool  # no two buckets are of one kind
    rates: tuple[tuple[str, int, int], ...]  # each bucket's name, kind's place in KINDS, and limit
    units_max: int  # of so many no cost is capped; -1: a bucket has a limit of nothing
    told: tuple[Told, ...]  # one for each bucket

    def charges(self, requests: int, input_tokens: int, output_tokens: int) -> dict[str, int]:
        """What a request of that many units takes from each bucket by name: `Bucket.cost_us`.

        Written out, since a call, of a comprehension too, costs as much as what it works out.
        """
        tokens = input_tokens + output_tokens
        units = (requests, tokens, input_tokens, output_tokens)
        if tokens <= self.units_max:
            charges = {}
            for name, kind, limit in self.rates:
                charges[name] = -(-units[kind] * MINUTE_US // limit)
            return charges
        return {
            bucket.name: bucket.cost_us(units[KINDS.index(bucket.kind)]) for bucket in self.buckets
        }


def limits_of(
    *,
    key: KeySnapshot,
    who: TenantWho,
    terms: TenantTerms,
    tier: TierSnapshot,
    model: ModelSnapshot,
) -> Plan:
    """All limits that a key meets with a model, from the widest scope to the narrowest."""
    group = model.limit_group
    workspace = who.workspaces.get(str(key.workspace))
    workspace_scope, key_scope = f"{SCOPE_WORKSPACE}{key.workspace}", f"{SCOPE_KEY}{key.key}"
    scopes = [(SCOPE_TENANT, terms.overrides.over(tier.limits))]
    if group:
        own = terms.group_overrides.get(group, Limits())
        scopes.append((SCOPE_GROUP + group, own.over(tier.group_limits.get(group, Limits()))))
    if workspace is not None:
        scopes.append((workspace_scope, workspace.limits))
    scopes.append((key_scope, key.limits))
    budgets = [(SCOPE_TENANT, budget) for budget in who.budgets]
    if workspace is not None:
        budgets += [(workspace_scope, budget) for budget in workspace.budgets]
    budgets += [(key_scope, budget) for budget in key.budgets]
    return make_plan(
        tenant=key.tenant,
        buckets=tuple(bucket for name, limits in scopes for bucket in _buckets_of(name, limits)),
        slots=tuple(
            Slot(name=name, limit=limits.concurrency)
            for name, limits in scopes
            if limits.concurrency is not None
        ),
        budgets=tuple(budgets),
        output_reserve_max=tier.output_reserve_max,
    )


def make_bucket(
    *, name: str, kind: str, limit_per_minute: int, burst_seconds: int | None
) -> Bucket:
    """A bucket that holds `burst_seconds` worth of its limit, and at least one request."""
    seconds = min(burst_seconds or BURST_SECONDS, BURST_SECONDS_MAX)
    bucket = Bucket(
        name=name, kind=kind, limit_per_minute=limit_per_minute, burst_us=seconds * 1_000_000
    )
    if kind != KIND_REQUESTS or limit_per_minute <= 0:
        return bucket
    # Each request is rounded up by itself; a full bucket holds the whole limit all the same.
    requests = max(1, limit_per_minute * seconds // 60)
    return msgspec.structs.replace(
        bucket, burst_us=max(bucket.burst_us, requests * bucket.cost_us(1))
    )


@lru_cache(maxsize=_PLANS_MAX)
def count_tokens_plan(tenant: int, limit_per_minute: int) -> Plan:
    """The one bucket that counting tokens takes from."""
    bucket = make_bucket(
        name=COUNT_TOKENS_BUCKET,
        kind=KIND_REQUESTS,
        limit_per_minute=limit_per_minute,
        burst_seconds=None,
    )
    return make_plan(
        tenant=tenant, buckets=(bucket,), slots=(), budgets=(), output_reserve_max=None
    )


def _buckets_of(scope: str, limits: Limits) -> list[Bucket]:
    per_minute: Mapping[str, int | None] = {
        KIND_REQUESTS: limits.requests_per_minute,
        KIND_TOKENS: limits.tokens_per_minute,
        KIND_INPUT: limits.input_tokens_per_minute,
        KIND_OUTPUT: limits.output_tokens_per_minute,
    }
    return [
        make_bucket(
            name=f"{scope}:{kind}",
            kind=kind,
            limit_per_minute=limit,
            burst_seconds=limits.burst_seconds,
        )
        for kind, limit in per_minute.items()
        if limit is not None
    ]


@lru_cache(maxsize=_PLANS_MAX)
def _keys_of(tenant: int, slots: tuple[str, ...]) -> TenantKeys:
    shard = keyspace.shard_of(tenant)
    return TenantKeys(
        buckets=keyspace.buckets(tenant),
        wallet=keyspace.wallet(tenant),
        budgets=keyspace.budgets(tenant),
        record_prefix=keyspace.record(tenant, ""),
        open=keyspace.open_requests(shard),
        policy=keyspace.policy(shard),
        unposted=keyspace.unposted(shard),
        stream=keyspace.usage_stream(shard),
        slots=tuple(keyspace.slots(tenant, name) for name in slots),
    )


def _told_of(bucket: Bucket) -> Told:
    prefix = b"anthropic-ratelimit-%b-" % bucket.kind.replace("_", "-").encode()
    limit = (prefix + b"limit", b"%d" % bucket.limit_per_minute)
    return Told(limit, prefix + b"remaining", prefix + b"reset", bucket.burst_us, *bucket.worth)


def make_plan(
    *,
    tenant: int,
    buckets: tuple[Bucket, ...],
    slots: tuple[Slot, ...],
    budgets: tuple[tuple[str, Budget], ...],
    output_reserve_max: int | None,
) -> Plan:
    """A plan of limits given one by one."""
    keys = _keys_of(tenant, tuple(slot.name for slot in slots))
    text = b'{"schema":%d,"tid":"%d","slots":%b,"buckets":%b' % (
        SCHEMA,
        tenant,
        _encode(slots),
        _encode(buckets),
    )
    limits = [bucket.limit_per_minute for bucket in buckets] or [1]
    return Plan(
        tenant=tenant,
        buckets=buckets,
        slots=slots,
        budgets=budgets,
        output_reserve_max=output_reserve_max,
        keys=keys,
        admission=keys.admission,
        settlement=keys.settlement,
        text=text,
        is_flat=len({bucket.kind for bucket in buckets}) == len(buckets),
        rates=tuple(
            (bucket.name, KINDS.index(bucket.kind), bucket.limit_per_minute) for bucket in buckets
        ),
        units_max=-1 if min(limits) <= 0 else COST_US_MAX * min(limits) // MINUTE_US,
        told=tuple(map(_told_of, buckets)),
    )
