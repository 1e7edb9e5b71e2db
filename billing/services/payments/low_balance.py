"""warn_low_balances: says how many days a balance lasts at the last week's pace."""

from datetime import datetime, timedelta

from django.db.models import Q
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from accounts.models import TenantStatus
from accounts.services.notices import BALANCE
from accounts.services.webhook_events import BALANCE_LOW, emit_event
from billing.models.ledger import Wallet
from billing.models.payments import CreditPlan
from billing.queries.overall import charged_by_tenant, days_until
from billing.services.payments.letters import Words, notify_about_money
from turnpike.control.scope import platform_scope

PACE_DAYS = 7
AT_ONCE_MAX = 200
# A balance that hovers at the line is not worth a message each hour.
AGAIN_AFTER = timedelta(days=7)


def days_left(*, available: int, week: int) -> int | None:
    """For how many whole days something lasts at a week's pace; None where nothing is used."""
    if week <= 0:
        return None
    return max(0, available * PACE_DAYS // week)


def warn_low_balances(*, at: datetime) -> int:
    """Write to prepaid tenants whose balance ends within the days they chose, once a dip."""
    with platform_scope("billing.warn_low_balances"):
        since, until = days_until(at, count=PACE_DAYS)
        pace = charged_by_tenant(tenants=None, since=since, until=until)
        # Who was told lately, or wants to hear nothing, keeps nobody else waiting.
        quiet = CreditPlan.objects.filter(Q(warned_at__gt=at - AGAIN_AFTER) | Q(warn_days=0))
        silent = set(quiet.values_list("tenant_id", flat=True))
        busy = [tenant for tenant, week in pace.items() if week > 0 and tenant not in silent]
        wallets = Wallet.objects.filter(
            tenant_id__in=busy, mode=Wallet.Mode.PREPAID, tenant__status=TenantStatus.ACTIVE
        )
        low = []
        for wallet in wallets:
            available = wallet.balance_nano + wallet.credit_limit_nano
            left = days_left(available=available, week=pace[wallet.tenant_id])
            if left is not None:
                low.append((left, wallet.tenant_id))
    return sum(_warn(tenant, left, at) for left, tenant in sorted(low)[:AT_ONCE_MAX])


def _warn(tenant: int, left: int, at: datetime) -> bool:
    with platform_scope("billing.warn_low_balance"):
        CreditPlan.objects.get_or_create(tenant_id=tenant)
        plan = CreditPlan.objects.select_for_update().select_related("tenant").get(pk=tenant)
        recently = plan.warned_at is not None and plan.warned_at > at - AGAIN_AFTER
        if not plan.warn_days or left >= plan.warn_days or recently:
            return False
        plan.warned_at = at
        plan.save(update_fields=["warned_at"])
        emit_event(
            tenant=tenant,
            kind=BALANCE_LOW,
            data={"days_left": left},
            key=f"low_balance:{tenant}:{at:%Y%m%d%H}",
        )
        notify_about_money(
            tenant=plan.tenant,
            notice=BALANCE,
            key=f"low_balance:{tenant}:{at:%Y%m%d%H}",
            kind="low_balance",
            words=lambda: _words(plan.tenant.name, left),
        )
    return True


def _words(name: str, left: int) -> Words:
    said = ngettext(
        "At the pace of the last week it lasts for less than %(count)d day.",
        "At the pace of the last week it lasts for less than %(count)d days.",
        left + 1,
    )
    return Words(
        subject=_("The credit of %(name)s runs low") % {"name": name},
        paragraphs=(
            said % {"count": left + 1},
            _("Requests are refused once the credit is used up. Top up, or turn auto-reload on."),
        ),
    )
