"""Invoices by API: from a total to the ledger in three steps, for one's own tenant alone."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts.models import Role
from tests.accounts.factories import make_member, signed_in
from tests.billing.invoice_world import (
    CLOSED,
    NOVEMBER,
    OCTOBER,
    close_months,
    documents,
    event_at,
    invoiced,
    make_partitions,
    post_events,
    postpaid_shop,
    tokens,
    with_seller,
)
from tests.billing.usage_world import Shop
from turnpike.kernel.money import format_amount, parse_amount

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("months")]
DAY = timedelta(days=1)


@pytest.fixture
def months(db: None) -> None:
    make_partitions(OCTOBER, months=3)


@pytest.fixture
def shop() -> Shop:
    with_seller()
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + n * DAY, usage=tokens(1_001, 7)) for n in range(5)])
    return shop


def client(shop: Shop, role: Role = Role.BILLING) -> APIClient:
    return signed_in(make_member(shop.tenant, role).user)


def pages(api: APIClient, path: str, limit: int = 2) -> Iterator[dict[str, Any]]:
    cursor: str | None = ""
    while cursor is not None:
        answer = api.get(f"{path}?limit={limit}&cursor={cursor}")
        assert answer.status_code == 200, answer.content
        yield from answer.json()["data"]
        cursor = answer.json()["next_cursor"]


def test_a_total_can_be_followed_to_the_ledger(shop: Shop) -> None:
    invoice = invoiced(shop)
    api = client(shop)

    (listed,) = pages(api, "/api/v1/invoices")
    assert (listed["number"], listed["total"]) == ("INV-2026-00001", "0.020000000")
    where = f"/api/v1/invoices/{listed['id']}"
    whole = api.get(where).json()
    assert whole["taxes"][0]["rate"] == "19 %"
    assert whole["buyer"]["name"] == "Acme"
    lines = list(pages(api, f"{where}/lines", limit=1))
    assert sum(parse_amount(line["amount"]) for line in lines) == invoice.subtotal_nano
    for line in lines:
        requests = list(pages(api, f"{where}/lines/{line['line']}/requests"))
        assert len(requests) == 5
        total = sum(parse_amount(item["amount"]) for item in requests)
        assert format_amount(total) == line["exact"]
    entries = api.get(f"/api/v1/requests/{requests[0]['request_id']}/entries").json()["data"]
    assert [entry["account"] for entry in entries[0]["entries"]] == ["unbilled", "revenue"]


@pytest.mark.usefixtures("pdf_printer")
def test_the_file_is_a_pdf_with_its_hash(shop: Shop) -> None:
    invoice = invoiced(shop)
    api = client(shop)

    answer = api.get(f"/api/v1/invoices/{invoice.public_id}/pdf", {"language": "en"})

    assert (answer.status_code, answer["content-type"]) == (200, "application/pdf")
    assert answer.content.startswith(b"%PDF-")
    assert answer["content-disposition"] == 'attachment; filename="INV-2026-00001.pdf"'
    bad = api.get(f"/api/v1/invoices/{invoice.public_id}/pdf", {"language": "xx"})
    assert bad.status_code == 400


def test_drafts_are_not_the_tenants_business(shop: Shop) -> None:
    close_months(NOVEMBER + CLOSED)
    (draft,) = documents(shop)
    api = client(shop)

    assert list(pages(api, "/api/v1/invoices")) == []
    assert api.get(f"/api/v1/invoices/{draft.public_id}").status_code == 404


def test_another_tenants_documents_do_not_exist(shop: Shop) -> None:
    invoice = invoiced(shop)
    request = next(pages(client(shop), f"/api/v1/invoices/{invoice.public_id}/lines/1/requests"))[
        "request_id"
    ]
    other = client(postpaid_shop(name="Other"))

    for tail in ("", "/lines", "/lines/1/requests", "/pdf"):
        assert other.get(f"/api/v1/invoices/{invoice.public_id}{tail}").status_code == 404
    assert other.get(f"/api/v1/requests/{request}/entries").status_code == 404


@pytest.mark.parametrize(
    ("role", "status"),
    [(Role.OWNER, 200), (Role.ADMIN, 200), (Role.BILLING, 200), (Role.DEVELOPER, 403)],
)
def test_who_may_see_money_sees_invoices(shop: Shop, role: Role, status: int) -> None:
    invoice = invoiced(shop)
    api = client(shop, role)

    for tail in ("", f"/{invoice.public_id}", f"/{invoice.public_id}/lines"):
        assert api.get(f"/api/v1/invoices{tail}").status_code == status
    assert api.get("/api/v1/billing_details").status_code == status


def test_ids_and_lines_that_are_none_are_not_found(shop: Shop) -> None:
    invoice = invoiced(shop)
    api = client(shop)

    for tail in ("inv_x", f"{invoice.public_id}/lines/99/requests", "x/lines/1/requests"):
        assert api.get(f"/api/v1/invoices/{tail}").status_code == 404
    where = f"/api/v1/invoices/{invoice.public_id}/lines"
    assert api.get(f"{where}/{'9' * 20}/requests").status_code == 404
    assert api.get(f"{where}/1/requests", {"cursor": "nonsense"}).status_code == 400


def test_details_are_changed_field_by_field_and_checked(shop: Shop) -> None:
    api = client(shop)

    answer = api.patch("/api/v1/billing_details", {"country": "DE", "language": "ru"}, "json")

    assert answer.status_code == 200
    assert api.get("/api/v1/billing_details").json()["language"] == "ru"
    for wrong in (
        {"country": "Germany"},
        {"language": "xx"},
        {"name": "x" * 201},
        {"seller": "main"},
        {"tax_rate": "none"},
    ):
        assert api.patch("/api/v1/billing_details", wrong, "json").status_code == 400
