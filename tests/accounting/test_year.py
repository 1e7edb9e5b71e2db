"""A year closes with every row of the proof at zero, and its documents add up to its usage.

At full size it is then backed up and restored into an empty database, where the same proof holds.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.db.models import Sum

from billing.models.invoices import Invoice, RatingDifference
from billing.models.usage import UsageEvent
from billing.services.reconciliation import reconcile
from tests.accounting.year import Size, Year, make_year, send_again
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock
from turnpike.management.backups import make_backup
from turnpike.management.restoring import restore_backup

FULL = Size(tenants=50, months=12, events_a_month=40)
SMALL = Size(tenants=8, months=3, events_a_month=8)
Elsewhere = Callable[[], AbstractContextManager[None]]

# What a person would hold against one another before and after: sums of all that was written.
FIGURES = {
    "events": "SELECT count(*), sum(amount_nano), sum(waived_nano) FROM billing_usage_event",
    "entries": "SELECT count(*), sum(side * amount), sum(amount) FROM billing_ledger_entry",
    "accounts": "SELECT kind, sum(debits), sum(credits) FROM billing_ledger_account"
    " GROUP BY 1 ORDER BY 1",
    "wallets": "SELECT tenant_id, balance_nano, currency, mode FROM billing_wallet ORDER BY 1",
    "documents": "SELECT number, kind, status, total_nano, paid_nano, credited_nano, currency"
    " FROM billing_invoice ORDER BY id",
    "rollups": "SELECT count(*), sum(requests), sum(amount_nano) FROM billing_usage_rollup",
    "counters": "SELECT count(*), sum(spent_nano) FROM billing_spend_counter",
    "corrections": "SELECT count(*), sum(difference_nano) FROM billing_rating_difference",
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.timeout(1_800)
def test_a_year_closes_with_all_rows_at_zero(
    is_full: bool, redis_client: object, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    size = FULL if is_full else SMALL

    year = make_year(size, seed=5)

    assert not_zero() == {}
    everything_happened(year)
    if not is_full:
        return  # tests/backups restores a small platform in every run
    before = figures()
    manifest = make_backup(tmp_path / "year")
    with elsewhere():
        restored = restore_backup(tmp_path / "year", is_forced=False, at=clock.utc_now())

        assert restored.is_good
        assert manifest.events == before["events"][0][0]
        assert not_zero() == {}
        assert figures() == before
        # Every gateway sends everything again.
        assert send_again(year) == 0
        assert not_zero() == {}
        assert figures() == before


def not_zero() -> dict[str, Any]:
    """The rows of the proof that are not zero."""
    return {item.check: item.examples for item in reconcile() if item.differences}


def figures() -> dict[str, list[tuple[Any, ...]]]:
    """Everything that was counted, summed."""
    found = {}
    with platform_scope("tests"), connection.cursor() as cursor:
        for name, query in FIGURES.items():
            cursor.execute(query)
            found[name] = cursor.fetchall()
    return found


def everything_happened(year: Year) -> None:
    """The year had all that a year may have, and its documents add up to its usage."""
    size = year.size
    assert year.posted >= size.tenants * size.months * size.events_a_month
    assert all(item.requests for item in year.corrected)
    with platform_scope("tests"):
        rows = Invoice.objects.all()
        kinds = set(rows.values_list("kind", "status"))
        assert {
            ("invoice", "paid"),
            ("invoice", "open"),
            ("invoice", "void"),
            ("credit_note", "issued"),
            ("statement", "issued"),
        } <= kinds
        assert len(set(rows.exclude(number=None).values_list("currency", flat=True))) == 4
        live = rows.filter(kind__in=["invoice", "statement"]).exclude(status="void")
        printed = live.filter(lines__kind="usage").aggregate(nano=Sum("lines__exact_nano"))["nano"]
        assert printed == UsageEvent.objects.aggregate(nano=Sum("amount_nano"))["nano"]
        assert live.filter(lines__is_late=True).exists()
        for is_on_a_month in (True, False):
            found = RatingDifference.objects.filter(credit_note__isnull=is_on_a_month)
            assert found.exists()
