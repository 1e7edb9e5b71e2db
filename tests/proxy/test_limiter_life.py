"""The life of an admitted request: beats, holds, adoption after a loss, settlement, revision."""

from functools import partial
from typing import Any, cast

import pytest
import redis

from proxy.limiter.limiter import Limiter
from proxy.limiter.limits import Spec, running_charges, settle_charges
from proxy.redis_pipe import RedisAway, RedisPipe, RedisReplyError
from tests.proxy.limiter_world import (
    LEASE_MS,
    SECOND_US,
    START_US,
    TENANT,
    Asked,
    DirectPipe,
    MakeWorld,
    World,
    published_world,
    run,
    tenant_keys_free,
)
from turnpike.contracts.snapshots import Budget, Limits

TOKENS_US = 1_000  # 60,000 tokens a minute
ASKED = Asked(
    tenant=Limits(requests_per_minute=60, tokens_per_minute=60_000, concurrency=10),
    tenant_budgets=(Budget(period="month", limit_micro=10**9),),
)


@pytest.fixture
def make_world(redis_client: redis.Redis) -> MakeWorld:
    """Make a tenant in an empty Redis."""
    return partial(published_world, redis_client)


def admitted(world: World, *, hold_micro: int = 1_000) -> Spec:
    """A request of 100 + 100 tokens that runs."""
    spec = world.spec(input_estimate=100, max_tokens=100, hold_micro=hold_micro)
    assert world.admit(spec).is_granted
    return spec


def tokens(world: World) -> int:
    """The tokens that are missing from the tenant's bucket."""
    return max(0, world.tat("t:tokens") - world.now_us) // TOKENS_US


def test_a_beat_renews_leases_and_trues_up(make_world: MakeWorld) -> None:
    world = make_world(ASKED)
    spec = admitted(world)
    world.now_us += 10 * SECOND_US

    beat = world.beat(
        spec,
        charges=running_charges(spec, input_tokens=20_000, output_tokens=50),
        progress=b'{"usage":{}}',
    )

    assert (beat.state, beat.hold_micro, beat.is_adopted) == ("open", 1_000, False)
    assert (beat.tenant_version, beat.epoch) == (5, "1")
    ends_ms = world.now_us // 1_000 + LEASE_MS
    assert world.client.zscore("tp:{s0}:c:42:t", spec.rid) == ends_ms
    assert world.client.zscore(world.keys.open, f"42|{spec.rid}") == ends_ms
    assert tokens(world) == 19_900  # the reservation of 200 has refilled, the rest is new
    assert world.record(spec)["progress"] == '{"usage":{}}'
    assert world.record(spec)["b:t:tokens"] == str(20_100 * TOKENS_US)


def test_a_beat_tells_of_a_newer_policy(make_world: MakeWorld) -> None:
    world = make_world(ASKED)
    spec = admitted(world)
    world.client.hset(world.keys.policy, mapping={str(TENANT): 6, "epoch": 3})

    beat = world.beat(spec)

    assert (beat.is_open, beat.tenant_version, beat.epoch) == (True, 6, "3")


def test_a_hold_rises_only_as_far_as_credit_reaches(make_world: MakeWorld) -> None:
    world = make_world(ASKED, posted_micro=3_000)
    spec, other = admitted(world), admitted(world)

    raised = world.beat(spec, hold_micro=5_000)
    again = world.beat(other, hold_micro=1_001)

    assert raised.hold_micro == 2_000
    assert again.hold_micro == 1_000
    assert world.held() == 3_000
    assert world.record(spec)["hold"] == "2000"


def test_a_hold_rises_only_as_far_as_budgets_reach(make_world: MakeWorld) -> None:
    budgets = (Budget(period="day", limit_micro=10_000), Budget(period="month", limit_micro=1_500))
    world = make_world(Asked(key_budgets=budgets))
    world.publish(posted_micro=10**9, version=2, spent={"k9:2026-11": 200})
    spec = admitted(world)

    beat = world.beat(spec, hold_micro=5_000)

    assert beat.hold_micro == 1_300
    assert world.client.hget(world.keys.budgets, "h:k9") == b"1300"


def test_a_hold_falls_freely_and_stays_where_nothing_is_left(make_world: MakeWorld) -> None:
    world = make_world(ASKED, posted_micro=1_000)
    spec = admitted(world)
    world.publish(posted_micro=-5_000, version=2)

    kept = world.beat(spec, hold_micro=1_001)
    fallen = world.beat(spec, hold_micro=400)

    assert (kept.hold_micro, fallen.hold_micro) == (1_000, 400)
    assert world.held() == 400
    assert world.client.hget(world.keys.budgets, "h:t") == b"400"


@pytest.mark.parametrize("loss", ["wallet", "fence", "budgets"])
def test_no_hold_rises_while_nobody_knows_what_is_left(make_world: MakeWorld, loss: str) -> None:
    world = make_world(ASKED)
    spec = admitted(world)
    if loss == "wallet":
        world.client.hdel(world.keys.wallet, "posted")
    elif loss == "budgets":
        world.client.hdel(world.keys.budgets, "ver")
    else:
        world.client.hset(world.keys.policy, "opens_at_ms", START_US // 1_000 + 15_000)

    assert world.beat(spec, hold_micro=2_000).hold_micro == 1_000


def test_a_lost_record_is_adopted_with_its_hold_and_without_checks(make_world: MakeWorld) -> None:
    world = make_world(ASKED)
    spec = admitted(world).with_hold(1_234)
    world.client.flushdb()
    world.now_us += SECOND_US

    beat = world.beat(
        spec, charges=running_charges(spec, input_tokens=120, output_tokens=0), progress=b"{}"
    )

    assert (beat.state, beat.is_adopted, beat.hold_micro) == ("open", True, 1_234)
    assert (beat.tenant_version, beat.epoch) == (None, "")
    assert world.held() == 1_234
    assert world.client.hget(world.keys.budgets, "h:t") == b"1234"
    assert world.client.exists(world.keys.buckets) == 0
    record = world.record(spec)
    assert (
        record.items()
        >= {
            "st": "open",
            "schema": "1",
            "hold": "1234",
            "scopes": "t",
            "slots": "t",
            "spec": spec.to_json().decode(),
            "base": '{"model":"opus-5"}',
            "progress": "{}",
            "adopted": "1",
            "b:t:requests": "1000000",
            "b:t:tokens": str(220 * TOKENS_US),
        }.items()
    )
    assert world.client.zscore(world.keys.open, f"42|{spec.rid}") is not None


def test_adoption_restores_the_hold_in_force_and_checks_only_what_is_new(
    make_world: MakeWorld,
) -> None:
    world = make_world(ASKED)
    spec = admitted(world)
    world.client.flushdb()
    world.open_up(posted_micro=1_500)

    beat = world.beat(spec, hold_micro=9_000)

    assert (beat.is_adopted, beat.hold_micro) == (True, 1_500)


def test_an_adopted_request_gives_back_nothing_that_the_new_buckets_never_had(
    make_world: MakeWorld,
) -> None:
    world = make_world(ASKED)
    lost = admitted(world)
    world.client.flushdb()
    world.open_up()
    other = admitted(world)
    before = world.tat("t:tokens")

    world.beat(lost, charges=running_charges(lost, input_tokens=90, output_tokens=0))
    world.settle(lost, charges=settle_charges(lost, input_tokens=1, output_tokens=1))

    assert world.tat("t:tokens") == before
    assert world.record(other)["st"] == "open"


def test_the_fence_holds_open_requests_before_new_money_is_admitted(make_world: MakeWorld) -> None:
    """Five streams run, all of Redis is lost: credit for five more admits five and no sixth."""
    world = make_world(Asked(), posted_micro=10_000)
    running = [admitted(world) for _ in range(5)]
    world.client.flushdb()
    world.open_up(posted_micro=10_000)
    world.client.hset(
        world.keys.policy,
        mapping={"epoch": 2, "opens_at_ms": world.now_us // 1_000 + 15_000},
    )

    behind_the_fence = world.admit(world.spec(hold_micro=1_000))
    beats = [world.beat(spec) for spec in running]
    world.now_us += 15 * SECOND_US
    answers = [world.admit(world.spec(hold_micro=1_000)).reason for _ in range(6)]

    assert behind_the_fence.is_cold
    assert all(beat.is_adopted and beat.epoch == "2" for beat in beats)
    assert answers == ["ok"] * 5 + ["credit"]


def test_settling_frees_the_slot_trues_up_and_appends_the_event(make_world: MakeWorld) -> None:
    world = make_world(ASKED)
    spec = admitted(world)
    world.now_us += SECOND_US // 20

    settled = world.settle(
        spec,
        charges=settle_charges(spec, input_tokens=90, output_tokens=30),
        hold_micro=321,
        event=b'{"rid":"x"}',
    )

    assert (settled.state, settled.is_appended) == ("settled", True)
    assert world.events() == [b'{"rid":"x"}']
    assert world.tat("t:tokens") == START_US + 120 * TOKENS_US
    assert world.held() == 321
    assert world.client.hget(world.keys.budgets, "h:t") == b"321"
    assert world.client.zcard("tp:{s0}:c:42:t") == 0
    assert world.client.zcard(world.keys.open) == 0
    assert world.client.zscore(world.keys.unposted, f"42|{spec.rid}") == world.now_us // 1_000
    record = world.record(spec)
    assert record.items() >= {"st": "settled", "hold": "321", "rank": "3", "scopes": "t"}.items()
    assert {"spec", "base", "progress"}.isdisjoint(record)
    assert world.client.pttl(world.keys.record_prefix + spec.rid) == -1


def test_the_second_settlement_does_nothing(make_world: MakeWorld) -> None:
    world = make_world(ASKED)
    spec = admitted(world)
    world.settle(spec, hold_micro=321)
    before = world.everything()

    again = world.settle(spec, hold_micro=999, event=b"other")
    worse = world.settle(spec, hold_micro=0, event=b"other", rank=1)

    assert (again.state, again.is_appended) == ("settled", False)
    assert worse.is_appended is False
    assert world.everything() == before


def test_a_better_event_is_appended_once_and_touches_nothing_else(make_world: MakeWorld) -> None:
    world = make_world(ASKED)
    spec = admitted(world)
    world.settle(spec, hold_micro=321, event=b"guess", rank=1)
    world.publish(posted_micro=10**12 - 321, version=2, ranks={spec.rid: 1})
    before = world.everything()

    revised = [world.settle(spec, hold_micro=900, event=b"truth", rank=3) for _ in range(2)]

    assert [answer.is_appended for answer in revised] == [True, False]
    assert world.events() == [b"guess", b"truth"]
    after = world.everything()
    changed = {name for name in after if after[name] != before.get(name)}
    record = (world.keys.record_prefix + spec.rid).encode()
    assert changed == {record, world.keys.stream.encode(), world.keys.unposted.encode()}
    assert world.record(spec) == {
        "st": "posted", "posted": "1", "rank": "3", "paid": "321", "event": "truth",
    }  # fmt: skip
    world.publish(posted_micro=10**12 - 900, version=3, ranks={spec.rid: 3})
    assert tenant_keys_free(world.client)


def test_a_beat_after_the_end_says_so_and_revives_nothing(make_world: MakeWorld) -> None:
    world = make_world(ASKED)
    spec = admitted(world)
    world.settle(spec, rank=1)
    before = world.everything()

    beat = world.beat(spec, charges=running_charges(spec, input_tokens=9, output_tokens=9))

    assert (beat.state, beat.is_open) == ("settled", False)
    assert world.everything() == before


def test_an_event_whose_record_is_lost_counts_as_held_and_leaves_the_buckets_alone(
    make_world: MakeWorld,
) -> None:
    world = make_world(ASKED)
    spec = admitted(world)
    world.client.flushdb()
    world.open_up()

    settled = world.settle(spec, hold_micro=321, event=b"late")

    assert settled.is_appended
    assert world.held() == 321
    assert world.client.hget(world.keys.budgets, "h:t") == b"321"
    assert world.client.exists(world.keys.buckets) == 0
    assert world.events() == [b"late"]
    world.publish(posted_micro=10**12, version=2, ranks={spec.rid: 3})
    assert world.held() == 0
    assert world.client.hget(world.keys.budgets, "h:t") is None


def test_nothing_is_given_back_that_has_refilled_since(make_world: MakeWorld) -> None:
    """A bucket that was full in between owes an old request nothing."""
    world = make_world(ASKED)
    old = admitted(world)
    world.now_us += 10 * SECOND_US
    admitted(world)

    world.settle(old, charges=settle_charges(old, input_tokens=0, output_tokens=0, is_void=True))

    assert tokens(world) == 200


def test_an_overshoot_that_ends_a_pause_begins_a_new_busy_period(make_world: MakeWorld) -> None:
    world = make_world(ASKED)
    old, long = admitted(world), admitted(world)
    world.now_us += 10 * SECOND_US
    world.beat(long, charges=running_charges(long, input_tokens=5_000, output_tokens=0))
    before = world.tat("t:tokens")

    world.settle(old, charges=settle_charges(old, input_tokens=0, output_tokens=0, is_void=True))

    assert world.tat("t:tokens") == before


def test_buckets_are_kept_for_longer_only_where_more_is_taken(make_world: MakeWorld) -> None:
    world = make_world(ASKED)
    spec = admitted(world)

    world.client.pexpire(world.keys.buckets, 60_000)
    world.beat(spec, charges=running_charges(spec, input_tokens=5_000, output_tokens=0))
    taken_ms = world.client.pttl(world.keys.buckets)
    world.client.pexpire(world.keys.buckets, 60_000)
    world.settle(spec, charges=settle_charges(spec, input_tokens=10, output_tokens=10))
    given_back_ms = world.client.pttl(world.keys.buckets)

    assert taken_ms > 3_590_000
    assert 0 < given_back_ms <= 60_000


def test_debt_is_capped_and_what_was_forgiven_is_not_given_back(make_world: MakeWorld) -> None:
    world = make_world(ASKED)
    spec = admitted(world)
    world.beat(spec, charges=running_charges(spec, input_tokens=10**8, output_tokens=0))
    capped = world.tat("t:tokens")

    world.settle(spec, charges=settle_charges(spec, input_tokens=10, output_tokens=10))

    assert capped - START_US == 360 * SECOND_US
    assert world.tat("t:tokens") == capped


def test_counts_beyond_all_reason_still_settle(make_world: MakeWorld) -> None:
    world = make_world(Asked(tenant=Limits(tokens_per_minute=1, burst_seconds=60)))
    spec = world.spec(input_estimate=1, max_tokens=0)
    assert world.admit(spec).is_granted

    charges = settle_charges(spec, input_tokens=2**31, output_tokens=2**31)

    assert world.settle(spec, charges=charges).is_appended


@pytest.mark.parametrize("charge", [-1, 0.5])
def test_wrong_charges_change_nothing(make_world: MakeWorld, charge: float) -> None:
    world = make_world(ASKED)
    spec = admitted(world)
    before = world.everything()
    charges: dict[str, int] = {"t:tokens": charge}  # type: ignore[dict-item]

    with pytest.raises(RedisReplyError, match="charge"):
        world.beat(spec, charges=charges)
    with pytest.raises(RedisReplyError, match="charge"):
        world.settle(spec, charges=charges)

    assert world.everything() == before


@pytest.mark.parametrize("hold_micro", [-1, 0.5, 2**53])
def test_wrong_holds_change_nothing(make_world: MakeWorld, hold_micro: int) -> None:
    world = make_world(ASKED)
    spec = admitted(world)
    before = world.everything()

    with pytest.raises(RedisReplyError, match="hold"):
        world.beat(spec, hold_micro=hold_micro)
    with pytest.raises(RedisReplyError, match="hold"):
        world.settle(spec, hold_micro=hold_micro)

    assert world.everything() == before


class ForgetfulPipe(DirectPipe):
    """Runs every script and loses the first answers."""

    losses = 1

    async def run_script(self, *args: Any, **options: Any) -> Any:
        """As DirectPipe, but for what is lost."""
        reply = await super().run_script(*args, **options)
        self.losses -= 1
        if self.losses >= 0:
            raise RedisAway("lost")
        return reply


@pytest.mark.parametrize(("losses", "reason"), [(1, "open"), (2, "away")])
def test_a_lost_answer_is_asked_for_once_more_and_charged_once(
    make_world: MakeWorld, losses: int, reason: str
) -> None:
    world = make_world(ASKED)
    pipe = ForgetfulPipe(world.client)
    pipe.losses = losses
    limiter = Limiter(cast(RedisPipe, pipe), now_us=lambda: world.now_us)

    admission = run(limiter.admit(world.spec(hold_micro=1_000)))

    assert (admission.is_granted, admission.reason) == (losses == 1, reason)
    assert world.held() == 1_000


def test_a_stored_spec_settles_what_its_worker_left(make_world: MakeWorld) -> None:
    world = make_world(ASKED)
    spec = admitted(world)
    record = world.record(spec)

    found = Spec.from_json(record["spec"], base=record["base"].encode())
    world.settle(found, hold_micro=5, rank=1)

    assert found.to_json() == spec.to_json()
    assert found.base == spec.base
    assert world.held() == 5
    assert world.client.zcard("tp:{s0}:c:42:t") == 0


def test_requests_of_an_old_budget_give_their_hold_back_to_it(make_world: MakeWorld) -> None:
    """The record, not the spec of the day, says which budgets hold a request."""
    world = make_world(ASKED)
    spec = admitted(world)
    assert world.client.hget(world.keys.budgets, "h:t") == b"1000"
    without = Spec.from_json(
        spec.to_json().replace(spec.to_json().partition(b'"budgets":')[2], b"[]}")
    )

    world.settle(without, hold_micro=10)

    assert world.client.hget(world.keys.budgets, "h:t") == b"10"
