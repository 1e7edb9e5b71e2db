"""What one request asks of the limiter, and what it takes from each limit, before and after."""

import msgspec

from proxy.limiter.plans import (
    SCHEMA,
    Bucket,
    Plan,
    Slot,
    count_tokens_plan,
    make_plan,
)
from turnpike.contracts.snapshots import (
    PERIOD_DAY,
    Budget,
    KeySnapshot,
    TierSnapshot,
)
from turnpike.kernel import clock


class BudgetCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A blocking budget of one scope in the period that the request falls into."""

    scope: str
    field: str = msgspec.field(name="f")
    limit_micro: int = msgspec.field(name="limit")


class Spec(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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
        plan = make_plan(
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
            self.rid,
            self.plan,
            self.lease_ms,
            hold_micro,
            self.costs_us,
            self.budgets,
            self.tenant_version,
            self.global_version,
            self.input_estimate,
            self.output_reserve,
            self.base,
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


def build_spec(
    *,
    rid: str,
    plan: Plan,
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
    reserve, reserve_max = max_tokens, plan.output_reserve_max
    if reserve_max is not None and reserve > reserve_max:
        reserve = reserve_max
    return _make_spec(
        rid,
        plan,
        lease_ms,
        hold_micro,
        tuple(plan.charges(1, input_estimate, reserve).values()),
        _checks_of(plan.budgets, at_us=at_us) if plan.budgets else (),
        tenant_version,
        global_version,
        input_estimate,
        reserve,
        base,
    )


def spec_count_tokens(
    *, rid: str, key: KeySnapshot, tier: TierSnapshot, tenant_version: int, global_version: int
) -> Spec:
    """Counting tokens has a requests bucket of its own: no slot, no tokens, no money, no record."""
    plan = count_tokens_plan(key.tenant, tier.count_tokens_per_minute)
    costs_us = (plan.buckets[0].cost_us(1),)
    return _make_spec(rid, plan, 0, 0, costs_us, (), tenant_version, global_version, 0, 0, b"")


def running_charges(spec: Spec, *, input_tokens: int, output_tokens: int) -> dict[str, int]:
    """What each bucket has to bear while an answer comes in, in absolute microseconds.

    `input_tokens` is what the upstream counted, with cache writes and without cache reads. Output
    counts as reserved until more than that has come.
    """
    return spec.plan.charges(1, input_tokens, max(output_tokens, spec.output_reserve))


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
        return spec.plan.charges(0 if is_request_given_back else 1, 0, 0)
    return spec.plan.charges(1, input_tokens, output_tokens)


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


def _make_spec(
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
