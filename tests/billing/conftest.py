"""Fixtures of the billing tests; those with real transactions end with a flush of every table."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from billing.services.catalog import SHIPPED_CATALOG
from billing.services.documents import can_render
from tests.billing import batch_world
from tests.billing.catalog_file import EditCatalog
from tests.billing.stripe_world import StripeServer, set_up_stripe
from tests.support.flush import allow_flush
from tests.support.plain_http import NO_AUTHORITIES
from tests.support.ports import free_port
from turnpike.embedded import process
from turnpike.env import env

allow_flush()


@pytest.fixture
def pdf_printer() -> None:
    """What turns documents into PDFs; a machine may lack Pango, unless somebody insists on it."""
    if can_render():
        return
    assert os.environ.get("REQUIRE_PDF") != "1", "REQUIRE_PDF=1, and Pango cannot be loaded."
    pytest.skip("No Pango: install it to make PDFs.")


@pytest.fixture
def edited(tmp_path: Path) -> EditCatalog:
    """A copy of the shipped file with an edit."""

    def edit(change: Callable[[dict[str, Any]], None]) -> Path:
        content = json.loads(SHIPPED_CATALOG.read_text())
        change(content)
        path = tmp_path / "catalog.json"
        path.write_text(json.dumps(content))
        return path

    return edit


@pytest.fixture(scope="session")
def simulator_url() -> Iterator[str]:
    """The simulator in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "simulator", "--port", str(port)]
    environment = {**os.environ, "SIMULATOR_PACE_MS": "0"}
    with subprocess.Popen(command, env=environment) as child:
        assert process.wait_until(lambda: _answers(port, "/livez"), seconds_max=60)
        yield f"http://127.0.0.1:{port}"
        child.terminate()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StripeServer]:
    """Our own Stripe, and a platform that is set up for it."""
    with set_up_stripe(monkeypatch) as found:
        yield found


@pytest.fixture
def url(simulator_url: str, redis_client: redis.Redis) -> str:
    """A platform in front of a simulator that has billed nothing."""
    httpx.post(f"{simulator_url}/_reset", verify=NO_AUTHORITIES).raise_for_status()
    batch_world.make_platform(simulator_url)
    return simulator_url


@pytest.fixture
def data_plane(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The data plane in a process of its own, where the control plane looks for it."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "gunicorn", "proxy.app:app", "-k", "proxy.server.Worker"),
        *("-w", "1", "-b", f"127.0.0.1:{port}", "--no-control-socket", "--log-level", "warning"),
        *("--graceful-timeout", "1"),
    ]
    environment = {
        **os.environ,
        "JOURNAL_DIR": str(tmp_path / "journal"),
        "METRICS_DIR": str(tmp_path / "metrics"),
        "SIMULATOR_CONTROL": "1",
        "REDIS_TIMEOUT_MS": "2000",
    }
    monkeypatch.setenv("DATA_PLANE_URL", f"http://127.0.0.1:{port}")
    env.cache_clear()
    with subprocess.Popen(command, env=environment) as child:
        assert process.wait_until(lambda: _answers(port, "/readyz"), seconds_max=60)
        yield f"http://127.0.0.1:{port}"
        # Killed, it would leave a worker behind, which goes on sending what its journal has.
        child.terminate()
        child.wait(60)
    monkeypatch.undo()
    env.cache_clear()


def _answers(port: int, path: str) -> bool:
    try:
        return (
            httpx.get(
                f"http://127.0.0.1:{port}{path}", timeout=2, verify=NO_AUTHORITIES
            ).status_code
            == 200
        )
    except httpx.HTTPError:
        return False
