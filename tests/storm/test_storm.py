"""Exactly once, by a seeded storm: everything is killed, and every request is charged once.

`make storm SEED=… SECONDS=…` replays one, or makes it longer.
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
LOGS = ("gateway", "ingest-0", "ingest-1", "control")


def test_the_same_seed_gives_the_same_schedule() -> None:
    assert make_schedule(seed=7, seconds=60) == make_schedule(seed=7, seconds=60)
    assert make_schedule(seed=7, seconds=60) != make_schedule(seed=8, seconds=60)


@pytest.mark.e2e
@pytest.mark.timeout(SECONDS + 180)
@pytest.mark.parametrize("seed", [SEED], ids=lambda seed: f"seed-{seed}")
def test_every_request_is_charged_exactly_once_through_a_storm(
    seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(capsys, f"\nstorm of {SECONDS:.0f} s, replayed by `make storm SEED={seed}`\n")
    with running_cluster(tenants=TENANTS, workers=WORKERS) as (cluster, keys):
        verdict = run_storm(cluster, keys, seed=seed, seconds=SECONDS)
        logs = "\n".join(cluster.log(name) for name in LOGS)

    tell(capsys, table_of(verdict))
    report = "\n".join(verdict.problems[:PROBLEMS_SHOWN])
    assert not verdict.problems, f"{len(verdict.problems)} problems\n{report}\n{logs}"
    assert verdict.counts["answered"] > SECONDS
    assert verdict.counts["events reported"] > SECONDS


def tell(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Say something to whoever runs the storm, whatever becomes of it."""
    with capsys.disabled():
        sys.stdout.write(text)
        sys.stdout.flush()


def table_of(verdict: Verdict) -> str:
    """The figures of a storm."""
    rows = sorted(verdict.counts.items())
    return "\n".join([*(f"{name:36} {count:>14,}" for name, count in rows), ""])
