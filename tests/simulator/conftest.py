"""A simulator in a process of its own, and words to talk to it."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.plain_http import NO_AUTHORITIES
from tests.support.ports import free_port

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
HEADERS = {"anthropic-version": "2023-06-01", "x-api-key": "any"}
START_SECONDS_MAX = 30.0


@pytest.fixture(scope="session")
def simulator_url() -> Iterator[str]:
    """`python -m simulator`, without any pace."""
    port = free_port()
    environment = {**os.environ, "SIMULATOR_PACE_MS": "0", "PYTHONPATH": str(ROOT / "platform")}
    command = [sys.executable, "-m", "simulator", "--port", str(port)]
    with subprocess.Popen(command, env=environment) as process:
        try:
            _wait_until_open(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=START_SECONDS_MAX)


def _wait_until_open(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            time.sleep(0.01)
        else:
            return
    pytest.fail("The simulator did not start.")


@pytest.fixture
def simulator(simulator_url: str) -> Iterator[httpx.Client]:
    """A client of a simulator that remembers nothing of other tests."""
    with httpx.Client(
        base_url=simulator_url, headers=HEADERS, timeout=20, verify=NO_AUTHORITIES
    ) as client:
        client.post("/_reset").raise_for_status()
        yield client


Ask = Callable[..., httpx.Response]


@pytest.fixture
def ask(simulator: httpx.Client) -> Ask:
    """Send a Messages request; keywords are fields of the body, `None` leaves a field out."""

    def _ask(
        prompt: str | list[Json] = "Hello",
        *,
        orders: str = "",
        headers: Json | None = None,
        **fields: Any,
    ) -> httpx.Response:
        body: Json = {
            "model": "claude-sonnet-4-6",
            "max_tokens": 1_000,
            "messages": [{"role": "user", "content": prompt}],
            **fields,
        }
        body = {name: value for name, value in body.items() if value is not None}
        more = {**(headers or {}), **({"x-simulator": orders} if orders else {})}
        return simulator.post("/v1/messages", json=body, headers=more)

    return _ask


@pytest.fixture
def billed(simulator: httpx.Client) -> Callable[[], list[Json]]:
    """What the simulator says that it billed."""

    def _billed() -> list[Json]:
        rows: list[Json] = simulator.get("/_billed").raise_for_status().json()
        return rows

    return _billed


def events_in(text: str) -> list[Json]:
    """The data of each event of a stream, with the grammar checked on the way."""
    assert text.endswith("\n\n")
    events = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        document = json.loads(data.removeprefix("data: "))
        assert name == f"event: {document['type']}"
        events.append(document)
    return events


@pytest.fixture
def parse_events() -> Callable[[str], list[Json]]:
    """Takes a stream apart."""
    return events_in
