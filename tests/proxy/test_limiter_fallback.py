"""The share that one worker gives out by itself: to whom, how much, for how long."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from proxy.limiter import fallback as fallback_module
from proxy.limiter.fallback import LocalLimiter
from proxy.limiter.limits import Spec
from tests.proxy.limiter_world import spec_of
from turnpike.contracts.snapshots import (
    Budget,
    KeySnapshot,
    Limits,
    ModelSnapshot,
    TenantTerms,
    TenantWho,
    TierSnapshot,
)

CAP_MICRO = 1_000_000
GOOD = TenantTerms(tier="t", book=1, is_in_good_standing=True, balance_micro=2 * CAP_MICRO)
MakeSpec = Callable[..., Spec]


@dataclass
class Outage:
    """A fallback whose time and neighbours a test decides."""

    now: float = 100.0
    workers: int = 2
    fallback: LocalLimiter = field(init=False)

    def __post_init__(self) -> None:
        self.fallback = LocalLimiter(
            cap_micro=CAP_MICRO, live_workers=lambda: self.workers, monotonic=lambda: self.now
        )


@pytest.fixture
def outage() -> Outage:
    """Redis has just gone away; two workers live."""
    return Outage()


@pytest.fixture
def make_spec() -> MakeSpec:
    """Make the next request of a tenant."""
    numbers = iter(range(1_000))

    def make(
        *,
        limits: Limits | None = None,
        tenant: int = 42,
        hold_micro: int = 10,
        tokens: int = 10,
        budgets: tuple[Budget, ...] = (),
    ) -> Spec:
        return spec_of(
            rid=f"r{next(numbers)}",
            key=KeySnapshot(key=9, key_id="k", tenant=tenant, workspace=7, budgets=budgets),
            who=TenantWho(tenant_id="ten_1"),
            terms=GOOD,
            tier=TierSnapshot(tier="t", name="T", limits=limits or Limits()),
            model=ModelSnapshot(model="m", display_name="M"),
            input_estimate=tokens,
            max_tokens=0,
            hold_micro=hold_micro,
            base=b"{}",
            tenant_version=1,
            global_version=1,
            lease_ms=30_000,
            at_us=0,
        )

    return make


def test_a_share_is_half_of_the_limit_divided_by_the_workers(
    outage: Outage, make_spec: MakeSpec
) -> None:
    outage.workers = 3
    limits = Limits(requests_per_minute=50)

    granted = [outage.fallback.admit(make_spec(limits=limits), GOOD) for _ in range(12)]
    outage.now += 59.9
    later = outage.fallback.admit(make_spec(limits=limits), GOOD)

    assert granted == [True] * 8 + [False] * 4
    assert later is False


def test_tokens_count_like_requests(outage: Outage, make_spec: MakeSpec) -> None:
    limits = Limits(tokens_per_minute=1_000)

    assert outage.fallback.admit(make_spec(limits=limits, tokens=251), GOOD) is False
    assert outage.fallback.admit(make_spec(limits=limits, tokens=250), GOOD) is True
    assert outage.fallback.admit(make_spec(limits=limits, tokens=1), GOOD) is False


def test_slots_are_shared_out_and_come_back(outage: Outage, make_spec: MakeSpec) -> None:
    limits = Limits(concurrency=8)
    specs = [make_spec(limits=limits) for _ in range(3)]

    granted = [outage.fallback.admit(spec, GOOD) for spec in specs]
    outage.fallback.settle(specs[0], amount_micro=5)
    again = outage.fallback.admit(make_spec(limits=limits), GOOD)

    assert granted == [True, True, False]
    assert again is True


def test_no_more_than_the_cap_is_given_out_until_redis_has_heard_of_it(
    outage: Outage, make_spec: MakeSpec
) -> None:
    first = make_spec(hold_micro=600_000)
    assert outage.fallback.admit(first, GOOD) is True
    assert outage.fallback.admit(make_spec(hold_micro=400_001), GOOD) is False

    outage.fallback.settle(first, amount_micro=100_000)
    assert outage.fallback.admit(make_spec(hold_micro=900_001), GOOD) is False
    assert outage.fallback.admit(make_spec(hold_micro=900_000), GOOD) is True
    outage.fallback.forget(first)

    assert outage.fallback.admit(make_spec(hold_micro=100_000), GOOD) is True
    assert outage.fallback.admit(make_spec(hold_micro=1), GOOD) is False


@pytest.mark.parametrize(
    "terms",
    [
        TenantTerms(tier="t", book=1, is_in_good_standing=False, balance_micro=10**9),
        TenantTerms(tier="t", book=1, is_in_good_standing=True, balance_micro=2 * CAP_MICRO - 1),
    ],
)
def test_who_may_not_pay_gets_nothing(
    outage: Outage, make_spec: MakeSpec, terms: TenantTerms
) -> None:
    assert outage.fallback.admit(make_spec(), terms) is False


def test_who_has_a_blocking_budget_gets_nothing(outage: Outage, make_spec: MakeSpec) -> None:
    budgets = (Budget(period="day", limit_micro=10**9),)

    assert outage.fallback.admit(make_spec(budgets=budgets), GOOD) is False


def test_an_outage_is_bridged_for_a_minute(outage: Outage, make_spec: MakeSpec) -> None:
    assert outage.fallback.admit(make_spec(), GOOD) is True
    outage.now += 59.9
    assert outage.fallback.admit(make_spec(), GOOD) is True
    outage.now += 0.1
    assert outage.fallback.admit(make_spec(), GOOD) is False
    outage.now += 3_600
    assert outage.fallback.admit(make_spec(), GOOD) is False


def test_the_next_outage_gives_a_new_share_but_not_within_the_same_minute(
    outage: Outage, make_spec: MakeSpec
) -> None:
    limits = Limits(requests_per_minute=4)
    assert outage.fallback.admit(make_spec(limits=limits), GOOD) is True

    outage.fallback.note_answer(42)
    outage.now += 30
    flapping = outage.fallback.admit(make_spec(limits=limits), GOOD)
    outage.fallback.note_answer(42)
    outage.now += 30
    anew = outage.fallback.admit(make_spec(limits=limits), GOOD)

    assert flapping is False
    assert anew is True


def test_an_answer_from_redis_clears_what_is_delivered_and_old(
    outage: Outage, make_spec: MakeSpec
) -> None:
    spec = make_spec()
    outage.fallback.admit(spec, GOOD)
    outage.now += 61
    outage.fallback.note_answer(42)
    kept = len(outage.fallback.shares)

    outage.fallback.settle(spec, amount_micro=3)
    outage.fallback.forget(spec)
    outage.fallback.note_answer(42)

    assert kept == 1
    assert outage.fallback.shares == {}


def test_tenants_are_bounded_and_apart(
    outage: Outage, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fallback_module, "TENANTS_MAX", 2)
    limits = Limits(requests_per_minute=4)

    granted = [
        outage.fallback.admit(make_spec(limits=limits, tenant=tenant), GOOD)
        for tenant in (1, 1, 2, 3)
    ]

    assert granted == [True, False, True, False]


def test_what_it_never_saw_is_settled_elsewhere(outage: Outage, make_spec: MakeSpec) -> None:
    spec = make_spec()

    outage.fallback.settle(spec, amount_micro=3)
    outage.fallback.forget(spec)
    outage.fallback.note_answer(42)

    assert outage.fallback.admit(make_spec(hold_micro=CAP_MICRO), GOOD) is True
