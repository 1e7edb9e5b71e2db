"""What the tests prove of one server holds on a cluster: the same tests, with another Redis.

Limits, admission, settlement, publication, ingest and reconciliation; scripts of both planes.
"""

import os
import subprocess
import sys

import pytest

from tests.support.servers import ROOT, TEST_CLUSTER_URL
from tests.support.valkey_nodes import running_nodes

SUITES = (
    "tests/gateway/test_gateway_messages.py",
    "tests/gateway/test_gateway_money.py",
    "tests/gateway/test_gateway_policy.py",
    "tests/gateway/test_recovery.py",
    "tests/proxy/test_limiter_admit.py",
    "tests/proxy/test_limiter_exact.py",
    "tests/proxy/test_limiter_life.py",
    "tests/proxy/test_limiter_limits.py",
    "tests/proxy/test_limiter_parallel.py",
    "tests/accounts/test_accounts_publication.py",
    "tests/billing/test_ingest.py",
    "tests/billing/test_ingest_crashes.py",
    "tests/billing/test_ledger_wallet.py",
    "tests/billing/test_snapshots.py",
    "tests/billing/test_usage_publish.py",
)
SECONDS_MAX = 150


@pytest.mark.timeout(SECONDS_MAX + 30)
def test_limits_money_publication_and_ingest_hold_on_a_cluster() -> None:
    with running_nodes() as nodes:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n", "0", *SUITES],
            cwd=ROOT,
            env={**os.environ, TEST_CLUSTER_URL: nodes.url},
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )

    assert done.returncode == 0, done.stdout[-8_000:]
