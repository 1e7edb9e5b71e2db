"""Batches at work beside requests, one by one through the data plane, and with killed workers."""

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.db import connection

from billing.models.batches import BatchItem, BatchPart
from billing.models.upstreams import Upstream
from billing.models.usage import UpstreamAttempt
from billing.services import upkeep
from tests.billing import batch_world as world
from tests.billing.batch_world import MODEL, Program, item, items, make_program
from tests.billing.usage_world import process_environment
from tests.support.plain_http import NO_AUTHORITIES
from turnpike.contracts import tickets
from turnpike.control.redis import redis_client
from turnpike.control.scope import platform_scope
from turnpike.embedded import process
from turnpike.env import env
from turnpike.kernel import clock, ids, keyspace

pytestmark = pytest.mark.django_db(transaction=True)

OVERLOADED = 529
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("point", ["submitting", "ordered", "inserted", "committed"])
def test_a_batch_survives_the_death_of_its_worker(url: str, point: str) -> None:
    program = make_program()
    batch = program.create(items(300))

    assert run_until_killed(point) == -signal.SIGKILL
    let_leases_end()
    world.work()

    assert_charged_once(url, program, batch, 300)


def test_items_that_go_one_by_one_are_charged_once_each(data_plane: str, url: str) -> None:
    take_batches_away()
    program = make_program()
    bad = item(150, messages=[{"role": "owner", "content": "x"}])
    batch = program.create([*items(150), bad])

    world.work()

    assert_charged_once(url, program, batch, 150)
    results = world.results_of(batch)
    assert results["item-150"]["type"] == "errored"
    assert results["item-150"]["error"]["error"]["type"] == "invalid_request_error"
    request_ids = {ids.public_id(ids.REQUEST, row.request_id) for row in world.items_of(batch)}
    assert {row["turnpike_request_id"] for row in world.billed(url)} <= request_ids


def test_a_single_item_whose_worker_died_is_sent_again_and_charged_once(
    data_plane: str, url: str
) -> None:
    take_batches_away()
    program = make_program()
    batch = program.create(items(10))

    assert run_worker("answered") == -signal.SIGKILL
    let_leases_end()
    world.work()

    events = world.events_of(program)
    assert len(world.billed(url)) == 20
    assert len(events) == 10
    assert sum(event.amount_nano for event in events) * 2 == world.expected_nano(world.billed(url))
    with platform_scope("tests"):
        outcomes = list(UpstreamAttempt.objects.values_list("outcome", flat=True))
    assert sorted(outcomes) == ["answered"] * 10 + ["unknown"] * 10
    assert world.differences() == []
    assert world.row_of(batch).succeeded == 10


def test_fifty_batches_and_fifty_requests_on_credit_for_five_admit_five(
    data_plane: str, url: str
) -> None:
    # Both may cost 0.0025 dollars and a bit: 1,000 tokens of output at 5 a million, or half that.
    body = {
        "model": MODEL,
        "max_tokens": 1_000,
        "messages": [{"role": "user", "content": "Hello."}],
    }
    program = make_program(credit=5 * 5_100_000)
    two = {"requests": [item(n, max_tokens=1_000) for n in range(2)]}

    def order_batch(_number: int) -> int:
        try:
            status = OVERLOADED
            while status == OVERLOADED:
                status = program.call("POST", body=two)[0]
            return status
        finally:
            connection.close()

    refused: list[int] = []

    def ask() -> None:
        # Whoever is admitted waits for an answer that does not come, and holds its price.
        headers = {"x-api-key": program.secret, **world.VERSION, "x-simulator": "hang"}
        status = OVERLOADED
        with suppress(httpx.HTTPError):
            while status == OVERLOADED:  # a busy machine: nobody has decided yet
                answer = httpx.post(
                    f"{data_plane}/v1/messages",
                    json=body,
                    headers=headers,
                    timeout=60,
                    verify=NO_AUTHORITIES,
                )
                status = answer.status_code
            refused.append(status)

    for _ in range(50):
        threading.Thread(target=ask, daemon=True).start()
    with ThreadPoolExecutor(max_workers=16) as pool:
        statuses = list(pool.map(order_batch, range(50)))
    shard = keyspace.shard_of(program.tenant)
    client = redis_client()
    assert process.wait_until(
        lambda: len(refused) + client.zcard(keyspace.open_requests(shard)) == 50, seconds_max=40
    )

    assert set(refused) == {402}
    assert set(statuses) <= {200, 402}
    assert statuses.count(200) + 50 - len(refused) == 5
    assert 0 <= program.available_micro() < 5_010


def test_a_ticket_is_good_for_one_body_and_a_while(data_plane: str) -> None:
    body = b'{"model":"%b","max_tokens":9,"messages":[{"role":"user","content":"x"}]}' % (
        MODEL.encode()
    )
    good = ticket_for(body, microseconds=60_000_000)
    late = ticket_for(body, microseconds=-1)
    forged = good[:-1] + ("0" if good[-1] != "0" else "1")

    def status_of(ticket: str, sent: bytes) -> int:
        headers = {tickets.HEADER: ticket, **world.VERSION}
        return httpx.post(f"{data_plane}/v1/messages", content=sent, headers=headers).status_code

    assert status_of(good, body) == 200
    assert status_of(good, body.replace(b"9", b"900")) == 401
    assert status_of(late, body) == 401
    assert status_of(forged, body) == 401


def ticket_for(body: bytes, *, microseconds: int) -> str:
    """A ticket that ends so much later."""
    ticket = tickets.Ticket(
        rid=str(ids.uuid7()),
        model=MODEL,
        body_digest=tickets.digest_body(body),
        expires_at_us=clock.now_us() + microseconds,
    )
    return tickets.write_ticket(ticket, peppers=env().peppers)


def run_until_killed(point: str) -> int:
    """Workers, one after the other as their turns come, until one dies at the point."""
    code = 0
    for _ in range(3):
        world.hasten()
        code = code or run_worker(point)
    return code


def run_worker(point: str) -> int:
    """A worker's process; its exit code."""
    command = [sys.executable, str(ROOT / "tests/billing/batch_process.py"), point]
    done = subprocess.run(command, env=process_environment(), timeout=90, check=False)
    return done.returncode


def let_leases_end() -> None:
    """As after fifteen seconds."""
    with platform_scope("tests"):
        BatchPart.objects.filter(lease__isnull=False).update(
            leased_until=clock.utc_now() - timedelta(seconds=1)
        )


def take_batches_away() -> None:
    """The upstream has none from now on."""
    with platform_scope("tests"):
        Upstream.objects.update(has_batches=False)


def assert_charged_once(url: str, program: Program, batch: Any, count: int) -> None:
    """What the upstream billed is what was charged, item by item, and nothing is held."""
    upkeep.refresh_wallets()  # repairs what a slow server did not take in time
    events = world.events_of(program)
    rows = world.billed(url)
    assert len(rows) == len(events) == count
    assert sum(event.amount_nano for event in events) == world.expected_nano(rows)
    assert program.wallet().balance_nano == 100 * world.NANOS - world.expected_nano(rows)
    assert world.hold_of(batch).posted_nano == world.expected_nano(rows)
    assert program.available_micro() == program.wallet().balance_nano // 1_000
    states = [row.state for row in world.items_of(batch)]
    assert states.count(BatchItem.State.SUCCEEDED) == count
    assert world.differences() == []
