"""Valkey and PostgreSQL hang, stop, restart and lose everything, while requests run."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import Collection, Iterable
from itertools import pairwise

import pytest

from tests.faults.conftest import Running, World, until
from tests.storm.client import Connection, Seen
from tests.storm.oracle import REPORTED, read_charged
from turnpike.kernel import clock, ids, keyspace

FENCE_SECONDS_MAX = 25.0
PAUSE_MS = 3_000
# Two tries of 50 ms, and what a busy machine adds to the quickest of some.
REFUSED_SECONDS_MAX = 0.4
REFUSALS = 3
RETRY_SECONDS = 0.2
CROWD = 12
CROWD_REQUESTS = 4
SLOTS = 4


@pytest.mark.alone
async def test_after_the_loss_of_all_data_the_fence_keeps_credit_for_what_runs(
    world: World,
) -> None:
    running = [await stream_when_open(world) for _ in range(5)]
    assert [item.seen.status for item in running] == [200] * 5

    with world.cluster.redis() as client:
        client.flushall()
    more = await asyncio.gather(*(stream_when_open(world) for _ in range(6)))

    statuses = sorted(item.seen.status for item in more)
    have_ended = [item.task.done() for item in running]
    states = [world.record_field(item.seen, "st") for item in running]
    for item in (*running, *more):
        await item.leave()
    assert (have_ended, states) == ([False] * 5, [b"open"] * 5)
    assert statuses == [200, 200, 200, 200, 200, 402]


async def stream_when_open(world: World) -> Running:
    """A stream that is asked for until it is not refused for a while: the shard has opened."""
    async with asyncio.timeout(FENCE_SECONDS_MAX):
        while True:
            stream = await world.stream("fence", tokens=900, pace_ms=250)
            if stream.seen.status != 529:
                return stream
            await stream.end()
            await asyncio.sleep(RETRY_SECONDS)


async def test_hanging_redis_refuses_or_falls_back_at_once_and_no_stream_feels_it(
    world: World,
) -> None:
    connections = {name: world.connect() for name in ("rich", "poor")}
    for name, connection in connections.items():
        assert (await world.ask_over(connection, name)).is_answered
    running = await world.stream("rich", tokens=300, pace_ms=50)
    moments = asyncio.create_task(moments_of(running, count=20))

    with world.cluster.redis() as client:
        client.execute_command("CLIENT", "PAUSE", PAUSE_MS, "ALL")
    refused = await ask_quickly(world, connections["poor"], "poor")
    admitted = await ask_quickly(world, connections["rich"], "rich", orders="pace_ms=0")
    gaps = [after - before for before, after in pairwise(await moments)]
    await running.leave()

    assert (refused.status, refused.error_type) == (529, "overloaded_error")
    assert admitted.is_answered
    assert max(map(seconds_of, (refused, admitted))) < REFUSED_SECONDS_MAX
    # A chunk each 50 ms, all the time.
    assert max(gaps) < PAUSE_MS / 2 / 1_000
    event = await world.event_of_rank(admitted, REPORTED)
    assert event.tokens["output_tokens"] == world.billed_output(admitted)


async def ask_quickly(
    world: World, connection: Connection, tenant: str, *, orders: str = ""
) -> Seen:
    """The quickest of some answers."""
    asked = [await world.ask_over(connection, tenant, orders=orders) for _ in range(REFUSALS)]
    return min(asked, key=seconds_of)


def seconds_of(seen: Seen) -> float:
    """How long the whole answer took."""
    return (seen.ended_at_us - seen.started_at_us) / 1_000_000


async def moments_of(running: Running, *, count: int) -> list[float]:
    """When each of the next chunks of a stream arrived."""
    moments = [time.monotonic()]
    characters = running.seen.characters
    while len(moments) < count and not running.task.done():
        if running.seen.characters != characters:
            characters = running.seen.characters
            moments.append(time.monotonic())
        await asyncio.sleep(0.005)
    return moments


async def test_stopped_postgres_touches_no_request_and_the_backlog_is_drained(
    world: World,
) -> None:
    await asyncio.to_thread(world.cluster.stop_postgres, signal.SIGQUIT)
    answered = [await world.ask("rich", max_tokens=8) for _ in range(10)]
    world.cluster.start_postgres()
    await until(world.cluster.is_postgres_ready)

    assert [seen for seen in answered if not seen.is_answered] == []
    for seen in answered:
        event = await world.event_of_rank(seen, REPORTED)
        assert (event.revisions, event.tokens["output_tokens"]) == (1, world.billed_output(seen))


async def test_restarted_redis_has_every_event_that_was_settled(world: World) -> None:
    await until(lambda: entries_of(world) == 0)
    world.cluster.kill("ingest-0", signal.SIGTERM)
    world.cluster.kill("control", signal.SIGTERM)
    answered = [await world.ask("rich", max_tokens=8) for _ in range(10)]
    await until(lambda: entries_of(world) == len(answered))

    await asyncio.to_thread(world.cluster.kill, "valkey")
    world.cluster.start_valkey()
    await until(world.cluster.is_valkey_ready)
    kept = entries_of(world)
    world.cluster.start_control()
    world.cluster.start_ingest("ingest-0")

    assert [seen for seen in answered if not seen.is_answered] == []
    assert kept == len(answered)
    for seen in answered:
        assert (await world.event_of_rank(seen, REPORTED)).revisions == 1


def entries_of(world: World) -> int:
    """How many events wait in the streams."""
    with world.cluster.redis() as client:
        return sum(client.xlen(keyspace.usage_stream(shard)) for shard in range(keyspace.SHARDS))


async def test_a_crowd_of_processes_never_passes_the_limit_of_slots(world: World) -> None:
    command = [sys.executable, "tests/faults/crowd.py", str(world.cluster.port)]
    arguments = [world.keys["four slots"], str(CROWD_REQUESTS)]
    crowd = [
        await asyncio.create_subprocess_exec(
            *command, *arguments, env=world.cluster.environment, stdout=asyncio.subprocess.PIPE
        )
        for _ in range(CROWD)
    ]
    answers = [json.loads((await member.communicate())[0]) for member in crowd]

    begun = {rid: at for answer in answers for rid, at in answer["begun_at_us"].items()}
    await until(lambda: len(ends_of(world, begun)) == len(begun))
    ends = ends_of(world, begun)

    assert len(begun) == CROWD * CROWD_REQUESTS
    assert sum(answer["refused"] for answer in answers) > 0
    # From the headers, which come after admission, to the event, which is written before the slot
    # is free: each of these spans lies within the slot's.
    assert 1 < overlap_of([(begun[rid], ends[rid]) for rid in begun]) <= SLOTS


def ends_of(world: World, request_ids: Collection[str]) -> dict[str, int]:
    """When the gateway wrote down the ends of these requests, as far as they are posted."""
    events = ((ids.public_id(ids.REQUEST, item.rid), item) for item in read_charged(world.cluster))
    return {
        name: clock.us_of_datetime(item.finished_at) for name, item in events if name in request_ids
    }


def overlap_of(spans: Iterable[tuple[float, float]]) -> int:
    """How many of these spans of time lie over one another at most."""
    edges = sorted(edge for begin, end in spans if begin < end for edge in ((begin, 1), (end, -1)))
    most = now = 0
    for _, step in edges:
        now += step
        most = max(most, now)
    return most


def test_spans_that_touch_do_not_overlap() -> None:
    assert overlap_of([(0, 1), (1, 2), (0.5, 1.5), (3, 2)]) == 2
