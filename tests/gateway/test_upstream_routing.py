"""Requests on real sockets: who answers, who keeps a conversation, and what caps and drains do."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.metrics import METRICS
from tests.gateway.trio import NUMBERS, Trio, make_trio, turn
from turnpike.kernel import keyspace

CONVERSATIONS = 250


@pytest.fixture
async def trio(gateway: Any) -> AsyncIterator[Trio]:
    """Three simulators behind the gateway; the tenant's own limits are wide."""
    gateway.world.set_tier_limits(
        requests_per_minute=1_000_000, tokens_per_minute=1_000_000_000, concurrency=1_000
    )
    async with make_trio(gateway) as trio:
        yield trio


async def test_conversations_keep_their_upstream_also_while_one_is_pulled_out(trio: Trio) -> None:
    async def round_of(turns: int) -> dict[int, int]:
        where: dict[int, int] = {}

        async def ask(conversation: int) -> None:
            response = await trio.gateway.post(turn(conversation, turns))
            assert response.status_code == 200
            seen[response.headers["request-id"]] = conversation

        seen: dict[str, int] = {}
        for faulty in trio.upstreams.values():
            faulty.requests.clear()
        for start in range(0, CONVERSATIONS, 8):
            await asyncio.gather(*(ask(n) for n in range(start, start + 8)))
        for number, faulty in trio.upstreams.items():
            for headers in faulty.requests:
                where[seen[headers[b"x-turnpike-request-id"].decode()]] = number
        return where

    def share_kept(before: dict[int, int], after: dict[int, int]) -> float:
        return sum(after[n] == before[n] for n in before) / len(before)

    first, second = await round_of(1), await round_of(2)
    assert share_kept(first, second) >= 0.98
    assert min(Counter(first.values()).values()) > CONVERSATIONS / 5

    trio.change(12, is_enabled=False)
    third, fourth = await round_of(3), await round_of(4)

    stayed = {n: number for n, number in second.items() if number != 12}
    assert 12 not in third.values()
    assert share_kept(stayed, third) >= 0.98
    assert share_kept(third, fourth) >= 0.98


async def test_next_priority_answers_only_when_nobody_of_the_first_can(trio: Trio) -> None:
    trio.rows[13]["priority"] = 1
    trio.publish()
    await trio.ask_many([turn(n) for n in range(20)])
    assert trio.counts()[13] == 0

    trio.upstreams[11].fail("status=503", is_all_failing=True)
    trio.upstreams[12].fail("status=503", is_all_failing=True)
    answers = await trio.ask_many([turn(n) for n in range(20)])

    assert {answer.status_code for answer in answers} == {200}
    assert trio.counts()[13] == 20


@pytest.mark.parametrize("change", [{"is_enabled": False}, {"is_draining": True}])
async def test_an_upstream_is_out_of_new_conversations_from_the_next_request(
    trio: Trio, change: dict[str, Any]
) -> None:
    await trio.ask_many([turn(n) for n in range(30)])
    before = trio.counts()
    assert before[12] > 0

    trio.change(12, **change)
    await trio.ask_many([turn(n) for n in range(100, 160)])

    assert trio.counts()[12] == before[12]


async def test_a_draining_upstream_keeps_its_conversations(trio: Trio) -> None:
    await trio.ask_many([turn(n) for n in range(60)])
    before = trio.counts()

    trio.change(12, is_draining=True)
    await trio.ask_many([turn(n, turns=2) for n in range(60)])

    assert trio.counts() == {number: 2 * count for number, count in before.items()}


async def test_a_credential_that_must_wait_rests_while_the_others_go_on(trio: Trio) -> None:
    trio.rows = {11: {"weight": 1, "priority": 0}}
    trio.upstreams = {11: trio.upstreams[11]}
    trio.credentials[11] = (110, 111, 112)
    trio.publish()
    only = trio.upstreams[11]
    await trio.ask_many([turn(n) for n in range(30)])
    assert len({headers[b"x-api-key"] for headers in only.requests}) == 3

    only.fail("status=429; retry_after=30")
    refused = await trio.gateway.post(turn(1))
    only.repair()
    await trio.ask_many([turn(n) for n in range(30)])

    # The three rotated around each other: each was told to wait, and then nobody asked any more.
    assert (refused.status_code, int(refused.headers["retry-after"])) == (529, 30)
    assert len(only.requests) == 33
    assert len(trio.peer(11).cooling) == 3


async def test_a_refused_credential_is_followed_by_another_of_the_same_upstream(
    trio: Trio,
) -> None:
    trio.rows = {11: {"weight": 1, "priority": 0}}
    trio.upstreams = {11: trio.upstreams[11]}
    trio.credentials[11] = (110, 111)
    trio.publish()
    only = trio.upstreams[11]
    only.fail_next = ["status=429; retry_after=30"]

    response = await trio.gateway.post(turn(1))

    used = [headers[b"x-api-key"] for headers in only.requests]
    assert response.status_code == 200
    assert set(used) == {b"secret-110", b"secret-111"}


async def test_what_one_worker_learns_of_an_upstream_is_in_redis_for_the_others(
    trio: Trio,
) -> None:
    trio.upstreams[11].fail("status=503", is_all_failing=True)
    await trio.ask_many([turn(n) for n in range(60)])

    key = keyspace.upstream_health(11)
    await trio.gateway.until(lambda: trio.world.redis.hget(key, "breaker") is not None)

    assert trio.world.redis.hget(key, "breaker").startswith(b"1:")
    assert trio.world.redis.pttl(key) > 0


async def test_what_another_worker_learnt_holds_here_within_two_rounds(trio: Trio) -> None:
    await trio.gateway.post(turn(0, max_tokens=-1))  # reads the plane, and reaches nobody
    trio.upstreams[12].fail("status=503", is_all_failing=True)
    now_ms = int(trio.world.redis.time()[0]) * 1_000
    trio.world.redis.hset(keyspace.upstream_health(12), "breaker", f"1:{now_ms + 9_000}:4:{now_ms}")

    await trio.gateway.until(lambda: trio.peer(12).is_open)
    await trio.ask_many([turn(n) for n in range(30)])

    assert trio.counts()[12] == 0


async def test_a_cap_on_concurrency_sends_the_rest_elsewhere(trio: Trio) -> None:
    trio.change(11, concurrency=2)
    simulator = trio.upstreams[11].simulator

    async def answer_when_all_are_there(scope: Any, receive: Any, send: Any) -> None:
        await trio.gateway.until(lambda: sum(trio.counts().values()) == 40)
        await simulator(scope, receive, send)

    for faulty in trio.upstreams.values():
        faulty.answer_instead(answer_when_all_are_there)

    answers = await trio.ask_many([turn(n) for n in range(40)], at_once=40)

    slots = keyspace.upstream_slots(11, "u")
    assert {answer.status_code for answer in answers} == {200}
    assert trio.counts()[11] == 2
    await trio.gateway.until(lambda: trio.world.redis.zcard(slots) == 0)


async def test_caps_everywhere_give_the_request_back(trio: Trio) -> None:
    for number in NUMBERS:
        trio.changes[number] = {"requests_per_minute": 0}
    trio.publish()

    refused = await trio.gateway.post(turn(1))
    await trio.gateway.until(lambda: len(trio.world.events()) == 1)
    event = trio.world.events()[0]

    assert (refused.status_code, refused.json()["error"]["type"]) == (529, "overloaded_error")
    assert refused.headers["x-should-retry"] == "true"
    assert (event.status, list(event.attempts)) == ("void", [])
    assert trio.counts() == {11: 0, 12: 0, 13: 0}
    assert (trio.world.held_micro(), trio.world.slots_taken()) == (0, 0)
    trio.changes = {number: {} for number in NUMBERS}
    trio.publish()
    served = await trio.gateway.post(turn(1))
    remaining = int(served.headers["anthropic-ratelimit-requests-remaining"])
    assert remaining == 999_999


async def test_a_cap_on_one_credential_leaves_the_other(trio: Trio) -> None:
    trio.rows = {11: {"weight": 1, "priority": 0}}
    trio.upstreams = {11: trio.upstreams[11]}
    trio.credentials[11] = (110, 111)
    trio.credential_changes = {110: {"requests_per_minute": 0}}
    trio.publish()

    answers = await trio.ask_many([turn(n) for n in range(12)])

    used = {headers[b"x-api-key"] for headers in trio.upstreams[11].requests}
    assert {answer.status_code for answer in answers} == {200}
    assert used == {b"secret-111"}


async def test_without_caps_redis_is_not_asked_about_upstreams(trio: Trio) -> None:
    await trio.ask_many([turn(n) for n in range(10)])

    assert list(trio.world.redis.scan_iter("tp:{u:*}:rates")) == []
    assert list(trio.world.redis.scan_iter("tp:{u:*}:slots:*")) == []


async def test_a_timeout_is_the_end_of_the_line_and_the_slot_is_free_again(trio: Trio) -> None:
    for number in NUMBERS:
        trio.changes[number] = {"answer_timeout_seconds": 0.2, "concurrency": 5}
        trio.upstreams[number].fail("hang")
    trio.publish()

    response = await trio.gateway.post(turn(1))

    assert response.status_code == 504
    assert sum(trio.counts().values()) == 1
    await trio.gateway.until(
        lambda: (
            not any(
                trio.world.redis.zcard(keyspace.upstream_slots(number, "u")) for number in NUMBERS
            )
        )
    )


async def test_later_attempts_have_what_the_earlier_ones_left_of_the_time(trio: Trio) -> None:
    for number in NUMBERS:
        trio.changes[number] = {"answer_timeout_seconds": 2.0}
        trio.upstreams[number].fail("delay_ms=1200; status=503")
    trio.publish()

    response = await trio.gateway.post(turn(1))

    # The second had 0.8 s: with two of its own it would have been refused, and a third tried.
    assert response.status_code == 504
    assert sum(trio.counts().values()) == 2


async def test_the_cache_hit_figure_counts_turns_that_stay(trio: Trio) -> None:
    kept = METRICS.conversation_turns.labels("kept").numbers
    moved = METRICS.conversation_turns.labels("moved").numbers
    before = kept[0], moved[0]
    await trio.ask_many([turn(n) for n in range(20)])
    await trio.ask_many([turn(n, turns=2) for n in range(20)])

    assert (kept[0] - before[0], moved[0] - before[1]) == (20, 0)
