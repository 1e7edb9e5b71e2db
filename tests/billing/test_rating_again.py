"""After a price error: differences by request, on the right document, exactly once."""

from datetime import timedelta
from typing import Any

import pytest

from billing.models.invoices import RatingDifference
from billing.services.catalog_file import PriceRow
from billing.services.correction import Corrected, make_corrected_set, rate_again
from billing.services.credit_notes import void_invoice
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
    invoiced,
    make_partitions,
    post_events,
    postpaid_shop,
    tokens,
    with_seller,
)
from tests.billing.usage_world import MODEL, RATES, Shop, make_price_set, make_shop
from turnpike.control.scope import platform_scope
from turnpike.kernel.errors import Conflict, NotFound
from turnpike.kernel.money import NANOS_PER_UNIT

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("months")]
DAY = timedelta(days=1)
CENT = NANOS_PER_UNIT // 100


@pytest.fixture
def months(db: None) -> None:
    make_partitions(OCTOBER, months=3)


def corrected(shop: Shop, input_rate: int) -> int:
    rates = {**RATES, "input": input_rate}
    rows = [
        PriceRow(
            model=MODEL,
            component=name,
            variant="standard",
            min_input=0,
            nano_per_mtok=rate,
            nano_per_unit=None,
        )
        for name, rate in rates.items()
    ]
    name = f"corrected {input_rate}"
    return make_corrected_set(wrong_set=shop.price_set, rows=rows, name=name).pk


def again(shop: Shop, right_set: int, **changes: Any) -> Corrected:
    values: dict[str, Any] = {
        "wrong_set": shop.price_set,
        "right_set": right_set,
        "since": OCTOBER,
        "until": NOVEMBER,
        "reason": "The input price was wrong",
        "idempotency_key": "october",
        "actor": ACTOR,
        "at": NOVEMBER + DAY,
    }
    return rate_again(**{**values, **changes})


def test_an_invoice_that_asked_too_much_gets_a_credit_note() -> None:
    with_seller()
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + n * DAY, usage=tokens(1_000_000)) for n in range(2)])
    invoiced(shop)

    result = again(shop, corrected(shop, 2_000_000_000))

    (note,) = documents(shop, "credit_note")
    assert result.nanos == {"USD": -2 * NANOS_PER_UNIT}
    assert (result.requests, result.credit_notes) == (2, (note.number,))
    assert (note.subtotal_nano, note.total_nano) == (200 * CENT, 238 * CENT)
    assert note.lines.all()[0].text == "The input price was wrong"
    assert balances(shop) == {"receivable": 476 * CENT, "revenue": 4 * NANOS_PER_UNIT}
    assert differences() == {}


def test_the_same_key_again_changes_nothing() -> None:
    with_seller()
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + DAY, usage=tokens(1_000_000))])
    invoiced(shop)
    right = corrected(shop, 2_000_000_000)

    first = again(shop, right)

    assert again(shop, right) == first
    assert len(documents(shop, "credit_note")) == 1
    with pytest.raises(Conflict):
        again(shop, right, until=DECEMBER)


def test_what_was_too_cheap_is_asked_for_in_the_open_month() -> None:
    with_seller(tax_ppm=None)
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + DAY, usage=tokens(1_000_000))])
    invoiced(shop)

    again(shop, corrected(shop, 5_000_000_000))
    second = invoiced(shop, at=DECEMBER + CLOSED)

    assert {line.kind: line.amount_nano for line in second.lines.all()} == {
        "correction": 200 * CENT
    }
    assert balances(shop)["receivable"] == 500 * CENT
    assert differences() == {}


def test_a_month_without_an_invoice_takes_its_own_corrections() -> None:
    with_seller(tax_ppm=None)
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + DAY, usage=tokens(1_000_000))])

    again(shop, corrected(shop, 2_000_000_000))
    invoice = invoiced(shop)

    assert invoice.total_nano == 200 * CENT
    assert documents(shop, "credit_note") == []
    assert differences() == {}


def test_a_draft_is_drawn_up_again_with_the_correction() -> None:
    with_seller(tax_ppm=None)
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + DAY, usage=tokens(1_000_000))])
    close_months(NOVEMBER + CLOSED)

    again(shop, corrected(shop, 2_000_000_000))

    (draft,) = documents(shop)
    assert (draft.status, draft.total_nano) == ("draft", 200 * CENT)
    assert differences() == {}


def test_prepaid_tenants_get_their_money_back() -> None:
    shop = make_shop(credit=10 * NANOS_PER_UNIT)
    post_events([event_at(shop, OCTOBER + DAY, usage=tokens(1_000_000))])

    again(shop, corrected(shop, 2_000_000_000))

    assert balances(shop)["promo"] == 8 * NANOS_PER_UNIT
    assert differences() == {}


def test_a_second_run_starts_from_what_the_first_one_came_to() -> None:
    with_seller(tax_ppm=None)
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + DAY, usage=tokens(1_000_000))])
    invoiced(shop)
    again(shop, corrected(shop, 2_000_000_000))

    result = again(shop, corrected(shop, 1_000_000_000), idempotency_key="once more")

    assert result.nanos == {"USD": -NANOS_PER_UNIT}
    assert balances(shop) == {"receivable": 100 * CENT, "revenue": NANOS_PER_UNIT}
    assert differences() == {}


def test_a_void_invoice_drawn_up_anew_keeps_its_corrections() -> None:
    with_seller(tax_ppm=None)
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + DAY, usage=tokens(1_000_000))])
    again(shop, corrected(shop, 2_000_000_000))
    first = invoiced(shop)

    void_invoice(invoice=first.pk, reason="Address", at=DECEMBER, actor=ACTOR, redraft=True)

    assert [row.total_nano for row in documents(shop)] == [200 * CENT, 200 * CENT]
    assert differences() == {}


def test_unrated_requests_are_charged_once_their_price_is_known() -> None:
    shop = make_shop(credit=10 * NANOS_PER_UNIT, price_set=make_price_set(rates={"output": 1}))
    post_events([event_at(shop, OCTOBER + DAY, usage=tokens(1_000_000))])
    assert balances(shop) == {"promo": 10 * NANOS_PER_UNIT}

    again(shop, corrected(shop, 3_000_000_000))

    assert balances(shop)["promo"] == 7 * NANOS_PER_UNIT
    assert differences() == {}


def test_nothing_differs_where_the_price_was_right() -> None:
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + DAY)])

    assert again(shop, corrected(shop, RATES["input"])).requests == 0
    with platform_scope("tests"):
        assert not RatingDifference.objects.exists()
    with pytest.raises(NotFound):
        again(shop, 10**9, idempotency_key="other")
