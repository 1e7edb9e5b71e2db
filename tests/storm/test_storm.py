"""Exactly once, by a seeded storm: everything is killed, and every request is charged once.

STORM_SECONDS and STORM_SEED make it longer or replay one; `make storm` sets them.
"""

import os
import sys

import pytest

from tests.storm.load import TENANTS
from tests.storm.oracle import Verdict
from tests.storm.schedule import make_schedule
from tests.storm.storm import run_storm
from tests.support.cluster import running_cluster

SECONDS = float(os.environ.get("STORM_SECONDS") or 60)
SEED = int(os.environ.get("STORM_SEED") or 2)
WORKERS = 3
PROBLEMS_SHOWN = 20


def test_the_same_seed_gives_the_same_schedule() -> None:
    assert make_schedule(seed=7, seconds=60) == make_schedule(seed=7, seconds=60)
    assert make_schedule(seed=7, seconds=60) != make_schedule(seed=8, seconds=60)


@pytest.mark.e2e
@pytest.mark.timeout(SECONDS + 180)
def test_every_request_is_charged_exactly_once_through_a_storm(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with running_cluster(tenants=TENANTS, workers=WORKERS) as (cluster, keys):
        verdict = run_storm(cluster, keys, seed=SEED, seconds=SECONDS)
        logs = {name: cluster.log(name) for name in ("gateway", "ingest-0", "control")}

    with capsys.disabled():
        sys.stdout.write(table_of(verdict))
    report = "\n".join(verdict.problems[:PROBLEMS_SHOWN])
    assert not verdict.problems, f"{len(verdict.problems)} problems\n{report}\n{logs}"
    assert verdict.counts["answered"] > SECONDS
    assert verdict.counts["kill gateway worker"] > 0


def table_of(verdict: Verdict) -> str:
    """The figures of a storm, and how to see it again."""
    lines = [f"{name:36} {count:>12,}" for name, count in sorted(verdict.counts.items())]
    head = f"\nstorm of {SECONDS:.0f} s, STORM_SEED={SEED}"
    return "\n".join([head, *lines, ""])
