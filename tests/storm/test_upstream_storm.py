"""Three upstreams under steady load, one of which fails in every way of the fault matrix in turn.

Rows 18 to 27: no request is lost that another upstream could serve, none is billed twice by the
simulators' own records, nothing takes longer than the deadline, and whoever was repaired is back
within the probe's interval. `make storm` goes through all ways, `make test` through four; among
tests/gateway there is a test of each.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from proxy.upstreams.health import FAILURES_IN_ROW_MAX, WINDOW_FAILURES_MIN
from tests.gateway.trio import (
    Trio,
    check_money,
    make_trio,
    send_a_bomb,
    send_a_page,
    send_too_much,
    turn,
)
from turnpike.kernel import clock

IS_LONG = os.environ.get("CHAOS") == "full"
SECONDS_LONG = 75.0
# In the short one a way is left as soon as it was met.
BROKEN_SECONDS_SHORT = 0.3
CLIENTS = 6
PAUSE_SECONDS = 0.01
BROKEN = 12
# The upstreams' own time-out; the deadline is that, the pace of the slowest stream, and the tries.
WAIT_SECONDS = 1.0
DEADLINE_SECONDS = 4.0
NOTICED_SECONDS_MAX = 20.0
# Beyond the rest of the interval for which its circuit is open: a look around, and one request.
LOOK_SECONDS = 2.0
# What was under way when the circuit opened, and what opened it.
LOST_MAX = max(FAILURES_IN_ROW_MAX, WINDOW_FAILURES_MIN) + 2 * CLIENTS

Break = Callable[[Trio], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way to fail; `may_lose`: what fails so may have been billed, so it is not tried again."""

    row: int
    name: str
    break_it: Break
    may_lose: bool = False
    lost_max: int = LOST_MAX
    is_in_short: bool = False
    is_noticed: bool = True


@dataclass(slots=True, kw_only=True)
class Phase:
    """What clients saw while one way was tried."""

    way: str
    asked: int = 0
    lost: int = 0
    under_way: int = 0
    seconds: list[float] = field(default_factory=list)
    back_seconds: float = 0.0


def orders(text: str, *, is_all_failing: bool = False) -> Break:
    """The simulator fails by its own orders."""
    return lambda trio: trio.upstreams[BROKEN].fail(text, is_all_failing=is_all_failing)


def instead(app: Any) -> Break:
    """Something else answers."""
    return lambda trio: trio.upstreams[BROKEN].answer_instead(app)


def refuse(trio: Trio) -> None:
    """Nobody listens where it was."""
    trio.change(BROKEN, base_url="http://127.0.0.1:1")


def hide(trio: Trio) -> None:
    """Its name leads nowhere."""
    trio.change(BROKEN, base_url="http://nowhere.invalid")


def drip(trio: Trio) -> None:
    """Its answers come byte by byte."""
    trio.upstreams[BROKEN].drip(byte_seconds=0.02)


WAYS = (
    Way(row=18, name="refuses connections", break_it=refuse, is_in_short=True),
    Way(row=18, name="its name is not known", break_it=hide),
    Way(row=19, name="resets before the answer", break_it=orders("drop")),
    Way(
        row=20,
        name="cuts the answer",
        break_it=orders("cut_after_events=4"),
        may_lose=True,
        is_in_short=True,
    ),
    Way(
        row=21,
        name="never answers",
        break_it=orders("hang", is_all_failing=True),
        may_lose=True,
    ),
    Way(row=21, name="falls silent", break_it=orders("hang_after_events=4"), may_lose=True),
    # Slow to fail, so more are under way before anybody knows.
    Way(row=22, name="drips", break_it=drip, may_lose=True, lost_max=3 * LOST_MAX),
    Way(row=23, name="429", break_it=orders("status=429; retry_after=1")),
    Way(row=23, name="529", break_it=orders("status=529")),
    Way(row=23, name="500", break_it=orders("status=500")),
    Way(row=23, name="503", break_it=orders("status=503")),
    Way(row=24, name="401", break_it=orders("status=401"), is_in_short=True),
    Way(row=24, name="403", break_it=orders("status=403")),
    Way(row=25, name="bad JSON", break_it=orders("bad_json"), may_lose=True),
    Way(row=25, name="another content type", break_it=instead(send_a_page), may_lose=True),
    Way(row=26, name="a bomb", break_it=instead(send_a_bomb), may_lose=True, is_in_short=True),
    Way(row=26, name="an endless body", break_it=instead(send_too_much), may_lose=True),
    Way(
        row=27,
        name="usage is missing",
        break_it=orders("usage=missing"),
        is_noticed=False,
    ),
    Way(row=27, name="usage is negative", break_it=orders("usage=negative"), is_noticed=False),
    Way(row=27, name="usage decreases", break_it=orders("usage=decreasing"), is_noticed=False),
)


@pytest.fixture
async def trio(gateway: Any) -> AsyncIterator[Trio]:
    """Three simulators behind the gateway, with short timeouts and no limit in the way."""
    gateway.world.set_tier_limits(
        requests_per_minute=1_000_000, tokens_per_minute=1_000_000_000, concurrency=1_000
    )
    gateway.world.set_wallet(posted_micro=10**12)
    async with make_trio(gateway) as trio:
        for number in trio.upstreams:
            trio.changes[number] = {
                "answer_timeout_seconds": WAIT_SECONDS,
                "silence_timeout_seconds": WAIT_SECONDS,
                "connect_timeout_seconds": WAIT_SECONDS,
            }
        trio.publish()
        yield trio


class Chaos:
    """The load, and the phases that it went through."""

    def __init__(self, trio: Trio) -> None:
        self._trio = trio
        self._number = 0
        self._is_over = False
        self.phases = [Phase(way="nothing is broken")]
        self.asked = 0

    async def run(self, ways: tuple[Way, ...], *, seconds: float) -> None:
        """Break and repair it in each way; what is under way in the end may end."""
        clients = [asyncio.create_task(self._ask_on()) for _ in range(CLIENTS)]
        for way in ways:
            await self._go_through(way, seconds=seconds)
        self._is_over = True
        await asyncio.gather(*clients)

    async def _go_through(self, way: Way, *, seconds: float) -> None:
        faulty = self._trio.upstreams[BROKEN]
        self.phases.append(Phase(way=f"{way.row} {way.name}"))
        # What the new way costs must not be counted against the one before.
        cleared_by = time.monotonic() + NOTICED_SECONDS_MAX
        while any(phase.under_way for phase in self.phases[:-1]):
            assert time.monotonic() < cleared_by, f"{way.name}: the last way goes on"
            await asyncio.sleep(0.001)
        way.break_it(self._trio)
        peer = self._trio.peer(BROKEN)
        begun = time.monotonic()
        while time.monotonic() - begun < seconds or (
            way.is_noticed and not (peer.is_open or peer.cooling)
        ):
            assert time.monotonic() - begun < NOTICED_SECONDS_MAX, f"{way.name}: nobody noticed"
            await asyncio.sleep(0.01)
        faulty.repair()
        if self._trio.changes[BROKEN].pop("base_url", None) is not None:
            self._trio.publish()
        repaired, before = time.monotonic(), len(faulty.billed())
        # What met it broken still fails, and it rests anew.
        while peer.is_open and peer.in_flight:
            assert time.monotonic() - repaired < DEADLINE_SECONDS, (
                f"{way.name}: what met it broken goes on"
            )
            await asyncio.sleep(0.001)
        rests_until_ms = max(peer.open_until_ms, *peer.cooling.values(), 0)
        allowed_seconds = max(0.0, (rests_until_ms - clock.now_ms()) / 1_000) + LOOK_SECONDS
        allowed_seconds += time.monotonic() - repaired
        while peer.is_open or len(faulty.billed()) == before:
            seconds_gone = time.monotonic() - repaired
            assert seconds_gone < allowed_seconds, f"{way.name}: not back in its interval"
            await asyncio.sleep(0.01)
        self.phases[-1].back_seconds = time.monotonic() - repaired
        # As if it had been well for a while: the next way is not one failure more of the last.
        peer.closed_at_ms = 0

    async def _ask_on(self) -> None:
        while not self._is_over:
            phase = self.phases[-1]
            self._number += 1
            is_stream = self._number % 2 == 0
            begun = time.monotonic()
            phase.under_way += 1
            response = await self._trio.gateway.post(turn(self._number, stream=is_stream))
            phase.under_way -= 1
            phase.seconds.append(time.monotonic() - begun)
            phase.asked += 1
            is_whole = response.status_code == 200 and (
                not is_stream or "message_stop" in response.text
            )
            phase.lost += not is_whole
            self.asked += 1
            await asyncio.sleep(PAUSE_SECONDS)


@pytest.mark.timeout(300)
async def test_no_way_to_fail_costs_an_answer_that_another_upstream_could_give(
    trio: Trio, capsys: pytest.CaptureFixture[str]
) -> None:
    ways = WAYS if IS_LONG else tuple(way for way in WAYS if way.is_in_short)
    chaos = Chaos(trio)

    await chaos.run(ways, seconds=SECONDS_LONG / len(WAYS) / 2 if IS_LONG else BROKEN_SECONDS_SHORT)

    if IS_LONG:
        with capsys.disabled():
            sys.stdout.write("\n" + "".join(map(line_of, chaos.phases)))
    for way, phase in zip(ways, chaos.phases[1:], strict=True):
        assert phase.lost <= (way.lost_max if way.may_lose else 0), phase.way
    seconds = sorted(second for phase in chaos.phases for second in phase.seconds)
    assert seconds[len(seconds) * 99 // 100] < DEADLINE_SECONDS
    await check_money(trio, chaos.asked)


def test_every_row_has_its_way() -> None:
    assert {way.row for way in WAYS} == set(range(18, 28))


def line_of(phase: Phase) -> str:
    """The figures of a phase."""
    slowest = max(phase.seconds, default=0.0)
    return (
        f"{phase.way:32} {phase.asked:>6} asked {phase.lost:>4} lost "
        f"{slowest:>6.2f} s slowest {phase.back_seconds:>6.2f} s until back\n"
    )
