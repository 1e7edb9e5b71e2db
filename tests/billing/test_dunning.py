"""Invoices are announced, reminded of and charged to a card: each step once, nothing twice."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from accounts.models import AuditEvent, Mail, WebhookEvent
from accounts.services.platform_settings import SUSPEND_OVERDUE_DAYS, change_settings
from accounts.services.tenants import resume_tenant, suspend_tenant
from accounts.services.webhooks import create_webhook
from billing.models.invoices import BillingDetails, Invoice, InvoiceReminder
from billing.models.payments import CreditPlan, Payment
from billing.services.credit_notes import void_invoice
from billing.services.invoice_payments import pay_invoice, write_off_invoice
from billing.services.payments.dunning import dun_invoices
from billing.services.payments.plans import set_plan
from billing.services.suspension import suspend_debtor
from tests.accounts.factories import client_of, make_member
from tests.billing.invoice_world import (
    ACTOR,
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
from tests.operator_console.operator_world import browser_of, make_operator
from turnpike.control.caller import SYSTEM
from turnpike.control.scope import platform_scope
from turnpike.kernel.errors import InvalidInput

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)
CARD = {"provider": "stripe", "customer_ref": "cus_ours", "method_ref": "pm_visa"}


@pytest.fixture
def shop() -> Shop:
    make_partitions(OCTOBER, months=3)
    with_seller()
    shop = postpaid_shop()
    make_member(shop.tenant, "owner")
    post_events([event_at(shop, OCTOBER + DAY, usage=tokens(900_001, 77))])
    return shop


@pytest.fixture
def invoice(shop: Shop) -> Invoice:
    return invoiced(shop)


@pytest.fixture
def card(shop: Shop) -> None:
    with platform_scope("tests"):
        CreditPlan.objects.create(
            tenant=shop.tenant, **CARD, method_label="visa ···· 4242", pays_invoices=True
        )


def due(invoice: Invoice, days: int = 0) -> datetime:
    assert invoice.due_at is not None
    return invoice.due_at + days * DAY


def subjects() -> list[str]:
    with platform_scope("tests"):
        return list(Mail.objects.order_by("pk").values_list("subject", flat=True))


def steps() -> list[int]:
    with platform_scope("tests"):
        return list(InvoiceReminder.objects.order_by("pk").values_list("step", flat=True))


def charges() -> list[Payment]:
    with platform_scope("tests"):
        return list(Payment.objects.filter(kind="invoice").order_by("pk"))


def test_an_invoice_is_announced_and_reminded_of_step_by_step(shop: Shop, invoice: Invoice) -> None:
    with platform_scope("tests"):
        create_webhook(
            caller=SYSTEM, tenant=shop.tenant, url="https://example.com/hooks", description=""
        )
    instants = [NOVEMBER + DAY, due(invoice), due(invoice, 1), due(invoice, 6), due(invoice, 7)]

    taken = [dun_invoices(at=at) + dun_invoices(at=at) for at in (*instants, due(invoice, 99))]

    assert taken == [1, 0, 1, 0, 1, 1]
    assert steps() == [0, 1, 2, 3]
    first, second, third, last = subjects()
    assert str(invoice.number) in first
    assert "overdue" in second
    assert "overdue" in third
    assert last.startswith("Last reminder")
    with platform_scope("tests"):
        told = [json.loads(row.body) for row in WebhookEvent.objects.filter(type="invoice.overdue")]
    assert [row["data"]["reminder"] for row in told] == [1, 2, 3]
    assert {row["data"]["number"] for row in told} == {invoice.number}
    assert documents(shop)[0].status == "open"
    page = browser_of(make_operator()).get(f"/operator/invoices/{invoice.public_id}")
    assert [word in page.content.decode() for word in ("Announced", "Reminder 3")] == [True] * 2


def suspend_after(days: int) -> None:
    change_settings(caller=SYSTEM, changes={SUSPEND_OVERDUE_DAYS: days}, reason="test")


def status(shop: Shop) -> str:
    with platform_scope("tests"):
        shop.tenant.refresh_from_db()
    return shop.tenant.status


def pay(invoice: Invoice) -> None:
    pay_invoice(
        invoice=invoice.pk,
        amount=invoice.open_nano,
        at=due(invoice, 40),
        actor=ACTOR,
        idempotency_key="all",
    )


def test_nobody_is_suspended_unless_an_operator_says_so(shop: Shop, invoice: Invoice) -> None:
    for days in (15, 400, 500):
        dun_invoices(at=due(invoice, days))

    assert (status(shop), steps()) == ("active", [3])


def test_who_does_not_pay_for_long_is_suspended_once_and_served_again_when_it_pays(
    shop: Shop, invoice: Invoice
) -> None:
    suspend_after(30)
    dun_invoices(at=due(invoice, 29))
    assert (status(shop), steps()) == ("active", [3])

    taken = [dun_invoices(at=due(invoice, 30)) for _again in range(2)]

    assert (taken, status(shop), steps()) == ([1, 0], "suspended", [3, 4])
    assert subjects()[-1].endswith(f"is suspended: invoice {invoice.number} is overdue")
    page = browser_of(make_operator()).get(f"/operator/invoices/{invoice.public_id}")
    assert ">Suspended<" in page.content.decode()
    pay(invoice)
    assert status(shop) == "active"
    with platform_scope("tests"):
        actions = AuditEvent.objects.filter(target=shop.tenant.public_id).order_by("pk")
        told = [(row.action, row.reason) for row in actions][-2:]
    assert told == [
        ("tenant.suspended", f"Invoice {invoice.number} is overdue."),
        ("tenant.resumed", "The overdue invoice is settled."),
    ]


def test_nobody_is_suspended_who_was_not_reminded_a_day_before(
    shop: Shop, invoice: Invoice
) -> None:
    suspend_after(10)

    dun_invoices(at=due(invoice, 100))
    dun_invoices(at=due(invoice, 100) + timedelta(hours=23))
    assert (status(shop), steps()) == ("active", [3])

    dun_invoices(at=due(invoice, 101))
    assert (status(shop), steps()) == ("suspended", [3, 4])


def test_an_operators_word_stands_above_the_suspension(shop: Shop, invoice: Invoice) -> None:
    suspend_after(10)
    dun_invoices(at=due(invoice, 11))
    dun_invoices(at=due(invoice, 12))
    assert status(shop) == "suspended"
    with platform_scope("tests"):
        resume_tenant(caller=SYSTEM, tenant=shop.tenant, reason="They have called.")

    dun_invoices(at=due(invoice, 20))
    assert status(shop) == "active"

    with platform_scope("tests"):
        suspend_tenant(caller=SYSTEM, tenant=shop.tenant, reason="Abuse.")
    pay(invoice)
    dun_invoices(at=due(invoice, 50))
    assert status(shop) == "suspended"


def test_what_is_not_served_anyway_is_not_suspended(shop: Shop, invoice: Invoice) -> None:
    suspend_after(10)
    dun_invoices(at=due(invoice, 11))
    with platform_scope("tests"):
        suspend_tenant(caller=SYSTEM, tenant=shop.tenant, reason="Abuse.")

    assert dun_invoices(at=due(invoice, 13)) == 0
    with platform_scope("tests"):
        assert suspend_debtor(invoice) is False


def test_what_was_written_off_resumes_nobody(shop: Shop, invoice: Invoice) -> None:
    suspend_after(10)
    dun_invoices(at=due(invoice, 11))
    dun_invoices(at=due(invoice, 12))

    write_off_invoice(invoice=invoice.pk, at=due(invoice, 13), actor=ACTOR, reason="Gone.")
    dun_invoices(at=due(invoice, 14))

    assert status(shop) == "suspended"


def test_an_invoice_taken_back_ends_the_suspension(shop: Shop, invoice: Invoice) -> None:
    suspend_after(10)
    dun_invoices(at=due(invoice, 11))
    dun_invoices(at=due(invoice, 12))
    assert status(shop) == "suspended"

    void_invoice(invoice=invoice.pk, at=due(invoice, 13), actor=ACTOR, reason="Our mistake.")
    dun_invoices(at=due(invoice, 14))

    assert status(shop) == "active"


def test_steps_that_were_missed_are_not_made_up_for(invoice: Invoice) -> None:
    assert dun_invoices(at=due(invoice, 30)) == 1
    assert steps() == [3]
    assert len(subjects()) == 1


def test_what_is_paid_is_not_asked_for_and_a_part_only_for_the_rest(
    shop: Shop, invoice: Invoice
) -> None:
    common: dict[str, Any] = {"invoice": invoice.pk, "at": NOVEMBER, "actor": ACTOR}
    with platform_scope("tests"):
        BillingDetails.objects.update_or_create(
            tenant=shop.tenant, defaults={"email": "office@example.com", "language": "ru"}
        )
    pay_invoice(**common, amount=invoice.total_nano - 10_000_000, idempotency_key="most")
    assert dun_invoices(at=due(invoice, 2)) == 1
    with platform_scope("tests"):
        letter = Mail.objects.get()
    assert (letter.recipient, letter.language) == ("office@example.com", "ru")
    assert "просрочен" in letter.subject

    pay_invoice(**common, amount=10_000_000, idempotency_key="rest")

    assert dun_invoices(at=due(invoice, 20)) == 0


def test_a_card_that_pays_invoices_is_charged_at_once_and_once(
    server: StripeServer, shop: Shop, invoice: Invoice, card: None
) -> None:
    for _again in range(3):
        dun_invoices(at=NOVEMBER + DAY)

    assert server.calls.count("POST /v1/payment_intents") == 1
    (ordered,) = charges()
    assert (ordered.status, ordered.amount_nano) == ("started", invoice.total_nano)
    assert documents(shop)[0].status == "open", "money counts when the provider says so"
    for _again in range(2):
        send(event("payment_intent.succeeded", server.objects[ordered.payment_ref]))

    (row,) = documents(shop)
    assert (row.status, row.paid_nano) == ("paid", row.total_nano)
    assert "receivable" not in balances(shop)
    assert differences() == {}
    assert dun_invoices(at=due(invoice, 30)) == 0


def test_a_charge_whose_answer_was_lost_is_made_once(
    server: StripeServer, shop: Shop, invoice: Invoice, card: None
) -> None:
    server.is_unheard = True
    dun_invoices(at=NOVEMBER + DAY)
    server.is_unheard = False
    dun_invoices(at=NOVEMBER + DAY)

    intents = [name for name in server.objects if name.startswith("pi_")]
    assert len(intents) == 1
    assert [row.payment_ref for row in charges()] == intents


def test_a_declined_card_is_told_and_tried_again_with_the_next_step(
    server: StripeServer, shop: Shop, invoice: Invoice, card: None
) -> None:
    server.is_declining = True
    dun_invoices(at=NOVEMBER + DAY)
    assert [(row.status, row.failure) for row in charges()] == [
        ("failed", "Your card was declined.")
    ]
    assert "did not pay" in subjects()[1]
    with platform_scope("tests"):
        plan = CreditPlan.objects.get(tenant=shop.tenant)
    assert (plan.failures, plan.pays_invoices) == (0, True)

    dun_invoices(at=due(invoice))
    assert len(charges()) == 1
    server.is_declining = False
    dun_invoices(at=due(invoice, 1))

    assert [row.status for row in charges()] == ["failed", "started"]
    send(event("payment_intent.succeeded", server.objects[charges()[1].payment_ref]))
    assert documents(shop)[0].status == "paid"
    assert differences() == {}


def test_a_charge_is_not_made_for_an_invoice_that_was_paid_meanwhile(
    server: StripeServer, shop: Shop, invoice: Invoice, card: None
) -> None:
    server.is_down = True
    dun_invoices(at=NOVEMBER + DAY)
    pay_invoice(
        invoice=invoice.pk,
        at=NOVEMBER,
        actor=ACTOR,
        amount=invoice.total_nano,
        idempotency_key="by transfer",
    )
    server.is_down = False
    dun_invoices(at=NOVEMBER + 2 * DAY)

    assert [row.status for row in charges()] == ["expired"]
    assert len(subjects()) == 1
    assert [name for name in server.objects if name.startswith("pi_")] == []


def test_a_dispute_ends_it_and_it_needs_a_card(
    server: StripeServer, shop: Shop, invoice: Invoice, card: None
) -> None:
    dun_invoices(at=NOVEMBER + DAY)
    (ordered,) = charges()
    send(event("payment_intent.succeeded", server.objects[ordered.payment_ref]))
    dispute = server.dispute(ordered.payment_ref, ordered.amount_nano // 10_000_000)
    send(event("charge.dispute.funds_withdrawn", dispute))

    with platform_scope("tests"):
        plan = CreditPlan.objects.get(tenant=shop.tenant)
        assert not plan.pays_invoices
        CreditPlan.objects.filter(tenant=shop.tenant).update(method_ref="")
    asked: dict[str, Any] = {"threshold": 0, "amount": 0, "monthly_cap": 0, "warn_days": 3}
    with pytest.raises(InvalidInput, match="card"):
        set_plan(tenant=shop.number, is_on=False, pays_invoices=True, caller=SYSTEM, **asked)


def test_it_is_chosen_by_api_and_stays_where_it_is_not_named(shop: Shop, card: None) -> None:
    api = client_of(shop.tenant, "billing")
    asked = {"enabled": False, "threshold": "0", "amount": "0", "monthly_cap": "0", "warn_days": 3}

    kept = api.put("/api/v1/auto_reload", asked, "json")
    off = api.put("/api/v1/auto_reload", {**asked, "pays_invoices": False}, "json")

    assert (kept.json()["pays_invoices"], off.json()["pays_invoices"]) == (True, False)
