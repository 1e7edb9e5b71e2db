"""Money by API and by page: keys against doing it twice, proofs of identity, one's own tenant."""

from typing import Any

import pytest
from django.urls import reverse
from rest_framework.test import APIClient

from accounts.models import Role
from billing.models.payments import CreditPlan, Payment
from tests.accounts.factories import client_of, make_member, make_tenant, make_user, signed_in
from tests.billing.payment_world import TEN, send
from tests.billing.stripe_world import CENT, StripeServer, balances, event
from tests.console.console_world import client_for
from turnpike.control.scope import platform_scope

pytestmark = pytest.mark.django_db
API = "/api/v1"


def call(api: APIClient, path: str, body: dict[str, Any], key: str = "one") -> Any:
    headers = {"idempotency-key": key} if key else {}
    return api.post(f"{API}{path}", body, format="json", headers=headers)


def test_a_top_up_by_api_is_started_once_for_its_key(server: StripeServer) -> None:
    tenant = make_tenant()
    api = client_of(tenant, Role.BILLING)

    first = call(api, "/top_ups", {"amount": "10"})
    again = call(api, "/top_ups", {"amount": "10"})

    assert (first.status_code, first.json()["status"]) == (201, "started")
    assert again.json() == first.json()
    assert call(api, "/top_ups", {"amount": "20"}).status_code == 409
    assert call(api, "/top_ups", {"amount": "10"}, key="").status_code == 400
    assert call(client_of(tenant, Role.DEVELOPER), "/top_ups", {"amount": "10"}).status_code == 403
    with platform_scope("tests"):
        payment = Payment.objects.get()
    assert send(event("payment_intent.succeeded", server.pay(payment.order_ref))).status_code == 200
    assert balances()["prepaid"] == TEN


def test_operators_record_refund_and_make_codes(db: None) -> None:
    tenant = make_tenant()
    operator = signed_in(make_user(is_staff=True))
    transfer = {"amount": "10", "reference": "SEPA 1", "reason": "seen on the account"}
    path = f"/operator/tenants/{tenant.public_id}/transfers"

    made = call(operator, path, transfer)
    assert call(operator, path, transfer).json() == made.json()
    back = f"/operator/payments/{made.json()['id']}/refunds"
    assert call(operator, back, {"amount": "4", "reason": "asked"}, "two").status_code == 201
    assert call(operator, back, {"amount": "7", "reason": "asked"}, "three").status_code == 409
    assert balances() == {"prepaid": 600, "cash": 600}

    code = call(operator, "/operator/codes", {"amount": "5", "uses": 1, "reason": "x"}, "four")
    typed = {"code": code.json()["secret"]}
    member = client_of(tenant, Role.OWNER)
    assert call(member, "/redemptions", typed, "five").json()["amount"] == "5.000000000"
    assert call(member, "/redemptions", typed, "six").status_code == 409
    for refused in (path, back, "/operator/codes"):
        assert call(member, refused, {}, "seven").status_code in (403, 404)


def test_the_page_leads_to_the_payment_and_wants_a_proof(server: StripeServer) -> None:
    member = make_member(make_tenant(), Role.OWNER)
    form = {"once": "one", "amount_nano": "25"}
    path = reverse("console-billing-top_up")

    unproved = client_for(member, is_proved=False).post(path, form)
    assert "reauthenticate" in unproved["location"] or "login" in unproved["location"]
    assert server.calls == []
    answer = client_for(member).post(path, form)

    assert answer["location"].startswith("https://checkout.stripe.example/cs_test_")
    page = client_for(member).get(reverse("console-billing")).content.decode()
    assert "Go on to payment" in page


def test_auto_reload_is_set_on_the_page(server: StripeServer) -> None:
    member = make_member(make_tenant(), Role.OWNER)
    with platform_scope("tests"):
        CreditPlan.objects.create(
            tenant=member.tenant, provider="stripe", customer_ref="cus", method_ref="pm"
        )
    form = {
        "is_on": "on",
        "threshold_nano": "5",
        "amount_nano": "25",
        "monthly_cap_nano": "100",
        "warn_days": "4",
    }

    client_for(member).post(reverse("console-billing-reload"), form)

    with platform_scope("tests"):
        plan = CreditPlan.objects.get(tenant=member.tenant)
    assert (plan.is_on, plan.amount_nano, plan.warn_days) == (True, 2_500 * CENT, 4)
    client_for(member).post(reverse("console-billing-reload"), {**form, "monthly_cap_nano": "1"})
    with platform_scope("tests"):
        assert CreditPlan.objects.get(tenant=member.tenant).monthly_cap_nano == 10_000 * CENT


def test_without_stripe_the_page_says_how_to_transfer(db: None) -> None:
    member = make_member(make_tenant(), Role.OWNER)

    page = client_for(member).get(reverse("console-billing")).content.decode()

    assert "Top up by bank transfer" in page
    assert member.tenant.public_id in page
