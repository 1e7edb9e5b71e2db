"""Months for the tests of invoices: usage at any instant, closings, sellers and what must agree."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection

from billing.models.invoices import Invoice
from billing.models.ledger import BillingPeriod, Wallet
from billing.services.billing_details import set_seller, set_tax_rate
from billing.services.book_checks import POSTGRES_CHECKS
from billing.services.closing import close_due_periods, draft_documents
from billing.services.invoices import finalize_invoice
from billing.services.reconciliation import check
from billing.services.usage import Incoming, post_usage
from billing.services.wallet import set_mode
from tests.billing.usage_world import Shop, make_event, make_shop
from turnpike.contracts.usage import UsageEvent
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids
from turnpike.kernel.codec import to_json

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)
# A moment after a month at which what arrives late has arrived.
CLOSED = timedelta(minutes=20)
ACTOR = "tests"
HOLD_MICRO = 1_000_000_000


def postpaid_shop(
    *, name: str = "Acme", price_set: int | None = None, currency: str = "USD"
) -> Shop:
    """A tenant that pays by invoice."""
    shop = make_shop(name=name, price_set=price_set)
    with platform_scope("tests"):
        Wallet.objects.create(tenant=shop.tenant, currency=currency)
    set_mode(tenant=shop.number, mode="postpaid", actor=ACTOR)
    return shop


def with_seller(*, tax_ppm: int | None = 190_000) -> None:
    """A seller, with a tax unless told otherwise."""
    if tax_ppm is not None:
        set_tax_rate(code="vat", title="VAT", rate_ppm=tax_ppm, actor=ACTOR)
    set_seller(
        code="main",
        changes={
            "name": "Turnpike Road Company Ltd",
            "address": "1 Toll House Lane\nGatewick",
            "country": "GB",
            "tax_id": "GB123456789",
            "email": "billing@example.com",
            "payment_details": "IBAN GB00 TEST 0000 0000 0000 00",
        },
        tax=None if tax_ppm is None else "vat",
        actor=ACTOR,
    )


def event_at(shop: Shop, at: datetime, **changes: Any) -> UsageEvent:
    """An event of a request that began at an instant."""
    rid = ids.uuid7(at_ms=clock.us_of_datetime(at) // 1_000)
    return make_event(shop, rid=rid, **{"hold_micro": HOLD_MICRO, **changes})


def tokens(count: int, output: int = 0) -> Mapping[str, int]:
    """Usage of so many tokens."""
    return {"input_tokens": count, "output_tokens": output}


def post_events(events: Sequence[UsageEvent]) -> int:
    """Post a batch, as ingest does; how many rows it made."""
    return post_usage(events=[incoming(event) for event in events]).inserted


def incoming(event: UsageEvent) -> Incoming:
    """An event as it is read from a stream."""
    body = to_json(event).encode()
    return Incoming(
        event=event,
        request=UUID(event.rid),
        fingerprint=hashlib.sha256(body).digest(),
        body=body,
    )


def close_months(at: datetime) -> int:
    """Close what is over and draw up its documents; how many were drawn up."""
    close_due_periods(at=at)
    return draft_documents(at=at)


def documents(shop: Shop, kind: str = "invoice") -> list[Invoice]:
    """A tenant's documents of a kind, the oldest first."""
    with platform_scope("tests"):
        rows = Invoice.objects.filter(tenant=shop.tenant, kind=kind).order_by("pk")
        return list(rows.prefetch_related("lines", "taxes"))


def finalize_all(at: datetime) -> list[Invoice]:
    """Finalize every draft."""
    with platform_scope("tests"):
        drafts = list(Invoice.objects.filter(status="draft").order_by("pk"))
    return [finalize_invoice(invoice=row.pk, at=at, actor=ACTOR) for row in drafts]


def invoiced(shop: Shop, *, at: datetime = NOVEMBER + CLOSED) -> Invoice:
    """Close the months before an instant and finalize; the tenant's newest invoice."""
    close_months(at)
    finalize_all(at)
    return documents(shop)[-1]


def period_of(shop: Shop, month: datetime) -> BillingPeriod:
    """A tenant's month."""
    with platform_scope("tests"):
        return BillingPeriod.objects.get(tenant=shop.tenant, starts_at=month)


def balances(shop: Shop) -> dict[str, int]:
    """What stands on a tenant's accounts, by kind; empty ones are left out."""
    from billing.models.ledger import LedgerAccount

    found: dict[str, int] = {}
    with platform_scope("tests"):
        for account in LedgerAccount.objects.filter(tenant=shop.tenant):
            found[account.kind] = found.get(account.kind, 0) + account.balance_nano
    return {kind: nano for kind, nano in found.items() if nano}


def differences() -> dict[str, tuple[str, ...]]:
    """The rows of reconciliation that are not zero, those of PostgreSQL."""
    found = {name: check(name) for name in POSTGRES_CHECKS}
    return {name: item.examples for name, item in found.items() if item.differences}


def make_partitions(first: datetime, *, months: int) -> None:
    """Partitions of months that lie in the past, which nobody makes in production."""
    with platform_scope("tests"), connection.cursor() as cursor:
        cursor.execute("SELECT billing_make_partitions(%s, %s)", [first.date(), months])
