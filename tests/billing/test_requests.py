"""/requests, /usage and /refusals as a tenant's program reads them with a management key."""

from typing import Any
from uuid import UUID

import pytest
import redis
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from tests.accounts.factories import client_with_key, management_client
from tests.accounts.factories import make_key as issue
from tests.billing.usage_world import (
    MODEL,
    USAGE_NANO,
    Shop,
    append,
    ingest,
    make_event,
    make_key,
    make_shop,
    redis_json,
)
from turnpike.contracts.usage import Attempt
from turnpike.kernel import clock, ids, keyspace, money

pytestmark = pytest.mark.django_db

USAGE_EXACT = {
    "input_tokens": 100,
    "output_tokens": 20,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    "output_tokens_details": None,
    "server_tool_use": None,
    "service_tier": "standard",
}


def client_of(shop: Shop) -> APIClient:
    """A program with a management key of the tenant."""
    return management_client(shop.tenant)


@pytest.fixture
def shop() -> Shop:
    """A tenant with credit."""
    return make_shop(credit=1_000_000_000)


def test_a_request_is_listed_with_its_usage_and_amount(
    redis_client: redis.Redis, shop: Shop
) -> None:
    event = make_event(shop, stream=True)
    append(redis_client, event)
    ingest(redis_client)

    answer = client_of(shop).get("/api/v1/requests")

    assert answer.status_code == 200
    started_at = clock.datetime_of_us(event.started_at_us)
    assert answer.json() == {
        "data": [
            {
                "request_id": ids.public_id(ids.REQUEST, UUID(event.rid)),
                "status": "reported",
                "http_status": 200,
                "model": MODEL,
                "requested_model": MODEL,
                "usage": USAGE_EXACT,
                "amount": "0.000600000",
                "currency": "USD",
                "started_at": clock.rfc3339(started_at),
                "finished_at": clock.rfc3339(clock.datetime_of_us(event.finished_at_us)),
                "time_to_first_token_ms": 250,
                "stream": True,
                "stop_reason": "end_turn",
                "error_type": None,
                "api_key_id": shop.key.public_id,
                "workspace_id": shop.workspace.public_id,
                "member": None,
                "revision": 0,
            }
        ],
        "next_cursor": None,
    }


def test_revised_requests_are_listed_once_with_their_sums(
    redis_client: redis.Redis, shop: Shop
) -> None:
    rid = ids.uuid7()
    for rank, output in ((1, 5), (3, 25)):
        usage = {"input_tokens": 10, "output_tokens": output}
        append(redis_client, make_event(shop, rid=rid, rank=rank, usage=usage))
        ingest(redis_client)

    [row] = client_of(shop).get("/api/v1/requests").json()["data"]

    assert (row["status"], row["revision"]) == ("reported", 1)
    assert (row["usage"]["input_tokens"], row["usage"]["output_tokens"]) == (10, 25)
    assert row["amount"] == money.format_amount(10 * 3_000 + 25 * 15_000)


def test_pages_follow_one_another_newest_first(redis_client: redis.Redis, shop: Shop) -> None:
    events = [make_event(shop, rid=ids.uuid7(at_ms=clock.now_ms() - n * 1_000)) for n in range(5)]
    for event in events:
        append(redis_client, event)
    ingest(redis_client)
    client, cursor = client_of(shop), ""
    seen: list[str] = []
    for _ in range(3):
        page = client.get(f"/api/v1/requests?limit=2&cursor={cursor}").json()
        seen.extend(row["request_id"] for row in page["data"])
        cursor = page["next_cursor"]

    assert seen == [ids.public_id(ids.REQUEST, UUID(event.rid)) for event in events]
    assert cursor is None


def test_filters_narrow_the_list(redis_client: redis.Redis, shop: Shop) -> None:
    other_key = make_key(shop.workspace)
    old = ids.uuid7(at_ms=clock.now_ms() - 7_200_000)
    append(redis_client, make_event(shop, key=other_key.pk, http_status=529, rank=0))
    append(redis_client, make_event(shop, rid=old))
    ingest(redis_client)
    client = client_of(shop)
    hour_ago = clock.rfc3339(clock.datetime_of_us(clock.now_us() - 3_600_000_000))
    stranger = make_shop(name="Mallory")

    def count(**query: Any) -> int:
        return len(client.get("/api/v1/requests", query).json()["data"])

    assert count() == 2
    assert count(status="void") == count(http_status=529) == 1
    assert count(api_key_id=other_key.public_id) == 1
    assert count(workspace_id=shop.workspace.public_id, model=MODEL) == 2
    assert count(model="another") == 0
    assert count(starting_at=hour_ago) == count(ending_at=hour_ago) == 1
    assert count(api_key_id=stranger.key.public_id) == count(api_key_id="nonsense") == 0


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "10001"},
        {"limit": "-1"},
        {"limit": "x"},
        {"cursor": "///"},
        {"cursor": "bm9uc2Vuc2U"},
        {"starting_at": "yesterday"},
        {"starting_at": "2026-11-21T10:00:00"},
        {"starting_at": "2026-13-41T10:00:00Z"},
        {"http_status": "2000"},
    ],
    ids=str,
)
def test_bad_parameters_are_named(shop: Shop, query: dict[str, str]) -> None:
    answer = client_of(shop).get("/api/v1/requests", query)

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == next(iter(query))


def test_a_receipt_holds_everything_that_the_amount_rests_on(
    redis_client: redis.Redis, shop: Shop
) -> None:
    attempts = (
        Attempt(n=1, upstream=4, outcome="refused"),
        Attempt(
            n=2,
            upstream=5,
            credential=6,
            upstream_request_id="req_upstream",
            outcome="answered",
            usage={"input_tokens": 100},
        ),
    )
    event = make_event(shop, attempts=attempts, hold_micro=500)
    append(redis_client, event)
    ingest(redis_client)

    answer = client_of(shop).get(f"/api/v1/requests/{ids.public_id(ids.REQUEST, UUID(event.rid))}")

    receipt = answer.json()
    assert answer.status_code == 200
    assert (receipt["amount"], receipt["waived"]) == ("0.000500000", "0.000100000")
    assert receipt["hold"] == "0.000500000"
    assert receipt["components"] == [
        {
            "model": MODEL,
            "component": name,
            "variant": "standard",
            "quantity": quantity,
            "unit": "million_tokens",
            "price": price,
            "amount": "0.000300000",
        }
        for name, quantity, price in (
            ("input", 100, "3.000000000"),
            ("output", 20, "15.000000000"),
        )
    ]
    assert receipt["price_set"]["id"] == str(shop.price_set)
    [posting] = receipt["ledger"]
    [revision] = receipt["revisions"]
    assert posting["key"] == f"usage:{revision['posting_id']}:{shop.number}"
    assert [(entry["account"], entry["side"], entry["amount"]) for entry in posting["entries"]] == [
        ("promo", "debit", "0.000500000"),
        ("revenue", "credit", "0.000500000"),
    ]
    assert [(item["attempt"], item["outcome"], item["billed"]) for item in receipt["attempts"]] == [
        (1, "refused", False),
        (2, "answered", True),
    ]
    assert receipt["attempts"][1]["upstream_request_id"] == "req_upstream"


def test_a_stranger_sees_nothing_of_it(redis_client: redis.Redis, shop: Shop) -> None:
    event = make_event(shop)
    append(redis_client, event)
    ingest(redis_client)
    mallory = client_of(make_shop(name="Mallory"))
    request_id = ids.public_id(ids.REQUEST, UUID(event.rid))

    assert mallory.get("/api/v1/requests").json()["data"] == []
    assert mallory.get(f"/api/v1/requests/{request_id}").status_code == 404
    assert mallory.get("/api/v1/requests/req_nonsense").status_code == 404
    usage = mallory.get("/api/v1/usage", {"api_key_id": shop.key.public_id}).json()
    assert [bucket["results"] for bucket in usage["data"]] == [[]] * 7
    assert APIClient().get("/api/v1/requests").status_code == 401
    inference = issue(shop.tenant).secret
    assert client_with_key(inference).get("/api/v1/requests").status_code == 403


def test_ten_thousand_requests_come_in_one_answer_and_few_queries(
    redis_client: redis.Redis, shop: Shop
) -> None:
    append(redis_client, make_event(shop))
    ingest(redis_client)
    _multiply(10_000)
    client = client_of(shop)

    with CaptureQueriesContext(connection) as queries:
        answer = client.get("/api/v1/requests", {"limit": 10_000})

    page = answer.json()
    assert len(page["data"]) == 10_000
    assert page["next_cursor"] is not None
    assert len(queries) < 30


def test_usage_sums_requests_tokens_and_money_by_what_is_asked(
    redis_client: redis.Redis, shop: Shop
) -> None:
    other_key = make_key(shop.workspace)
    for key in (shop.key, shop.key, other_key):
        append(redis_client, make_event(shop, key=key.pk))
    ingest(redis_client)
    client = client_of(shop)

    for width in ("1m", "1h", "1d"):
        since = clock.rfc3339(clock.datetime_of_us(clock.now_us() - 600_000_000))
        query = {"bucket_width": width, "starting_at": since, "group_by": "api_key_id"}
        page = client.get("/api/v1/usage", query).json()
        rows = {row["api_key_id"]: row for bucket in page["data"] for row in bucket["results"]}
        assert set(rows) == {shop.key.public_id, other_key.public_id}
        mine = rows[shop.key.public_id]
        assert (mine["requests"], mine["input_tokens"], mine["output_tokens"]) == (2, 200, 40)
        assert (mine["amount"], mine["currency"]) == (money.format_amount(2 * USAGE_NANO), "USD")

    narrowed = client.get("/api/v1/usage", {"api_key_id": other_key.public_id}).json()
    assert [row["requests"] for bucket in narrowed["data"] for row in bucket["results"]] == [1]
    assert client.get("/api/v1/usage", {"group_by": "secret"}).status_code == 400


def test_refusals_are_shown_with_their_numbers_and_counted_by_hour(
    redis_client: redis.Redis, shop: Shop
) -> None:
    rid = ids.uuid7()
    row = {
        "at_us": 1_795_000_000_000_000,
        "request_id": str(rid),
        "reason": "rate:requests",
        "status": 429,
        "type": "rate_limit_error",
        "message": "Too many requests.",
        "model": MODEL,
        "key": shop.key.pk,
        "limit": 50,
        "wait_us": 1_200_001,
        "available_micro": None,
    }
    redis_client.lpush(keyspace.refusals(shop.number), redis_json(row), "broken", "[]")
    hour = clock.utc_now().strftime("%Y-%m-%dT%H")
    redis_client.hincrby(keyspace.outcome_counts(shop.number, hour), "rate_limited", 3)

    answer = client_of(shop).get("/api/v1/refusals").json()

    assert answer["data"] == [
        {
            "at": clock.rfc3339(clock.datetime_of_us(1_795_000_000_000_000)),
            "request_id": ids.public_id(ids.REQUEST, rid),
            "reason": "rate:requests",
            "http_status": 429,
            "type": "rate_limit_error",
            "message": "Too many requests.",
            "model": MODEL,
            "api_key_id": shop.key.public_id,
            "limit": 50,
            "retry_after_ms": 1_201,
            "available": None,
        }
    ]
    assert answer["hours"] == [{"starting_at": f"{hour}:00:00Z", "outcomes": {"rate_limited": 3}}]
    mallory = client_of(make_shop(name="Mallory")).get("/api/v1/refusals").json()
    assert mallory == {"data": [], "hours": []}


def _multiply(count: int) -> None:
    """Copies of the one event under ids of their own, without what hangs on them."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('tp.platform', 'on', true)")
        cursor.execute(
            "SELECT string_agg(column_name, ', ') FROM information_schema.columns"
            " WHERE table_name = 'billing_usage_event' AND column_name <> 'request_id'"
        )
        columns = cursor.fetchone()[0]
        cursor.execute(
            f"INSERT INTO billing_usage_event (request_id, {columns})"
            " SELECT overlay(request_id::text placing lpad(to_hex(n), 12, '0') from 25)::uuid,"
            f" {columns} FROM billing_usage_event, generate_series(1, %s) AS n",
            [count],
        )
        cursor.execute("SELECT set_config('tp.platform', '', true)")
