"""What a dead worker left is settled by another one, as well as its journal and Redis can tell."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.journal import Journal, line_of
from tests.proxy.limiter_world import spec_of
from turnpike.contracts.usage import EventBase
from turnpike.kernel import clock, ids, keyspace

USAGE = {"input_tokens": 10, "output_tokens": 1}


class DeadWorker:
    """Writes the journal that a worker would have written before it was killed."""

    def __init__(self, gateway: Any, folder: Path) -> None:
        self.gateway = gateway
        self.world = gateway.world
        self.rid = str(ids.uuid7())
        self.journal = Journal(folder, fsync="off")
        self.journal.open()
        world = self.world
        self.base = EventBase(
            rid=self.rid,
            tenant=7,
            workspace=70,
            key=700,
            model="claude-sonnet-4-6",
            upstream_model="claude-sonnet-4-6",
            price_set=3,
            started_at_us=clock.now_us(),
            stream=True,
            max_tokens=100,
        )
        self.spec = spec_of(
            rid=self.rid,
            key=world.key,
            who=world.who,
            terms=world.terms,
            tier=world.plane.tiers["pro"],
            model=world.plane.models["claude-sonnet-4-6"],
            input_estimate=20,
            max_tokens=100,
            hold_micro=2_000,
            base=msgspec.json.encode(self.base),
            tenant_version=world.version,
            global_version=world.global_version,
            lease_ms=30_000,
            at_us=clock.now_us(),
        )

    async def admit(self) -> None:
        """Take a slot and a hold, and note the admission."""
        admission = await self.gateway.app._gateway.limiter.admit(self.spec)
        assert admission.is_granted
        self.write("A", b'"base":%b,"spec":%b' % (self.spec.base, self.spec.to_json()))

    def write(self, kind: str, body: bytes) -> None:
        """Add a line."""
        self.journal.append(self.rid, line_of(kind, self.rid, body))

    def write_progress(self, usage: dict[str, int], *, chars: int, is_final: bool = False) -> None:
        """Add what a stream had used."""
        flag = b"true" if is_final else b"false"
        self.write(
            "P",
            b'"usage":%b,"output_chars":%d,"is_final":%b,"hold":2000'
            % (json.dumps(usage).encode(), chars, flag),
        )

    def die(self) -> None:
        """Let go of the lock, as the system does when a process ends."""
        import os

        os.close(self.journal._lock)
        os.close(self.journal._file)


@pytest.fixture
async def dead(gateway: Any, tmp_path: Path) -> DeadWorker:
    """A worker that was admitted one request."""
    worker = DeadWorker(gateway, tmp_path / "journal" / "worker-0")
    await worker.admit()
    return worker


async def recovered(worker: DeadWorker) -> Any:
    """The event that the living worker makes of the dead one's journal."""
    worker.die()
    gateway = worker.gateway
    await gateway.app._gateway.recovery.adopt_journals()
    await gateway.app._gateway.settlement.confirm(is_last=True)
    await gateway.until(lambda: len(gateway.world.events()) == 1)
    return gateway.world.events()[0]


async def test_admitted_and_never_sent_is_void(dead: DeadWorker, world: Any) -> None:
    event = await recovered(dead)

    assert (event.rank, event.status, event.usage, event.attempts) == (0, "void", {}, ())
    assert (world.held_micro(), world.slots_taken(), world.open_records()) == (0, 0, 0)


async def test_sent_and_never_answered_is_unknown_and_free(dead: DeadWorker, world: Any) -> None:
    dead.write("S", b'"n":1,"upstream":9')

    event = await recovered(dead)

    assert (event.rank, event.usage) == (2, {})
    assert event.attempts[0].outcome == "unknown"
    assert world.held_micro() == 0


async def test_cut_in_mid_stream_is_charged_for_what_was_noted(
    dead: DeadWorker, world: Any
) -> None:
    dead.write("S", b'"n":1,"upstream":9')
    dead.write_progress(USAGE, chars=0)
    dead.write_progress(USAGE, chars=41)

    event = await recovered(dead)

    assert (event.rank, event.status) == (2, "observed")
    assert event.usage == {"input_tokens": 10, "output_tokens": 11}
    assert event.attempts[0].outcome == "cut"
    assert world.held_micro() == (10 * 3 + 11 * 15)
    assert (world.slots_taken(), world.open_records()) == (0, 0)


async def test_usage_that_was_final_is_not_estimated_again(dead: DeadWorker) -> None:
    dead.write("S", b'"n":1,"upstream":9')
    dead.write_progress({"input_tokens": 10, "output_tokens": 8}, chars=41, is_final=True)

    event = await recovered(dead)

    assert event.usage == {"input_tokens": 10, "output_tokens": 8}


async def test_torn_last_line_is_ignored(dead: DeadWorker, tmp_path: Path) -> None:
    dead.write("S", b'"n":1,"upstream":9')
    dead.write_progress(USAGE, chars=20)
    dead.journal.append(dead.rid, b'deadbeef {"t":"P","rid":"' + dead.rid.encode())

    event = await recovered(dead)

    assert event.usage["output_tokens"] == 5


async def test_written_end_is_settled_as_it_was_written(
    dead: DeadWorker, gateway: Any, world: Any
) -> None:
    dead.write("S", b'"n":1,"upstream":9')
    answer = await gateway.post()
    await gateway.until(lambda: len(world.events()) == 1)
    known = world.events()[0]
    event = msgspec.to_builtins(known) | {"rid": dead.rid}
    dead.write("F", b'"event":%b,"charges":{"t:requests":300000}' % msgspec.json.encode(event))
    dead.die()

    await gateway.app._gateway.recovery.adopt_journals()
    await gateway.app._gateway.settlement.confirm(is_last=True)
    await gateway.until(lambda: len(world.events()) == 2)

    found = world.events()[1]
    assert answer.status_code == 200
    assert (found.rid, found.rank, found.usage) == (dead.rid, 3, known.usage)


async def test_journal_is_deleted_only_when_everything_in_it_is_posted(
    dead: DeadWorker, gateway: Any, world: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "journal" / "worker-0"
    await recovered(dead)
    await gateway.app._gateway.recovery.adopt_journals()
    was_kept = folder.exists()

    world.redis.hset(keyspace.record(7, dead.rid), "posted", 2)
    await gateway.app._gateway.settlement.confirm(is_last=True)
    await gateway.app._gateway.recovery.adopt_journals()

    assert was_kept
    assert not folder.exists()


async def test_journal_of_a_living_worker_is_left_alone(
    dead: DeadWorker, gateway: Any, world: Any
) -> None:
    await gateway.app._gateway.recovery.adopt_journals()
    await gateway.app._gateway.settlement.confirm(is_last=True)

    assert world.events() == []
    assert world.open_records() == 1
    dead.die()


async def test_request_without_worker_and_journal_is_reaped_as_estimated(
    dead: DeadWorker, gateway: Any, world: Any, tmp_path: Path
) -> None:
    limiter = gateway.app._gateway.limiter
    progress = b'{"usage":{"input_tokens":10,"output_tokens":1},"output_chars":40,"is_final":false}'
    await limiter.beat(dead.spec, charges={}, progress=progress)
    member = f"7|{dead.rid}"
    world.redis.zadd(keyspace.open_requests(keyspace.shard_of(7)), {member: 1})

    await gateway.app._gateway.recovery.reap()

    event = world.events()[0]
    assert (event.rank, event.status) == (1, "estimated")
    assert event.usage == {"input_tokens": 10, "output_tokens": 10}
    assert (world.slots_taken(), world.open_records()) == (0, 0)
    dead.die()


async def test_reaper_does_not_displace_the_journal_that_this_worker_adopted(
    dead: DeadWorker, gateway: Any, world: Any
) -> None:
    dead.write("S", b'"n":1,"upstream":9')
    dead.write_progress(USAGE, chars=41)
    dead.die()
    gate = gateway.app._gateway
    await gate.recovery.adopt_journals()

    await gate.recovery._reap_one(keyspace.shard_of(7), "7", dead.rid)

    assert [event.rank for event in world.events()] == [2]
    world.redis.hset(keyspace.record(7, dead.rid), "posted", 2)
    await gate.settlement.confirm(is_last=True)
    assert gate.settlement.unconfirmed == 0


async def test_nobody_is_reaped_before_the_living_had_time_to_report(
    dead: DeadWorker, gateway: Any, world: Any
) -> None:
    gate = gateway.app._gateway
    member = f"7|{dead.rid}"
    world.redis.zadd(keyspace.open_requests(keyspace.shard_of(7)), {member: 1})

    gate._note_connect("another server")
    await gate._reap()
    just_after_the_return = world.events()
    gate._reap_from = clock.monotonic_seconds()
    await gate._reap()

    assert just_after_the_return == []
    assert [event.rank for event in world.events()] == [1]
    dead.die()


async def test_own_running_request_is_never_reaped(gateway: Any, world: Any) -> None:
    gateway.door.shut()
    task = asyncio.create_task(gateway.post())
    shard = keyspace.shard_of(7)
    await gateway.until(lambda: world.open_records() == 1)
    member = world.redis.zrange(keyspace.open_requests(shard), 0, 0)[0]
    world.redis.zadd(keyspace.open_requests(shard), {member: 1})

    await gateway.app._gateway.recovery.reap()
    gateway.door.open()
    response = await task
    await gateway.until(lambda: len(world.events()) == 1)

    assert response.status_code == 200
    assert [event.rank for event in world.events()] == [3]


async def test_reaped_request_that_ends_after_all_is_revised_once(gateway: Any, world: Any) -> None:
    gate = gateway.app._gateway
    gateway.door.shut()
    task = asyncio.create_task(gateway.post())
    await gateway.until(lambda: world.open_records() == 1)
    shard = keyspace.shard_of(7)
    member = world.redis.zrange(keyspace.open_requests(shard), 0, 0)[0]
    rid = member.decode().partition("|")[2]
    await gate.recovery._reap_one(shard, "7", rid)
    gateway.door.open()

    await task
    await gateway.until(lambda: len(world.events()) == 2)

    assert [event.rank for event in world.events()] == [1, 3]
    assert (world.slots_taken(), world.open_records()) == (0, 0)


async def test_event_is_sent_again_when_redis_lost_it(gateway: Any, world: Any) -> None:
    await gateway.post()
    await gateway.until(lambda: len(world.events()) == 1)
    await gateway.app._gateway.settlement.finish()
    known = world.events()[0]
    world.redis.flushdb()
    world.set_wallet(posted_micro=1_000_000)
    world.publish_plane()
    world.publish()

    await gateway.app._gateway.recovery.bring_back()

    assert world.events() == [known]
    assert world.held_micro() > 0


@pytest.mark.parametrize("line", ["admission", "end"])
async def test_event_that_the_journal_cannot_tell_again_is_not_forgotten(
    line: str, gateway: Any, world: Any, tmp_path: Path
) -> None:
    settlement = gateway.app._gateway.settlement
    await gateway.post()
    await gateway.until(lambda: len(world.events()) == 1)
    await settlement.finish()
    segment = next((tmp_path / "journal").rglob("*.log"))
    kept = segment.read_bytes()
    at = kept.index(b'"t":"A"' if line == "admission" else b'"t":"F"')
    segment.write_bytes(kept[:at] + b"?" + kept[at + 1 :])
    world.redis.flushdb()
    world.set_wallet(posted_micro=1_000_000)
    world.publish_plane()
    world.publish()

    await gateway.app._gateway.recovery.bring_back()
    lost = world.events()
    segment.write_bytes(kept)
    await settlement.resend_all()

    assert (lost, settlement.unconfirmed) == ([], 1)
    assert len(world.events()) == 1


async def test_confirmed_event_is_forgotten(gateway: Any, world: Any) -> None:
    settlement = gateway.app._gateway.settlement
    await gateway.post()
    await gateway.until(lambda: settlement.unconfirmed == 1)
    event = world.events()[0]

    await settlement.confirm(is_last=True)
    before = settlement.unconfirmed
    world.redis.hset(keyspace.record(7, event.rid), "posted", event.rank)
    await settlement.confirm(is_last=True)

    assert (before, settlement.unconfirmed) == (1, 0)


async def test_event_is_not_asked_for_before_it_can_be_posted(gateway: Any, world: Any) -> None:
    settlement = gateway.app._gateway.settlement
    await gateway.post()
    await gateway.until(lambda: settlement.unconfirmed == 1)
    event = world.events()[0]
    world.redis.hset(keyspace.record(7, event.rid), "posted", event.rank)

    await settlement.confirm()

    assert settlement.unconfirmed == 1
    await settlement.confirm(is_last=True)
    assert settlement.unconfirmed == 0


async def test_open_stream_survives_the_loss_of_all_data(gateway: Any, world: Any) -> None:
    body = (
        b'{"model":"claude-sonnet-4-6","max_tokens":300,"stream":true,'
        b'"messages":[{"role":"user","content":"[[tokens=200]]"}]}'
    )
    async with gateway.client.stream(
        "POST", "/v1/messages", content=body, headers=gateway.headers(x_simulator="pace_ms=3")
    ) as response:
        chunks = response.aiter_raw()
        await anext(chunks)
        world.redis.flushdb()
        world.set_wallet(posted_micro=1_000_000)
        world.publish_plane()
        world.publish()
        await gateway.app._gateway.recovery.bring_back()
        adopted = (world.held_micro(), world.slots_taken(), world.open_records())
        rest = b"".join([chunk async for chunk in chunks])
    await gateway.until(lambda: len(world.events()) == 1)

    assert adopted[0] > 0
    assert adopted[1:] == (1, 1)
    assert b"message_stop" in rest
    assert world.events()[0].status == "reported"
    assert (world.slots_taken(), world.open_records()) == (0, 0)


async def test_lost_epoch_is_noticed(gateway: Any, world: Any) -> None:
    recovery = gateway.app._gateway.recovery
    await recovery.watch_epochs()
    same = await recovery.watch_epochs()
    world.redis.hset(keyspace.policy(3), "epoch", "2")
    changed = await recovery.watch_epochs()

    assert (same, changed) == (False, True)
