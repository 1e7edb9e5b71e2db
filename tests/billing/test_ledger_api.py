"""What tenants read of models, prices, tier, balance and ledger; what strangers do not."""

from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from accounts.models import Role, Tenant
from billing.services.catalog import import_catalog, set_model_switches
from billing.services.tiers import set_group_limits, set_overrides, set_prices
from billing.services.wallet import charge_usage, grant_credit, set_credit_line, top_up
from tests.accounts.factories import client_of, make_key, make_tenant
from tests.billing.ledger_world import ACTOR
from turnpike.contracts.snapshots import Limits
from turnpike.control.scope import platform_scope
from turnpike.kernel import ids

pytestmark = pytest.mark.django_db

PATHS = ("models", "prices", "tier", "balance", "ledger")


@pytest.fixture
def alice() -> Tenant:
    """A tenant that owns nothing yet."""
    import_catalog()
    return make_tenant("alice")


def get(client: APIClient, path: str, **query: Any) -> Any:
    """The body of a successful answer."""
    response = client.get(f"/api/v1/{path}", query)
    assert response.status_code == 200, response.content
    return response.json()


def move_money(tenant: Tenant) -> None:
    """A grant, a top-up and a charge: 3 + 7 - 4 dollars."""
    grant_credit(
        tenant=tenant.pk,
        amount=3 * 10**9,
        idempotency_key=str(ids.uuid7()),
        reason="welcome",
        actor=ACTOR,
        expires_at=datetime(2040, 1, 1, tzinfo=UTC),
    )
    top_up(tenant=tenant.pk, amount=7 * 10**9, idempotency_key=str(ids.uuid7()), actor=ACTOR)
    with platform_scope("tests"):
        charge_usage(
            tenant=tenant.pk, amount=4 * 10**9, posting_id=str(ids.uuid7()), currency="USD"
        )


def test_a_balance_says_what_is_there_and_what_is_left_of_grants(alice: Tenant) -> None:
    grant_credit(tenant=alice.pk, amount=10**9, idempotency_key="open", reason="more", actor=ACTOR)
    move_money(alice)
    set_credit_line(tenant=alice.pk, limit=5 * 10**8, actor=ACTOR)

    body = get(client_of(alice), "balance")

    assert body["grants"] == []
    assert body == {
        "currency": "USD",
        "balance": "7.000000000",
        "credit_limit": "0.500000000",
        "available": "7.500000000",
        "mode": "prepaid",
        "grants": [],
    }


def test_a_grant_shows_what_is_left_of_it(alice: Tenant) -> None:
    grant = grant_credit(
        tenant=alice.pk, amount=5, idempotency_key="k", reason="hello", actor=ACTOR
    )

    body = get(client_of(alice), "balance")

    assert body["grants"] == [
        {
            "id": str(grant.uuid),
            "amount": "0.000000005",
            "remaining": "0.000000005",
            "reason": "hello",
            "expires_at": None,
        }
    ]


def test_a_tenant_without_a_wallet_has_nothing(alice: Tenant) -> None:
    body = get(client_of(alice), "balance")

    assert (body["balance"], body["mode"]) == ("0.000000000", "prepaid")
    assert get(client_of(alice), "ledger") == {"data": [], "next_cursor": None}


def test_the_ledger_lists_postings_newest_first_in_pages(alice: Tenant) -> None:
    move_money(alice)
    client = client_of(alice)

    first = get(client, "ledger", limit=2)
    second = get(client, "ledger", limit=2, cursor=first["next_cursor"])

    rows = [*first["data"], *second["data"]]
    assert second["next_cursor"] is None
    assert [(row["kind"], row["amount"]) for row in rows] == [
        ("usage", "-4.000000000"),
        ("top_up", "7.000000000"),
        ("grant", "3.000000000"),
    ]
    assert [(entry["account"], entry["side"], entry["amount"]) for entry in rows[0]["entries"]] == [
        ("promo", "debit", "3.000000000"),
        ("prepaid", "debit", "1.000000000"),
        ("revenue", "credit", "4.000000000"),
    ]
    # The platform's side of a posting is not the tenant's to see.
    assert [entry["account"] for entry in rows[1]["entries"]] == ["prepaid"]
    assert rows[2]["reason"] == "welcome"


def test_a_page_of_the_ledger_takes_the_same_queries_whatever_its_length(alice: Tenant) -> None:
    client = client_of(alice)
    counts = []
    for _ in range(2):
        move_money(alice)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            get(client, "ledger")
        counts.append(len(queries))

    assert counts[0] == counts[1]


def test_models_are_those_that_are_switched_on(alice: Tenant) -> None:
    set_model_switches(model="claude-opus-5", is_enabled=False)

    rows = get(client_of(alice), "models", limit=100)["data"]

    by_id = {row["id"]: row for row in rows}
    assert len(by_id) == 28
    assert "claude-opus-5" not in by_id
    assert by_id["claude-3-opus-20240229"]["successor"] == "claude-opus-4-8"
    assert by_id["claude-haiku-4-5-20251001"]["aliases"] == [
        "claude-4-5-haiku",
        "claude-4.5-haiku",
        "claude-haiku-4-5",
        "claude-haiku-4.5",
    ]


def test_prices_are_those_of_the_tenants_book_in_force_now(alice: Tenant) -> None:
    rows = get(client_of(alice), "prices", model="claude-sonnet-5-5", limit=1_000)["data"]

    standard = {row["component"]: row["price"] for row in rows if row["variant"] == "standard"}
    assert standard == {
        "input": "2.000000000",
        "output": "10.000000000",
        "cache_write_5m": "2.500000000",
        "cache_write_1h": "4.000000000",
        "cache_read": "0.100000000",
    }
    searches = get(client_of(alice), "prices", model="*")["data"]
    assert [(row["component"], row["unit"], row["price"]) for row in searches] == [
        ("web_search", "unit", "0.010000000")
    ]


def test_a_tier_shows_the_limits_that_hold(alice: Tenant) -> None:
    set_group_limits(tier="basic", limit_group="opus-5", limits=Limits(requests_per_minute=9))
    set_overrides(
        tenant=alice.pk,
        limits=Limits(concurrency=3),
        group_limits={"opus-5": Limits(concurrency=1)},
        actor=ACTOR,
        reason="contract",
    )
    set_prices(tenant=alice.pk, discount_bp=100, actor=ACTOR, reason="contract")

    body = get(client_of(alice), "tier")

    assert (body["tier"], body["book"], body["discount_bp"]) == ("basic", "list", 100)
    assert body["limits"]["requests_per_minute"] == 50
    assert body["limits"]["concurrency"] == 3
    group = body["group_limits"]["opus-5"]
    assert (group["requests_per_minute"], group["concurrency"]) == (9, 1)


def test_before_the_first_import_there_is_no_tier() -> None:
    response = client_of(make_tenant()).get("/api/v1/tier")

    assert response.status_code == 404


@pytest.mark.parametrize("path", PATHS)
def test_nobody_reads_without_signing_in(path: str) -> None:
    assert APIClient().get(f"/api/v1/{path}").status_code == 401


@pytest.mark.parametrize("path", PATHS)
def test_an_api_key_is_no_management_key(alice: Tenant, path: str) -> None:
    key = make_key(alice)

    response = APIClient().get(f"/api/v1/{path}", headers={"x-api-key": key.secret})

    assert response.status_code in (401, 403)


@pytest.mark.parametrize("path", PATHS)
def test_nothing_can_be_written_here(alice: Tenant, path: str) -> None:
    assert client_of(alice).post(f"/api/v1/{path}", {}, format="json").status_code in (403, 405)


@pytest.mark.parametrize("path", ["balance", "ledger", "tier"])
def test_a_stranger_sees_its_own_and_nothing_of_alice(alice: Tenant, path: str) -> None:
    move_money(alice)
    set_prices(tenant=alice.pk, discount_bp=4_321, actor=ACTOR, reason="secret")

    body = str(get(client_of(make_tenant("mallory")), path))

    assert "welcome" not in body
    assert "4.000000000" not in body
    assert "4321" not in body


def test_money_is_for_those_with_the_power_to_read_it(alice: Tenant) -> None:
    codes = {
        role: client_of(alice, role).get("/api/v1/balance").status_code for role in Role.values
    }

    assert codes[Role.OWNER] == codes[Role.BILLING] == 200
    assert set(codes.values()) <= {200, 403}


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=101", "cursor=!", "cursor=eA"])
def test_a_bad_page_is_refused(alice: Tenant, query: str) -> None:
    assert client_of(alice).get(f"/api/v1/ledger?{query}").status_code == 400
