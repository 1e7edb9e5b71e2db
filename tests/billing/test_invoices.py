"""Months become invoices: closing, lines, rounding, tax, numbers, and what never changes again."""

from datetime import timedelta

import pytest
from django.db import DatabaseError, transaction

from billing.models.invoices import Invoice, InvoiceLine, NumberSeries
from billing.services.closing import close_due_periods, close_period, draft_documents
from billing.services.credit_notes import credit_invoice, void_invoice
from billing.services.invoice_payments import pay_invoice, write_off_invoice
from billing.services.invoices import finalize_invoice
from billing.services.wallet import set_mode, top_up
from tests.billing.invoice_world import (
    ACTOR,
    CLOSED,
    DECEMBER,
    NOVEMBER,
    OCTOBER,
    balances,
    close_months,
    differences,
    documents,
    event_at,
    finalize_all,
    invoiced,
    make_partitions,
    period_of,
    post_events,
    postpaid_shop,
    tokens,
    with_seller,
)
from tests.billing.usage_world import make_shop
from turnpike.control.scope import platform_scope
from turnpike.kernel.errors import Conflict, InvalidInput
from turnpike.kernel.money import NANOS_PER_UNIT

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("months")]
DAY = timedelta(days=1)
CENT = NANOS_PER_UNIT // 100


@pytest.fixture
def months(db: None) -> None:
    make_partitions(OCTOBER, months=3)


def test_a_month_is_closed_a_quarter_of_an_hour_after_its_end() -> None:
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + DAY)])

    assert close_due_periods(at=NOVEMBER) == 0
    assert period_of(shop, OCTOBER).state == "closing"
    assert close_due_periods(at=NOVEMBER + timedelta(minutes=14)) == 0
    assert close_due_periods(at=NOVEMBER + timedelta(minutes=15)) == 1
    assert period_of(shop, OCTOBER).state == "closed"


def test_a_month_that_is_not_over_is_left_alone() -> None:
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + DAY)])

    assert not close_period(period=period_of(shop, OCTOBER).pk, at=NOVEMBER - DAY)
    assert period_of(shop, OCTOBER).state == "open"


def test_lines_are_the_events_of_the_month_rounded_once() -> None:
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + n * DAY, usage=tokens(1_001, 7)) for n in range(3)])
    post_events([event_at(shop, NOVEMBER + DAY, usage=tokens(9))])

    close_months(NOVEMBER + CLOSED)

    (draft,) = documents(shop)
    lines = {line.component: line for line in draft.lines.all()}
    assert (lines["input"].quantity, lines["input"].exact_nano) == (3_003, 3_003 * 3_000)
    assert (lines["output"].quantity, lines["output"].exact_nano) == (21, 21 * 15_000)
    assert lines["input"].price_nano == 3_000_000_000
    assert lines["input"].amount_nano == 1 * CENT
    assert (draft.status, draft.number, draft.subtotal_nano) == ("draft", None, CENT)
    assert differences() == {}


def test_a_line_rounds_halves_away_from_zero() -> None:
    shop = postpaid_shop()
    # 5,000 × 3 micros are one and a half cents.
    post_events([event_at(shop, OCTOBER + DAY, usage=tokens(5_000))])

    close_months(NOVEMBER + CLOSED)

    assert documents(shop)[0].subtotal_nano == 2 * CENT


def test_finalizing_posts_the_total_the_taxes_and_the_rounding() -> None:
    with_seller()
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + DAY, usage=tokens(335_000))])

    invoice = invoiced(shop)

    # 1.005 dollars: 1.01 on the line, 19 % of that are 0.1919.
    assert (invoice.subtotal_nano, invoice.tax_nano, invoice.total_nano) == (
        101 * CENT,
        19 * CENT,
        120 * CENT,
    )
    assert balances(shop) == {"receivable": 120 * CENT, "revenue": 1_005_000_000}
    assert (invoice.number, invoice.status) == ("INV-2026-00001", "open")
    assert invoice.due_at == NOVEMBER + CLOSED + 14 * DAY
    assert invoice.seller_copy["name"] == "Turnpike Road Company Ltd"
    assert invoice.buyer_copy["name"] == "Acme"
    assert differences() == {}


def test_finalizing_needs_a_seller() -> None:
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + DAY)])
    close_months(NOVEMBER + CLOSED)

    with pytest.raises(Conflict):
        finalize_all(NOVEMBER + CLOSED)

    assert documents(shop)[0].status == "draft"


def test_finalizing_twice_is_finalizing_once() -> None:
    with_seller()
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + DAY)])
    first = invoiced(shop)

    again = finalize_invoice(invoice=first.pk, at=DECEMBER)

    assert (again.number, again.issued_at) == (first.number, first.issued_at)


def test_two_calls_draw_up_one_document() -> None:
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + DAY)])

    assert close_months(NOVEMBER + CLOSED) == 1
    assert draft_documents(at=NOVEMBER + CLOSED) == 0
    assert len(documents(shop)) == 1


def test_late_usage_goes_to_the_next_month_on_a_line_of_its_own() -> None:
    with_seller(tax_ppm=None)
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + DAY, usage=tokens(10_000))])
    invoiced(shop)
    post_events([event_at(shop, OCTOBER + 2 * DAY, usage=tokens(20_000))])
    post_events([event_at(shop, NOVEMBER + DAY, usage=tokens(30_000))])

    second = invoiced(shop, at=DECEMBER + CLOSED)

    lines = {line.is_late: line.amount_nano for line in second.lines.all()}
    assert lines == {True: 6 * CENT, False: 9 * CENT}
    assert differences() == {}


def test_a_final_invoice_never_changes() -> None:
    with_seller()
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + DAY, usage=tokens(10_000))])
    invoice = invoiced(shop)

    with platform_scope("tests"):
        rows = Invoice.objects.filter(pk=invoice.pk)
        for change in (
            lambda: rows.update(total_nano=0, subtotal_nano=0, tax_nano=0),
            lambda: rows.update(buyer_copy={}),
            lambda: rows.update(status="draft", number=None),
            rows.delete,
            lambda: InvoiceLine.objects.filter(invoice=invoice.pk).update(amount_nano=1),
            lambda: InvoiceLine.objects.filter(invoice=invoice.pk).delete(),
            lambda: NumberSeries.objects.update(next=1),
            lambda: NumberSeries.objects.update(next=9),
        ):
            with pytest.raises(DatabaseError), transaction.atomic():
                change()


def test_credit_notes_shrink_what_is_open_and_never_exceed_the_invoice() -> None:
    with_seller()
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + DAY, usage=tokens(1_000_000))])
    invoice = invoiced(shop)

    def credit(net: int | None, key: str) -> Invoice:
        return credit_invoice(
            invoice=invoice.pk,
            net=net,
            reason="Goodwill",
            idempotency_key=key,
            at=NOVEMBER + DAY,
            actor=ACTOR,
        )

    first = credit(NANOS_PER_UNIT, "one")
    assert (first.number, first.total_nano) == ("CN-2026-00001", 119 * CENT)
    assert credit(NANOS_PER_UNIT, "one").pk == first.pk
    assert balances(shop) == {"receivable": 238 * CENT, "revenue": 2 * NANOS_PER_UNIT}
    with pytest.raises(Conflict):
        credit(3 * NANOS_PER_UNIT, "too much")
    with pytest.raises(InvalidInput):
        credit(1, "half a cent")
    rest = credit(None, "rest")
    assert rest.total_nano == 238 * CENT
    assert documents(shop)[0].status == "paid"
    with pytest.raises(Conflict):
        credit(None, "nothing left")
    assert balances(shop) == {}
    assert differences() == {}


def test_what_was_paid_and_then_credited_can_be_spent() -> None:
    with_seller(tax_ppm=None)
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + DAY, usage=tokens(1_000_000))])
    invoice = invoiced(shop)

    def pay(key: str) -> Invoice:
        return pay_invoice(
            invoice=invoice.pk,
            amount=200 * CENT,
            idempotency_key=key,
            at=NOVEMBER + DAY,
            actor=ACTOR,
        )

    pay("bank 1")
    assert pay("bank 1").paid_nano == 200 * CENT
    with pytest.raises(Conflict):
        pay("bank 2")

    credit_invoice(
        invoice=invoice.pk,
        net=None,
        reason="Returned",
        idempotency_key="all",
        at=NOVEMBER + DAY,
        actor=ACTOR,
    )

    assert balances(shop) == {"prepaid": 200 * CENT}
    assert documents(shop)[0].open_nano == 0
    assert differences() == {}


def test_credit_pays_an_invoice_and_the_rest_is_written_off() -> None:
    with_seller(tax_ppm=None)
    shop = postpaid_shop()
    top_up(tenant=shop.number, amount=NANOS_PER_UNIT, idempotency_key="t", actor=ACTOR)
    post_events([event_at(shop, OCTOBER + DAY, usage=tokens(1_000_000))])
    invoice = invoiced(shop)

    pay_invoice(
        invoice=invoice.pk,
        amount=NANOS_PER_UNIT,
        provider="credit",
        idempotency_key="c",
        at=NOVEMBER + DAY,
        actor=ACTOR,
    )
    written_off = write_off_invoice(
        invoice=invoice.pk, at=DECEMBER, actor=ACTOR, reason="Insolvent"
    )

    assert (written_off.status, written_off.open_nano) == ("uncollectible", 0)
    assert balances(shop) == {"revenue": 3 * NANOS_PER_UNIT}
    assert differences() == {}


def test_a_void_keeps_its_number_and_its_month_is_invoiced_anew() -> None:
    with_seller()
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + DAY, usage=tokens(1_000_001))])
    invoice = invoiced(shop)

    note = void_invoice(
        invoice=invoice.pk, reason="Wrong address", at=DECEMBER, actor=ACTOR, redraft=True
    )
    again = void_invoice(
        invoice=invoice.pk, reason="Wrong address", at=DECEMBER, actor=ACTOR, redraft=True
    )
    finalize_all(DECEMBER)

    assert again.pk == note.pk
    voided, second = documents(shop)
    assert (voided.status, voided.number) == ("void", "INV-2026-00001")
    assert (second.number, second.total_nano) == ("INV-2026-00002", voided.total_nano)
    assert balances(shop) == {"receivable": second.total_nano, "revenue": 3_000_003_000}
    assert differences() == {}


def test_a_void_without_a_new_draft_gives_the_usage_away() -> None:
    with_seller()
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + DAY, usage=tokens(1_000_001))])
    invoice = invoiced(shop)

    void_invoice(invoice=invoice.pk, reason="Goodwill", at=DECEMBER, actor=ACTOR)

    assert balances(shop) == {}
    assert [row.status for row in documents(shop)] == ["void"]
    assert differences() == {}


def test_prepaid_months_get_a_statement_that_adds_up() -> None:
    with_seller()
    shop = make_shop(credit=NANOS_PER_UNIT)
    post_events([event_at(shop, OCTOBER + DAY, usage=tokens(10_000))])

    close_months(NOVEMBER + CLOSED)

    (statement,) = documents(shop, "statement")
    assert (statement.status, statement.number) == ("issued", None)
    assert statement.total_nano == 3 * CENT
    assert documents(shop) == []
    assert differences() == {}


def test_a_change_of_mode_in_mid_month_asks_for_the_unpaid_part_alone() -> None:
    with_seller(tax_ppm=None)
    shop = make_shop(credit=NANOS_PER_UNIT)
    post_events([event_at(shop, OCTOBER + DAY, usage=tokens(10_000))])
    set_mode(tenant=shop.number, mode="postpaid", actor=ACTOR)
    post_events([event_at(shop, OCTOBER + 2 * DAY, usage=tokens(20_000))])

    invoice = invoiced(shop)

    assert {line.kind: line.amount_nano for line in invoice.lines.all()} == {
        "usage": 9 * CENT,
        "paid_ahead": -3 * CENT,
    }
    assert invoice.total_nano == 6 * CENT
    assert "unbilled" not in balances(shop)
    assert differences() == {}


@pytest.mark.parametrize(
    ("currency", "total"), [("USD", 2 * CENT), ("JPY", 0), ("KWD", 15 * CENT // 10)]
)
def test_amounts_are_rounded_to_what_a_currency_is_paid_in(currency: str, total: int) -> None:
    from tests.billing.usage_world import make_price_set

    with_seller(tax_ppm=None)
    shop = postpaid_shop(currency=currency, price_set=make_price_set(currency=currency))
    post_events([event_at(shop, OCTOBER + DAY, usage=tokens(5_000))])

    assert invoiced(shop).total_nano == total
    assert differences() == {}
