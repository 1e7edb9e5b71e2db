"""Messages that never came: the provider's list says what moved, and the proof names the rest."""

from datetime import timedelta
from typing import Any

import pytest

from billing.models.differences import ReconciliationItem
from billing.models.payments import Payment
from billing.services.payments.sweep import compare_payments, sweep_payments
from billing.services.reconciliation import reconcile_and_keep
from tests.billing.ledger_world import broken_invariants, state
from tests.billing.payment_world import TEN, make_payer, order, paid, payment_of, send
from tests.billing.stripe_world import FEE_CENTS, StripeServer, balances, event
from turnpike.control.caller import Caller
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock
from turnpike.kernel.errors import Unavailable

pytestmark = pytest.mark.django_db
NOW = clock.utc_now()


@pytest.fixture
def owner(db: None) -> Caller:
    return make_payer()


def found() -> list[str]:
    return [dict(row.evidence)["what"] for row in compare_payments(at=NOW).differences]


def test_what_was_paid_without_a_message_is_found_and_credited_once(
    server: StripeServer, owner: Caller
) -> None:
    started = order(owner)
    intent = server.pay(started.payment.order_ref)
    assert balances() == {}
    assert found() == ["payment"]

    assert sweep_payments(at=NOW) == 1
    assert sweep_payments(at=NOW) == 0

    assert payment_of(started).status == "paid"
    assert balances() == {"prepaid": TEN, "cash": TEN - FEE_CENTS, "fees": FEE_CENTS}
    assert found() == []
    before = state()
    send(event("payment_intent.succeeded", intent))  # the message comes after all
    assert state() == before
    assert broken_invariants() == []


def test_refunds_and_disputes_are_found_too(server: StripeServer, owner: Caller) -> None:
    _payment, intent = paid(server, owner)
    server.refund(intent["id"], 300)
    server.refund(intent["id"], 50, status="pending")
    server.dispute(intent["id"], 200, fee=15)
    server.page_size = 1
    assert sorted(found()) == ["dispute", "refund", "refund"]

    assert sweep_payments(at=NOW) == 1

    assert found() == []
    assert balances()["prepaid"] == TEN - 500 - 50  # a pending refund is on its way
    assert broken_invariants() == []


def test_orders_that_ended_without_a_message_end(server: StripeServer, owner: Caller) -> None:
    expired, waiting, failed = order(owner), order(owner), order(owner)
    server.expire(expired.payment.order_ref)
    with platform_scope("tests"):
        # A card charged without its owner: the bank said no, and the message was lost.
        declined = server.make(
            "pi",
            amount=TEN,
            currency="usd",
            status="requires_payment_method",
            last_payment_error={"message": "Your card was declined."},
            metadata={
                "turnpike_payment": failed.payment.public_id,
                "turnpike_tenant": failed.payment.tenant.public_id,
            },
        )
        Payment.objects.filter(pk=failed.payment.pk).update(
            kind="auto_reload", payment_ref=declined["id"], order_ref=""
        )

    assert sweep_payments(at=NOW) == 0, "they are too young to be missed"
    assert sweep_payments(at=NOW + timedelta(hours=1)) == 2
    assert sweep_payments(at=NOW + timedelta(hours=1)) == 0

    ends = [payment_of(one).status for one in (expired, waiting, failed)]
    assert ends == ["expired", "started", "failed"]
    assert payment_of(failed).failure == "Your card was declined."
    assert balances() == {}


def test_what_is_not_ours_or_too_new_or_too_old_is_left_alone(
    server: StripeServer, owner: Caller
) -> None:
    foreign: dict[str, Any] = {"amount": 5, "amount_received": 5, "currency": "usd"}
    server.make("pi", **foreign, metadata={}, status="succeeded")
    server.refund("pi_of_somebody", 5)
    server.age_seconds = 0
    server.pay(order(owner).payment.order_ref)
    server.age_seconds = 10 * 86_400
    server.pay(order(owner).payment.order_ref)

    assert found() == []
    assert sweep_payments(at=NOW) == 0


def test_what_does_not_fit_is_an_item_and_moves_nothing(
    server: StripeServer, owner: Caller
) -> None:
    started = order(owner)
    intent = server.pay(started.payment.order_ref, amount_received=TEN - 1)

    assert sweep_payments(at=NOW) == 0
    run = reconcile_and_keep(actor="tests")

    assert {row["check"]: row["differences"] for row in run.findings}["payments"] == 1
    item = ReconciliationItem.objects.get(kind="payments")
    assert item.cause == f"stripe · {intent['id']}"
    assert balances() == {}
    intent["amount_received"] = TEN
    sweep_payments(at=NOW)
    reconcile_and_keep(actor="tests")
    item.refresh_from_db()
    assert item.gone_at is not None


def test_what_the_provider_does_not_have_is_named(server: StripeServer, owner: Caller) -> None:
    payment, intent = paid(server, owner)
    with platform_scope("tests"):
        Payment.objects.filter(pk=payment.pk).update(settled_at=NOW - timedelta(hours=1))
    assert found() == []
    del server.objects[intent["id"]]

    assert found() == ["not at the provider"]


def test_a_provider_that_is_away_is_a_difference_of_its_own(
    server: StripeServer, owner: Caller
) -> None:
    server.is_down = True
    with pytest.raises(Unavailable):
        sweep_payments(at=NOW)

    (row,) = compare_payments(at=NOW).differences

    assert row.cause == ("stripe", "no list")


def test_without_a_provider_there_is_nothing_to_ask(db: None) -> None:
    assert sweep_payments(at=NOW) == 0
    assert found() == []
