"""Requests with an Idempotency-Key whose gateway worker is killed."""

import asyncio
import http.client
import json
import os
import signal
import time
from typing import Any

import pytest

from proxy.idempotency import LEASE_MS
from tests.faults.conftest import BODY, World, until

KEY = "order-4711"
# The dead worker's lease on the key, the adoption of its journal, and a busy machine.
FREE_SECONDS_MAX = LEASE_MS / 1_000 + 25.0


@pytest.mark.alone
async def test_a_keyed_request_whose_worker_died_is_charged_once_at_most(world: World) -> None:
    connection = sent(world, orders="delay_ms=60000")
    await until(lambda: len(world.slots("keyed")) == 1)
    worker = world.cluster.worker_at(connection.sock.getsockname()[1])

    os.kill(worker, signal.SIGKILL)
    with pytest.raises((http.client.HTTPException, OSError)):
        await asyncio.to_thread(connection.getresponse)
    answers = await until_free(world)

    assert {status for status, _, _ in answers[:-1]} <= {409}
    assert answers[-1][0] == 200
    replayed = ask(world)
    assert replayed[1]["idempotency-replayed"] == "true"
    assert replayed[2] == answers[-1][2]
    await until(lambda: len(charged(world)) == 2)
    # The one that nobody saw the end of is written down, and costs nothing.
    assert sorted(amount > 0 for amount in charged(world)) == [False, True]


def sent(world: World, *, orders: str = "") -> http.client.HTTPConnection:
    """A keyed request on a connection of its own, its answer not read."""
    connection = http.client.HTTPConnection("127.0.0.1", world.cluster.port, timeout=60)
    headers = {
        "x-api-key": world.keys["keyed"],
        "anthropic-version": "2023-06-01",
        "content-type": "application/json",
        "idempotency-key": KEY,
    }
    if orders:
        headers["x-simulator"] = orders
    connection.request("POST", "/v1/messages", json.dumps(BODY), headers)
    return connection


def ask(world: World) -> tuple[int, Any, bytes]:
    """Status, headers and body of the request with the key."""
    connection = sent(world)
    try:
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


async def until_free(world: World) -> list[tuple[int, Any, bytes]]:
    """What the same request got, again and again, until it was told not to come back."""
    answers = []
    give_up_at = time.monotonic() + FREE_SECONDS_MAX
    while time.monotonic() < give_up_at:
        answers.append(await asyncio.to_thread(ask, world))
        if answers[-1][1].get("x-should-retry") != "true" and answers[-1][0] not in (429, 529):
            return answers
        await asyncio.sleep(0.5)
    raise AssertionError(f"still refused: {answers[-1]}")


def charged(world: World) -> list[int]:
    """What each of the tenant's requests was charged, in nanos."""
    query = (
        "SELECT sum(amount_nano)::bigint FROM billing_usage_event WHERE tenant_id = %s"
        " GROUP BY request_id"
    )
    return [amount for (amount,) in world.cluster.rows(query, world.number_of("keyed"))]
