"""Which limits a request meets, what it takes from them, what it gives back: without Redis."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.limiter.limits import Spec, running_charges, settle_charges
from proxy.limiter.plans import COST_US_MAX, KIND_REQUESTS, KIND_TOKENS, limits_of, make_bucket
from tests.proxy.limiter_world import spec_of
from turnpike.contracts.snapshots import (
    Budget,
    KeySnapshot,
    Limits,
    ModelSnapshot,
    TenantTerms,
    TenantWho,
    TierSnapshot,
    WorkspaceSnapshot,
)

NOON_US = 1_795_262_400_000_000  # 2026-11-21T12:00:00Z

KEY = KeySnapshot(
    key=9,
    key_id="apikey_1",
    tenant=42,
    workspace=7,
    limits=Limits(tokens_per_minute=500),
    budgets=(Budget(period="day", limit_micro=5),),
)
WHO = TenantWho(
    tenant_id="ten_1",
    workspaces={
        "7": WorkspaceSnapshot(
            workspace_id="wrkspc_1",
            limits=Limits(concurrency=2),
            budgets=(Budget(period="month", limit_micro=6),),
        )
    },
    budgets=(Budget(period="month", limit_micro=7),),
)
TERMS = TenantTerms(
    tier="basic",
    book=1,
    overrides=Limits(requests_per_minute=70),
    group_overrides={"opus": Limits(burst_seconds=10)},
)
TIER = TierSnapshot(
    tier="basic",
    name="Basic",
    limits=Limits(requests_per_minute=50, tokens_per_minute=100_000, concurrency=10),
    group_limits={"opus": Limits(output_tokens_per_minute=6_000)},
)
MODEL = ModelSnapshot(model="opus-5", display_name="Opus 5", limit_group="opus")


def make_spec(**changes: object) -> Spec:
    """A spec of the key above for a small request."""
    arguments = {
        "rid": "0193-1",
        "key": KEY,
        "who": WHO,
        "terms": TERMS,
        "tier": TIER,
        "model": MODEL,
        "input_estimate": 100,
        "max_tokens": 128_000,
        "hold_micro": 1_000,
        "base": b"{}",
        "tenant_version": 1,
        "global_version": 2,
        "lease_ms": 30_000,
        "at_us": NOON_US,
    }
    return spec_of(**{**arguments, **changes})


def test_every_scope_adds_the_limits_that_are_set_for_it() -> None:
    plan = limits_of(key=KEY, who=WHO, terms=TERMS, tier=TIER, model=MODEL)

    assert [(bucket.name, bucket.kind, bucket.limit_per_minute) for bucket in plan.buckets] == [
        ("t:requests", "requests", 70),
        ("t:tokens", "tokens", 100_000),
        ("g:opus:output_tokens", "output_tokens", 6_000),
        ("k9:tokens", "tokens", 500),
    ]
    assert [bucket.burst_us for bucket in plan.buckets][2:] == [10_000_000, 60_000_000]
    assert [(slot.name, slot.limit) for slot in plan.slots] == [("t", 10), ("w7", 2)]
    assert [(scope, budget.limit_micro) for scope, budget in plan.budgets] == [
        ("t", 7),
        ("w7", 6),
        ("k9", 5),
    ]


def test_a_model_without_a_group_meets_no_group_limit() -> None:
    model = ModelSnapshot(model="haiku", display_name="Haiku")

    plan = limits_of(key=KEY, who=WHO, terms=TERMS, tier=TIER, model=model)

    assert [bucket.name for bucket in plan.buckets] == ["t:requests", "t:tokens", "k9:tokens"]


def test_the_reservation_is_the_estimate_and_a_capped_output() -> None:
    spec = make_spec()

    assert spec.output_reserve == 4_096
    costs = dict(zip([bucket.name for bucket in spec.buckets], spec.costs_us, strict=True))
    assert costs == {
        "t:requests": 857_143,
        "t:tokens": 4_196 * 600,
        "g:opus:output_tokens": 4_096 * 10_000,
        "k9:tokens": 4_196 * 120_000,
    }


def test_the_strict_mode_reserves_all_of_max_tokens() -> None:
    strict = msgspec.convert(
        {"tier": "strict", "name": "Strict", "limits": {}, "output_reserve_max": None}, TierSnapshot
    )

    assert make_spec(tier=strict).output_reserve == 128_000
    assert make_spec(max_tokens=7).output_reserve == 7


def test_budgets_look_at_the_day_and_the_month_of_the_request() -> None:
    spec = make_spec(at_us=NOON_US + 12 * 3_600_000_000)

    assert [(check.scope, check.field, check.limit_micro) for check in spec.budgets] == [
        ("t", "s:t:2026-11", 7),
        ("w7", "s:w7:2026-11", 6),
        ("k9", "s:k9:2026-11-22", 5),
    ]


def test_a_spec_comes_back_from_its_json() -> None:
    spec = make_spec()

    back = Spec.from_json(spec.to_json(), base=b"{}")

    assert back.to_json() == spec.to_json()
    assert (back.rid, back.hold_micro, back.lease_ms) == (spec.rid, spec.hold_micro, 30_000)
    assert (back.buckets, back.slots, back.budgets) == (spec.buckets, spec.slots, spec.budgets)
    assert back.costs_us == spec.costs_us
    assert back.plan.keys == spec.plan.keys
    assert (back.tenant_version, back.global_version) == (1, 2)
    assert (back.input_estimate, back.output_reserve) == (100, 4_096)
    charges = settle_charges(spec, input_tokens=1, output_tokens=2)
    assert settle_charges(back, input_tokens=1, output_tokens=2) == charges


def test_a_spec_of_a_newer_release_is_read_and_nonsense_is_refused() -> None:
    newer = make_spec().to_json().replace(b'{"schema":1', b'{"news":[1],"schema":2')

    assert Spec.from_json(newer).rid == "0193-1"
    for text in (b"", b"{}", b"[]", b'{"tid":7}'):
        with pytest.raises(ValueError, match="Not a spec"):
            Spec.from_json(text)


def test_with_hold_changes_the_hold_alone() -> None:
    spec = make_spec()

    other = spec.with_hold(77)

    assert spec.with_hold(spec.hold_micro) is spec
    assert other.hold_micro == 77
    assert other.to_json() == spec.to_json().replace(b'"hold":1000', b'"hold":77')
    assert other.base == spec.base


def test_output_counts_as_reserved_until_more_has_come() -> None:
    spec = make_spec(max_tokens=1_000)

    begun = running_charges(spec, input_tokens=50, output_tokens=1)
    grown = running_charges(spec, input_tokens=50, output_tokens=1_500)
    ended = settle_charges(spec, input_tokens=50, output_tokens=400)

    assert begun["t:tokens"] == 1_050 * 600
    assert grown["t:tokens"] == 1_550 * 600
    assert ended["t:tokens"] == 450 * 600
    assert ended["g:opus:output_tokens"] == 400 * 10_000
    assert begun["t:requests"] == ended["t:requests"] == spec.costs_us[0]


@pytest.mark.parametrize(("is_given_back", "requests_us"), [(True, 0), (False, 857_143)])
def test_a_void_request_uses_no_tokens(is_given_back: bool, requests_us: int) -> None:
    charges = settle_charges(
        make_spec(),
        input_tokens=0,
        output_tokens=0,
        is_void=True,
        is_request_given_back=is_given_back,
    )

    assert charges == {
        "t:requests": requests_us,
        "t:tokens": 0,
        "g:opus:output_tokens": 0,
        "k9:tokens": 0,
    }


def test_a_limit_of_zero_admits_nothing() -> None:
    bucket = make_bucket(name="x", kind=KIND_REQUESTS, limit_per_minute=0, burst_seconds=None)

    assert bucket.cost_us(1) > bucket.burst_us
    assert bucket.cost_us(0) == 0
    assert bucket.units_in(bucket.burst_us) == 0


def test_a_small_burst_still_holds_one_request() -> None:
    bucket = make_bucket(name="x", kind=KIND_REQUESTS, limit_per_minute=1, burst_seconds=10)

    assert bucket.burst_us == bucket.cost_us(1) == 60_000_000


@given(
    limit=st.integers(min_value=1, max_value=10**9), units=st.integers(min_value=0, max_value=10**9)
)
def test_costs_are_rounded_up_once_by_less_than_a_microsecond(limit: int, units: int) -> None:
    bucket = make_bucket(name="x", kind=KIND_TOKENS, limit_per_minute=limit, burst_seconds=None)

    cost = bucket.cost_us(units)

    if cost < COST_US_MAX:
        assert 0 <= cost * limit - units * 60_000_000 < limit
    assert bucket.units_in(bucket.burst_us) == limit
    assert bucket.units_in(-1) == 0


@given(limit=st.integers(min_value=1, max_value=10**6), burst_seconds=st.integers(1, 10**6))
def test_a_bucket_is_over_before_redis_forgets_it(limit: int, burst_seconds: int) -> None:
    """The hash lives an hour, so nothing in it may lie further ahead."""
    for kind in (KIND_TOKENS, KIND_REQUESTS):
        bucket = make_bucket(
            name="x", kind=kind, limit_per_minute=limit, burst_seconds=burst_seconds
        )
        slack_us = limit if kind == KIND_REQUESTS else 0
        assert bucket.burst_us <= 1_800 * (1_000_000 + slack_us)
        if limit <= 60_000:
            assert bucket.burst_us + bucket.debt_us <= 3_600_000_000
