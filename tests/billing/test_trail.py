"""From an invoice's line to its events, and from an event to its entries: by API and by click."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.test import Client
from rest_framework.test import APIClient

from accounts.models import Role
from billing.models.invoices import Invoice
from billing.models.usage import UsageEvent
from billing.queries.documents import ACCOUNTS
from tests.accounts.factories import make_member, make_user, management_client, signed_in
from tests.billing.invoice_world import (
    OCTOBER,
    event_at,
    invoiced,
    make_partitions,
    post_events,
    postpaid_shop,
    tokens,
    with_seller,
)
from tests.billing.usage_world import Shop
from tests.console.console_world import client_for
from turnpike.control.caller import Power
from turnpike.control.scope import platform_scope
from turnpike.kernel import ids
from turnpike.kernel.money import format_amount, parse_amount

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
BATCHES, EVENTS = 3, 4
LINKS = re.compile(r'href="(/(?:console|operator)/[^"#]*)"')


@pytest.fixture
def shop() -> Shop:
    """A tenant that used something in three postings."""
    make_partitions(OCTOBER, months=3)
    with_seller()
    made = postpaid_shop()
    for batch in range(BATCHES):
        at = OCTOBER + batch * 24 * HOUR
        post_events([event_at(made, at + n * HOUR, usage=tokens(1_001, 7)) for n in range(EVENTS)])
    return made


@pytest.fixture
def invoice(shop: Shop) -> Invoice:
    return invoiced(shop)


def pages(api: APIClient, path: str) -> Iterator[dict[str, Any]]:
    """Every row of a list, in small pages."""
    cursor: str | None = ""
    while cursor is not None:
        answer = api.get(f"{path}?limit=5&cursor={cursor}")
        assert answer.status_code == 200, answer.content
        yield from answer.json()["data"]
        cursor = answer.json()["next_cursor"]


def follow(api: APIClient, lines: str, entries: str) -> dict[str, int]:
    """Go from the lines to the entries; what each posting took, which must be what it charged."""
    charged: dict[str, int] = {}
    for line in pages(api, lines):
        requests = list(pages(api, f"{lines}/{line['line']}/requests"))
        assert len(requests) == BATCHES * EVENTS
        total = sum(parse_amount(item["amount"]) for item in requests)
        assert format_amount(total) == line["exact"]
        for item in requests:
            (posting,) = api.get(entries.format(item["request_id"])).json()["data"]
            taken = {entry["account"]: entry for entry in posting["entries"]}
            assert {name: entry["side"] for name, entry in taken.items()} == {
                "unbilled": "debit",
                "revenue": "credit",
            }
            with platform_scope("tests"):
                event = UsageEvent.objects.get(
                    request_id=ids.parse_public_id(ids.REQUEST, item["request_id"])
                )
            posting_id = UUID(posting["key"].split(":")[1])
            assert event.posting_id == posting_id
            charged[posting["key"]] = parse_amount(taken["revenue"]["amount"])
    return charged


def test_a_tenant_follows_a_line_to_the_ledger_by_api(shop: Shop, invoice: Invoice) -> None:
    api = management_client(shop.tenant, Power.BILLING_READ)

    charged = follow(
        api,
        f"/api/v1/invoices/{invoice.public_id}/lines",
        "/api/v1/requests/{}/entries",
    )

    assert len(charged) == BATCHES
    # Every posting of the month was reached, and their sum is what the invoice asks for.
    assert sum(charged.values()) == invoice.exact_nano


def test_an_operator_follows_a_line_to_the_ledger_by_api(shop: Shop, invoice: Invoice) -> None:
    operator = signed_in(make_user(is_staff=True))
    base = "/api/v1/operator"

    charged = follow(
        operator, f"{base}/invoices/{invoice.public_id}/lines", f"{base}/requests/{{}}/entries"
    )

    assert sum(charged.values()) == invoice.exact_nano
    for path in (
        f"invoices/{invoice.public_id}/lines/99/requests",
        "requests/req_x/entries",
        f"requests/{ids.public_id(ids.REQUEST, ids.uuid7())}/entries",
    ):
        assert operator.get(f"{base}/{path}").status_code == 404
        assert management_client(shop.tenant).get(f"{base}/{path}").status_code == 401


def click(client: Client, path: str, leading_to: str) -> str:
    """The address of the first link on a page that leads to where this matches."""
    page = client.get(path)
    assert page.status_code == 200, path
    found: list[str] = [
        link for link in LINKS.findall(page.content.decode()) if re.search(leading_to, link)
    ]
    assert found, f"{path} leads nowhere like {leading_to}"
    return found[0]


@pytest.mark.parametrize(
    ("start", "clicks", "is_staff"),
    [
        ("/console/billing", (r"/invoices/inv_\w+$", r"/lines/1$", r"/requests/req_"), False),
        ("/operator/invoices", (r"/invoices/inv_\w+$", r"/lines/1$", r"/logs/req_"), True),
    ],
)
def test_three_clicks_lead_from_the_list_to_the_entries(
    shop: Shop, invoice: Invoice, start: str, clicks: tuple[str, ...], is_staff: bool
) -> None:
    member = make_member(shop.tenant, Role.BILLING, make_user(is_staff=is_staff))
    client, path = client_for(member), start

    for wanted in clicks:
        path = click(client, path, wanted)

    page = client.get(path).content.decode()
    for account in ("unbilled", "revenue"):
        assert str(ACCOUNTS[account]) in page
    with platform_scope("tests"):
        event = UsageEvent.objects.filter(tenant_id=shop.number).order_by("-request_id")[0]
    assert event.public_id in path
