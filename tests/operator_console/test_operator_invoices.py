"""The operators' pages about invoices: from a draft to its end, and prices tried out."""

from datetime import timedelta

import pytest
from django.test import Client

from tests.billing.invoice_world import (
    CLOSED,
    NOVEMBER,
    OCTOBER,
    close_months,
    differences,
    documents,
    event_at,
    make_partitions,
    post_events,
    postpaid_shop,
    tokens,
    with_seller,
)
from tests.billing.usage_world import MODEL, Shop, make_event
from tests.operator_console.operator_world import REASON, browser_of
from turnpike.kernel import ids
from turnpike.kernel.money import NANOS_PER_UNIT

DAY = timedelta(days=1)
LANGUAGES = ("en", "zh-hans", "ru")
SELLER = {
    "name": "Turnpike Ltd",
    "country": "gb",
    "due_days": "30",
    "tax_title": "VAT",
    "tax_percent": "8.875",
}


@pytest.fixture
def shop(db: None) -> Shop:
    make_partitions(OCTOBER, months=3)
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + DAY, usage=tokens(1_000_000))])
    return shop


def act(browser: Client, shop: Shop, action: str, **values: str) -> str:
    where = f"/operator/invoices/{documents(shop)[0].public_id}"
    sent = {"action": action, "reason": REASON, "once": str(ids.uuid7()), **values}
    return browser.post(where, sent, follow=True).content.decode()


def test_a_draft_is_finalized_paid_in_part_and_written_off(browser: Client, shop: Shop) -> None:
    close_months(NOVEMBER + CLOSED)
    assert "There is no seller yet" in browser.get("/operator/invoices").content.decode()
    assert "set one up" in act(browser, shop, "finalize")
    assert browser.post("/operator/invoices/seller", SELLER).status_code == 302
    assert "8.875 %" not in browser.get("/operator/invoices").content.decode()

    assert "It went out as INV-" in act(browser, shop, "finalize")
    once = str(ids.uuid7())
    assert "booked" in act(browser, shop, "pay", amount="1.00", once=once)
    act(browser, shop, "pay", amount="1.00", once=once)
    assert "Credited by CN-" in act(browser, shop, "credit", amount="0.50")
    assert "settled" in act(browser, shop, "void")
    assert "written off" in act(browser, shop, "write_off")

    (row,) = documents(shop)
    assert (row.status, row.paid_nano) == ("uncollectible", NANOS_PER_UNIT)
    assert row.tax_nano == 270_000_000  # 8.875 % of three dollars
    assert differences() == {}


def test_a_void_draws_the_month_up_anew(browser: Client, shop: Shop) -> None:
    with_seller()
    close_months(NOVEMBER + CLOSED)
    act(browser, shop, "finalize")

    assert "CN-" in act(browser, shop, "void", redraft="on")

    assert [row.status for row in documents(shop)] == ["void", "draft"]


def test_months_are_closed_by_hand(browser: Client, shop: Shop) -> None:
    page = browser.post("/operator/invoices", follow=True).content.decode()

    assert "Months closed: 1. Documents drawn up: 1." in page
    assert browser.get("/operator/invoices?status=draft&before=999999").status_code == 200


@pytest.mark.parametrize("language", LANGUAGES)
def test_pages_render_in_every_language(operator: object, shop: Shop, language: str) -> None:
    close_months(NOVEMBER + CLOSED)
    browser = browser_of(operator, language=language)  # type: ignore[arg-type]
    draft = documents(shop)[0].public_id
    for path in ("invoices", f"invoices/{draft}", "invoices/seller", "prices/rehearsal"):
        answer = browser.get(f"/operator/{path}")
        page = answer.content.decode()
        assert answer.status_code == 200, path
        assert f'<html lang="{language}"' in page
        assert [mark for mark in ("<c-", "{{", "{%", ' style="') if mark in page] == []
    assert browser.get("/operator/invoices/inv_x").status_code == 404


def test_a_rehearsal_shows_the_difference(browser: Client, shop: Shop) -> None:
    post_events([make_event(shop)])
    proposal = {"span": "7d", "model": MODEL, "component": "input", "price": "6", "tier": ""}

    page = browser.get("/operator/prices/rehearsal", proposal).content.decode()

    assert "Acme" in page
    assert "$0.000900" in page or "$0.0009" in page
    wrong = browser.get("/operator/prices/rehearsal", {**proposal, "discount_bp": "10001"})
    assert wrong.status_code == 400
