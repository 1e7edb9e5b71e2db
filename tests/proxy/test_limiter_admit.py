"""Admission: everything at once or nothing, in one order, against the real script."""

from functools import partial
from typing import Any

import msgspec
import pytest
import redis

from proxy.limiter.limits import settle_charges, spec_count_tokens
from proxy.redis_pipe import RedisReplyError
from tests.proxy.limiter_world import (
    LEASE_MS,
    SECOND_US,
    START_US,
    TENANT,
    Asked,
    MakeWorld,
    published_world,
)
from turnpike.contracts.snapshots import Budget, KeySnapshot, Limits, TierSnapshot


@pytest.fixture
def make_world(redis_client: redis.Redis) -> MakeWorld:
    """Make a tenant in an empty Redis."""
    return partial(published_world, redis_client)


def test_a_granted_request_takes_from_every_limit_at_once(make_world: MakeWorld) -> None:
    budget = Budget(period="month", limit_micro=5_000)
    world = make_world(
        Asked(
            tenant=Limits(requests_per_minute=60, tokens_per_minute=60_000, concurrency=10),
            group=Limits(output_tokens_per_minute=6_000),
            workspace=Limits(concurrency=5),
            key=Limits(requests_per_minute=6),
            tenant_budgets=(budget,),
            key_budgets=(Budget(period="day", limit_micro=4_000),),
        )
    )
    spec = world.spec(input_estimate=100, max_tokens=50, hold_micro=1_000)

    admission = world.admit(spec)

    assert admission.is_granted
    assert admission.available_micro == 10**12 - 1_000
    taken = {
        "t:requests": 1_000_000,
        "t:tokens": 150_000,
        "g:opus:output_tokens": 500_000,
        "k9:requests": 10_000_000,
    }
    assert [bucket.name for bucket in spec.buckets] == list(taken)
    assert {name: world.tat(name) - START_US for name in taken} == taken
    assert admission.remaining_us == tuple(60_000_000 - cost for cost in taken.values())
    ends_ms = START_US // 1_000 + LEASE_MS
    for scope in ("t", "w7"):
        leases = world.client.zrange(f"tp:{{s0}}:c:42:{scope}", 0, -1, withscores=True)
        assert leases == [(spec.rid.encode(), ends_ms)]
    assert world.client.zscore(world.keys.open, f"42|{spec.rid}") == ends_ms
    assert world.held() == 1_000
    assert world.client.hmget(world.keys.budgets, "h:t", "h:k9") == [b"1000", b"1000"]
    record = world.record(spec)
    assert (
        record.items()
        >= {
            "st": "open",
            "schema": "1",
            "hold": "1000",
            "at": str(START_US),
            "tid": "42",
            "rid": spec.rid,
            "scopes": "t,k9",
            "slots": "t,w7",
            "spec": spec.to_json().decode(),
            "base": '{"model":"opus-5"}',
            "b:t:requests": "1000000",
            "b:g:opus:output_tokens": "500000",
        }.items()
    )


def test_the_order_is_policy_slots_rates_budgets_credit(make_world: MakeWorld) -> None:
    asked = Asked(
        tenant=Limits(requests_per_minute=1, concurrency=1),
        tenant_budgets=(Budget(period="month", limit_micro=1_000),),
    )
    world = make_world(asked, posted_micro=1_000)
    assert world.admit(world.spec(hold_micro=1_000)).is_granted

    def reason(*, without: Limits | None = None, **changes: Any) -> str:
        limits = asked.tenant if without is None else without.over(asked.tenant)
        budgets = changes.pop("budgets", asked.tenant_budgets)
        now = Asked(tenant=limits, tenant_budgets=budgets)
        return world.admit(world.spec(asked=now, **changes)).reason

    free_slot = Limits(concurrency=2)
    free_rate = Limits(concurrency=2, requests_per_minute=1_000)
    big_budget = (Budget(period="month", limit_micro=10**9),)
    assert reason(tenant_version=4) == "policy"
    assert reason() == "concurrency:t"
    assert reason(without=free_slot) == "rate:t:requests"
    world.now_us += 61 * SECOND_US
    assert reason(without=Limits(concurrency=3)) == "budget:s:t:2026-11"
    assert reason(without=free_rate, budgets=big_budget) == "credit"


@pytest.mark.parametrize("stale", [{"tenant_version": 4}, {"global_version": 8}])
def test_another_policy_version_refuses_and_keeps_nothing(
    make_world: MakeWorld, stale: dict[str, Any]
) -> None:
    world = make_world()
    before = world.everything()

    admission = world.admit(world.spec(**stale))

    assert admission.is_policy_stale
    assert not admission.is_granted
    assert world.everything() == before


def test_a_raised_version_holds_from_the_next_request(make_world: MakeWorld) -> None:
    world = make_world()
    assert world.admit(world.spec()).is_granted

    world.client.hset(world.keys.policy, str(TENANT), 6)

    assert world.admit(world.spec()).is_policy_stale
    assert world.admit(world.spec(tenant_version=6)).is_granted


def test_versions_beyond_a_double_are_told_apart(make_world: MakeWorld) -> None:
    world = make_world()
    world.client.hset(world.keys.policy, str(TENANT), 2**53 + 1)

    assert world.admit(world.spec(tenant_version=2**53)).is_policy_stale
    assert world.admit(world.spec(tenant_version=2**53 + 1)).is_granted


def test_a_tenant_without_a_version_is_stale(make_world: MakeWorld) -> None:
    world = make_world()
    world.client.hdel(world.keys.policy, str(TENANT))

    assert world.admit(world.spec()).is_policy_stale


def test_a_shard_is_cold_until_it_is_published(make_world: MakeWorld) -> None:
    world = make_world()
    world.client.delete(world.keys.policy)

    admission = world.admit(world.spec())

    assert admission.is_cold
    assert not admission.is_tenant_cold
    assert admission.wait_us == SECOND_US
    assert world.client.exists(world.keys.open) == 0


def test_a_shard_is_cold_behind_its_fence_and_says_for_how_long(make_world: MakeWorld) -> None:
    world = make_world()
    opens_at_us = START_US + 15 * SECOND_US
    world.client.hset(world.keys.policy, "opens_at_ms", opens_at_us // 1_000)

    admission = world.admit(world.spec())
    world.now_us = opens_at_us - 1
    last = world.admit(world.spec())
    world.now_us = opens_at_us
    first = world.admit(world.spec())

    assert (admission.is_cold, admission.wait_us) == (True, 15 * SECOND_US)
    assert last.is_cold
    assert first.is_granted


def test_a_missing_wallet_refuses_as_cold_for_this_tenant(make_world: MakeWorld) -> None:
    world = make_world()
    world.client.delete(world.keys.wallet)

    admission = world.admit(world.spec())

    assert (admission.reason, admission.is_cold, admission.is_tenant_cold) == ("wallet", True, True)
    assert world.client.exists(world.keys.wallet, world.keys.buckets, world.keys.open) == 0


def test_unpublished_budgets_refuse_as_cold_for_this_tenant(make_world: MakeWorld) -> None:
    world = make_world(Asked(tenant_budgets=(Budget(period="day", limit_micro=10**6),)))
    world.client.hdel(world.keys.budgets, "ver")

    admission = world.admit(world.spec())

    assert (admission.reason, admission.is_tenant_cold) == ("budgets", True)
    assert world.held() == 0


def test_credit_for_five_admits_five_and_the_sixth_changes_nothing(make_world: MakeWorld) -> None:
    world = make_world(Asked(), posted_micro=5_999)

    granted = [world.admit(world.spec(hold_micro=1_000)).is_granted for _ in range(5)]
    before = world.everything()
    refused = world.admit(world.spec(hold_micro=1_000))

    assert granted == [True] * 5
    assert (refused.reason, refused.available_micro) == ("credit", 999)
    assert world.everything() == before


def test_a_credit_line_counts_as_credit(make_world: MakeWorld) -> None:
    world = make_world(Asked())
    world.publish(posted_micro=-500, version=2, limit_micro=1_500)

    assert world.admit(world.spec(hold_micro=1_001)).reason == "credit"
    assert world.admit(world.spec(hold_micro=1_000)).is_granted


def test_a_budget_counts_what_was_spent_in_its_period_and_what_is_held(
    make_world: MakeWorld,
) -> None:
    world = make_world(Asked(key_budgets=(Budget(period="day", limit_micro=10_000),)))
    world.publish(
        posted_micro=10**12, version=2, spent={"k9:2026-11-21": 7_000, "k9:2026-11-20": 10**9}
    )
    assert world.admit(world.spec(hold_micro=2_000)).is_granted

    refused = world.admit(world.spec(hold_micro=1_001))
    granted = world.admit(world.spec(hold_micro=1_000))

    assert (refused.reason, refused.available_micro) == ("budget:s:k9:2026-11-21", 1_000)
    assert granted.is_granted


def test_what_can_never_fit_is_refused_as_oversize(make_world: MakeWorld) -> None:
    world = make_world(Asked(tenant=Limits(tokens_per_minute=1_000)))

    fits = world.admit(world.spec(input_estimate=900, max_tokens=100))
    never = world.admit(world.spec(input_estimate=901, max_tokens=100))

    assert fits.is_granted
    assert (never.reason, never.wait_us) == ("oversize:t:tokens", 0)


def test_the_longest_wait_of_all_buckets_is_told(make_world: MakeWorld) -> None:
    world = make_world(
        Asked(tenant=Limits(requests_per_minute=60), key=Limits(requests_per_minute=6))
    )
    for _ in range(6):
        assert world.admit(world.spec()).is_granted

    refused = world.admit(world.spec())

    assert (refused.reason, refused.wait_us) == ("rate:k9:requests", 10 * SECOND_US)
    assert refused.remaining_us == (54 * SECOND_US, 0)


def test_a_repeated_question_is_answered_from_the_record(make_world: MakeWorld) -> None:
    world = make_world()
    spec = world.spec()
    first = world.admit(spec)
    before = world.everything()

    second = world.admit(spec)
    after = world.everything()
    world.settle(spec)
    third = world.admit(spec)

    assert first.is_granted
    assert second.is_granted
    assert second.is_known
    assert second.remaining_us == first.remaining_us
    assert after == before
    assert (third.is_known, third.reason, third.is_granted) == (True, "settled", False)
    assert world.held() == 0


def test_counting_tokens_takes_from_its_own_bucket_alone(make_world: MakeWorld) -> None:
    world = make_world(posted_micro=0)
    tier = TierSnapshot(tier="t", name="T", limits=Limits(), count_tokens_per_minute=2)
    key = KeySnapshot(key=9, key_id="apikey_1", tenant=TENANT, workspace=7)

    answers = [
        world.admit(
            spec_count_tokens(
                rid=world.new_rid(), key=key, tier=tier, tenant_version=5, global_version=9
            )
        )
        for _ in range(3)
    ]

    assert [answer.reason for answer in answers] == ["ok", "ok", "rate:t:count_tokens"]
    assert answers[2].wait_us == 30 * SECOND_US
    assert set(world.client.hkeys(world.keys.buckets)) == {b"t:count_tokens", b"z:t:count_tokens"}
    assert world.client.keys("*:r:*") == []
    assert world.client.exists(world.keys.open) == 0


@pytest.mark.parametrize("cost", [b"-1", b"0.5", b"1e400", b'"7"', b"null", b"9007199254740993"])
def test_costs_that_are_no_whole_numbers_are_refused(make_world: MakeWorld, cost: bytes) -> None:
    world = make_world(Asked(tenant=Limits(requests_per_minute=60)))
    spec = world.spec()
    before = world.everything()
    wrong = msgspec.structs.replace(
        spec, text=spec.text.replace(b'"costs":[1000000]', b'"costs":[%b]' % cost)
    )
    assert wrong.text != spec.text

    with pytest.raises(RedisReplyError, match="cost"):
        world.admit(wrong)

    assert world.everything() == before


def test_a_negative_hold_is_refused(make_world: MakeWorld) -> None:
    world = make_world()
    spec = world.spec(hold_micro=1_000)
    wrong = msgspec.structs.replace(spec, text=spec.text.replace(b'"hold":1000', b'"hold":-1000'))

    with pytest.raises(RedisReplyError, match="hold"):
        world.admit(wrong)

    assert world.held() == 0


def test_idle_buckets_are_forgotten_after_an_hour(make_world: MakeWorld) -> None:
    world = make_world()
    world.admit(world.spec())

    assert 3_590_000 < world.client.pttl(world.keys.buckets) <= 3_600_000
    assert world.client.pttl(world.keys.wallet) == -1


def test_a_clock_that_goes_back_an_hour_locks_nobody_out_for_an_hour(
    make_world: MakeWorld,
) -> None:
    world = make_world(Asked(tenant=Limits(requests_per_minute=1, concurrency=1)))
    world.now_us += 3_600 * SECOND_US
    running = world.spec()
    assert world.admit(running).is_granted
    world.now_us = START_US

    full = world.admit(world.spec())
    world.now_us += LEASE_MS * 1_000 + 1
    waiting = world.admit(world.spec())
    world.now_us += waiting.wait_us

    assert full.reason == "concurrency:t"
    assert waiting.reason == "rate:t:requests"
    assert waiting.wait_us <= 360 * SECOND_US
    assert world.admit(world.spec()).is_granted


def test_a_clock_that_jumps_forward_gives_one_burst(make_world: MakeWorld) -> None:
    world = make_world(Asked(tenant=Limits(requests_per_minute=50)))

    def admitted() -> int:
        return sum(world.admit(world.spec()).is_granted for _ in range(60))

    first = admitted()
    world.now_us += 3_600 * SECOND_US

    assert (first, admitted()) == (50, 50)


def test_slots_are_given_again_when_their_leases_end(make_world: MakeWorld) -> None:
    world = make_world(Asked(tenant=Limits(concurrency=2)))
    specs = [world.spec() for _ in range(3)]

    granted = [world.admit(spec).is_granted for spec in specs]
    world.now_us += LEASE_MS * 1_000 - 1
    before = world.admit(specs[2])
    world.now_us += 1
    after = world.admit(specs[2])

    assert granted == [True, True, False]
    assert before.reason == "concurrency:t"
    assert after.is_granted


def test_refusals_cost_nothing(make_world: MakeWorld) -> None:
    """A thousand refused requests do not delay the next one by a microsecond."""
    world = make_world(Asked(tenant=Limits(requests_per_minute=50, concurrency=60)))
    specs = [world.spec() for _ in range(50)]
    assert all(world.admit(spec).is_granted for spec in specs)
    before = world.everything()

    waits = {world.admit(world.spec()).wait_us for _ in range(1_000)}

    assert waits == {1_200_000}
    assert world.everything() == before


def test_a_request_is_given_back_only_if_platform_or_upstream_caused_it(
    make_world: MakeWorld,
) -> None:
    world = make_world(Asked(tenant=Limits(requests_per_minute=60, tokens_per_minute=60_000)))
    ours, theirs = world.spec(), world.spec()
    world.admit(ours)
    world.admit(theirs)

    world.settle(
        theirs,
        charges=settle_charges(theirs, input_tokens=0, output_tokens=0, is_void=True),
        rank=0,
    )
    kept = world.tat("t:requests") - START_US
    world.settle(
        ours,
        charges=settle_charges(
            ours, input_tokens=0, output_tokens=0, is_void=True, is_request_given_back=True
        ),
        rank=0,
    )

    assert kept == 2_000_000
    assert world.tat("t:requests") - START_US == 1_000_000
    assert world.tat("t:tokens") == START_US
