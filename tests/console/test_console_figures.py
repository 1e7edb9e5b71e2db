"""A figure that stands on several pages is the same on all of them, and the data plane's own."""

import re
from typing import Any

import pytest
import redis
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from accounts.models import Role
from billing.console.charts import LABELS_MAX, ceiling, stacked_bars
from billing.queries.limits import level_of
from proxy.limiter.plans import KINDS, make_bucket
from tests.billing.usage_world import USAGE_NANO
from tests.console.console_world import World, client_for, make_world
from turnpike.control import formats
from turnpike.kernel import keyspace
from turnpike.kernel.money import parse_amount

NOW_US = 1_800_000_000_000_000


@pytest.fixture
def world(redis_client: redis.Redis, db: None) -> World:
    return make_world(redis_client)


def page(client: Client, path: str) -> str:
    """What a page says, without its marks."""
    text = client.get(f"/console/{path}").content.decode()
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


def test_pages_and_api_say_the_same(world: World) -> None:
    client = client_for(world.members[Role.OWNER])
    days = len(world.requests)
    spent = formats.money(days * USAGE_NANO)

    usage: dict[str, Any] = client.get("/api/v1/usage").json()
    amounts = [row["amount"] for bucket in usage["data"] for row in bucket["results"]]
    receipt: dict[str, Any] = client.get(f"/api/v1/requests/{world.newest}").json()

    assert sum(map(parse_amount, amounts)) == days * USAGE_NANO
    assert f"Cost {spent}" in page(client, "usage")
    assert f"Total {days} " in page(client, "usage")
    assert parse_amount(receipt["amount"]) == USAGE_NANO
    assert f"Charged {formats.exact_money(USAGE_NANO)}" in page(client, f"logs/{world.newest}")
    balance: dict[str, Any] = client.get("/api/v1/balance").json()
    available = formats.money(parse_amount(balance["available"]))
    for path in ("", "billing"):
        assert available in page(client, path)


def test_usage_as_csv_has_the_numbers_of_the_table(world: World) -> None:
    client = client_for(world.members[Role.VIEWER])

    answer = client.get("/console/usage?format=csv&period=7d")

    lines = answer.content.decode().splitlines()
    assert lines[0] == "name,id,requests,input,cache_write,cache_read,output,amount"
    assert lines[1].split(",")[2:] == ["2", "200", "0", "0", "40", "0.001200000"]


def test_filters_of_the_address_narrow_the_page(world: World) -> None:
    client = client_for(world.members[Role.OWNER])

    nothing = page(client, "usage?model=claude-none")
    by_key = page(client, f"usage?group=key&key={world.shop.key.public_id}&measure=cost")

    assert "Nothing was used in this period." in nothing
    assert world.shop.key.name in by_key
    assert "No request matches." in page(client, "logs?status=500")
    assert client.get(f"/console/logs?q={world.newest}")["location"] == (
        f"/console/logs/{world.newest}"
    )


def test_limits_show_what_the_buckets_hold(world: World, redis_client: redis.Redis) -> None:
    tenant = world.shop.number
    seconds, microseconds = redis_client.time()
    now_us = int(seconds) * 1_000_000 + int(microseconds)
    redis_client.hset(keyspace.buckets(tenant), "t:requests", now_us + 30_000_000)
    redis_client.zadd(keyspace.slots(tenant, "t"), {"one": now_us // 1_000 + 60_000})

    live = client_for(world.members[Role.VIEWER]).get("/console/limits", headers={"x-poll": "1"})

    text = " ".join(re.sub(r"<[^>]+>", " ", live.content.decode()).split())
    used = re.search(r"Requests per minute (\d+) / 200", text)
    assert used is not None
    assert 95 <= int(used.group(1)) <= 101
    assert "At once 1 / 40" in text
    assert "<html" not in live.content.decode()


@given(
    kind=st.sampled_from(KINDS),
    limit=st.integers(1, 10_000_000),
    burst=st.none() | st.integers(1, 4_000),
    ahead_us=st.integers(-1_000_000, 4_000_000_000),
)
def test_levels_are_those_of_the_data_plane(
    kind: str, limit: int, burst: int | None, ahead_us: int
) -> None:
    bucket = make_bucket(name="t", kind=kind, limit_per_minute=limit, burst_seconds=burst)
    left_us = bucket.burst_us - max(0, ahead_us)

    level = level_of(
        kind=kind, limit=limit, burst_seconds=burst, arrival_us=NOW_US + ahead_us, now_us=NOW_US
    )

    assert level.capacity == bucket.units_in(bucket.burst_us)
    assert level.remaining == bucket.units_in(left_us)
    assert level.full_in_us == bucket.burst_us - left_us


@given(st.integers(0, 10**18))
def test_the_top_of_a_chart_is_above_and_divides_by_four(value: int) -> None:
    top = ceiling(value)

    assert top >= max(value, 4)
    assert top % 4 == 0
    assert top <= max(4, 2 * value)


def test_bars_stack_to_their_sum() -> None:
    chart = stacked_bars(labels=["a", "b"], series={"x": [30, 0], "y": [50, 100]})

    heights = [sum(part.height for part in bar.parts) for bar in chart.bars]
    assert heights == [192, 240]
    assert chart.bars[0].tip == "a · 80\nx: 30\ny: 50"
    assert chart.ticks == ("100", "75", "50", "25", "0")


@given(st.integers(1, 400))
def test_each_label_stands_below_its_own_bar(count: int) -> None:
    names = [f"day {place}" for place in range(count)]
    chart = stacked_bars(labels=names, series={"x": [1] * count})

    bars = {bar.tip.partition(" · ")[0]: bar for bar in chart.bars}
    assert chart.labels[0].text == names[0]
    assert len(chart.labels) <= LABELS_MAX
    for label in chart.labels:
        bar = bars[label.text]
        assert bar.left <= 10 * float(label.x) <= bar.left + bar.slot + 1
