"""An open invoice is paid by card: settled by webhook alone, once, and nothing is lost."""

from datetime import timedelta
from typing import Any

import pytest

from accounts.models import Role
from billing.models.invoices import Invoice
from billing.models.payments import Payment
from billing.services.credit_notes import credit_invoice
from billing.services.invoice_payments import pay_invoice
from billing.services.payments.sweep import sweep_payments
from tests.accounts.factories import client_of, make_member, make_tenant
from tests.billing.invoice_world import (
    NOVEMBER,
    OCTOBER,
    balances,
    differences,
    documents,
    event_at,
    invoiced,
    make_partitions,
    post_events,
    postpaid_shop,
    tokens,
    with_seller,
)
from tests.billing.payment_world import send
from tests.billing.stripe_world import StripeServer, event
from tests.billing.usage_world import Shop
from tests.console.console_world import client_for
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock

pytestmark = pytest.mark.django_db
ACTOR = "tests"


@pytest.fixture
def shop() -> Shop:
    make_partitions(OCTOBER, months=3)
    with_seller()
    shop = postpaid_shop()
    post_events(
        [event_at(shop, OCTOBER + timedelta(days=n), usage=tokens(900_001, 77)) for n in range(4)]
    )
    return shop


@pytest.fixture
def invoice(shop: Shop) -> Invoice:
    return invoiced(shop)


def order(shop: Shop, invoice: Invoice, key: str = "one") -> Any:
    api = client_of(shop.tenant, Role.BILLING)
    where = f"/api/v1/invoices/{invoice.public_id}/pay"
    return api.post(where, {}, "json", headers={"idempotency-key": key})


def paid_at(server: StripeServer, answer: Any) -> dict[str, Any]:
    """Somebody pays at the provider's page; the PaymentIntent."""
    with platform_scope("tests"):
        row = Payment.objects.get(uuid=Payment.parse_public_id(answer.json()["id"]))
    return server.pay(row.order_ref)


def test_the_webhook_settles_it_and_nothing_else_does(
    server: StripeServer, shop: Shop, invoice: Invoice
) -> None:
    answer = order(shop, invoice)
    assert answer.status_code == 201
    assert answer.json()["url"].startswith("https://checkout.stripe.example/")
    intent = paid_at(server, answer)
    assert documents(shop)[0].status == "open"

    for _ in range(2):
        assert send(event("payment_intent.succeeded", intent)).json()["outcome"] == "applied"

    (row,) = documents(shop)
    assert (row.status, row.open_nano, row.paid_nano) == ("paid", 0, row.total_nano)
    assert "receivable" not in balances(shop)
    assert "prepaid" not in balances(shop)
    assert differences() == {}
    # A card that paid an invoice is not kept for auto-reload.
    assert intent["setup_future_usage"] is None
    assert order(shop, invoice, "two").status_code == 409


def test_two_who_pay_at_once_pay_once_and_have_credit(
    server: StripeServer, shop: Shop, invoice: Invoice
) -> None:
    intents = [paid_at(server, order(shop, invoice, key)) for key in ("one", "two")]

    for intent in intents:
        assert send(event("payment_intent.succeeded", intent)).json()["outcome"] == "applied"

    (row,) = documents(shop)
    assert (row.status, row.paid_nano) == ("paid", row.total_nano)
    assert balances(shop)["prepaid"] == row.total_nano
    assert differences() == {}


def test_what_it_no_longer_asks_for_is_credit(
    server: StripeServer, shop: Shop, invoice: Invoice
) -> None:
    intent = paid_at(server, order(shop, invoice))
    common: dict[str, Any] = {"invoice": invoice.pk, "at": NOVEMBER, "actor": ACTOR}
    pay_invoice(**common, amount=2_000_000_000, idempotency_key="by transfer")
    credit_invoice(**common, net=1_000_000_000, reason="an hour away", idempotency_key="credit")
    (before,) = documents(shop)

    send(event("payment_intent.succeeded", intent))

    (row,) = documents(shop)
    assert (row.status, row.open_nano) == ("paid", 0)
    assert balances(shop)["prepaid"] == invoice.total_nano - before.open_nano
    assert differences() == {}


def test_a_lost_message_is_found(server: StripeServer, shop: Shop, invoice: Invoice) -> None:
    paid_at(server, order(shop, invoice))

    assert sweep_payments(at=clock.utc_now()) == 1

    assert documents(shop)[0].status == "paid"
    assert differences() == {}


def test_only_those_who_may_pay_what_is_theirs(
    server: StripeServer, shop: Shop, invoice: Invoice
) -> None:
    where = f"/api/v1/invoices/{invoice.public_id}/pay"
    key = {"idempotency-key": "x"}
    stranger = client_of(make_tenant("Eve"), Role.OWNER)

    assert stranger.post(where, {}, "json", headers=key).status_code == 404
    viewer = client_of(shop.tenant, Role.VIEWER)
    assert viewer.post(where, {}, "json", headers=key).status_code == 403
    with platform_scope("tests"):
        assert Payment.objects.count() == 0


def test_the_page_offers_it_while_something_is_open(
    server: StripeServer, shop: Shop, invoice: Invoice
) -> None:
    client = client_for(make_member(shop.tenant, Role.BILLING))
    where = f"/console/billing/invoices/{invoice.public_id}"
    assert "by card" in client.get(where).content.decode()

    answer = client.post(f"{where}/pay", {"once": "0198c7de"})

    assert answer["location"].startswith("https://checkout.stripe.example/")
    with platform_scope("tests"):
        intent = server.pay(Payment.objects.get().order_ref)
    send(event("payment_intent.succeeded", intent))
    assert "by card" not in client.get(where).content.decode()


def test_without_a_provider_one_transfers(shop: Shop, invoice: Invoice) -> None:
    answer = order(shop, invoice)

    assert answer.status_code == 409
    assert "transfer" in answer.json()["detail"]
