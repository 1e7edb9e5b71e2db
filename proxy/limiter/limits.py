"""Which limits a request meets, as plain values; what it takes from each, before and after.

A bucket is GCRA: a request of n units costs ceil(n x 60,000,000 / limit) microseconds, so that all
arithmetic is in whole numbers. Scopes nest: tenant, model group, workspace, key; each adds what is
set for it, and the script takes from all of them or from none. docs/limits.md has worked numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from turnpike.contracts.snapshots import (
    PERIOD_DAY,
    Budget,
    KeySnapshot,
    Limits,
    ModelSnapshot,
    TenantTerms,
    TenantWho,
    TierSnapshot,
)
from turnpike.kernel import clock, keyspace

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
        if self.limit_per_minute <= 0:
            return self.burst_us + 1 if units > 0 else 0  # a limit of nothing fits nothing
        return min(-(-units * MINUTE_US // self.limit_per_minute), COST_US_MAX)

    def units_in(self, left_us: int) -> int:
        """How many units are left: exactly what would still be admitted now, never negative."""
        if left_us <= 0 or self.limit_per_minute <= 0:
            return 0
        if self.kind == KIND_REQUESTS:
            return left_us // self.cost_us(1)  # each is rounded by itself
        return left_us * self.limit_per_minute // MINUTE_US


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests of a scope may run at once."""

    name: str
    limit: int


class BudgetCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A blocking budget of one scope in the period that the request falls into."""

    scope: str
    field: str = msgspec.field(name="f")
    limit_micro: int = msgspec.field(name="limit")


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The limits that one key meets with one model; the same for many requests."""

    tenant: int
    buckets: tuple[Bucket, ...]
    slots: tuple[Slot, ...]
    budgets: tuple[tuple[str, Budget], ...]
    output_reserve_max: int | None
    keys: TenantKeys
    text: bytes  # tenant, slots and buckets as the spec's JSON has them


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What one request asks of the limiter, and what brings it back after a loss.

    A struct and not a dataclass, since one is made for every request.
    """

    rid: str
    plan: Plan
    lease_ms: int  # 0: no record, no slot, no money; only the buckets are taken from
    hold_micro: int
    costs_us: tuple[int, ...]  # one for each bucket
    budgets: tuple[BudgetCheck, ...]
    tenant_version: int
    global_version: int
    input_estimate: int
    output_reserve: int
    base: bytes
    text: bytes

    @property
    def tenant(self) -> int:
        """The tenant's number."""
        return self.plan.tenant

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """The buckets, in the order of the costs and of the script's answer."""
        return self.plan.buckets

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The scopes whose slots the request takes."""
        return self.plan.slots

    def to_json(self) -> bytes:
        """The spec as the scripts and the journal have it; `base` travels beside it."""
        return self.text

    @classmethod
    def from_json(cls, text: bytes | str, *, base: bytes = b"") -> "Spec":
        """A spec from the journal or a record. Raises ValueError for anything else."""
        data = text.encode() if isinstance(text, str) else text
        try:
            stored = _decode(data)
        except msgspec.DecodeError as error:
            raise ValueError(f"Not a spec: {error}") from error
        plan = _make_plan(
            tenant=int(stored.tid),
            buckets=stored.buckets,
            slots=stored.slots,
            budgets=(),
            output_reserve_max=None,
        )
        return cls(
            rid=stored.rid,
            plan=plan,
            lease_ms=stored.lease,
            hold_micro=stored.hold,
            costs_us=stored.costs,
            budgets=stored.budgets,
            tenant_version=int(stored.tv),
            global_version=int(stored.gv),
            input_estimate=stored.input,
            output_reserve=stored.reserve,
            base=base,
            text=data,
        )

    def with_hold(self, hold_micro: int) -> "Spec":
        """The same with the hold now in force: what a beat restores if Redis lost the record."""
        if hold_micro == self.hold_micro:
            return self
        return _make_spec(
            rid=self.rid,
            plan=self.plan,
            lease_ms=self.lease_ms,
            hold_micro=hold_micro,
            costs_us=self.costs_us,
            budgets=self.budgets,
            tenant_version=self.tenant_version,
            global_version=self.global_version,
            input_estimate=self.input_estimate,
            output_reserve=self.output_reserve,
            base=self.base,
        )


class _StoredSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON of a spec, as Spec.to_json writes it."""

    tid: str
    rid: str
    lease: int
    hold: int
    tv: str  # as text, since a double cannot tell large versions apart
    gv: str
    costs: tuple[int, ...]
    slots: tuple[Slot, ...]
    buckets: tuple[Bucket, ...]
    budgets: tuple[BudgetCheck, ...] = ()
    input: int = 0
    reserve: int = 0
    schema: int = SCHEMA


_decode = msgspec.json.Decoder(_StoredSpec).decode
_encode = msgspec.json.Encoder().encode


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
    return _make_plan(
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


class _Planned(msgspec.Struct, frozen=True):
    """A plan and the snapshots that it was made of."""

    sources: tuple[KeySnapshot, TenantWho, TenantTerms, TierSnapshot, ModelSnapshot]
    plan: Plan


_plans: dict[tuple[int, str], _Planned] = {}


def plan_of(
    *,
    key: KeySnapshot,
    who: TenantWho,
    terms: TenantTerms,
    tier: TierSnapshot,
    model: ModelSnapshot,
) -> Plan:
    """`limits_of`, remembered for as long as the very same snapshots come in."""
    name = (key.key, model.model)
    known = _plans.get(name)
    if known is not None:
        a, b, c, d, e = known.sources
        if a is key and b is who and c is terms and d is tier and e is model:
            return known.plan
    plan = limits_of(key=key, who=who, terms=terms, tier=tier, model=model)
    if len(_plans) >= _PLANS_MAX:
        _plans.clear()
    _plans[name] = _Planned((key, who, terms, tier, model), plan)
    return plan


def build_spec(
    *,
    rid: str,
    key: KeySnapshot,
    who: TenantWho,
    terms: TenantTerms,
    tier: TierSnapshot,
    model: ModelSnapshot,
    input_estimate: int,
    max_tokens: int,
    hold_micro: int,
    base: bytes,
    tenant_version: int,
    global_version: int,
    lease_ms: int,
    at_us: int,
) -> Spec:
    """What admission is asked for. `at_us` decides only which day and month a budget looks at."""
    assert lease_ms > 0
    assert hold_micro >= 0
    plan = plan_of(key=key, who=who, terms=terms, tier=tier, model=model)
    reserve_max = plan.output_reserve_max
    reserve = max_tokens if reserve_max is None else min(max_tokens, reserve_max)
    units = {
        KIND_REQUESTS: 1,
        KIND_TOKENS: input_estimate + reserve,
        KIND_INPUT: input_estimate,
        KIND_OUTPUT: reserve,
    }
    return _make_spec(
        rid=rid,
        plan=plan,
        lease_ms=lease_ms,
        hold_micro=hold_micro,
        costs_us=tuple([bucket.cost_us(units[bucket.kind]) for bucket in plan.buckets]),
        budgets=_checks_of(plan.budgets, at_us=at_us) if plan.budgets else (),
        tenant_version=tenant_version,
        global_version=global_version,
        input_estimate=input_estimate,
        output_reserve=reserve,
        base=base,
    )


def spec_count_tokens(
    *, rid: str, key: KeySnapshot, tier: TierSnapshot, tenant_version: int, global_version: int
) -> Spec:
    """Counting tokens has a requests bucket of its own: no slot, no tokens, no money, no record."""
    bucket = make_bucket(
        name=COUNT_TOKENS_BUCKET,
        kind=KIND_REQUESTS,
        limit_per_minute=tier.count_tokens_per_minute,
        burst_seconds=None,
    )
    plan = _make_plan(
        tenant=key.tenant, buckets=(bucket,), slots=(), budgets=(), output_reserve_max=None
    )
    return _make_spec(
        rid=rid,
        plan=plan,
        lease_ms=0,
        hold_micro=0,
        costs_us=(bucket.cost_us(1),),
        budgets=(),
        tenant_version=tenant_version,
        global_version=global_version,
        input_estimate=0,
        output_reserve=0,
        base=b"",
    )


def running_charges(spec: Spec, *, input_tokens: int, output_tokens: int) -> dict[str, int]:
    """What each bucket has to bear while an answer comes in, in absolute microseconds.

    `input_tokens` is what the upstream counted, with cache writes and without cache reads. Output
    counts as reserved until more than that has come.
    """
    return _charges(
        spec,
        requests=1,
        input_tokens=input_tokens,
        output_tokens=max(output_tokens, spec.output_reserve),
    )


def settle_charges(
    spec: Spec,
    *,
    input_tokens: int,
    output_tokens: int,
    is_void: bool = False,
    is_request_given_back: bool = False,
) -> dict[str, int]:
    """What each bucket has to bear at the end, in absolute microseconds.

    A void request used no tokens. Its place among the requests is given back only if platform or
    upstream caused the failure.
    """
    assert is_void or not is_request_given_back
    if is_void:
        return _charges(
            spec, requests=0 if is_request_given_back else 1, input_tokens=0, output_tokens=0
        )
    return _charges(spec, requests=1, input_tokens=input_tokens, output_tokens=output_tokens)


def _charges(spec: Spec, *, requests: int, input_tokens: int, output_tokens: int) -> dict[str, int]:
    units = {
        KIND_REQUESTS: requests,
        KIND_TOKENS: input_tokens + output_tokens,
        KIND_INPUT: input_tokens,
        KIND_OUTPUT: output_tokens,
    }
    return {bucket.name: bucket.cost_us(units[bucket.kind]) for bucket in spec.plan.buckets}


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


def _checks_of(budgets: tuple[tuple[str, Budget], ...], *, at_us: int) -> tuple[BudgetCheck, ...]:
    day = clock.datetime_of_us(at_us).strftime("%Y-%m-%d")
    return tuple(
        BudgetCheck(
            scope=scope,
            field=f"s:{scope}:{day if budget.period == PERIOD_DAY else day[:7]}",
            limit_micro=budget.limit_micro,
        )
        for scope, budget in budgets
    )


def _make_plan(
    *,
    tenant: int,
    buckets: tuple[Bucket, ...],
    slots: tuple[Slot, ...],
    budgets: tuple[tuple[str, Budget], ...],
    output_reserve_max: int | None,
) -> Plan:
    shard = keyspace.shard_of(tenant)
    keys = TenantKeys(
        buckets=keyspace.buckets(tenant),
        wallet=keyspace.wallet(tenant),
        budgets=keyspace.budgets(tenant),
        record_prefix=keyspace.record(tenant, ""),
        open=keyspace.open_requests(shard),
        policy=keyspace.policy(shard),
        unposted=keyspace.unposted(shard),
        stream=keyspace.usage_stream(shard),
        slots=tuple(keyspace.slots(tenant, slot.name) for slot in slots),
    )
    text = b'{"schema":%d,"tid":"%d","slots":%b,"buckets":%b' % (
        SCHEMA,
        tenant,
        _encode(slots),
        _encode(buckets),
    )
    return Plan(
        tenant=tenant,
        buckets=buckets,
        slots=slots,
        budgets=budgets,
        output_reserve_max=output_reserve_max,
        keys=keys,
        text=text,
    )


def _make_spec(
    *,
    rid: str,
    plan: Plan,
    lease_ms: int,
    hold_micro: int,
    costs_us: tuple[int, ...],
    budgets: tuple[BudgetCheck, ...],
    tenant_version: int,
    global_version: int,
    input_estimate: int,
    output_reserve: int,
    base: bytes,
) -> Spec:
    text = (
        b'%b,"rid":"%b","lease":%d,"hold":%d,"tv":"%d","gv":"%d","costs":%b,"budgets":%b,"input":%d,"reserve":%d}'
    ) % (
        plan.text,
        rid.encode(),
        lease_ms,
        hold_micro,
        tenant_version,
        global_version,
        _encode(costs_us),
        _encode(budgets) if budgets else b"[]",
        input_estimate,
        output_reserve,
    )
    return Spec(
        rid=rid,
        plan=plan,
        lease_ms=lease_ms,
        hold_micro=hold_micro,
        costs_us=costs_us,
        budgets=budgets,
        tenant_version=tenant_version,
        global_version=global_version,
        input_estimate=input_estimate,
        output_reserve=output_reserve,
        base=base,
        text=text,
    )
