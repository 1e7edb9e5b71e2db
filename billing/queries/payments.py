"""Payments, refunds and codes as operators look for them, newest first."""

import contextlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Count, F, Q, QuerySet, Sum
from django.utils.translation import gettext_lazy as _

from accounts.models import Tenant
from billing.models.payments import Payment, PaymentEvent, PaymentReversal, RedemptionCode

OPEN, USED_UP, ENDED, WITHDRAWN = "open", "used_up", "ended", "withdrawn"
PAYMENT_STATES: Mapping[str, tuple[Any, str]] = {
    Payment.Status.STARTED: (_("Not paid yet"), ""),
    Payment.Status.PAID: (_("Paid"), "ok"),
    Payment.Status.FAILED: (_("Declined"), "danger"),
    Payment.Status.EXPIRED: (_("Given up"), ""),
}
PAYMENT_KINDS: Mapping[str, Any] = {
    Payment.Kind.CHECKOUT: _("Top-up by card"),
    Payment.Kind.AUTO_RELOAD: _("Auto-reload"),
    Payment.Kind.TRANSFER: _("Bank transfer"),
    Payment.Kind.INVOICE: _("Invoice by card"),
}
REFUND_STATES: Mapping[str, tuple[Any, str]] = {
    PaymentReversal.Status.ASKED: (_("On its way"), "warn"),
    PaymentReversal.Status.DONE: (_("Given back"), "ok"),
    PaymentReversal.Status.FAILED: (_("Failed"), "danger"),
}
CODE_STATES: Mapping[str, tuple[Any, str]] = {
    OPEN: (_("Can be redeemed"), "ok"),
    USED_UP: (_("Used up"), ""),
    ENDED: (_("Ended"), ""),
    WITHDRAWN: (_("Revoked"), "danger"),
}


def list_payments(*, wanted: str, status: str) -> QuerySet[Payment]:
    """Payments of all tenants, or those of a tenant's or a payment's public id."""
    rows = Payment.objects.select_related("tenant").order_by("-pk")
    if status in Payment.Status.values:
        rows = rows.filter(status=status)
    return _only(rows, wanted, payment="uuid") if wanted else rows


def list_refunds(*, wanted: str, status: str) -> QuerySet[PaymentReversal]:
    """Refunds of all payments, or those of a tenant's or a payment's public id."""
    rows = PaymentReversal.objects.select_related("tenant", "payment").order_by("-pk")
    if status in PaymentReversal.Status.values:
        rows = rows.filter(status=status)
    return _only(rows, wanted, payment="payment__uuid") if wanted else rows


def list_misfits(*, limit: int) -> list[PaymentEvent]:
    """What providers said that fitted no order: a person looks at it."""
    rows = PaymentEvent.objects.filter(outcome=PaymentEvent.Outcome.REFUSED)
    return list(rows.select_related("tenant", "payment").order_by("-pk")[:limit])


def sum_payments(*, since: datetime) -> list[dict[str, Any]]:
    """What was paid since then in each currency, and what of it went back."""
    rows = Payment.objects.filter(status=Payment.Status.PAID, created_at__gte=since)
    sums = rows.values("currency").annotate(
        paid_nano=Sum("amount_nano"), refunded_nano=Sum("refunded_nano"), payments=Count("pk")
    )
    return [dict(row) for row in sums.order_by("currency")]


def list_codes(*, state: str, batch: UUID | None, at: datetime) -> QuerySet[RedemptionCode]:
    """Codes in a state, or of a batch."""
    rows = RedemptionCode.objects.order_by("-pk")
    if batch is not None:
        rows = rows.filter(batch=batch)
    lives = Q(withdrawn_at=None)
    is_used_up = Q(uses__gte=F("uses_max"))
    is_over = Q(ends_at__lte=at)
    conditions = {
        OPEN: lives & ~is_used_up & (Q(ends_at=None) | Q(ends_at__gt=at)),
        USED_UP: lives & is_used_up,
        ENDED: lives & ~is_used_up & is_over,
        WITHDRAWN: ~lives,
    }
    return rows.filter(conditions[state]) if state in conditions else rows


def state_of_code(row: RedemptionCode, at: datetime) -> str:
    """Whether a code can be redeemed, and why not."""
    if row.withdrawn_at is not None:
        return WITHDRAWN
    if row.uses >= row.uses_max:
        return USED_UP
    return ENDED if row.ends_at is not None and row.ends_at <= at else OPEN


def _only(rows: QuerySet[Any], wanted: str, *, payment: str) -> QuerySet[Any]:
    kinds = ((Payment.parse_public_id, payment), (Tenant.parse_public_id, "tenant__uuid"))
    for parse, name in kinds:
        with contextlib.suppress(ValueError):
            return rows.filter(**{name: parse(wanted)})
    return rows.none()
