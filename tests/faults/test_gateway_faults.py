"""Gateway workers are killed, frozen, told to stop, and robbed of their journals."""

import asyncio
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.conftest import Running, World, until, until_all_admit
from tests.storm.client import Seen
from tests.storm.oracle import CHARACTERS_PER_TOKEN, ESTIMATED, OBSERVED, REPORTED, Charged
from turnpike.kernel import ids

SHORT_REQUESTS = 40
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def worker_of(world: World, running: Running) -> int:
    """The gateway worker that serves a stream."""
    return world.cluster.worker_at(running.connection.local_port)


def assert_between_seen_and_written(world: World, event: Charged, seen: Seen) -> None:
    """A cut stream's charge: exact input, and output between the client's and the upstream's."""
    least = -(-seen.characters // CHARACTERS_PER_TOKEN)
    assert 0 < least <= event.tokens["output_tokens"] <= world.billed_output(seen)
    assert event.tokens["input_tokens"] == seen.usage["input_tokens"]
    assert event.waived_nano == 0


async def test_a_killed_worker_leaves_an_observed_event_within_bounds(world: World) -> None:
    running = await world.stream("rich")

    os.kill(worker_of(world, running), signal.SIGKILL)
    seen = await running.end()
    event = await world.event_of_rank(seen, OBSERVED)

    assert seen.broke
    assert (event.rank, event.revisions) == (OBSERVED, 1)
    assert_between_seen_and_written(world, event, seen)


async def test_a_killed_worker_without_its_journal_is_settled_by_its_last_beat(
    world: World,
) -> None:
    running = await world.stream("rich", tokens=400)
    worker = worker_of(world, running)
    await until(lambda: b"output_chars" in world.record_field(running.seen, "progress"))

    os.kill(worker, signal.SIGSTOP)
    (journal,) = world.cluster.journal_dir.glob(f"*-{worker}-*")
    shutil.rmtree(journal)
    os.kill(worker, signal.SIGKILL)
    seen = await running.end()
    event = await world.event_of_rank(seen, ESTIMATED)

    assert (event.rank, event.revisions) == (ESTIMATED, 1)
    assert event.amount_nano > 0
    assert event.tokens["input_tokens"] == seen.usage["input_tokens"]
    assert event.tokens["output_tokens"] <= world.billed_output(seen)


async def test_a_frozen_worker_is_reaped_and_revises_its_event_once(world: World) -> None:
    running = await world.stream("one slot", tokens=120)
    worker = worker_of(world, running)

    os.kill(worker, signal.SIGSTOP)
    reaped = await world.event_of_rank(running.seen, ESTIMATED)
    # Its lease is over, so its slot is free; the worker that wakes must not take it back.
    other = await world.stream("one slot", tokens=400)
    os.kill(worker, signal.SIGCONT)
    seen = await running.end()
    revised = await world.event_of_rank(seen, REPORTED)
    slots = world.slots("one slot")
    await other.leave()

    assert (reaped.rank, reaped.revisions) == (ESTIMATED, 1)
    assert seen.is_answered
    assert (revised.rank, revised.revisions) == (REPORTED, 2)
    assert revised.tokens["output_tokens"] == world.billed_output(seen) == 120
    assert slots == [str(ids.parse_public_id(ids.REQUEST, other.seen.request_id))]
    await world.event_of_rank(other.seen, OBSERVED)
    assert (await world.ask("one slot")).is_answered


async def test_a_reload_ends_running_streams_normally_and_refuses_no_connection(
    world: World,
) -> None:
    before = set(world.cluster.worker_pids())
    streams = [await world.stream("rich", tokens=120) for _ in range(4)]

    world.cluster.send_signal("gateway", signal.SIGHUP)
    short: list[Seen] = []
    while before & set(world.cluster.worker_pids()) or len(short) < SHORT_REQUESTS:
        short.append(await world.ask("rich", max_tokens=8))
    ended = [await running.end() for running in streams]

    assert [seen.is_answered for seen in ended] == [True] * len(streams)
    assert [seen for seen in short if not seen.is_answered] == []


async def test_a_stopped_worker_ends_its_streams_while_the_other_takes_the_rest(
    world: World,
) -> None:
    running = await world.stream("rich", tokens=120)
    worker = worker_of(world, running)

    os.kill(worker, signal.SIGTERM)
    short: list[Seen] = []
    while worker in world.cluster.worker_pids() or len(short) < SHORT_REQUESTS:
        short.append(await world.ask("rich", max_tokens=8))

    assert (await running.end()).is_answered
    assert [seen for seen in short if not seen.is_answered] == []


async def test_a_stopped_gateway_ends_its_streams_and_leaves_no_journal(world: World) -> None:
    streams = [await world.stream("rich", tokens=60) for _ in range(4)]

    await asyncio.to_thread(world.cluster.stop_gateway)
    ended = [await running.end() for running in streams]
    left = [path.name for path in world.cluster.journal_dir.glob("*/*.log")]
    world.cluster.start_gateway()

    assert [seen.is_answered for seen in ended] == [True] * len(streams)
    for seen in ended:
        assert (await world.event_of_rank(seen, REPORTED)).revisions == 1
    # What was not yet confirmed as posted stays, and is confirmed by the workers that come.
    await until(lambda: not any((world.cluster.journal_dir / name).exists() for name in left))


async def test_an_unwritable_journal_refuses_the_new_and_settles_the_running(world: World) -> None:
    running = await world.stream("rich", tokens=60)

    with full_disk(world.cluster.worker_pids()):
        await running.end()
        refused = [await world.ask("rich") for _ in range(4)]
        event = await world.event_of_rank(running.seen, REPORTED)

    assert running.seen.is_answered
    assert event.tokens["output_tokens"] == world.billed_output(running.seen) == 60
    assert {(seen.status, seen.error_type) for seen in refused} == {(529, "overloaded_error")}
    await until_all_admit(world)


@contextmanager
def full_disk(pids: list[int]) -> Iterator[None]:
    """No file of these processes may grow, as on a disk without room; root has no other walls."""
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, UNLIMITED)
