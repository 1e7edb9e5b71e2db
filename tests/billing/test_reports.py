"""Usage and cost reports: exactly the Admin API's shapes, errors included."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import redis
from rest_framework.test import APIClient

from tests.accounts.factories import client_with_key, management_client
from tests.accounts.factories import make_key as issue
from tests.billing.usage_world import MODEL, Shop, append, ingest, make_event, make_key, make_shop
from turnpike.control.caller import Power
from turnpike.kernel import clock, ids

pytestmark = pytest.mark.django_db

USAGE_REPORT = "/v1/organizations/usage_report/messages"
COST_REPORT = "/v1/organizations/cost_report"
DAY = datetime(2025, 3, 10, tzinfo=UTC)
UNGROUPED = {
    "api_key_id": None,
    "workspace_id": None,
    "model": None,
    "service_tier": None,
    "context_window": None,
    "inference_geo": None,
    "account_id": None,
    "service_account_id": None,
}
USAGE = {
    "input_tokens": 100,
    "output_tokens": 20,
    "cache_creation_input_tokens": 30,
    "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
    "cache_read_input_tokens": 1_000,
    "server_tool_use": {"web_search_requests": 1},
}
NUMBERS = {
    "uncached_input_tokens": 100,
    "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
    "cache_read_input_tokens": 1_000,
    "output_tokens": 20,
    "server_tool_use": {"web_search_requests": 1},
}


@pytest.fixture
def shop() -> Shop:
    """A tenant with credit."""
    return make_shop(credit=1_000_000_000)


def rid_at(at: datetime) -> UUID:
    """A request id of that time."""
    return ids.uuid7(at_ms=clock.us_of_datetime(at) // 1_000)


def use(client: "redis.Redis", shop: Shop, at: datetime, **changes: Any) -> None:
    """One posted request of that time."""
    append(client, make_event(shop, rid=rid_at(at), **{"usage": USAGE, **changes}))
    ingest(client)


def test_usage_by_day_has_the_exact_shape_and_empty_buckets(
    redis_client: redis.Redis, shop: Shop
) -> None:
    use(redis_client, shop, DAY + timedelta(hours=5))
    query = {"starting_at": "2025-03-09T13:00:00Z", "ending_at": "2025-03-11T00:00:00Z"}

    answer = management_client(shop.tenant).get(USAGE_REPORT, query)

    assert answer.status_code == 200
    assert answer["request-id"].startswith("req_01")
    assert answer.json() == {
        "data": [
            {
                "starting_at": "2025-03-09T00:00:00Z",
                "ending_at": "2025-03-10T00:00:00Z",
                "results": [],
            },
            {
                "starting_at": "2025-03-10T00:00:00Z",
                "ending_at": "2025-03-11T00:00:00Z",
                "results": [{**NUMBERS, **UNGROUPED}],
            },
        ],
        "has_more": False,
        "next_page": None,
    }


def test_minutes_and_hours_say_the_same_as_days(redis_client: redis.Redis, shop: Shop) -> None:
    rid = rid_at(DAY + timedelta(hours=1, minutes=2, seconds=59))
    append(redis_client, make_event(shop, rid=rid, rank=1, usage={"input_tokens": 7}))
    ingest(redis_client)
    append(redis_client, make_event(shop, rid=rid, rank=3, usage=USAGE))
    ingest(redis_client)
    client = management_client(shop.tenant)
    found = {}
    for width in ("1m", "1h", "1d"):
        query = {
            "starting_at": "2025-03-10T01:00:00Z",
            "ending_at": "2025-03-10T02:00:00Z",
            "bucket_width": width,
            "limit": {"1m": 60, "1h": 24, "1d": 7}[width],
        }
        page = client.get(USAGE_REPORT, query).json()
        found[width] = [
            (bucket["starting_at"], bucket["results"])
            for bucket in page["data"]
            if bucket["results"]
        ]

    whole = [{**NUMBERS, **UNGROUPED}]
    assert found["1m"] == [("2025-03-10T01:02:00Z", whole)]
    assert found["1h"] == [("2025-03-10T01:00:00Z", whole)]
    assert found["1d"] == [("2025-03-10T00:00:00Z", whole)]


def test_grouping_and_filters_by_every_dimension(redis_client: redis.Redis, shop: Shop) -> None:
    key = make_key(shop.workspace)
    at = DAY + timedelta(hours=1)
    use(redis_client, shop, at, usage={"input_tokens": 1})
    use(redis_client, shop, at, usage={"input_tokens": 2, "service_tier": "batch"})
    use(redis_client, shop, at, usage={"input_tokens": 300_000}, key=key.pk)
    client = management_client(shop.tenant)

    def results(**query: Any) -> list[tuple[Any, ...]]:
        span = {"starting_at": "2025-03-10T00:00:00Z", "ending_at": "2025-03-11T00:00:00Z"}
        answer = client.get(USAGE_REPORT, {**span, **query})
        assert answer.status_code == 200, answer.content
        groups = query.get("group_by[]", [])
        return [
            (*(row[name] for name in groups), row["uncached_input_tokens"])
            for row in answer.json()["data"][0]["results"]
        ]

    assert results(**{"group_by[]": ["service_tier"]}) == [("batch", 2), ("standard", 300_001)]
    assert results(**{"group_by[]": ["context_window"]}) == [("0-200k", 3), ("200k-1M", 300_000)]
    both = results(**{"group_by[]": ["api_key_id", "model"]})
    assert sorted(both) == sorted([(shop.key.public_id, MODEL, 3), (key.public_id, MODEL, 300_000)])
    assert results(**{"group_by[]": ["workspace_id", "inference_geo", "speed"]}) == [
        (shop.workspace.public_id, "not_available", "standard", 300_003)
    ]
    assert results(**{"group_by[]": ["account_id"]}) == [(None, 300_003)]
    assert results(**{"service_tiers[]": ["batch"]}) == [(2,)]
    assert results(**{"api_key_ids[]": [key.public_id]}) == [(300_000,)]
    assert results(**{"models[]": ["another"]}) == []
    assert results(**{"account_ids[]": ["user_x"]}) == []
    assert results(**{"api_key_ids[]": ["apikey_not_ours"]}) == []


def test_pages_of_buckets_follow_one_another(redis_client: redis.Redis, shop: Shop) -> None:
    client = management_client(shop.tenant)
    span = "starting_at=2025-03-10T00:00:00Z&ending_at=2025-03-10T05:00:00Z"
    seen: list[str] = []
    page: str | None = ""
    for _ in range(3):
        path = f"{USAGE_REPORT}?{span}&bucket_width=1h&limit=2&page={page}"
        answer = client.get(path).json()
        seen.extend(bucket["starting_at"] for bucket in answer["data"])
        page = answer["next_page"]

    assert seen == [f"2025-03-10T0{hour}:00:00Z" for hour in range(5)]
    assert answer["has_more"] is False
    assert page is None


def test_costs_are_cents_by_day_and_sum_to_what_was_charged(
    redis_client: redis.Redis, shop: Shop
) -> None:
    use(redis_client, shop, DAY)
    span = {"starting_at": "2025-03-10T00:00:00Z", "ending_at": "2025-03-11T00:00:00Z"}
    client = management_client(shop.tenant)

    whole = client.get(COST_REPORT, span).json()["data"][0]["results"]
    lines = client.get(COST_REPORT, {**span, "group_by[]": ["workspace_id", "description"]}).json()[
        "data"
    ][0]["results"]

    nulls = dict.fromkeys(
        (
            "workspace_id",
            "description",
            "cost_type",
            "model",
            "token_type",
            "service_tier",
            "context_window",
            "inference_geo",
        )
    )
    assert whole == [{"amount": "1.10575", "currency": "USD", **nulls}]
    tokens = {
        "currency": "USD",
        "workspace_id": shop.workspace.public_id,
        "cost_type": "tokens",
        "model": MODEL,
        "service_tier": "standard",
        "context_window": "0-200k",
        "inference_geo": "not_available",
    }
    assert lines == [
        {
            **tokens,
            "amount": amount,
            "token_type": token_type,
            "description": f"{MODEL} Usage - {title}",
        }
        for amount, token_type, title in (
            ("0.03", "uncached_input_tokens", "Input Tokens"),
            ("0.03", "output_tokens", "Output Tokens"),
            (
                "0.00375",
                "cache_creation.ephemeral_5m_input_tokens",
                "Cache Write 5m Tokens",
            ),
            ("0.012", "cache_creation.ephemeral_1h_input_tokens", "Cache Write 1h Tokens"),
            ("0.03", "cache_read_input_tokens", "Cache Read Tokens"),
        )
    ] + [
        {
            **nulls,
            "amount": "1",
            "currency": "USD",
            "workspace_id": shop.workspace.public_id,
            "description": "Web Search Usage",
            "cost_type": "web_search",
        }
    ]


def test_a_charge_that_met_its_hold_is_what_the_cost_report_shows(
    redis_client: redis.Redis, shop: Shop
) -> None:
    use(redis_client, shop, DAY, hold_micro=400)
    span = {"starting_at": "2025-03-10T00:00:00Z", "ending_at": "2025-03-11T00:00:00Z"}

    lines = (
        management_client(shop.tenant)
        .get(COST_REPORT, {**span, "group_by[]": ["description"]})
        .json()["data"][0]["results"]
    )

    assert [line["amount"] for line in lines] == ["0.03", "0.01"]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (USAGE_REPORT, {}),
        (USAGE_REPORT, {"starting_at": "soon"}),
        (USAGE_REPORT, {"starting_at": "2025-03-10T00:00:00Z", "bucket_width": "5m"}),
        (USAGE_REPORT, {"starting_at": "2025-03-10T00:00:00Z", "limit": "32"}),
        (USAGE_REPORT, {"starting_at": "2025-03-10T00:00:00Z", "group_by[]": "colour"}),
        (USAGE_REPORT, {"starting_at": "2025-03-10T00:00:00Z", "page": "nonsense"}),
        (
            USAGE_REPORT,
            {"starting_at": "2025-03-10T00:00:00Z", "ending_at": "2025-03-09T00:00:00Z"},
        ),
        (COST_REPORT, {"starting_at": "2025-03-10T00:00:00Z", "bucket_width": "1h"}),
        (COST_REPORT, {"starting_at": "2025-03-10T00:00:00Z", "group_by[]": "model"}),
    ],
)
def test_bad_queries_get_anthropics_error(shop: Shop, path: str, query: dict[str, str]) -> None:
    answer = management_client(shop.tenant).get(path, query)

    body = answer.json()
    assert answer.status_code == 400
    assert set(body) == {"type", "error", "request_id"}
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert body["request_id"] == answer["request-id"]


def test_callers_are_refused_in_anthropics_words(shop: Shop) -> None:
    inference = client_with_key(issue(shop.tenant).secret)
    narrow = management_client(shop.tenant, Power.KEYS_READ)
    query = {"starting_at": "2025-03-10T00:00:00Z"}
    refused = {
        "nobody": APIClient().get(USAGE_REPORT, query),
        "garbage": client_with_key("tpm_live_garbage").get(USAGE_REPORT, query),
        "inference key": inference.get(USAGE_REPORT, query),
        "narrow key": narrow.get(COST_REPORT, query),
        "method": management_client(shop.tenant).post(USAGE_REPORT),
    }

    seen = {
        name: (answer.status_code, json.loads(answer.content)["error"]["type"])
        for name, answer in refused.items()
    }

    assert seen == {
        "nobody": (401, "authentication_error"),
        "garbage": (401, "authentication_error"),
        "inference key": (403, "permission_error"),
        "narrow key": (403, "permission_error"),
        "method": (405, "invalid_request_error"),
    }


def test_a_stranger_reads_empty_reports(redis_client: redis.Redis, shop: Shop) -> None:
    use(redis_client, shop, DAY)
    mallory = management_client(make_shop(name="Mallory").tenant)
    query = {
        "starting_at": "2025-03-10T00:00:00Z",
        "ending_at": "2025-03-11T00:00:00Z",
        "workspace_ids[]": shop.workspace.public_id,
    }

    for path in (USAGE_REPORT, COST_REPORT):
        [bucket] = mallory.get(path, query).json()["data"]
        assert bucket["results"] == []
