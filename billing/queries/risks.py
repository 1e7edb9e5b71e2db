"""Tenants that somebody should look at: suspended, short of money, or at their limits."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from accounts.models import Tenant, TenantStatus
from billing.models.ledger import Wallet
from billing.queries.live import RATE_LIMITED, count_outcomes
from billing.queries.overall import charged_by_tenant, charged_this_month, days_until

WATCHED_MAX = 100
SHOWN_MAX = 8
PACE_DAYS = 7
DAYS_LEFT_MIN = 3
BUDGET_USED_PERCENT = 80
RATE_LIMITED_HOURS = 2
SUSPENDED, LOW_CREDIT, NO_CREDIT = "suspended", "low_credit", "no_credit"
BUDGET, LIMITS = "budget", "limits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """Why a tenant is worth a look; `number` belongs to the kind: days, percent, refusals."""

    tenant: Tenant
    kind: str
    number: int
    available_nano: int
    currency: str


def list_risks(*, now: datetime) -> list[Risk]:
    """The most urgent first. Raises redis.RedisError where Redis is away."""
    since, until = days_until(now, count=PACE_DAYS)
    pace = charged_by_tenant(tenants=None, since=since, until=until)
    busiest = sorted(pace, key=lambda number: -pace[number])[:WATCHED_MAX]
    tenants = Tenant.objects.select_related("wallet").in_bulk(busiest)
    month = charged_this_month(busiest, now=now)
    limited = count_outcomes(busiest, hours=RATE_LIMITED_HOURS)
    found = []
    for number in busiest:
        tenant = tenants.get(number)
        if tenant is not None and tenant.status == TenantStatus.ACTIVE:
            refused = limited[number].get(RATE_LIMITED, 0)
            found += _risks(tenant, pace[number], month.get(number, 0), refused)
    suspended = Tenant.objects.filter(status=TenantStatus.SUSPENDED).select_related("wallet")
    found += [_risk(tenant, SUSPENDED, 0) for tenant in suspended.order_by("-pk")[:SHOWN_MAX]]
    order = (NO_CREDIT, LOW_CREDIT, BUDGET, LIMITS, SUSPENDED)
    return sorted(found, key=lambda risk: order.index(risk.kind))[:SHOWN_MAX]


def wallet_of(tenant: Tenant) -> Wallet:
    """A tenant's wallet; an empty one where nothing was ever posted."""
    found: Wallet | None = getattr(tenant, "wallet", None)
    return found or Wallet()


def _risks(tenant: Tenant, week_nano: int, month_nano: int, refused: int) -> list[Risk]:
    wallet = wallet_of(tenant)
    available = wallet.balance_nano + wallet.credit_limit_nano
    budget = tenant.monthly_budget_nano
    found = []
    if available <= 0:
        found.append(_risk(tenant, NO_CREDIT, 0))
    elif week_nano > 0 and available * PACE_DAYS < week_nano * DAYS_LEFT_MIN:
        found.append(_risk(tenant, LOW_CREDIT, available * PACE_DAYS // week_nano))
    if budget and month_nano * 100 >= budget * BUDGET_USED_PERCENT:
        found.append(_risk(tenant, BUDGET, month_nano * 100 // budget))
    if refused:
        found.append(_risk(tenant, LIMITS, refused))
    return found


def _risk(tenant: Tenant, kind: str, number: int) -> Risk:
    wallet = wallet_of(tenant)
    values: Mapping[str, Any] = {
        "available_nano": wallet.balance_nano + wallet.credit_limit_nano,
        "currency": wallet.currency,
    }
    return Risk(tenant=tenant, kind=kind, number=number, **values)
