"""publish.lua against every state of a record, and what repairs a publication that was missed."""

from collections.abc import Mapping
from typing import Any

import pytest
import redis
from django.core.management import call_command
from django.core.management.base import CommandError

from billing.ingest.consumer import Consumer
from billing.models.usage import DeadLetter, UsageRollup
from billing.services.posting import find_wallet_values, publish_wallet
from billing.services.reconciliation import reconcile
from billing.services.upkeep import refresh_wallets, sweep_unposted
from billing.services.wallet import grant_credit
from billing.tasks import ingest_usage, make_partitions, reconcile_usage
from tests.billing.usage_world import (
    HOLD_MICRO,
    USAGE_NANO,
    Shop,
    append,
    append_body,
    ingest,
    letters,
    make_event,
    make_shop,
    rollup_rows,
    rows_of,
    settle,
    stream_lengths,
)
from turnpike.control.redis import script, text_of
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids, keyspace

pytestmark = pytest.mark.django_db

TENANT = 7
RID = "0190a000-0000-7000-8000-000000000001"
HELD = 100


def publish(
    client: "redis.Redis",
    *,
    rank: int | None = None,
    version: int = 1,
    posted: int = 500,
    spent: str = "{}",
) -> int:
    """Run the script for one tenant and, with a rank, one record."""
    shard = keyspace.shard_of(TENANT)
    keys = [
        keyspace.wallet(TENANT),
        keyspace.budgets(TENANT),
        keyspace.unposted(shard),
        keyspace.open_requests(shard),
    ]
    records = [] if rank is None else [keyspace.record(TENANT, RID)]
    ranks = [] if rank is None else [rank]
    arguments: list[int | str] = [posted, version, 20, TENANT, spent, *ranks]
    return int(script("publish")(keys=[*keys, *records], args=arguments, client=client))


def place(client: "redis.Redis", record: Mapping[str, Any]) -> None:
    """A record as given, with its hold counted where holds are counted."""
    shard = keyspace.shard_of(TENANT)
    client.hset(keyspace.wallet(TENANT), mapping={"held": HELD, "posted": 1, "ver": 0, "limit": 0})
    client.hset(keyspace.budgets(TENANT), mapping={"h:t": HELD, "h:k3": HELD})
    client.zadd(keyspace.unposted(shard), {f"{TENANT}|{RID}": 1})
    client.zadd(keyspace.open_requests(shard), {f"{TENANT}|{RID}": 1})
    if record:
        values: dict[Any, Any] = dict(record)
        client.hset(keyspace.record(TENANT, RID), mapping=values)
        client.pexpire(keyspace.record(TENANT, RID), 3_000_000)


def seen(client: "redis.Redis") -> dict[str, Any]:
    """What the script left."""
    shard = keyspace.shard_of(TENANT)
    record = client.hgetall(keyspace.record(TENANT, RID))
    return {
        "record": {text_of(name): text_of(value) for name, value in record.items()},
        "held": int(client.hget(keyspace.wallet(TENANT), "held") or 0),
        "scopes": client.hmget(keyspace.budgets(TENANT), "h:t", "h:k3"),
        "unposted": client.zcard(keyspace.unposted(shard)),
        "open": client.zcard(keyspace.open_requests(shard)),
    }


SETTLED = {"st": "settled", "hold": HELD, "rank": 2, "scopes": "t,k3", "rid": RID}
PAID = {"st": "posted", "paid": str(HELD)}
FREE, KEPT = [None, None], [b"100", b"100"]


@pytest.mark.parametrize(
    ("record", "rank", "left", "freed"),
    [
        # settled, and PostgreSQL has it as well or better: the hold ends
        (SETTLED, 2, ({**PAID, "posted": "2", "rank": "2"}, 0, FREE, 0, 1), 1),
        (SETTLED, 3, ({**PAID, "posted": "3", "rank": "3"}, 0, FREE, 0, 1), 1),
        # a better event is on its way: only noted
        (SETTLED, 1, ({**SETTLED, "posted": "1"}, 100, KEPT, 1, 1), 0),
        ({**SETTLED, "posted": 1}, 0, ({**SETTLED, "posted": "1"}, 100, KEPT, 1, 1), 0),
        # open again after a loss: closed
        (
            {"st": "open", "hold": HELD, "scopes": "t,k3"},
            3,
            ({"st": "posted", "posted": "3", "rank": "3"}, 0, FREE, 0, 0),
            1,
        ),
        # gone: a tombstone
        ({}, 1, ({"st": "posted", "posted": "1", "rank": "1"}, 100, KEPT, 0, 1), 0),
        # published before
        (
            {"st": "posted", "posted": 1, "rank": 1},
            3,
            ({"st": "posted", "posted": "3", "rank": "3"}, 100, KEPT, 0, 1),
            0,
        ),
        (
            {"st": "posted", "posted": 3, "rank": 3},
            1,
            ({"st": "posted", "posted": "3", "rank": "3"}, 100, KEPT, 0, 1),
            0,
        ),
        # published, and a better event is on its way: listed until that is posted
        (
            {"st": "posted", "posted": 1, "rank": 3},
            2,
            ({"st": "posted", "posted": "2", "rank": "3"}, 100, KEPT, 1, 1),
            0,
        ),
    ],
)
def test_publish_by_state_of_the_record_and_twice_is_once(
    redis_client: redis.Redis, record: dict[str, Any], rank: int, left: tuple[Any, ...], freed: int
) -> None:
    place(redis_client, record)

    assert publish(redis_client, rank=rank) == freed

    expected = dict(zip(("record", "held", "scopes", "unposted", "open"), left, strict=True))
    expected["record"] = {name: str(value) for name, value in expected["record"].items()}
    assert seen(redis_client) == expected
    assert publish(redis_client, rank=rank) == 0
    assert seen(redis_client) == expected
    if expected["record"]["st"] == "posted":
        assert 0 < redis_client.pttl(keyspace.record(TENANT, RID)) <= 3_600_000


def test_publish_takes_values_from_newer_versions_alone(redis_client: redis.Redis) -> None:
    publish(redis_client, version=5, posted=900, spent='{"t:2026-11-21": 40, "t:2026-11": 70}')
    publish(redis_client, version=4, posted=100, spent='{"t:2026-11-21": 1}')
    publish(redis_client, version=5, posted=100, spent='{"t:2026-11-21": 1}')

    wallet = redis_client.hgetall(keyspace.wallet(TENANT))
    budgets = redis_client.hgetall(keyspace.budgets(TENANT))

    assert wallet == {b"posted": b"900", b"ver": b"5", b"limit": b"20"}
    assert budgets[b"s:t:2026-11-21"] == b"40"
    assert (budgets[b"s:t:2026-11"], budgets[b"ver"]) == (b"70", b"5")


def test_publish_writes_large_numbers_in_full(redis_client: redis.Redis) -> None:
    publish(redis_client, posted=2**53 - 1, version=2**40)

    assert redis_client.hget(keyspace.wallet(TENANT), "posted") == b"9007199254740991"
    assert redis_client.hget(keyspace.wallet(TENANT), "ver") == b"1099511627776"


def test_publish_drops_counters_of_days_that_are_over(redis_client: redis.Redis) -> None:
    publish(redis_client, version=1, spent='{"t:2026-10-31": 40, "t:2026-10": 70}')
    redis_client.hset(keyspace.budgets(TENANT), "h:t", 5)

    publish(redis_client, version=2, spent='{"t:2026-11-01": 1, "t:2026-11": 1}')

    names = set(redis_client.hkeys(keyspace.budgets(TENANT)))
    assert names == {b"ver", b"day", b"h:t", b"s:t:2026-11-01", b"s:t:2026-11"}


def test_publish_wallet_rounds_against_the_spender(redis_client: redis.Redis) -> None:
    shop = make_shop(credit=10_000_999)
    append(redis_client, make_event(shop, usage={"input_tokens": 1}, discount_bp=5_000))

    ingest(redis_client)

    values = find_wallet_values(tenant=shop.number)
    assert values.posted_micro == (10_000_999 - 1_500) // 1_000
    assert set(values.spent_micro.values()) == {2}
    scopes = {name.partition(":")[0] for name in values.spent_micro}
    assert scopes == {"t", f"w{shop.workspace.pk}", f"k{shop.key.pk}"}


def test_publish_wallet_of_a_tenant_without_a_wallet_warms_it_with_nothing(
    redis_client: redis.Redis,
) -> None:
    shop = make_shop()

    publish_wallet(tenant=shop.number)

    assert redis_client.hgetall(keyspace.wallet(shop.number)) == {
        b"posted": b"0",
        b"ver": b"0",
        b"limit": b"0",
    }


def lost_publication(client: "redis.Redis", shop: Shop) -> str:
    """An event that is posted, but whose publication never came; returns its request."""
    event = make_event(shop)
    append(client, event)
    ingest(client)
    client.delete(keyspace.record(shop.number, event.rid))
    settle(client, event)
    client.delete(keyspace.usage_stream(shop.shard))
    return event.rid


def test_sweep_publishes_what_postgresql_has(redis_client: redis.Redis) -> None:
    shop = make_shop(credit=1_000_000_000)
    rid = lost_publication(redis_client, shop)

    swept = sweep_unposted(after_ms=-1_000)

    assert (swept.published, swept.appended) == (1, 0)
    assert redis_client.hget(keyspace.record(shop.number, rid), "st") == b"posted"
    assert redis_client.hget(keyspace.wallet(shop.number), "held") == b"0"
    assert redis_client.zcard(keyspace.unposted(shop.shard)) == 0


def test_sweep_appends_what_is_nowhere_once(redis_client: redis.Redis) -> None:
    shop = make_shop(credit=1_000_000_000)
    event = make_event(shop)
    settle(redis_client, event)
    redis_client.delete(keyspace.usage_stream(shop.shard))

    first, second = sweep_unposted(after_ms=-1_000), sweep_unposted(after_ms=60_000)

    assert (first.appended, second.appended) == (1, 0)
    assert stream_lengths(redis_client) == 1
    ingest(redis_client)
    assert [row.amount_nano for row in rows_of(event.rid)] == [USAGE_NANO]
    assert redis_client.zcard(keyspace.unposted(shop.shard)) == 0


def test_sweep_leaves_alone_what_waits_in_the_stream(redis_client: redis.Redis) -> None:
    shop = make_shop()
    settle(redis_client, make_event(shop))
    [member] = redis_client.zrange(keyspace.unposted(shop.shard), 0, -1)
    later_ms = clock.now_ms() + 10_000
    redis_client.zadd(keyspace.unposted(shop.shard), {text_of(member): later_ms})

    swept = sweep_unposted(after_ms=-20_000)

    assert (swept.waiting, swept.appended) == (1, 0)
    assert stream_lengths(redis_client) == 1


def test_sweep_waits_for_a_person_and_lets_go_of_what_was_discarded(
    redis_client: redis.Redis,
) -> None:
    shop = make_shop()
    settle(redis_client, make_event(shop, price_set=10**9))
    ingest(redis_client)

    waiting = sweep_unposted(after_ms=-1_000)
    assert waiting.appended == waiting.published == 0
    assert redis_client.hget(keyspace.wallet(shop.number), "held") == str(HOLD_MICRO).encode()
    call_command("dead_letters", "discard", "--all")
    sweep_unposted(after_ms=-1_000)

    assert redis_client.hget(keyspace.wallet(shop.number), "held") == b"0"
    assert stream_lengths(redis_client) == 0


def test_dead_letters_are_listed_and_posted_once_their_cause_is_gone(
    redis_client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = make_shop(credit=1_000_000_000)
    event = make_event(shop, tenant=shop.number + 1, price_set=shop.price_set)
    append(redis_client, event)
    ingest(redis_client)

    call_command("dead_letters", "list", "--json")
    assert f"tenant {shop.number + 1} does not exist" in capsys.readouterr().out
    with pytest.raises(CommandError):
        call_command("dead_letters", "retry", "--all")
    assert [letter.tries for letter in letters()] == [2]
    late = make_shop(name="Late", price_set=shop.price_set)
    assert late.number == shop.number + 1
    call_command("dead_letters", "retry", "--all")

    [row] = rows_of(event.rid)
    assert (row.tenant_id, row.amount_nano) == (late.number, USAGE_NANO)
    assert [letter.resolution for letter in letters()] == [DeadLetter.Resolution.POSTED]
    with pytest.raises(CommandError, match="No open letter"):
        call_command("dead_letters", "retry", str(letters()[0].pk))


def test_refresh_publishes_cold_tenants_and_newer_wallets(redis_client: redis.Redis) -> None:
    cold, behind = make_shop(name="Cold", credit=1_000_000), make_shop(name="B", credit=2_000_000)
    redis_client.delete(keyspace.wallet(cold.number), keyspace.wallet(behind.number))
    for shop in (cold, behind):
        publish_wallet(tenant=shop.number)
    redis_client.hset(keyspace.wallet(behind.number), "ver", 0)
    redis_client.delete(keyspace.wallet(cold.number))
    redis_client.sadd(keyspace.cold_tenants(cold.shard), cold.number)
    redis_client.sadd(keyspace.cold_tenants(5), 10**9)

    assert refresh_wallets() == 2
    assert refresh_wallets() == 0

    assert redis_client.hget(keyspace.wallet(cold.number), "posted") == b"1000"
    assert redis_client.hget(keyspace.wallet(behind.number), "posted") == b"2000"
    assert redis_client.exists(keyspace.cold_tenants(cold.shard), keyspace.cold_tenants(5)) == 0


def test_a_grant_is_published_in_the_same_call(
    redis_client: redis.Redis, django_capture_on_commit_callbacks: Any
) -> None:
    shop = make_shop()

    with django_capture_on_commit_callbacks(execute=True):
        grant_credit(
            tenant=shop.number, amount=7_000, idempotency_key="g", reason="r", actor="tests"
        )

    assert redis_client.hget(keyspace.wallet(shop.number), "posted") == b"7"


def test_reconcile_finds_each_kind_of_difference(redis_client: redis.Redis) -> None:
    shop = make_shop(credit=1_000_000_000)
    settle(redis_client, make_event(shop), scopes=("t", f"k{shop.key.pk}"))
    ingest(redis_client)
    assert [finding for finding in reconcile() if finding.differences] == []
    assert reconcile_usage() == 0

    redis_client.hincrby(keyspace.wallet(shop.number), "held", 5)
    redis_client.hincrby(keyspace.budgets(shop.number), "h:t", 5)
    with platform_scope("tests"):
        UsageRollup.objects.update(requests=9)

    found = {finding.check: finding.differences for finding in reconcile()}
    assert {check for check, count in found.items() if count} == {"redis", "rollups"}
    assert found["redis"] == 2
    with pytest.raises(SystemExit):
        call_command("reconcile", "--json")
    call_command("rebuild_rollups", "--json")
    assert [row.requests for row in rollup_rows(shop)] == [1]


def test_the_task_ingests_until_empty_and_one_run_is_enough(
    redis_client: redis.Redis, db: None
) -> None:
    shop = make_shop()
    for _ in range(3):
        append(redis_client, make_event(shop))

    assert ingest_usage() == 3
    assert ingest_usage() == 0
    assert make_partitions() == 0
    assert stream_lengths(redis_client) == 0


def test_a_consumer_reads_again_what_it_had_in_hand_when_redis_went_away(
    redis_client: redis.Redis,
) -> None:
    shop = make_shop()
    event = make_event(shop)
    append(redis_client, event)
    failures = [redis.ConnectionError("gone")]

    def fail_once(point: str) -> None:
        if point == "committed" and failures:
            raise failures.pop()

    consumer = Consumer(redis_client, name="tests", mark=fail_once)
    with pytest.raises(redis.ConnectionError):
        consumer.drain(until_seconds=clock.monotonic_seconds() + 10)

    assert consumer.drain(until_seconds=clock.monotonic_seconds() + 10) == 1
    assert len(rows_of(event.rid)) == 1
    assert stream_lengths(redis_client) == 0


def test_poison_is_no_obstacle_for_the_ingest_command(redis_client: redis.Redis) -> None:
    shop = make_shop()
    append_body(redis_client, b"\xff", shard=shop.shard)
    append(redis_client, make_event(shop, rid=ids.uuid7()))

    assert ingest(redis_client, batch_max=1) == 2
    assert len(letters()) == 1
