"""close_due_periods, draft_documents: months end by themselves.

A month first takes what still arrives (`closing`), then is closed for good; its document is drawn
up from what can no longer change. Each step is a transaction of its own and may run twice, and at
once: the period's row decides.
"""

from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef

from billing.locks import lock_period
from billing.models.invoices import Invoice
from billing.models.ledger import BillingPeriod, LedgerAccount
from billing.services.invoices import draft_document
from turnpike.control.scope import platform_scope

State = BillingPeriod.State
CLOSING = timedelta(minutes=15)
# While batches hold money, their results may still come.
CLOSING_WITH_BATCHES = timedelta(hours=24)
AT_ONCE_MAX = 500


def close_due_periods(*, at: datetime, limit: int = AT_ONCE_MAX) -> int:
    """Close the months that are over; how many were closed in this call."""
    with platform_scope("billing.close_due_periods"):
        due = list(
            BillingPeriod.objects.exclude(state=State.CLOSED)
            .filter(ends_at__lte=at)
            .order_by("ends_at", "pk")
            .values_list("pk", flat=True)[:limit]
        )
    return sum(close_period(period=period, at=at) for period in due)


def close_period(*, period: int, at: datetime) -> bool:
    """Bring one month a step on; whether this call closed it."""
    with platform_scope("billing.close_period"):
        row = lock_period(period=period)
        if row.state == State.CLOSED or row.ends_at > at:
            return False
        is_waited_for = LedgerAccount.objects.filter(tenant=row.tenant_id, pending__gt=0).exists()
        patience = CLOSING_WITH_BATCHES if is_waited_for else CLOSING
        row.state = State.CLOSING if at < row.ends_at + patience else State.CLOSED
        row.save(update_fields=["state"])
        return row.state == State.CLOSED


def draft_documents(*, at: datetime, limit: int = AT_ONCE_MAX) -> int:
    """Draw up the document of every closed month that has none; how many were made."""
    live = Invoice.objects.filter(
        period=OuterRef("pk"), kind__in=[Invoice.Kind.INVOICE, Invoice.Kind.STATEMENT]
    ).exclude(status=Invoice.Status.VOID)
    with platform_scope("billing.draft_documents"):
        missing = list(
            BillingPeriod.objects.filter(~Exists(live), state=State.CLOSED)
            .order_by("ends_at", "pk")
            .values_list("pk", flat=True)[:limit]
        )
    return sum(draft_document(period=period, at=at) is not None for period in missing)
