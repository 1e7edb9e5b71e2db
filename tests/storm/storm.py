"""One storm: load and faults by a seed, then calm, then the judgement."""

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import redis

from tests.storm import schedule
from tests.storm.load import Load
from tests.storm.oracle import Verdict, judge
from tests.storm.schedule import Fault
from tests.support.cluster import LEASE_SECONDS, Cluster
from turnpike.embedded import process
from turnpike.kernel import clock, keyspace

# Nothing repairs itself more slowly than the reaper; what takes longer is stuck.
SETTLED_SECONDS_MAX = 30.0
FROZEN_SECONDS = LEASE_SECONDS + 1.0 + 5.0 + 1.0
OUTAGE_SECONDS = (0.0, 1.5)
# Every fourth outage of Valkey outlasts the leases of everything that runs.
LONG_OUTAGE_SECONDS = LEASE_SECONDS + 2.5
LOG_BYTES_CUT = (200, 40_000)
CRIES = ("Traceback", "round.failed", "request.failed", "Exception in ASGI", "journal.unreadable")
INGESTS = ("ingest-0", "ingest-1")


@dataclass(slots=True)
class Storm:
    """A storm while it blows."""

    cluster: Cluster
    seed: int
    seconds: float
    load: Load
    counts: Counter[str] = field(default_factory=Counter)
    killed_at_us: list[int] = field(default_factory=list)
    frozen: set[int] = field(default_factory=set)
    valkey: asyncio.Lock = field(default_factory=asyncio.Lock)
    postgres: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def blow(self) -> None:
        """Load and faults, until the time is over and every answer has ended."""
        for name in INGESTS:
            self.cluster.start_ingest(name, kind=self._kind_of(name))
        begun = time.monotonic()
        load = asyncio.create_task(self.load.run())
        async with asyncio.TaskGroup() as group:
            for fault in schedule.make_schedule(seed=self.seed, seconds=self.seconds):
                await asyncio.sleep(max(0.0, begun + fault.at_seconds - time.monotonic()))
                self.counts[fault.kind] += 1
                group.create_task(self._carry_out(fault))
            await asyncio.sleep(max(0.0, begun + self.seconds - time.monotonic()))
            self.load.stop.set()
        await load

    async def _carry_out(self, fault: Fault) -> None:
        acts: dict[str, Callable[[Fault], Awaitable[None]]] = {
            schedule.KILL_GATEWAY: self._kill_gateway,
            schedule.FREEZE_GATEWAY: self._freeze_gateway,
            schedule.KILL_INGEST: self._kill_ingest,
            schedule.KILL_VALKEY: self._break_valkey,
            schedule.CUT_VALKEY: self._break_valkey,
            schedule.WIPE_VALKEY: self._break_valkey,
            schedule.FLUSH_VALKEY: self._flush_valkey,
            schedule.RESTART_POSTGRES: self._restart_postgres,
        }
        await acts[fault.kind](fault)

    async def _kill_gateway(self, fault: Fault) -> None:
        self._kill_worker(self._pick_worker(fault))

    def _kill_worker(self, pid: int | None) -> None:
        if pid is not None:
            self.killed_at_us.append(clock.now_us())
            signal_process(pid, signal.SIGKILL)

    async def _freeze_gateway(self, fault: Fault) -> None:
        pid = self._pick_worker(fault)
        if pid is None:
            return
        self.frozen.add(pid)
        signal_process(pid, signal.SIGSTOP)
        await asyncio.sleep(FROZEN_SECONDS)
        signal_process(pid, signal.SIGCONT)
        self.frozen.discard(pid)

    async def _kill_ingest(self, fault: Fault) -> None:
        name = INGESTS[fault.number % len(INGESTS)]
        if self.cluster.is_running(name):
            await asyncio.to_thread(self.cluster.kill, name)
            self.cluster.start_ingest(name, kind=self._kind_of(name))

    async def _break_valkey(self, fault: Fault) -> None:
        async with self.valkey:
            await asyncio.to_thread(self.cluster.kill, "valkey")
            if fault.kind == schedule.CUT_VALKEY:
                self.cluster.cut_valkey_log(int(_between(LOG_BYTES_CUT, fault)))
            elif fault.kind == schedule.WIPE_VALKEY:
                self.cluster.wipe_valkey()
            is_long = fault.number % 4 == 0
            await asyncio.sleep(LONG_OUTAGE_SECONDS if is_long else _between(OUTAGE_SECONDS, fault))
            self.cluster.start_valkey()
            await until(self.cluster.is_valkey_ready)

    async def _flush_valkey(self, _fault: Fault) -> None:
        async with self.valkey:
            with self.cluster.redis() as client:
                await asyncio.to_thread(client.flushall)

    async def _restart_postgres(self, fault: Fault) -> None:
        async with self.postgres:
            # SIGQUIT is the immediate shutdown: no checkpoint, recovery at the next start.
            await asyncio.to_thread(self.cluster.stop_postgres, signal.SIGQUIT)
            await asyncio.sleep(_between(OUTAGE_SECONDS, fault))
            self.cluster.start_postgres()
            await until(self.cluster.is_postgres_ready)

    def _pick_worker(self, fault: Fault) -> int | None:
        """A worker that is not frozen; none while only one is left."""
        able = [pid for pid in self.cluster.worker_pids() if pid not in self.frozen]
        return able[fault.number % len(able)] if len(able) > 1 else None

    def _kind_of(self, name: str) -> str:
        """Both kinds in turn: every other seed has a Celery worker among its two."""
        return "celery" if name == INGESTS[-1] and self.seed % 2 else "command"


def run_storm(cluster: Cluster, keys: dict[str, str], *, seed: int, seconds: float) -> Verdict:
    """Blow, wait for calm, judge; the counts of both are in the verdict."""
    storm = Storm(
        cluster=cluster,
        seed=seed,
        seconds=seconds,
        load=Load(port=cluster.port, keys=keys, seed=seed),
    )
    asyncio.run(storm.blow())
    begun = time.monotonic()
    left = settle(cluster)
    storm.counts["seconds to settle"] = round(time.monotonic() - begun)
    verdict = judge(cluster, seen=storm.load.seen, killed_at_us=storm.killed_at_us)
    verdict.problems += left
    verdict.problems += [f"reconcile: {check}" for check in cluster.reconcile()]
    cluster.stop_gateway()
    verdict.problems += [f"journal left: {path}" for path in journals_of(cluster)]
    verdict.problems += cries_of(cluster)
    verdict.counts.update(storm.counts)
    return verdict


def settle(cluster: Cluster, *, seconds_max: float = SETTLED_SECONDS_MAX) -> list[str]:
    """Wait until nothing is under way any more; what still is when the time is over."""
    process.wait_until(lambda: not unsettled(cluster), seconds_max=seconds_max)
    return unsettled(cluster)


def unsettled(cluster: Cluster) -> list[str]:
    """Whatever Redis still has under way: nothing, when every request has ended and was posted."""
    left = []
    with cluster.redis() as client:
        seconds, _ = client.time()
        for shard in range(keyspace.SHARDS):
            left += _unsettled_shard(client, shard, now_ms=seconds * 1_000)
        for key in client.scan_iter(match="tp:*:[wg]:*", count=1_000):
            for name, value in client.hgetall(key).items():
                if (name == b"held" or name.startswith(b"h:")) and int(value) != 0:
                    left.append(f"{key.decode()} holds {name.decode()} {int(value)}")
    return left + [f"journal of a dead worker: {path.name}" for path in dead_journals(cluster)]


def _unsettled_shard(client: "redis.Redis", shard: int, *, now_ms: int) -> list[str]:
    left = []
    stream, open_now = keyspace.usage_stream(shard), keyspace.open_requests(shard)
    if count := client.xlen(stream):
        left.append(f"{stream} has {count} entries")
    for key in (open_now, keyspace.unposted(shard)):
        left += [f"{key} has {member!r}" for member in client.zrange(key, 0, 4)]
    for key in client.scan_iter(match=f"{keyspace.tag(shard)}:c:*", count=1_000):
        if count := client.zcount(key, now_ms, "+inf"):
            left.append(f"{key.decode()} has {count} slots")
    return left


def cries_of(cluster: Cluster) -> list[str]:
    """Lines of the gateway's log that no fault excuses."""
    lines = cluster.log("gateway", lines=1_000_000).splitlines()
    return [line for line in lines if any(word in line for word in CRIES)]


def dead_journals(cluster: Cluster) -> list[Path]:
    """The journals that dead workers left and nobody has settled whole."""
    living = {str(pid) for pid in cluster.worker_pids()}
    return [path for path in journals_of(cluster) if path.name.split("-")[-2] not in living]


def journals_of(cluster: Cluster) -> list[Path]:
    """The journals' folders."""
    return sorted(cluster.journal_dir.glob("*/"))


def signal_process(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _between(span: tuple[float, float], fault: Fault) -> float:
    """A number of the span, chosen by the fault's own."""
    low, high = span
    return low + (high - low) * (fault.number % 1_000) / 1_000


async def until(condition: Callable[[], bool], *, seconds_max: float = 30.0) -> None:
    """Wait for a condition, polled in a thread; fail when the time is over."""
    assert await asyncio.to_thread(process.wait_until, condition, seconds_max=seconds_max)
