"""P12 and P13: the order of arrival changes nothing, and rollups are their events."""

from typing import Any
from uuid import UUID

import pytest
import redis
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.models.usage import UsageRollup
from billing.services.rollups import compare_counters, compare_rollups, rebuild_rollups
from tests.billing.usage_world import (
    Shop,
    append,
    final_state,
    ingest,
    make_event,
    make_price_set,
    make_shop,
    sums_agree,
)
from turnpike.contracts.usage import UsageEvent
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock

pytestmark = pytest.mark.django_db

REQUESTS_MAX = 5
STARTED_MS = 1_735_700_000_000  # 2025-01-01T02:53:20Z
RELAXED = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

counts = st.integers(0, 300_000)
usages = st.fixed_dictionaries(
    {"input_tokens": counts, "output_tokens": counts},
    optional={
        "cache_read_input_tokens": counts,
        "cache_creation_input_tokens": counts,
        "service_tier": st.sampled_from(["standard", "batch", "odd"]),
        "server_tool_use": st.fixed_dictionaries({"web_search_requests": st.integers(0, 3)}),
    },
)


@st.composite
def deliveries(draw: st.DrawFn) -> list[list[tuple[int, int, dict[str, Any], int]]]:
    """Batches of (request, rank, usage, hold): duplicated, reordered, a usage for each rank."""
    known = {
        (request, rank): (draw(usages), draw(st.integers(0, 5_000_000)))
        for request in range(draw(st.integers(1, REQUESTS_MAX)))
        for rank in draw(st.sets(st.integers(0, 4), min_size=1, max_size=3))
    }
    every = [(*key, *value) for key, value in known.items()]
    again = draw(st.lists(st.sampled_from(every), max_size=6))
    order = draw(st.permutations([*every, *again]))
    cuts = sorted(draw(st.sets(st.integers(1, len(order)), max_size=4)) | {len(order)})
    return [order[start:end] for start, end in zip([0, *cuts], cuts, strict=False)]


@pytest.fixture
def shop() -> Shop:
    """One tenant for all examples."""
    return make_shop(price_set=make_price_set(), credit=10**15)


def event_of(shop: Shop, delivery: tuple[int, int, dict[str, Any], int]) -> UsageEvent:
    """The event of a delivery; requests start 20 minutes apart, so they fill several buckets."""
    request, rank, usage, hold = delivery
    milliseconds = STARTED_MS + request * 1_200_000
    rid = UUID(int=(milliseconds << 80) | (7 << 76) | (2 << 62) | request)
    return make_event(shop, rid=rid, rank=rank, hold_micro=hold, usage=usage if rank else {})


def run(client: "redis.Redis", batches: list[list[UsageEvent]]) -> dict[str, Any]:
    """The final state after these batches, which is undone afterwards."""
    client.flushdb()
    with transaction.atomic():
        for batch in batches:
            for event in batch:
                append(client, event)
            ingest(client)
        state = final_state()
        sums_agree()
        transaction.set_rollback(True)
    return state


@RELAXED
@given(batches=deliveries())
def test_any_interleaving_gives_the_same_final_rows(
    redis_client: redis.Redis, shop: Shop, batches: list[list[tuple[int, int, Any, int]]]
) -> None:
    best: dict[int, tuple[int, int, dict[str, Any], int]] = {}
    for delivery in (item for batch in batches for item in batch):
        request, rank, _, _ = delivery
        if request not in best or rank > best[request][1]:
            best[request] = delivery

    shuffled = run(redis_client, [[event_of(shop, item) for item in batch] for batch in batches])
    plain = run(redis_client, [[event_of(shop, best[request]) for request in sorted(best)]])

    assert shuffled["events"] == plain["events"]
    assert shuffled["rollups"] == plain["rollups"]
    assert shuffled["counters"] == plain["counters"]
    assert shuffled["balances"] == plain["balances"]


@RELAXED
@given(batches=deliveries())
def test_rebuilding_rollups_is_identity(
    redis_client: redis.Redis, shop: Shop, batches: list[list[tuple[int, int, Any, int]]]
) -> None:
    redis_client.flushdb()
    since = clock.datetime_of_us(STARTED_MS * 1_000)
    span = {"since": since, "until": clock.datetime_of_us(STARTED_MS * 1_000 + 10**11)}
    for batch in batches:
        for item in batch:
            append(redis_client, event_of(shop, item))
        ingest(redis_client)
    before = final_state()["rollups"]

    assert compare_rollups(**span) == []
    assert compare_counters(**span) == []
    rebuild_rollups(**span)

    assert final_state()["rollups"] == before


def test_a_rollup_that_was_tampered_with_is_found_and_rebuilt(
    redis_client: redis.Redis, shop: Shop
) -> None:
    span = {
        "since": clock.datetime_of_us(STARTED_MS * 1_000),
        "until": clock.datetime_of_us(STARTED_MS * 1_000 + 10**11),
    }
    append(redis_client, event_of(shop, (0, 3, {"input_tokens": 5}, 10)))
    ingest(redis_client)
    before = final_state()["rollups"]
    with platform_scope("tests"):
        UsageRollup.objects.update(input_tokens=6)

    assert len(compare_rollups(**span)) == 1
    rebuild_rollups(**span)

    assert final_state()["rollups"] == before
