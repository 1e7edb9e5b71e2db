"""Three upstreams, one failing in each way of the fault matrix in turn, under load.

No request is lost that another upstream could serve, none is billed twice, nothing takes longer
than its deadline, and the broken one is back within its probe interval.
"""

import asyncio
import contextlib
import gc
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.pipeline import ANSWER_BYTES_MAX
from proxy.upstreams.health import FAILURES_IN_ROW_MAX, OPEN_MS_MAX, WINDOW_FAILURES_MIN
from tests.gateway.trio import (
    Trio,
    check_money,
    make_trio,
    send_a_bomb,
    send_a_page,
    send_too_much,
    turn,
)

BROKEN = 12
AT_ONCE = 6
REQUESTS = 60
DEADLINE_SECONDS = 3.0
# Failures after which nobody can know whether the upstream did the work: those reach the client.
LOST_MAX = FAILURES_IN_ROW_MAX + AT_ONCE
CUT_MAX = WINDOW_FAILURES_MIN + AT_ONCE


@pytest.fixture
async def trio(gateway: Any) -> AsyncIterator[Trio]:
    """Three simulators behind the gateway, which share its process and all that holds it up."""
    gateway.world.set_tier_limits(
        requests_per_minute=1_000_000, tokens_per_minute=1_000_000_000, concurrency=1_000
    )
    async with make_trio(gateway) as trio:
        yield trio


def set_short_timeouts(trio: Trio) -> None:
    """For upstreams that say nothing: nobody waits long for them."""
    for number in trio.upstreams:
        trio.changes[number] = {
            "answer_timeout_seconds": 0.5,
            "silence_timeout_seconds": 0.5,
            "connect_timeout_seconds": 0.5,
        }
    trio.publish()


class Seen:
    """What clients saw of a run."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.cut = 0
        self.seconds: list[float] = []

    @property
    def lost(self) -> int:
        """Requests that got no whole answer."""
        return sum(n for status, n in self.statuses.items() if status != 200) + self.cut


async def run(trio: Trio, *, is_stream: bool, requests: int = REQUESTS, start: int = 0) -> Seen:
    seen, gate = Seen(), asyncio.Semaphore(AT_ONCE)

    async def ask(number: int) -> None:
        async with gate:
            begun_at = time.perf_counter()
            response = await trio.gateway.post(turn(start + number, stream=is_stream))
            seen.seconds.append(time.perf_counter() - begun_at)
            seen.statuses[response.status_code] += 1
            if response.status_code == 200:
                seen.cut += is_stream and "message_stop" not in response.text

    await asyncio.gather(*(ask(number) for number in range(requests)))
    return seen


async def until_back(trio: Trio) -> float:
    """Repair the broken one, and wait until it serves again; how long that took."""
    faulty = trio.upstreams[BROKEN]
    faulty.repair()
    begun_at, before = time.perf_counter(), len(faulty.requests)
    number = 10_000
    async with asyncio.timeout(OPEN_MS_MAX / 1_000 + 2):
        while len(faulty.requests) == before or trio.peer(BROKEN).is_open:
            await trio.gateway.post(turn(number))
            number += 1
            await asyncio.sleep(0.01)
    return time.perf_counter() - begun_at


def resident_kib() -> int:
    """How much memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


@pytest.mark.parametrize(
    ("orders", "is_stream"),
    [
        ("drop", False),
        ("drop", True),
        ("cut_after_events=0", True),
        ("cut_after_events=0", False),
        ("status=429; retry_after=1", True),
        ("status=429", False),
        ("status=529", True),
        ("status=500", False),
        ("status=503", True),
        ("status=401", False),
        ("status=403", True),
    ],
)
async def test_no_request_is_lost_that_another_upstream_can_serve(
    trio: Trio, orders: str, is_stream: bool
) -> None:
    trio.upstreams[BROKEN].fail(orders)

    seen = await run(trio, is_stream=is_stream)

    assert (seen.lost, seen.statuses[200]) == (0, REQUESTS)
    assert max(seen.seconds) < DEADLINE_SECONDS
    await check_money(trio, REQUESTS)
    assert 0 < len(trio.upstreams[BROKEN].requests) < REQUESTS / 3 + AT_ONCE
    assert await until_back(trio) < OPEN_MS_MAX / 1_000


async def test_an_upstream_that_refuses_connections_costs_nobody_an_answer(trio: Trio) -> None:
    port, trio.upstreams[BROKEN].port = trio.upstreams[BROKEN].port, 1
    trio.publish()

    seen = await run(trio, is_stream=False)

    assert (seen.lost, seen.statuses[200]) == (0, REQUESTS)
    assert max(seen.seconds) < DEADLINE_SECONDS
    assert trio.peer(BROKEN).is_open
    trio.upstreams[BROKEN].port = port
    trio.publish()
    await check_money(trio, REQUESTS)
    assert await until_back(trio) < OPEN_MS_MAX / 1_000


@pytest.mark.parametrize(
    ("orders", "is_stream", "lost_max"),
    [
        ("hang", False, LOST_MAX),
        ("hang", True, LOST_MAX),
        ("bad_json", False, LOST_MAX),
        ("cut_after_events=4", True, CUT_MAX),
        ("hang_after_events=4", True, CUT_MAX),
        ("error_after_events=4", True, CUT_MAX),
    ],
)
async def test_what_may_have_been_billed_is_not_tried_again_but_soon_avoided(
    trio: Trio, orders: str, is_stream: bool, lost_max: int
) -> None:
    if "hang" in orders:
        set_short_timeouts(trio)
    trio.upstreams[BROKEN].fail(orders, is_all_failing=orders == "hang")

    seen = await run(trio, is_stream=is_stream, requests=4 * REQUESTS)

    assert 0 < seen.lost <= lost_max
    assert len(trio.upstreams[BROKEN].requests) <= lost_max
    assert max(seen.seconds) < DEADLINE_SECONDS
    await check_money(trio, 4 * REQUESTS)
    assert await until_back(trio) < OPEN_MS_MAX / 1_000


@pytest.mark.parametrize("is_stream", [False, True])
async def test_an_upstream_that_drips_has_a_deadline(trio: Trio, is_stream: bool) -> None:
    set_short_timeouts(trio)
    trio.upstreams[BROKEN].drip(byte_seconds=0.02)

    seen = await run(trio, is_stream=is_stream, requests=2 * REQUESTS)

    assert 0 < seen.lost <= (CUT_MAX if is_stream else LOST_MAX)
    assert max(seen.seconds) < DEADLINE_SECONDS
    await check_money(trio, 2 * REQUESTS)
    assert await until_back(trio) < OPEN_MS_MAX / 1_000


async def test_bytes_that_never_become_an_event_count_as_failures(trio: Trio) -> None:
    for number in trio.upstreams:
        trio.rows[number]["priority"] = int(number != BROKEN)
    set_short_timeouts(trio)
    trio.upstreams[BROKEN].drip(byte_seconds=0.02)

    seen = await run(trio, is_stream=True, requests=FAILURES_IN_ROW_MAX)

    assert seen.lost == FAILURES_IN_ROW_MAX
    assert trio.peer(BROKEN).is_open
    assert (await run(trio, is_stream=True, requests=1, start=FAILURES_IN_ROW_MAX)).lost == 0


@pytest.mark.parametrize(
    ("orders", "is_stream"), [("cut_after_events=4", True), ("bad_json", False)]
)
async def test_the_other_kind_of_answers_does_not_hide_a_kind_that_fails(
    trio: Trio, orders: str, is_stream: bool
) -> None:
    for number in trio.upstreams:
        trio.rows[number]["priority"] = int(number != BROKEN)
    trio.publish()
    lost = 0

    for turn_number in range(FAILURES_IN_ROW_MAX):
        at = 2 * turn_number
        trio.upstreams[BROKEN].fail(orders)
        lost += (await run(trio, is_stream=is_stream, requests=1, start=at)).lost
        trio.upstreams[BROKEN].repair()
        lost += (await run(trio, is_stream=not is_stream, requests=1, start=at + 1)).lost

    assert lost == FAILURES_IN_ROW_MAX
    assert trio.peer(BROKEN).opens == 1


@pytest.mark.parametrize("app", [send_too_much, send_a_bomb, send_a_page])
async def test_an_answer_that_is_none_is_an_error_and_costs_little(trio: Trio, app: Any) -> None:
    trio.upstreams[BROKEN].answer_instead(app)
    before_kib = resident_kib()

    gc.disable()  # nothing may wait for it
    try:
        seen = await run(trio, is_stream=False, requests=2 * REQUESTS)
        grown_kib = resident_kib() - before_kib
    finally:
        gc.enable()

    assert 0 < seen.lost <= LOST_MAX
    assert seen.statuses.keys() <= {200, 500, 504}
    # At most so much for each of those that are under way at once; nothing is unpacked.
    assert grown_kib < (AT_ONCE + 1) * ANSWER_BYTES_MAX // 1024
    await check_money(trio, 2 * REQUESTS)
    assert await until_back(trio) < OPEN_MS_MAX / 1_000


@pytest.mark.parametrize("fault", ["missing", "negative", "decreasing"])
async def test_odd_usage_is_an_answer_all_the_same(trio: Trio, fault: str) -> None:
    trio.upstreams[BROKEN].fail(f"usage={fault}")

    seen = await run(trio, is_stream=True)

    assert seen.lost == 0
    assert not trio.peer(BROKEN).is_open
    await check_money(trio, REQUESTS)


async def test_an_upstream_pulled_out_under_load_is_not_noticed(trio: Trio) -> None:
    async def pull_out_and_in() -> None:
        for changes in ({"is_draining": True}, {"is_enabled": False}, {"is_enabled": True}):
            await asyncio.sleep(0.05)
            trio.change(BROKEN, **changes)

    async with contextlib.AsyncExitStack():
        seen, _ = await asyncio.gather(
            run(trio, is_stream=True, requests=4 * REQUESTS), pull_out_and_in()
        )

    assert seen.lost == 0
    await check_money(trio, 4 * REQUESTS)
