"""Exactly once over a cluster: primaries are killed under load, and every request is charged once.

The failover is judged alone first, with nothing else broken: then no answer may be missing that a
living shard could give. The storm breaks everything at once, by a seed.
"""

import asyncio
import os
import sys
import time
from collections.abc import Iterator

import pytest

from tests.storm.load import TENANTS, Load
from tests.storm.oracle import Verdict, judge
from tests.storm.storm import run_storm, settle
from tests.support.cluster import running_cluster
from tests.support.sharded import ShardedCluster
from turnpike.kernel import keyspace

SECONDS = float(os.environ.get("STORM_SECONDS") or 40)
SEED = int(os.environ.get("STORM_SEED") or 5)
WORKERS = 3
PROBLEMS_SHOWN = 20
LOGS = ("gateway", "ingest-0", "ingest-1", "control")
CALM_SECONDS = 3.0
# From the death of a primary: its neighbours' timeout and vote, and the gateways' look at the map.
FAILED_OVER_SECONDS_MAX = 5.0

Installation = tuple[ShardedCluster, dict[str, str]]


@pytest.fixture
def sharded() -> Iterator[Installation]:
    """The installation over a cluster, and its tenants' keys."""
    with running_cluster(tenants=TENANTS, workers=WORKERS, kind=ShardedCluster) as (cluster, keys):
        assert isinstance(cluster, ShardedCluster)
        yield cluster, keys


@pytest.mark.timeout(150)
def test_a_primary_that_is_lost_costs_nobody_a_charge(
    sharded: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster, keys = sharded
    load = Load(port=cluster.port, keys=keys, seed=SEED)
    cluster.start_ingest("ingest-0")

    seconds = asyncio.run(lose_each_primary(cluster, load))
    left = settle(cluster)
    verdict = judge(cluster, seen=load.seen, killed_at_us=())
    verdict.problems += left + [f"reconcile: {check}" for check in cluster.reconcile()]

    verdict.counts["slowest failover, ms"] = round(max(seconds) * 1_000)
    report(capsys, cluster, verdict)
    assert max(seconds) < FAILED_OVER_SECONDS_MAX
    assert verdict.counts["answered"] > 100


@pytest.mark.timeout(SECONDS + 150)
def test_every_request_is_charged_exactly_once_through_a_storm_over_a_cluster(
    sharded: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster, keys = sharded

    verdict = run_storm(cluster, keys, seed=SEED, seconds=SECONDS)

    verdict.counts["failovers"] = cluster.failovers
    report(capsys, cluster, verdict)
    assert verdict.counts["events reported"] > SECONDS


async def lose_each_primary(cluster: ShardedCluster, load: Load) -> list[float]:
    """Kill each primary under load until a replica serves; how long each took to be replaced."""
    running, seconds = asyncio.create_task(load.run()), []
    for _ in range(3):
        await asyncio.sleep(CALM_SECONDS)
        begun = time.monotonic()
        await asyncio.to_thread(cluster.kill, "valkey")
        dead = next(node for node in cluster.nodes.nodes if not node.is_running)
        await asyncio.to_thread(cluster.nodes.wait_until_replaced, dead)
        seconds.append(time.monotonic() - begun)
        cluster.start_valkey()
        await asyncio.to_thread(cluster.nodes.wait_until_whole)
    await asyncio.sleep(CALM_SECONDS)
    load.stop.set()
    await running
    return seconds


def report(capsys: pytest.CaptureFixture[str], cluster: ShardedCluster, verdict: Verdict) -> None:
    """Show the figures, and fail with the problems if there are any."""
    shards = {cluster.nodes.primary_of(keyspace.policy(n)).port for n in range(keyspace.SHARDS)}
    assert len(shards) == 3
    with capsys.disabled():
        rows = sorted(verdict.counts.items())
        sys.stdout.write("\n" + "".join(f"{name:36} {count:>14,}\n" for name, count in rows))
    problems = "\n".join(verdict.problems[:PROBLEMS_SHOWN])
    logs = "\n".join(cluster.log(name) for name in LOGS)
    assert not verdict.problems, f"{len(verdict.problems)} problems\n{problems}\n{logs}"
