"""A year closes with every row of the proof at zero, and its documents add up to its usage."""

import pytest
from django.db.models import Sum

from billing.models.invoices import Invoice, RatingDifference
from billing.models.usage import UsageEvent
from billing.services.reconciliation import reconcile
from tests.accounting.year import Size, make_year
from turnpike.control.scope import platform_scope

FULL = Size(tenants=50, months=12, events_a_month=40)
SMALL = Size(tenants=8, months=3, events_a_month=8)


@pytest.mark.django_db
def test_a_year_closes_with_all_rows_at_zero(is_full: bool, redis_client: object) -> None:
    size = FULL if is_full else SMALL

    year = make_year(size, seed=5)

    assert {item.check: item.examples for item in reconcile() if item.differences} == {}
    assert year.posted >= size.tenants * size.months * size.events_a_month
    assert all(item.requests for item in year.corrected)
    with platform_scope("tests"):
        rows = Invoice.objects.all()
        kinds = set(rows.values_list("kind", "status"))
        # Everything that was to happen has happened.
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
