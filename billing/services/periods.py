"""period_for: the month that a tenant's usage belongs to, made on demand."""

from datetime import UTC, datetime

from billing.models.ledger import BillingPeriod


def period_for(tenant: int, at: datetime) -> BillingPeriod:
    """The period of an instant, or where that is closed the tenant's oldest open one.

    Take `locks.share_period` on it, and ask again if it was closed in between.
    """
    starts_at = month_of(at)
    period = _get_or_make(tenant, starts_at)
    while period.state == BillingPeriod.State.CLOSED:
        later = BillingPeriod.objects.filter(tenant_id=tenant).exclude(
            state=BillingPeriod.State.CLOSED
        )
        found = later.order_by("starts_at").first()
        period = found or _get_or_make(tenant, period.ends_at)
    return period


def month_of(at: datetime) -> datetime:
    """The first instant of the UTC month that contains an instant."""
    assert at.tzinfo is not None
    return at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _get_or_make(tenant: int, starts_at: datetime) -> BillingPeriod:
    found = BillingPeriod.objects.filter(tenant_id=tenant, starts_at=starts_at).first()
    if found is not None:
        return found
    years, month = divmod(starts_at.month, 12)
    ends_at = starts_at.replace(year=starts_at.year + years, month=month + 1)
    BillingPeriod.objects.bulk_create(
        [BillingPeriod(tenant_id=tenant, starts_at=starts_at, ends_at=ends_at)],
        ignore_conflicts=True,
    )
    return BillingPeriod.objects.get(tenant_id=tenant, starts_at=starts_at)
