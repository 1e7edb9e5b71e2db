"""Random histories of one tenant, against a model in plain Python and the properties P1 to P9."""

import os
from dataclasses import dataclass, field
from typing import Any

import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from proxy.limiter.limiter import Admission
from proxy.limiter.limits import Spec, running_charges, settle_charges
from tests.proxy.limiter_world import LEASE_MS, Asked, World, tenant_keys_free
from turnpike.contracts.snapshots import PERIOD_DAY, PERIOD_MONTH, Budget, Limits

PAUSES_US = (
    0,
    1,
    999,
    600_000,
    1_200_000,
    7_000_000,
    LEASE_MS * 1_000 + 1,
    61_000_000,
    400_000_000,
)

LIMITS = st.builds(
    Limits,
    requests_per_minute=st.sampled_from((None, 1, 7, 50)),
    tokens_per_minute=st.sampled_from((None, 900, 100_000)),
    input_tokens_per_minute=st.sampled_from((None, 700)),
    output_tokens_per_minute=st.sampled_from((None, 450)),
    concurrency=st.sampled_from((None, 1, 3)),
    burst_seconds=st.sampled_from((None, 10)),
)
ASKED = st.builds(
    Asked,
    tenant=LIMITS,
    group=LIMITS,
    key=LIMITS,
    tenant_budgets=st.sampled_from(((), (Budget(period=PERIOD_MONTH, limit_micro=9_000),))),
    key_budgets=st.sampled_from(((), (Budget(period=PERIOD_DAY, limit_micro=4_000),))),
    output_reserve_max=st.sampled_from((200, None)),
)
TOKENS = st.integers(min_value=0, max_value=600)
HOLDS = st.integers(min_value=0, max_value=3_000)


@dataclass(kw_only=True)
class Told:
    """What the model knows of one request."""

    spec: Spec
    state: str = "open"
    hold: int = 0
    at_us: int = 0
    rank: int = -1
    is_kept: bool = False
    charged: dict[str, int] = field(default_factory=dict)


@dataclass(kw_only=True)
class Model:
    """The rules of docs/limits.md for one tenant, one step at a time."""

    posted: int
    spent: dict[str, int] = field(default_factory=dict)
    tats: dict[str, int] = field(default_factory=dict)
    busy_since: dict[str, int] = field(default_factory=dict)
    leases: dict[str, dict[str, int]] = field(default_factory=dict)
    told: dict[str, Told] = field(default_factory=dict)

    def held(self, scope: str | None = None) -> int:
        """What open and settled requests hold back, of one budget's scope or in all."""
        return sum(
            one.hold
            for one in self.told.values()
            if one.state != "posted"
            and (scope is None or scope in {check.scope for check in one.spec.budgets})
        )

    def decide(self, spec: Spec, now: int) -> tuple[str, int]:
        """The reason and the wait that admission should answer with."""
        for bucket in spec.buckets:
            cap = now + bucket.burst_us + bucket.debt_us
            self.tats[bucket.name] = min(self.tats.get(bucket.name, 0), cap)
        for slot in spec.slots:
            live = [end for end in self.leases.get(slot.name, {}).values() if end > now // 1_000]
            if len(live) >= slot.limit:
                return f"concurrency:{slot.name}", 1_000_000
        return self._decide_rates(spec, now)

    def _decide_rates(self, spec: Spec, now: int) -> tuple[str, int]:
        waits = []
        for bucket, cost in zip(spec.buckets, spec.costs_us, strict=True):
            if cost > bucket.burst_us:
                return f"oversize:{bucket.name}", 0
            level = bucket.burst_us - (max(self.tats[bucket.name], now) - now)
            waits.append((cost - level, bucket.name))
        longest = max(waits, key=lambda item: item[0], default=(0, ""))
        if longest[0] > 0:
            return f"rate:{longest[1]}", longest[0]
        return self._decide_money(spec)

    def _decide_money(self, spec: Spec) -> tuple[str, int]:
        for check in spec.budgets:
            if self.budget_left(check.field, check.scope, check.limit_micro) < spec.hold_micro:
                return f"budget:{check.field}", 0
        if spec.hold_micro and self.posted - self.held() < spec.hold_micro:
            return "credit", 0
        return "ok", 0

    def budget_left(self, name: str, scope: str, limit: int) -> int:
        """What a budget still allows."""
        return limit - self.spent.get(name, 0) - self.held(scope)

    def grant(self, spec: Spec, now: int) -> None:
        """Take what was asked for."""
        told = Told(spec=spec, hold=spec.hold_micro, at_us=now)
        for bucket, cost in zip(spec.buckets, spec.costs_us, strict=True):
            self._raise(bucket.name, cost, now)
            told.charged[bucket.name] = cost
        self.told[spec.rid] = told
        self.renew(spec, now)

    def renew(self, spec: Spec, now: int) -> None:
        """A lease runs from now."""
        for slot in spec.slots:
            self.leases.setdefault(slot.name, {})[spec.rid] = now // 1_000 + spec.lease_ms

    def _raise(self, name: str, amount: int, now: int) -> None:
        if self.tats.get(name, 0) <= now:
            self.busy_since[name] = now
        self.tats[name] = max(self.tats.get(name, 0), now) + amount

    def charge(self, told: Told, charges: dict[str, int], now: int) -> None:
        """Bring what a request is charged to new values."""
        is_capped = False
        for bucket in told.spec.buckets:
            name, more = bucket.name, charges[bucket.name] - told.charged[bucket.name]
            if more > 0:
                self._raise(name, more, now)
                cap = now + bucket.burst_us + bucket.debt_us
                if self.tats[name] > cap:
                    self.tats[name], is_capped = cap, True
            elif more < 0 and not told.is_kept and self._was_busy_since(name, told.at_us, now):
                self.tats[name] = max(self.tats[name] + more, now)
            told.charged[name] = charges[name]
        told.is_kept |= is_capped

    def _was_busy_since(self, name: str, at_us: int, now: int) -> bool:
        return self.busy_since.get(name, 0) <= at_us and self.tats.get(name, 0) > now

    def rehold(self, told: Told, want: int) -> int:
        """Move a hold, upwards only as far as there is room."""
        room = self.posted - self.held()
        for check in told.spec.budgets:
            room = min(room, self.budget_left(check.field, check.scope, check.limit_micro))
        if want > told.hold:
            want = told.hold + max(0, min(want - told.hold, room))
        told.hold = want
        return want


class LimiterHistory(RuleBasedStateMachine):
    """Admissions, beats, settlements and publications in any order, under changing limits."""

    @initialize(asked=ASKED, posted=st.sampled_from((0, 3_000, 20_000, 10**9)))
    def begin(self, asked: Asked, posted: int) -> None:
        client = redis.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=5)
        client.flushdb()
        self.world = World(client=client, asked=asked)
        self.world.open_up(posted_micro=posted)
        self.model = Model(posted=posted)
        self.version = 1
        self.moves: dict[str, list[tuple[int, int]]] = {}
        self.bursts: dict[str, int] = {}

    @rule(pause_us=st.sampled_from(PAUSES_US))
    def wait(self, pause_us: int) -> None:
        self.world.now_us += pause_us

    @rule(asked=ASKED)
    def change_limits(self, asked: Asked) -> None:
        self.world.asked = asked

    @rule(input_estimate=TOKENS, max_tokens=TOKENS, hold_micro=HOLDS)
    def admit(self, input_estimate: int, max_tokens: int, hold_micro: int) -> None:
        world, now = self.world, self.world.now_us
        spec = world.spec(
            input_estimate=input_estimate, max_tokens=max_tokens, hold_micro=hold_micro
        )
        before, available = world.everything(), self.model.posted - self.model.held()
        reason, wait_us = self.model.decide(spec, now)

        with self.watched(spec, is_grant=reason == "ok"):
            admission = world.admit(spec)

        assert (admission.reason, admission.wait_us) == (reason, wait_us)
        if admission.is_granted:
            assert available >= hold_micro  # P6
            self.model.grant(spec, now)
        else:
            self.nothing_changed(spec, before)
        self.remaining_is_true(spec, admission)

    @precondition(lambda self: self.model.told)
    @rule(choice=st.randoms(use_true_random=False))
    def admit_again(self, choice: Any) -> None:
        told = choice.choice(list(self.model.told.values()))
        before = self.world.everything()

        admission = self.world.admit(told.spec)

        assert admission.is_known
        assert admission.reason == told.state
        assert admission.is_granted == (told.state == "open")
        assert self.world.everything() == before  # P5

    @precondition(lambda self: self.model.told)
    @rule(
        choice=st.randoms(use_true_random=False),
        input_tokens=TOKENS,
        output_tokens=TOKENS | st.just(10**7),
        hold_micro=st.none() | HOLDS,
    )
    def beat(
        self, choice: Any, input_tokens: int, output_tokens: int, hold_micro: int | None
    ) -> None:
        told = choice.choice(list(self.model.told.values()))
        spec, now = told.spec, self.world.now_us
        charges = running_charges(spec, input_tokens=input_tokens, output_tokens=output_tokens)

        with self.watched(spec):
            beat = self.world.beat(spec, charges=charges, hold_micro=hold_micro)

        assert beat.state == told.state
        if not beat.is_open:
            return
        self.model.charge(told, charges, now)
        in_force = told.hold if hold_micro is None else self.model.rehold(told, hold_micro)
        self.model.renew(spec, now)
        assert beat.hold_micro == in_force
        after = self.world.everything()
        self.world.beat(spec, charges=charges, hold_micro=in_force)
        assert self.world.everything() == after  # P5

    @precondition(lambda self: self.model.told)
    @rule(
        choice=st.randoms(use_true_random=False),
        input_tokens=TOKENS,
        output_tokens=TOKENS,
        rank=st.integers(min_value=0, max_value=4),
        share=st.integers(min_value=0, max_value=100),
    )
    def settle(
        self, choice: Any, input_tokens: int, output_tokens: int, rank: int, share: int
    ) -> None:
        told = choice.choice(list(self.model.told.values()))
        charges = settle_charges(
            told.spec,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            is_void=rank == 0,
            is_request_given_back=rank == 0 and share > 50,
        )
        amount = told.hold * share // 100
        events = len(self.world.events())

        with self.watched(told.spec):
            settled = self.world.settle(told.spec, charges=charges, hold_micro=amount, rank=rank)

        is_first = told.state == "open"
        assert settled.is_appended == (is_first or rank > told.rank)
        assert len(self.world.events()) == events + settled.is_appended
        if is_first:
            self.model.charge(told, charges, self.world.now_us)
            told.state, told.hold = "settled", amount
            for leases in self.model.leases.values():
                leases.pop(told.spec.rid, None)
            self.charged_is(told, charges)
        told.rank = max(told.rank, rank)
        after = self.world.everything()
        self.world.settle(told.spec, charges=charges, hold_micro=amount, rank=rank)
        assert self.world.everything() == after  # P5

    @rule(is_stale=st.booleans())
    def publish(self, is_stale: bool) -> None:
        """What PostgreSQL knows: every ended request at its rank; or an older answer, late."""
        if is_stale:
            before = self.world.everything()
            self.world.publish(posted_micro=1, version=0, spent={"t:2026-11": 10**9})
            assert self.world.everything() == before
            return
        ended = {rid: told for rid, told in self.model.told.items() if told.state != "open"}
        self.version += 1
        for told in ended.values():
            if told.state == "settled":
                self.model.posted -= told.hold
                told.state = "posted"
        ranks = {rid: told.rank for rid, told in ended.items()}
        for _ in range(2):
            self.world.publish(posted_micro=self.model.posted, version=self.version, ranks=ranks)

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        for told in self.model.told.values():
            if told.state == "open":
                self.world.settle(told.spec, hold_micro=told.hold)
                told.state, told.rank = "settled", 3
        self.publish(is_stale=False)
        assert self.world.held() == 0  # P3
        assert tenant_keys_free(self.world.client)
        self.world.client.close()

    @invariant()
    def nothing_leaks(self) -> None:
        """P3: held is what records hold; the indexes name what is open and unposted."""
        if not hasattr(self, "model"):
            return
        world, model = self.world, self.model
        assert world.held() == model.held()
        for scope in ("t", "k9"):
            held = int(world.client.hget(world.keys.budgets, f"h:{scope}") or 0)
            assert held == model.held(scope)
        for index, state in ((world.keys.open, "open"), (world.keys.unposted, "settled")):
            members = world.members(index)
            rids = {rid for rid, told in model.told.items() if told.state == state}
            late = {rid for rid in model.told if model.told[rid].state == "posted"}
            assert {f"42|{rid}" for rid in rids} <= members
            assert members <= {f"42|{rid}" for rid in rids | (late if state != "open" else set())}
        for name, tat in model.tats.items():
            assert max(world.tat(name), world.now_us) == max(tat, world.now_us)

    def watched(self, spec: Spec, *, is_grant: bool = False) -> "_Watch":
        return _Watch(self, spec, is_grant=is_grant)

    def nothing_changed(self, spec: Spec, before: dict[bytes, Any]) -> None:
        """P7: a refusal changes nothing but clamps and leases that ended."""
        after, now = self.world.everything(), self.world.now_us
        caps = {
            bucket.name.encode(): now + bucket.burst_us + bucket.debt_us for bucket in spec.buckets
        }
        for state in (before, after):
            for name in list(state):
                if b":c:" in name:
                    live = {rid: end for rid, end in state[name].items() if end > now // 1_000}
                    state[name] = live
                    if not live:
                        del state[name]
                elif b":b:" in name:
                    for bucket, tat in state[name].items():
                        state[name][bucket] = min(int(tat), caps.get(bucket, int(tat)))
        assert after == before

    def remaining_is_true(self, spec: Spec, admission: Admission) -> None:
        for bucket, left_us in zip(spec.buckets, admission.remaining_us, strict=True):
            busy_us = max(self.model.tats[bucket.name], self.world.now_us) - self.world.now_us
            assert left_us == bucket.burst_us - busy_us

    def charged_is(self, told: Told, charges: dict[str, int]) -> None:
        """P4: what stands in the record at the end is the final charge, whatever came before."""
        record = self.world.record(told.spec)
        assert {name: int(record[f"b:{name}"]) for name in charges} == charges


class _Watch:
    """P1 and P9, from what the buckets really did: grants fit into burst + elapsed time."""

    def __init__(self, history: LimiterHistory, spec: Spec, *, is_grant: bool = False) -> None:
        self._history, self._spec, self._is_grant = history, spec, is_grant

    def __enter__(self) -> None:
        world = self._history.world
        self._before = {
            bucket.name: max(world.tat(bucket.name), world.now_us) for bucket in self._spec.buckets
        }

    def __exit__(self, *failure: object) -> None:
        if failure[0] is not None:
            return
        history, world = self._history, self._history.world
        for bucket in self._spec.buckets:
            name, now = bucket.name, world.now_us
            moved = max(world.tat(name), now) - self._before[name]
            history.bursts[name] = max(history.bursts.get(name, 0), bucket.burst_us)
            moves = history.moves.setdefault(name, [])
            moves.append((now, moved))
            if not self._is_grant:
                continue
            total = 0
            for at, amount in reversed(moves):
                total += amount
                assert total <= history.bursts[name] + now - at


TestLimiterHistory = LimiterHistory.TestCase
TestLimiterHistory.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
