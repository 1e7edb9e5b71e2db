"""Real ingest processes, killed at the worst moments, and side by side."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
import redis

from billing.ingest.consumer import Consumer
from billing.services.reconciliation import reconcile
from tests.billing.usage_world import (
    USAGE_NANO,
    append,
    append_body,
    final_state,
    letters,
    make_event,
    make_price_set,
    make_shop,
    process_environment,
    rows_of,
    settle,
    stream_lengths,
    sums_agree,
)
from turnpike.kernel import ids, keyspace

pytestmark = pytest.mark.django_db(transaction=True)

SCRIPT = Path(__file__).with_name("ingest_process.py")
ROOT = Path(__file__).resolve().parents[2]
# Before anything; with rows inserted; just before, just after the commit; around the publish.
POINTS = ("read", "inserted", "charged", "committed", "published", "acked")
TIMEOUT_SECONDS = 60


def start(*arguments: str) -> "subprocess.Popen[bytes]":
    """One ingest process."""
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        env=process_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_killed_at_each_point_everything_is_posted_exactly_once(
    redis_client: redis.Redis,
) -> None:
    prices = make_price_set()
    shops = [make_shop(price_set=prices, credit=1_000_000_000) for _ in range(2)]
    revised = []
    for point in POINTS:
        for shop in shops:
            early = make_event(shop, rid=ids.uuid7(), rank=1)
            settle(redis_client, make_event(shop))
            settle(redis_client, early)
            revised.append((shop, early.rid))
        append_body(redis_client, f"poison before {point}".encode(), shard=shops[0].shard)

        process = start(point)

        assert process.wait(TIMEOUT_SECONDS) == -signal.SIGKILL, point
    for shop, rid in revised:
        append(redis_client, make_event(shop, rid=UUID(rid), rank=3))
    assert start().wait(TIMEOUT_SECONDS) == 0

    per_shop = 2 * len(POINTS) * USAGE_NANO
    assert dict(final_state()["balances"]) == {
        shop.number: 1_000_000_000 - per_shop for shop in shops
    }
    assert [rows_of(rid)[-1].rank for _, rid in revised] == [3] * len(revised)
    assert len(letters()) == len(POINTS)
    assert stream_lengths(redis_client) == 0
    for shop in shops:
        assert redis_client.hget(keyspace.wallet(shop.number), "held") == b"0"
        assert redis_client.zcard(keyspace.unposted(shop.shard)) == 0
    assert [finding for finding in reconcile() if finding.differences] == []
    sums_agree()


def test_a_consumer_goes_on_when_another_one_did_what_it_had_in_hand(
    redis_client: redis.Redis,
) -> None:
    shop = make_shop(credit=1_000_000_000)
    consumer = Consumer(redis_client, name="interrupted", mark=lose_connection_once())
    append(redis_client, make_event(shop))
    with pytest.raises(redis.ConnectionError):
        consumer.turn(shop.shard)
    assert Consumer(redis_client, name="other", claim_idle_ms=0).turn(shop.shard) == 1
    after = make_event(shop)
    append(redis_client, after)

    handled = consumer.turn(shop.shard)

    assert handled == 1
    assert [row.rank for row in rows_of(after.rid)] == [after.rank]
    assert stream_lengths(redis_client) == 0


def lose_connection_once() -> Callable[[str], None]:
    """A mark at which Redis goes away, the first time that a batch was published."""
    left = ["published"]

    def mark(point: str) -> None:
        if point in left:
            left.remove(point)
            raise redis.ConnectionError

    return mark


def test_two_processes_side_by_side_post_each_event_once(redis_client: redis.Redis) -> None:
    prices = make_price_set()
    shops = [make_shop(price_set=prices, credit=10_000_000_000) for _ in range(3)]
    events = [make_event(shop) for _ in range(100) for shop in shops]
    for event in events:
        settle(redis_client, event)
    for event in events[::3]:
        append(redis_client, event)

    processes = [start(), start()]
    codes = [process.wait(TIMEOUT_SECONDS) for process in processes]

    assert codes == [0, 0]
    assert dict(final_state()["balances"]) == {
        shop.number: 10_000_000_000 - 100 * USAGE_NANO for shop in shops
    }
    assert len(final_state()["events"]) == len(events)
    assert stream_lengths(redis_client) == 0
    assert [finding for finding in reconcile() if finding.differences] == []
    sums_agree()


def test_the_command_works_until_it_is_told_to_stop(redis_client: redis.Redis) -> None:
    shop = make_shop(credit=1_000_000_000)
    event = make_event(shop)
    settle(redis_client, event)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "manage.py"), "ingest"],
        env=process_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    wait_until(lambda: redis_client.zcard(keyspace.unposted(shop.shard)) == 0)
    process.terminate()

    assert process.wait(TIMEOUT_SECONDS) == 0
    assert [row.amount_nano for row in rows_of(event.rid)] == [USAGE_NANO]


def wait_until(is_true: Callable[[], bool]) -> None:
    """Ask again and again, for as long as a slow machine may need."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
