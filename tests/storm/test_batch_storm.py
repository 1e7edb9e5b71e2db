"""A batch whose Celery workers are killed again and again: its sums are those of the upstream.

Part of `make storm`, with 10,000 items; run by itself it has 300. In `make test` a batch outlives
the death of its worker at each point (`tests/billing/test_batch_workers.py`).
"""

import json
import os
import time

import pytest

from tests.support.cluster import running_cluster
from turnpike.embedded import process

IS_STORM = "STORM_SECONDS" in os.environ
COUNT = 10_000 if IS_STORM else 300
KILLS = 6 if IS_STORM else 2
SECONDS_MAX = 600.0 if IS_STORM else 240.0
TENANTS = [{"name": "batches", "tier": "pro", "credit": "1000"}]
WORKER = "batch-worker"


@pytest.mark.e2e
@pytest.mark.alone
@pytest.mark.timeout(SECONDS_MAX + 120)
def test_a_batch_ends_with_exact_sums_although_its_workers_are_killed() -> None:
    with running_cluster(tenants=TENANTS, workers=1) as (cluster, keys):
        plan = json.dumps({"key": keys["batches"], "count": COUNT})
        cluster.run("tests/storm/batch_order.py", plan)
        for kill in range(KILLS):
            cluster.start_batch_worker(WORKER)
            # Each a little later than the one before: ordering, fetching, settling.
            time.sleep(4.0 + kill)
            cluster.kill(WORKER)
        cluster.start_batch_worker(WORKER)
        ended = process.wait_until(
            lambda: bool(
                cluster.rows("SELECT 1 FROM billing_message_batch WHERE ended_at IS NOT NULL")
            ),
            seconds_max=SECONDS_MAX,
        )
        log = cluster.log(WORKER)
        (counts,) = cluster.rows("SELECT item_count, succeeded FROM billing_message_batch")
        (events,) = cluster.rows(
            "SELECT count(*), sum(amount_nano)::bigint FROM billing_usage_event"
        )
        (hold,) = cluster.rows("SELECT state, remaining_nano, posted_nano FROM billing_ledger_hold")
        billed = [row["usage"] for row in cluster.billed()]
        found = cluster.reconcile()

    worth = sum(row["input_tokens"] * 500 + row["output_tokens"] * 2_500 for row in billed)
    assert ended, log
    assert counts == (COUNT, COUNT)
    assert len(billed) == COUNT
    assert events == (COUNT, worth)
    assert hold == ("posted", 0, worth)
    assert found == []
