"""The operators' pages about payments and codes: given back once, shown once, revoked for good."""

import re

import pytest
import redis
from django.test import Client

from accounts.models import Tenant, User
from billing.models.ledger import Wallet
from billing.models.payments import Payment, PaymentReversal, RedemptionCode
from billing.services.payments.orders import record_transfer
from billing.services.redemption import redeem_code
from tests.accounts.factories import make_tenant
from tests.operator_console.operator_world import REASON, audited, browser_of
from turnpike.control.caller import SYSTEM
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids
from turnpike.kernel.errors import NotFound
from turnpike.kernel.money import NANOS_PER_UNIT

LANGUAGES = ("en", "zh-hans", "ru")
TEN = 10 * NANOS_PER_UNIT


@pytest.fixture
def payment(redis_client: redis.Redis, db: None) -> Payment:
    """A transfer of ten dollars."""
    made = record_transfer(
        tenant=make_tenant().pk,
        amount=TEN,
        reference="SEPA 1",
        reason=REASON,
        key="one",
        caller=SYSTEM,
        at=clock.utc_now(),
    )
    with platform_scope("tests"):
        return Payment.objects.select_related("tenant").get(pk=made.pk)


def give_back(browser: Client, payment: Payment, **values: str) -> str:
    sent = {"once": str(ids.uuid7()), "reason": REASON, **values}
    where = f"/operator/payments/{payment.public_id}"
    return browser.post(where, sent, follow=True).content.decode()


def refunds_of(payment: Payment) -> list[int]:
    with platform_scope("tests"):
        rows = PaymentReversal.objects.filter(payment=payment).order_by("pk")
        return [row.amount_nano for row in rows]


def balance_of(tenant: int) -> int:
    with platform_scope("tests"):
        return Wallet.objects.get(tenant_id=tenant).balance_nano


def make_codes(browser: Client, **values: str) -> tuple[str, list[str]]:
    """The answer's page, and the codes on it."""
    sent = {"once": str(ids.uuid7()), "count": "3", "amount": "5", "uses_max": "1"}
    answer = browser.post("/operator/codes", {**sent, "reason": REASON, **values})
    page = answer.content.decode()
    return page, re.findall(r"\b(?:[2-9A-Z]{5}-){3}[2-9A-Z]{5}\b", page)


def codes() -> list[RedemptionCode]:
    with platform_scope("tests"):
        return list(RedemptionCode.objects.order_by("pk"))


def test_a_payment_is_given_back_in_parts_and_never_beyond(
    browser: Client, operator: User, payment: Payment
) -> None:
    once = str(ids.uuid7())
    for _ in range(2):
        assert "The refund is booked" in give_back(browser, payment, amount="4", once=once)
    beyond = give_back(browser, payment, amount="6.01")
    crumbs = give_back(browser, payment, amount="0.001")
    rest = give_back(browser, payment, amount="")

    assert "Less than that is left" in beyond
    assert "in whole cents" in crumbs
    assert "The refund is booked" in rest
    assert "Give money back" not in rest, "nothing is left"
    assert refunds_of(payment) == [4 * NANOS_PER_UNIT, 6 * NANOS_PER_UNIT]
    assert balance_of(payment.tenant_id) == 0
    events = audited("payment.refunded", tenant=payment.tenant_id)
    assert {(event.actor, event.reason) for event in events} == {(operator.public_id, REASON)}
    page = browser.get("/operator/payments/refunds").content.decode()
    assert page.count(payment.public_id) == 2


def test_nothing_moves_without_a_reason_a_proof_or_a_token(
    browser: Client, operator: User, payment: Payment
) -> None:
    careful = Client(enforce_csrf_checks=True)
    careful.force_login(operator, backend="django.contrib.auth.backends.ModelBackend")
    unproved = browser_of(operator, is_proved=False)
    for where in (f"/operator/payments/{payment.public_id}", "/operator/codes"):
        sent = {"once": str(ids.uuid7()), "amount": "4", "count": "1", "uses_max": "1"}
        assert browser.post(where, {**sent, "reason": " "}).status_code == 400
        assert unproved.post(where, {**sent, "reason": REASON}).status_code == 302
        assert careful.post(where, {**sent, "reason": REASON}).status_code == 403

    assert refunds_of(payment) == []
    assert codes() == []


def test_payments_are_found_by_tenant_payment_and_state(browser: Client, payment: Payment) -> None:
    def finds(query: str) -> bool:
        return payment.public_id in browser.get(f"/operator/payments?{query}").content.decode()

    assert finds("")
    assert finds(f"wanted={payment.tenant.public_id}&status=paid")
    assert finds(f"wanted={payment.public_id}")
    assert not finds("status=failed")
    assert not finds(f"wanted={Tenant(uuid=ids.uuid7()).public_id}")
    assert not finds("wanted=nothing")
    assert not finds("before=1")
    assert browser.get("/operator/payments/pay_x").status_code == 404


def test_codes_are_shown_once_and_worth_what_was_said(browser: Client, payment: Payment) -> None:
    once = str(ids.uuid7())
    page, words = make_codes(browser, once=once, last_day="2999-12-31", credit_days="30")
    again, nothing = make_codes(browser, once=once)

    assert (len(set(words)), nothing) == (3, [])
    assert "the codes were shown then" in again
    listed = browser.get("/operator/codes").content.decode()
    assert [word for word in words if word in listed] == []
    assert [word[-5:] for word in words if f"…{word[-5:]}" not in listed] == []
    rows = codes()
    assert {(row.amount_nano, row.uses_max, row.credit_days) for row in rows} == {
        (5 * NANOS_PER_UNIT, 1, 30)
    }
    assert {row.ends_at.year for row in rows if row.ends_at} == {3000}
    (event,) = audited("code.created")
    assert (event.reason, event.after["codes"]) == (REASON, 3)
    assert [word for word in words if word in str(event.after)] == []
    now, tenant = clock.utc_now(), payment.tenant_id
    redeem_code(tenant=tenant, words=words[0], caller=SYSTEM, at=now)
    assert balance_of(tenant) == TEN + 5 * NANOS_PER_UNIT
    used_up = browser.get("/operator/codes?state=used_up").content.decode()
    assert f"…{words[0][-5:]}" in used_up
    assert f"…{words[1][-5:]}" not in used_up
    assert "1 / 1" in page or "1 / 1" in used_up


def test_a_code_and_what_is_left_of_its_batch_are_revoked(
    browser: Client, payment: Payment
) -> None:
    _page, words = make_codes(browser)
    first = codes()[0]
    listed = browser.get("/operator/codes").content.decode()
    batch = re.search(r"batch=(codebatch_\w+)", listed)
    assert batch is not None

    one = browser.post(f"/operator/codes/{first.public_id}", {"reason": REASON}, follow=True)
    path = f"/operator/codes/batches/{batch.group(1)}"
    all_of_it = browser.post(path, {"reason": REASON}, follow=True).content.decode()

    assert "The code is revoked." in one.content.decode()
    assert "2 codes are revoked." in all_of_it
    assert f"…{first.hint}" in all_of_it, "one lands on the batch"
    for word in words:
        with pytest.raises(NotFound):
            redeem_code(tenant=payment.tenant_id, words=word, caller=SYSTEM, at=clock.utc_now())
    assert [event.reason for event in audited("code.withdrawn")] == [REASON, REASON]
    assert browser.get("/operator/codes?state=open").content.decode().count("…") < 3
    assert browser.get("/operator/codes?batch=nothing").status_code == 404


@pytest.mark.parametrize(
    ("field", "value"), [("amount", "0"), ("count", "201"), ("uses_max", "0"), ("once", "x")]
)
def test_what_no_code_may_be_is_said_at_its_field(browser: Client, field: str, value: str) -> None:
    sent = {"once": str(ids.uuid7()), "count": "1", "amount": "5", "uses_max": "1", field: value}

    answer = browser.post("/operator/codes", {**sent, "reason": REASON})

    assert answer.status_code == 400
    assert codes() == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_pages_render_in_every_language(operator: User, payment: Payment, language: str) -> None:
    browser = browser_of(operator, language=language)
    give_back(browser, payment, amount="4")
    make_codes(browser)
    paths = (
        "payments",
        f"payments/{payment.public_id}",
        "payments/refunds",
        "codes",
        "codes?new=1",
    )
    for path in paths:
        answer = browser.get(f"/operator/{path}")
        page = answer.content.decode()
        assert answer.status_code == 200, path
        assert f'<html lang="{language}"' in page
        assert [mark for mark in ("<c-", "{{", "{%", ' style="') if mark in page] == []
        found = re.findall(r'\sid="([^"]*)"', page)
        assert sorted(name for name in set(found) if found.count(name) > 1) == [], path
