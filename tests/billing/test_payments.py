"""Payments: credited by signed webhooks alone, once each, whatever comes twice, late or forged."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from accounts.models import WebhookEvent
from billing.models.payments import Payment, PaymentEvent
from billing.services.payments.intake import handle_waiting
from billing.services.payments.orders import record_transfer, start_top_up
from billing.services.payments.refunds import refund_payment
from billing.services.wallet import charge_usage
from tests.accounts.factories import make_tenant, make_webhook
from tests.billing.ledger_world import broken_invariants, state
from tests.billing.payment_world import (
    OPERATOR,
    PATH,
    TEN,
    make_payer,
    order,
    paid,
    payment_of,
    send,
    tenant_of,
)
from tests.billing.stripe_world import (
    CENT,
    FEE_CENTS,
    OTHER_SECRET,
    StripeServer,
    balances,
    event,
    signed,
)
from tests.support.threads import at_once
from turnpike.control.caller import Caller
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock
from turnpike.kernel.errors import Conflict, InsufficientCredit, InvalidInput, Unavailable

pytestmark = pytest.mark.django_db


@pytest.fixture
def owner(db: None) -> Caller:
    """Somebody who may pay."""
    return make_payer()


def test_credit_comes_by_webhook_and_by_nothing_else(server: StripeServer, owner: Caller) -> None:
    started = order(owner)
    assert started.url.startswith("https://checkout.stripe.example/cs_test_")
    intent = server.pay(started.payment.order_ref)
    assert balances() == {}

    answer = send(event("payment_intent.succeeded", intent))

    assert answer.status_code == 200
    assert balances() == {"prepaid": TEN, "cash": TEN - FEE_CENTS, "fees": FEE_CENTS}
    row = payment_of(started)
    assert (row.status, row.payment_ref) == ("paid", intent["id"])
    assert broken_invariants() == []


def test_an_event_is_handled_once_and_so_is_the_money(server: StripeServer, owner: Caller) -> None:
    started = order(owner)
    make_webhook(started.payment.tenant)
    intent = server.pay(started.payment.order_ref)
    session = server.objects[started.payment.order_ref]
    same = event("payment_intent.succeeded", intent, name="evt_same")

    assert send(same).status_code == 200
    before, calls = state(), len(server.calls)
    assert send(same).json() == {"received": "evt_same", "outcome": "applied"}
    assert len(server.calls) == calls
    for kind, about in (
        ("payment_intent.succeeded", intent),
        ("checkout.session.completed", session),
        ("charge.succeeded", {"id": "ch_1", "payment_intent": intent["id"]}),
        ("payment_intent.created", intent),
    ):
        assert send(event(kind, about)).json()["outcome"] == "applied"

    assert state() == before
    with platform_scope("tests"):
        assert PaymentEvent.objects.filter(event_id="evt_same").count() == 1
        told = WebhookEvent.objects.get(type="payment.received")
        assert json.loads(told.body)["data"]["payment"] == started.payment.public_id


@pytest.mark.parametrize(
    "forge",
    [
        lambda body: signed(body, secret="whsec_somebody_elses_secret_"),
        lambda body: signed(body.replace(b"1000", b"9000")),
        lambda body: signed(body, at=int(clock.utc_now().timestamp()) - 301),
        lambda body: signed(body, at=int(clock.utc_now().timestamp()) + 900),
        lambda body: signed(body, secret=" "),
        lambda body: signed(body).replace("v1=", "v0="),
        lambda _body: "",
        lambda _body: "t=1,v1=",
        lambda _body: "t=,v1=00",
        lambda _body: "nonsense",
    ],
    ids=["secret", "body", "old", "future", "blank", "scheme", "none", "empty", "time", "nonsense"],
)
def test_what_is_forged_or_too_old_is_refused(
    server: StripeServer, owner: Caller, forge: Callable[[bytes], str]
) -> None:
    started = order(owner)
    intent = server.pay(started.payment.order_ref)
    body = event("payment_intent.succeeded", intent)

    answer = Client().post(
        PATH, data=body, content_type="application/json", headers={"stripe-signature": forge(body)}
    )

    assert (answer.status_code, answer.json()) == (400, {"error": "webhook_forged"})
    assert balances() == {}
    with platform_scope("tests"):
        assert not PaymentEvent.objects.exists()


def test_each_of_several_secrets_counts(server: StripeServer, owner: Caller) -> None:
    started = order(owner)
    body = event("payment_intent.succeeded", server.pay(started.payment.order_ref))

    assert send(body, secret=OTHER_SECRET).status_code == 200
    assert balances()["prepaid"] == TEN


def test_what_is_signed_but_no_event_is_refused(server: StripeServer) -> None:
    for body in (b"[]", b"{}", b"no json", json.dumps({"id": "evt_1", "type": "x"}).encode()):
        assert send(body).status_code == 400
    assert Client().get(PATH).status_code == 405


def test_without_stripe_there_is_no_webhook(db: None) -> None:
    assert send(event("payment_intent.succeeded", {"id": "pi_1"})).status_code == 404


def test_the_order_of_events_does_not_matter(server: StripeServer, owner: Caller) -> None:
    started = order(owner)
    intent = server.pay(started.payment.order_ref)
    refund = server.refund(intent["id"], 300)
    dispute = server.dispute(intent["id"], 700, fee=15)

    for kind, about in (
        ("charge.dispute.funds_withdrawn", dispute),
        ("refund.created", refund),
        ("charge.dispute.created", dispute),
        ("payment_intent.succeeded", intent),
        ("checkout.session.completed", server.objects[started.payment.order_ref]),
        ("payment_intent.payment_failed", intent),
        ("checkout.session.expired", server.objects[started.payment.order_ref]),
    ):
        assert send(event(kind, about)).json()["outcome"] == "applied"

    fees = FEE_CENTS + 15
    assert balances() == {"cash": -fees, "fees": fees}
    row = payment_of(started)
    assert (row.status, row.refunded_nano, row.disputed_nano) == ("paid", 300 * CENT, 700 * CENT)
    assert broken_invariants() == []


def test_a_dispute_that_is_won_gives_the_money_back(server: StripeServer, owner: Caller) -> None:
    payment, intent = paid(server, owner)
    dispute = server.dispute(intent["id"], TEN, fee=15)
    send(event("charge.dispute.funds_withdrawn", dispute))
    assert "prepaid" not in balances()

    send(event("charge.dispute.funds_reinstated", server.move(dispute["id"], TEN)))

    assert balances()["prepaid"] == TEN
    assert payment_of(payment).disputed_nano == 0
    assert broken_invariants() == []


@pytest.mark.parametrize(
    "change",
    [
        {"amount_received": 9_000},
        {"currency": "eur"},
        {"metadata": {"turnpike_payment": "pay_01nothing", "turnpike_tenant": "x"}},
    ],
    ids=["amount", "currency", "order"],
)
def test_what_does_not_fit_the_order_moves_nothing(
    server: StripeServer, owner: Caller, change: dict[str, Any]
) -> None:
    started = order(owner)
    intent = server.pay(started.payment.order_ref, **change)

    answer = send(event("payment_intent.succeeded", intent))

    assert answer.json()["outcome"] == "refused"
    assert balances() == {}


def test_another_tenant_cannot_be_credited(server: StripeServer, owner: Caller) -> None:
    started = order(owner)
    names = {**server.objects[started.payment.order_ref]["metadata"]}
    names["turnpike_tenant"] = make_tenant("Eve").public_id
    intent = server.pay(started.payment.order_ref, metadata=names)

    assert send(event("payment_intent.succeeded", intent)).json()["outcome"] == "refused"
    assert balances() == {}


def test_what_is_not_ours_is_left_alone(server: StripeServer) -> None:
    other = server.make(
        "pi", amount=5, amount_received=5, currency="usd", metadata={}, status="succeeded"
    )

    assert send(event("payment_intent.succeeded", other)).json()["outcome"] == "ignored"
    assert send(event("customer.created", {"id": "cus_1"})).json()["outcome"] == "ignored"
    gone = event("payment_intent.succeeded", {"id": "pi_gone"})
    assert send(gone).json()["outcome"] == "refused"


def test_an_event_waits_while_the_provider_is_away(server: StripeServer, owner: Caller) -> None:
    started = order(owner)
    intent = server.pay(started.payment.order_ref)
    server.is_down = True
    assert send(event("payment_intent.succeeded", intent)).json()["outcome"] == "waiting"
    assert balances() == {}
    later = clock.utc_now().replace(year=clock.utc_now().year + 1)

    assert handle_waiting(at=later) == 0
    server.is_down = False
    assert handle_waiting(at=clock.utc_now()) == 0, "who took it may still be at it"
    assert handle_waiting(at=later) == 1
    assert handle_waiting(at=later) == 0

    assert balances()["prepaid"] == TEN


def test_nobody_pays_a_session_that_expired(server: StripeServer, owner: Caller) -> None:
    started = order(owner)
    server.expire(started.payment.order_ref)
    session = server.objects[started.payment.order_ref]

    assert send(event("checkout.session.expired", session)).json()["outcome"] == "applied"
    assert payment_of(started).status == "expired"
    # The bank's money may be slower than the page: what arrives is credited.
    intent = server.pay(started.payment.order_ref)
    send(event("payment_intent.succeeded", intent))
    assert payment_of(started).status == "paid"
    assert balances()["prepaid"] == TEN


def test_a_refund_goes_back_once(server: StripeServer, owner: Caller) -> None:
    payment, _intent = paid(server, owner)

    def refund(key: str, cents: int) -> Any:
        return refund_payment(
            payment=payment.pk, amount=cents * CENT, key=key, reason="asked for", caller=OPERATOR
        )

    first = refund("one", 400)
    assert refund("one", 400).pk == first.pk
    with pytest.raises(Conflict):
        refund("one", 500)
    for row in [row for name, row in server.objects.items() if name.startswith("re_")]:
        assert send(event("refund.created", row)).json()["outcome"] == "applied"

    assert balances() == {"prepaid": 600, "cash": 600 - FEE_CENTS, "fees": FEE_CENTS}
    assert server.calls.count("POST /v1/refunds") == 1
    with pytest.raises(Conflict):
        refund("two", 601)
    with pytest.raises(InvalidInput):
        refund("three", 0)
    assert first.status == "done"

    server.objects[first.provider_ref]["status"] = "failed"
    send(event("refund.failed", server.objects[first.provider_ref]))
    send(event("refund.updated", server.objects[first.provider_ref]))
    assert balances()["prepaid"] == TEN
    assert payment_of(payment).refunded_nano == 0
    assert broken_invariants() == []


@pytest.mark.parametrize("is_told", [False, True])
def test_a_refund_whose_answer_was_lost_is_the_same_refund_when_asked_again(
    server: StripeServer, owner: Caller, is_told: bool
) -> None:
    payment, _intent = paid(server, owner)

    def refund() -> Any:
        return refund_payment(
            payment=payment.pk, amount=400 * CENT, key="one", reason="asked for", caller=OPERATOR
        )

    server.is_unheard = True
    with pytest.raises(Unavailable):
        refund()
    server.is_unheard = False
    (made,) = [row for name, row in server.objects.items() if name.startswith("re_")]
    if is_told:
        assert send(event("refund.created", made)).json()["outcome"] == "applied"
        assert balances()["prepaid"] == 600

    done = refund()

    assert (done.provider_ref, done.status) == (made["id"], "done")
    assert [name for name in server.objects if name.startswith("re_")] == [made["id"]]
    assert balances()["prepaid"] == 600
    assert payment_of(payment).refunded_nano == 400 * CENT
    send(event("refund.created", made))
    assert balances()["prepaid"] == 600
    assert broken_invariants() == []


@pytest.mark.django_db(transaction=True)
def test_refunds_at_once_give_back_no_more_than_there_is(
    server: StripeServer, owner: Caller
) -> None:
    payment, _intent = paid(server, owner)

    def refund(key: str) -> str:
        try:
            made = refund_payment(
                payment=payment.pk, amount=600 * CENT, key=key, reason="all", caller=OPERATOR
            )
        except Conflict:
            return "refused"
        return made.status

    outcomes = at_once(refund, ("one", "two", "three"))

    assert sorted(outcomes) == ["done", "refused", "refused"]
    assert server.calls.count("POST /v1/refunds") == 1
    assert balances()["prepaid"] == 400


def test_money_that_was_used_is_not_refunded(server: StripeServer, owner: Caller) -> None:
    payment, _intent = paid(server, owner)
    with platform_scope("tests"):
        charge_usage(tenant=payment.tenant_id, amount=600 * CENT, posting_id="one", currency="USD")

    with pytest.raises(InsufficientCredit):
        refund_payment(
            payment=payment.pk,
            amount=500 * CENT,
            key="one",
            reason="asked for",
            caller=OPERATOR,
        )
    assert server.calls.count("POST /v1/refunds") == 0


def test_a_transfer_is_recorded_once(owner: Caller) -> None:
    given: dict[str, Any] = {
        "tenant": tenant_of(owner),
        "reference": "SEPA 4711",
        "reason": "seen on the account",
        "key": "one",
        "caller": OPERATOR,
        "at": clock.utc_now(),
    }

    first = record_transfer(amount=TEN * CENT, **given)
    again = record_transfer(amount=TEN * CENT, **given)

    assert (first.pk, first.status) == (again.pk, "paid")
    assert balances() == {"prepaid": TEN, "cash": TEN}
    with pytest.raises(Conflict):
        record_transfer(amount=TEN * CENT + 1, **given)
    with pytest.raises(Conflict, match="not set up"):
        order(owner)
    assert broken_invariants() == []


@pytest.mark.parametrize("nanos", [0, -CENT, 499 * CENT, 1_000_001 * CENT, TEN * CENT + 1])
def test_amounts_that_nobody_means_are_refused(
    server: StripeServer, owner: Caller, nanos: int
) -> None:
    with pytest.raises(InvalidInput):
        start_top_up(
            tenant=tenant_of(owner),
            amount=nanos,
            key="one",
            caller=owner,
            return_url="https://x",
            at=clock.utc_now(),
        )
    assert server.calls == []


def test_a_provider_that_is_away_starts_nothing(server: StripeServer, owner: Caller) -> None:
    server.is_down = True
    with pytest.raises(Unavailable):
        order(owner)
    with platform_scope("tests"):
        assert not Payment.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_webhooks_at_once_credit_once(server: StripeServer, owner: Caller) -> None:
    started = order(owner)
    intent = server.pay(started.payment.order_ref)
    bodies = [event("payment_intent.succeeded", intent, name="evt_same") for _ in range(4)]
    bodies += [event("charge.succeeded", {"id": "c", "payment_intent": intent["id"]})] * 4

    statuses = at_once(lambda body: send(body).status_code, bodies)

    assert statuses == [200] * len(bodies)
    assert balances() == {"prepaid": TEN, "cash": TEN - FEE_CENTS, "fees": FEE_CENTS}
    assert broken_invariants() == []
