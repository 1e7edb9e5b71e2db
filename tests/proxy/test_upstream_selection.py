"""Which upstream a request goes to: weights, priorities, homes of conversations, moves."""

import dataclasses
import random
from collections import Counter
from typing import Any

import pytest

from proxy.body import read_messages_body
from proxy.upstreams.conversation import Conversation, conversation_of
from proxy.upstreams.health import FAILURES_IN_ROW_MAX, OPEN_MS_MAX, HealthBoard
from proxy.upstreams.moves import KEPT_MS, MOVES_MAX, Moves
from proxy.upstreams.selection import Chooser, Hop, hops_of
from turnpike.contracts.snapshots import Candidate, CredentialSnapshot, UpstreamSnapshot
from turnpike.kernel import codec


class Worker:
    """One worker's chooser over a clock that the test moves."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.board = HealthBoard(now_ms=lambda: self.now_ms)
        self.moves = Moves(now_ms=lambda: self.now_ms)
        self.chooser = Chooser(self.board, self.moves)

    def place(self, hops: tuple[Hop, ...], number: int, *, is_new: bool = False) -> int | None:
        """Where a turn of a conversation goes."""
        hop = self.chooser.choose(hops, Conversation(number=number, is_new=is_new))
        return None if hop is None else hop.upstream.upstream

    def break_down(self, upstream: int) -> None:
        """Let an upstream fail until it is left alone."""
        for _ in range(FAILURES_IN_ROW_MAX):
            self.board.note_failure(upstream)


@pytest.fixture
def worker() -> Worker:
    """A worker that knows nothing yet."""
    return Worker()


def upstream_of(number: int, **changes: Any) -> UpstreamSnapshot:
    return UpstreamSnapshot(
        upstream=number,
        name=f"upstream-{number}",
        kind="anthropic",
        base_url="http://127.0.0.1:1",
        credentials=(CredentialSnapshot(credential=10 * number, sealed=""),),
        **changes,
    )


def hops(*rows: tuple[int, int, int], **changes: dict[str, Any]) -> tuple[Hop, ...]:
    """Hops from (upstream, weight, priority); `u2={...}` changes the snapshot of upstream 2."""
    upstreams = {str(n): upstream_of(n, **changes.get(f"u{n}", {})) for n, _, _ in rows}
    candidates = [
        Candidate(upstream=n, upstream_model="m", weight=w, priority=p) for n, w, p in rows
    ]
    return hops_of(upstreams, candidates)


THREE = hops((1, 1, 0), (2, 1, 0), (3, 1, 0))
NUMBERS = [random.Random(seed).getrandbits(64) for seed in range(3_000)]


def test_conversations_spread_by_weight(worker: Worker) -> None:
    weighted = hops((1, 1, 0), (2, 2, 0), (3, 5, 0))

    counts = Counter(worker.place(weighted, number) for number in NUMBERS)

    assert counts[1] == pytest.approx(3_000 / 8, rel=0.15)
    assert counts[2] == pytest.approx(3_000 / 4, rel=0.1)
    assert counts[3] == pytest.approx(3_000 * 5 / 8, rel=0.1)


def test_two_workers_agree_without_asking_each_other(worker: Worker) -> None:
    other = Worker()

    assert [worker.place(THREE, n) for n in NUMBERS] == [other.place(THREE, n) for n in NUMBERS]


def test_only_the_conversations_of_a_disabled_upstream_move_and_only_once(worker: Worker) -> None:
    before = {number: worker.place(THREE, number) for number in NUMBERS}

    two = tuple(hop for hop in THREE if hop.upstream.upstream != 2)
    after = {number: worker.place(two, number) for number in NUMBERS}
    later = {number: worker.place(two, number) for number in NUMBERS}

    assert {n for n in NUMBERS if before[n] != after[n]} == {n for n in NUMBERS if before[n] == 2}
    assert after == later
    assert Counter(after.values())[1] == pytest.approx(1_500, rel=0.1)


def test_conversations_stay_where_a_broken_home_sent_them(worker: Worker) -> None:
    mine = next(number for number in NUMBERS if worker.place(THREE, number) == 2)
    worker.break_down(2)

    moved_to = worker.place(THREE, mine)
    worker.now_ms += OPEN_MS_MAX
    worker.board.note_good(2)

    assert moved_to in (1, 3)
    assert worker.place(THREE, mine) == moved_to
    assert len(worker.moves) == 1


def test_a_move_is_told_to_other_workers_and_ends_with_the_longest_cache(worker: Worker) -> None:
    other = Worker()
    mine = next(number for number in NUMBERS if worker.place(THREE, number) == 2)
    worker.break_down(2)
    moved_to = worker.place(THREE, mine)

    for member, at_ms in worker.moves.take_untold():
        other.moves.learn(member, at_ms)

    assert other.place(THREE, mine) == moved_to
    assert worker.moves.take_untold() == []
    other.now_ms += KEPT_MS + 1_000
    assert other.place(THREE, mine) == 2


@pytest.mark.parametrize("member", ["", "x:1", "ff", "ff:", "ff:x", "ff:-1", "ff:1:2"])
def test_a_move_that_nobody_can_read_is_left_out(worker: Worker, member: str) -> None:
    worker.moves.learn(member, worker.now_ms)

    assert len(worker.moves) == 0


def test_moves_are_bounded() -> None:
    moves = Moves(now_ms=lambda: 0)
    for number in range(MOVES_MAX + 100):
        moves.remember(number, 1)

    assert len(moves) == MOVES_MAX
    assert (moves.find(0), moves.find(MOVES_MAX + 99)) == (None, 1)


def test_the_next_priority_serves_only_when_the_first_has_nobody_healthy(worker: Worker) -> None:
    backed = hops((1, 1, 0), (2, 1, 0), (3, 9, 1))

    assert {worker.place(backed, number) for number in NUMBERS[:200]} == {1, 2}
    worker.break_down(1)
    assert {worker.place(backed, number) for number in NUMBERS[:200]} == {2}
    worker.break_down(2)
    assert {worker.place(backed, number) for number in NUMBERS[:200]} == {3}
    worker.break_down(3)
    assert worker.place(backed, NUMBERS[0]) is None


def test_what_has_no_conversation_goes_where_least_runs_for_its_weight(worker: Worker) -> None:
    weighted = hops((1, 1, 0), (2, 3, 0))
    for _ in range(40):
        hop = worker.chooser.choose(weighted, None)
        assert hop is not None
        worker.board.begin(hop.upstream.upstream)

    assert (worker.board.peer(1).in_flight, worker.board.peer(2).in_flight) == (10, 30)


def test_a_new_conversation_leaves_a_busy_home_and_is_remembered(worker: Worker) -> None:
    mine = next(number for number in NUMBERS if worker.place(THREE, number) == 2)
    for _ in range(10):
        worker.board.begin(2)

    begun_at = worker.place(THREE, mine, is_new=True)

    assert begun_at in (1, 3)
    assert worker.place(THREE, mine) == begun_at


def test_a_running_conversation_stays_at_its_busy_home(worker: Worker) -> None:
    mine = next(number for number in NUMBERS if worker.place(THREE, number) == 2)
    for _ in range(100):
        worker.board.begin(2)

    assert worker.place(THREE, mine) == 2


def test_a_draining_upstream_keeps_what_it_has_and_gets_nothing_new(worker: Worker) -> None:
    draining = hops((1, 1, 0), (2, 1, 0), (3, 1, 0), u2={"is_draining": True})
    at_two = [number for number in NUMBERS if worker.place(THREE, number) == 2]
    old, new = at_two[:300], at_two[300:600]

    begun = {number: worker.place(draining, number, is_new=True) for number in new}

    assert {worker.place(draining, number) for number in old} == {2}
    assert set(begun.values()) == {1, 3}
    assert {number: worker.place(draining, number) for number in new} == begun
    assert all(
        hop is not None and hop.upstream.upstream != 2
        for hop in (worker.chooser.choose(draining, None) for _ in range(50))
    )


def test_a_single_upstream_that_drains_serves_running_conversations_alone(worker: Worker) -> None:
    only = hops((1, 1, 0), u1={"is_draining": True})

    assert worker.place(only, NUMBERS[0]) == 1
    assert worker.place(only, NUMBERS[0], is_new=True) is None


def test_a_conversation_keeps_its_credential_until_that_has_to_wait(worker: Worker) -> None:
    credentials = tuple(CredentialSnapshot(credential=n, sealed="") for n in (7, 8, 9))
    upstream = dataclasses.replace(upstream_of(1), credentials=credentials)
    several = hops_of({"1": upstream}, [Candidate(upstream=1, upstream_model="m")])

    def credential(number: int) -> int | None:
        hop = worker.chooser.choose(several, Conversation(number=number, is_new=False))
        assert hop is not None
        return hop.credential

    before = {number: credential(number) for number in NUMBERS[:600]}
    worker.board.note_cooling(1, 8, seconds=20)
    during = {number: credential(number) for number in NUMBERS[:600]}
    worker.now_ms += 20_000
    after = {number: credential(number) for number in NUMBERS[:600]}

    assert set(before.values()) == {7, 8, 9}
    assert set(during.values()) == {7, 9}
    assert all(during[number] == before[number] for number in before if before[number] != 8)
    assert after == before


def test_nobody_serves_while_all_credentials_wait_and_it_is_known_how_long(worker: Worker) -> None:
    only = hops((1, 1, 0))
    worker.board.note_cooling(1, 10, seconds=20)

    assert worker.place(only, NUMBERS[0]) is None
    assert worker.board.wait_seconds([only[0].upstream]) == 20


def body_of(**fields: Any) -> Any:
    return read_messages_body(codec.to_json({"model": "m", "max_tokens": 5, **fields}).encode())


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_all_turns_of_a_conversation_have_its_number() -> None:
    hello, answer, more = said("user", 'Hello "you" äö'), said("assistant", "Hi"), said("user", "x")
    marked = [{"type": "text", "text": 'Hello "you" äö', "cache_control": {"type": "ephemeral"}}]

    first = conversation_of(body_of(messages=[hello]), key=1, model="m")
    later = [
        conversation_of(body_of(messages=messages, system="changes"), key=1, model="m")
        for messages in (
            [hello, answer, more],
            [hello, answer, more, answer, more],
            [said("user", marked), answer, more],
        )
    ]

    assert {turn.number for turn in later} == {first.number}
    assert (first.is_new, {turn.is_new for turn in later}) == (True, {False})


def test_conversations_differ_by_key_model_opening_and_session() -> None:
    hello = [said("user", "Hello")]
    numbers = {
        conversation_of(body_of(messages=hello), key=1, model="m").number,
        conversation_of(body_of(messages=hello), key=2, model="m").number,
        conversation_of(body_of(messages=hello), key=1, model="n").number,
        conversation_of(body_of(messages=[said("user", "Good day")]), key=1, model="m").number,
        conversation_of(
            body_of(messages=hello, metadata={"user_id": "s1"}), key=1, model="m"
        ).number,
        conversation_of(
            body_of(messages=hello, metadata={"user_id": "s2"}), key=1, model="m"
        ).number,
    }

    assert len(numbers) == 6


def test_an_opening_without_words_counts_as_it_is() -> None:
    def image(data: str, **more: Any) -> dict[str, Any]:
        source = {"type": "base64", "media_type": "image/png", "data": data}
        return said("user", [{"type": "image", "source": source, **more}])

    one = conversation_of(body_of(messages=[image("AAAA")]), key=1, model="m")
    marked = conversation_of(
        body_of(messages=[image("AAAA", cache_control={"type": "ephemeral", "ttl": "1h"})]),
        key=1,
        model="m",
    )
    other = conversation_of(body_of(messages=[image("BBBB")]), key=1, model="m")

    assert one.number == marked.number != other.number


def test_messages_that_are_no_list_of_values_still_have_a_number() -> None:
    raw = b'{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"Hi"},7,"x"]}'

    assert conversation_of(read_messages_body(raw), key=1, model="m").is_new


class Fleet:
    """Three workers, requests that last a while, and where each conversation has its cache."""

    def __init__(self) -> None:
        self.rng = random.Random(20_261_121)
        self.workers = [Worker(), Worker(), Worker()]
        self.cached_at: dict[int, int] = {}
        self.hits: list[bool] = []
        self.broken: set[int] = set()
        self._running: list[tuple[Worker, int]] = []

    def pass_on(self) -> None:
        """The round in which workers tell each other."""
        told = [told for worker in self.workers for told in worker.moves.take_untold()]
        for worker in self.workers:
            for member, at_ms in told:
                worker.moves.learn(member, at_ms)

    def serve_one(self) -> None:
        """A turn of some conversation at some worker."""
        number, worker = NUMBERS[self.rng.randrange(1_000)], self.rng.choice(self.workers)
        cached_at = self.cached_at.get(number)
        place = worker.place(THREE, number, is_new=cached_at is None)
        assert place is not None
        if cached_at is not None and cached_at not in self.broken:
            self.hits.append(cached_at == place)
        self.cached_at[number] = place
        worker.board.begin(place)
        self._running.append((worker, place))
        if len(self._running) > 30:
            ended, at = self._running.pop(self.rng.randrange(len(self._running)))
            ended.board.end(at, is_trial=False)

    def run(self, turns: int) -> None:
        """So many turns, 20 ms apart."""
        for step in range(turns):
            if step % 50 == 0:
                self.pass_on()
            for worker in self.workers:
                worker.now_ms += 20
                for number in self.broken:
                    worker.board.note_dead(number)
            self.serve_one()


def test_of_1000_conversations_98_percent_of_later_turns_find_their_cache() -> None:
    fleet = Fleet()
    fleet.run(3_000)
    fleet.broken = {2}
    for worker in fleet.workers:
        worker.break_down(2)
    fleet.run(3_000)
    moved = [number for number, place in fleet.cached_at.items() if place == 2]
    fleet.broken = set()
    for worker in fleet.workers:
        worker.board.note_good(2)
    fleet.run(3_000)

    assert len(fleet.cached_at) > 990
    assert len(moved) < 50  # those that had no turn while it was out
    assert len(fleet.hits) > 7_000
    assert sum(fleet.hits) / len(fleet.hits) >= 0.98
