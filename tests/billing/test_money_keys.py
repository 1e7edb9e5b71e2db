"""Every POST that moves money carries an Idempotency-Key, and moves it once for that key.

The calls are found in the schema: one that is in none of the two lists here fails.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from django.test import Client
from rest_framework.test import APIClient

from accounts.models import AuditEvent, Role, Tenant
from billing.models.payments import CreditPlan
from billing.models.upstreams import Upstream
from billing.services.payments.orders import record_transfer
from billing.services.redemption import CodeTerms, create_code
from tests.accounts.factories import client_of, make_tenant, make_user, signed_in
from tests.billing.invoice_world import (
    CLOSED,
    NOVEMBER,
    OCTOBER,
    close_months,
    documents,
    event_at,
    finalize_all,
    make_partitions,
    post_events,
    postpaid_shop,
    tokens,
    with_seller,
)
from tests.billing.ledger_world import state
from tests.billing.payment_world import OPERATOR
from tests.billing.stripe_world import StripeServer
from tests.billing.usage_world import MODEL
from turnpike.contracts.usage import Attempt
from turnpike.control.idempotency import MONEY_KEY_LENGTH_MAX
from turnpike.control.schema import IDEMPOTENCY_KEY
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids
from turnpike.kernel.money import NANOS_PER_UNIT

pytestmark = pytest.mark.django_db
TEN = 10 * NANOS_PER_UNIT
WHY = {"reason": "for a test"}


class Call(NamedTuple):
    """One call of an endpoint that will be accepted."""

    api: APIClient
    path: str
    body: dict[str, Any]


def operator() -> APIClient:
    """Somebody of the staff."""
    return signed_in(make_user(is_staff=True))


def top_up() -> Call:
    return Call(client_of(make_tenant(), Role.BILLING), "top_ups", {"amount": "10"})


def invoice_by_card() -> Call:
    make_partitions(OCTOBER, months=3)
    with_seller()
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + timedelta(days=1), usage=tokens(1_000_000))])
    close_months(NOVEMBER + CLOSED)
    finalize_all(NOVEMBER + CLOSED)
    path = f"invoices/{documents(shop)[0].public_id}/pay"
    return Call(client_of(shop.tenant, Role.BILLING), path, {})


def redemption() -> Call:
    terms = CodeTerms(amount=TEN, uses_max=9)
    code = create_code(terms=terms, key="code", reason="x", caller=OPERATOR)
    return Call(client_of(make_tenant(), Role.BILLING), "redemptions", {"code": code.words})


def of_tenant(tail: str, body: dict[str, Any]) -> Call:
    return Call(operator(), f"operator/tenants/{make_tenant().public_id}/{tail}", body)


def transfer() -> Call:
    return of_tenant("transfers", {"amount": "10", "reference": "SEPA 1", **WHY})


def grant() -> Call:
    return of_tenant("grants", {"amount": "10", **WHY})


def adjustment() -> Call:
    body = {"direction": "give", "amount": "1", "counter": "correction", **WHY}
    return of_tenant("adjustments", body)


def refund() -> Call:
    payment = record_transfer(
        tenant=make_tenant().pk,
        amount=TEN,
        reference="SEPA 2",
        reason="x",
        key="transfer",
        caller=OPERATOR,
        at=clock.utc_now(),
    )
    return Call(
        operator(), f"operator/payments/{payment.public_id}/refunds", {"amount": "4", **WHY}
    )


def code() -> Call:
    return Call(operator(), "operator/codes", {"amount": "5", "uses": 1, **WHY})


def invoice(tail: str, body: dict[str, Any], *, is_final: bool = True) -> Call:
    make_partitions(OCTOBER, months=3)
    with_seller()
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + timedelta(days=1), usage=tokens(1_000_000))])
    close_months(NOVEMBER + CLOSED)
    if is_final:
        finalize_all(NOVEMBER + CLOSED)
    return Call(operator(), f"operator/invoices/{documents(shop)[0].public_id}/{tail}", body)


def correction() -> Call:
    make_partitions(OCTOBER, months=3)
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + timedelta(days=1), usage=tokens(1_000_000))])
    body = {
        "starting_at": "2026-10-01T00:00:00Z",
        "ending_at": "2026-11-01T00:00:00Z",
        "price_set": shop.price_set,
        "prices": [{"model": MODEL, "component": "input", "price": "2"}],
        **WHY,
    }
    return Call(operator(), "operator/corrections", body)


def doubt() -> Call:
    make_partitions(OCTOBER, months=3)
    there = Upstream.objects.create(name="there", kind="anthropic", base_url="http://127.0.0.1:1")
    lost = (Attempt(n=1, upstream=there.pk),)
    shop, at = postpaid_shop(), OCTOBER + timedelta(days=1)
    post_events([event := event_at(shop, at, rank=2, usage={}, attempts=lost)])
    body = {"attempt": 1, "decision": "charged", "billed": {"output": 9}, **WHY}
    request = ids.public_id(ids.REQUEST, UUID(event.rid))
    return Call(operator(), f"operator/doubts/{request}", body)


TENANT, PAYMENT = "operator/tenants/{tenant_id}", "operator/payments/{payment_id}"
DOCUMENT = "operator/invoices/{invoice_id}"
MONEY: dict[str, Callable[[], Call]] = {
    "top_ups": top_up,
    "invoices/{invoice_id}/pay": invoice_by_card,
    "redemptions": redemption,
    f"{TENANT}/transfers": transfer,
    f"{TENANT}/grants": grant,
    f"{TENANT}/adjustments": adjustment,
    f"{PAYMENT}/refunds": refund,
    "operator/codes": code,
    f"{DOCUMENT}/finalize": lambda: invoice("finalize", {}, is_final=False),
    f"{DOCUMENT}/void": lambda: invoice("void", dict(WHY)),
    f"{DOCUMENT}/credit": lambda: invoice("credit", {"amount": "1", **WHY}),
    f"{DOCUMENT}/pay": lambda: invoice("pay", {"amount": "1"}),
    f"{DOCUMENT}/write_off": lambda: invoice("write_off", dict(WHY)),
    "operator/corrections": correction,
    "operator/doubts/{request_id}": doubt,
}
# They change no account: settings, access, and runs that come to the same however often they go.
NO_MONEY = {
    "invites",
    "invites/accept",
    "invites/{invite_id}/resend",
    "keys",
    "keys/{key_id}/disable",
    "keys/{key_id}/enable",
    "keys/{key_id}/revoke",
    "keys/{key_id}/rotate",
    "operator/differences/{difference_id}/close",
    "operator/invoices/run",
    "operator/rehearsals",
    "operator/tenants",
    "operator/tenants/{tenant_id}/close",
    "operator/tenants/{tenant_id}/resume",
    "operator/tenants/{tenant_id}/suspend",
    "operator/upstreams",
    "operator/upstreams/{upstream_id}/disable",
    "operator/upstreams/{upstream_id}/drain",
    "operator/upstreams/{upstream_id}/enable",
    "operator/upstreams/{upstream_id}/test",
    "webhooks",
    "webhooks/deliveries/{delivery_id}/replay",
    "webhooks/{webhook_id}/rotate",
    "webhooks/{webhook_id}/test",
    "workspaces",
    "workspaces/{workspace_id}/archive",
}


def posts_of_the_schema() -> dict[str, dict[str, bool]]:
    """Each POST of /api/v1 -> the headers that it names, and whether they are needed."""
    paths = Client().get("/api/schema?format=json").json()["paths"]
    return {
        path.removeprefix("/api/v1/"): {
            item["name"]: item.get("required", False)
            for item in operations["post"].get("parameters", [])
            if item["in"] == "header"
        }
        for path, operations in paths.items()
        if "post" in operations and path.startswith("/api/v1/")
    }


def test_the_schema_says_which_calls_need_a_key() -> None:
    posts = posts_of_the_schema()

    assert set(posts) == set(MONEY) | NO_MONEY
    assert {path for path, headers in posts.items() if headers[IDEMPOTENCY_KEY]} == set(MONEY)


@pytest.mark.parametrize("name", sorted(MONEY))
def test_money_moves_once_for_its_key(server: StripeServer, name: str) -> None:
    api, path, body = MONEY[name]()
    before = state()

    def call(key: str, **more: str) -> Any:
        headers = {"idempotency-key": key} if key else {}
        return api.post(f"/api/v1/{path}", {**body, **more}, "json", headers=headers)

    for wrong in ("", "k" * (MONEY_KEY_LENGTH_MAX + 1)):
        refused = call(wrong)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_input")
        assert refused.json()["errors"][0]["field"] == IDEMPOTENCY_KEY
    assert state() == before

    first = call("once")
    assert first.status_code in (200, 201), first.content
    after, orders = state(), len(server.calls)
    again = call("once")

    hidden = {"secret": None} if "secret" in first.json() else {}
    assert (again.status_code, again.json()) == (first.status_code, {**first.json(), **hidden})
    assert again["idempotency-replayed"] == "true"
    assert call("once", more="x").status_code == 409
    assert (state(), len(server.calls)) == (after, orders)


def test_grants_and_adjustments_say_what_they_did() -> None:
    tenant, api = make_tenant(), operator()
    where = f"/api/v1/operator/tenants/{tenant.public_id}"

    def call(tail: str, key: str, **body: Any) -> Any:
        headers = {"idempotency-key": key}
        return api.post(f"{where}/{tail}", {**WHY, **body}, "json", headers=headers)

    given = call("grants", "a", amount="5", expires_at="2999-01-01T00:00:00Z")
    taken = call("adjustments", "b", direction="take", amount="2", counter="fees")

    assert (given.json()["amount"], given.json()["expires_at"]) == (
        "5.000000000",
        "2999-01-01T00:00:00Z",
    )
    assert (taken.json()["amount"], taken.json()["kind"]) == ("-2.000000000", "manual")
    ledger = client_of(tenant, Role.BILLING).get("/api/v1/ledger").json()["data"]
    assert [row["amount"] for row in ledger] == ["-2.000000000", "5.000000000"]
    assert ledger[0]["id"] == taken.json()["id"]
    for tail, wrong in (
        ("grants", {"amount": "0"}),
        ("grants", {"amount": "1", "expires_at": "2020-01-01T00:00:00Z"}),
        ("adjustments", {"direction": "give", "amount": "0", "counter": "fees"}),
        ("adjustments", {"direction": "give", "amount": "1", "counter": "revenue"}),
    ):
        assert call(tail, f"c{wrong}"[:40], **wrong).status_code == 400
    with platform_scope("tests"):
        rows = AuditEvent.objects.filter(tenant=tenant, action__startswith="credit.")
        assert [(row.action, row.address) for row in rows] == [("credit.granted", "127.0.0.1")]


def plan_of(tenant: Tenant) -> tuple[bool, int]:
    """Whether it reloads, and how much."""
    with platform_scope("tests"):
        row = CreditPlan.objects.get(tenant=tenant)
    return row.is_on, row.amount_nano


def test_auto_reload_is_read_and_set_by_api() -> None:
    tenant = make_tenant()
    api, path = client_of(tenant, Role.BILLING), "/api/v1/auto_reload"
    wanted = {
        "enabled": True,
        "threshold": "5.000000000",
        "amount": "25.000000000",
        "monthly_cap": "100.000000000",
        "warn_days": 4,
    }

    assert api.get(path).json()["enabled"] is False
    assert api.put(path, wanted, "json").status_code == 400
    with platform_scope("tests"):
        CreditPlan.objects.create(
            tenant=tenant, provider="stripe", method_ref="pm", method_label="visa 4242"
        )
    said = api.put(path, wanted, "json").json()

    facts = {"currency": "USD", "card": "visa 4242", "failures": 0, "pays_invoices": False}
    assert said == api.get(path).json() == {**wanted, **facts}
    assert plan_of(tenant) == (True, 25 * NANOS_PER_UNIT)
    for wrong in (
        {"enabled": True},
        {**wanted, "monthly_cap": "1"},
        {**wanted, "amount": "1"},
        {**wanted, "warn_days": 91},
        {**wanted, "card": "x"},
    ):
        assert api.put(path, wrong, "json").status_code == 400
    assert client_of(tenant, Role.DEVELOPER).get(path).status_code == 403
    assert client_of(make_tenant("Other"), Role.BILLING).get(path).json()["enabled"] is False
