"""tell_alerts: letters and webhooks about thresholds of budgets that were reached."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from django.conf import settings
from django.utils.translation import gettext as _

from accounts.models import ApiKey, Tenant, Workspace
from accounts.services.mail import Letter
from accounts.services.notices import BUDGETS, notify_members
from accounts.services.webhook_events import BUDGET_THRESHOLD_REACHED, emit_event
from billing.models.alerts import BudgetAlert
from billing.models.invoices import BillingDetails
from billing.models.ledger import Wallet
from turnpike.control import formats
from turnpike.control.scope import platform_scope
from turnpike.kernel.money import format_amount

logger = logging.getLogger(__name__)

TENANTS_MAX = 200
ALERTS_MAX = 500
PATH = "/console/usage"
KINDS = {"t": "organization", "w": "workspace", "k": "key"}
DAY_WIDTH = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scope:
    """Whose budget it is, in words."""

    kind: str
    public_id: str
    name: str


def tell_alerts(*, at: datetime) -> int:
    """Tell what was noted and not told yet, tenant by tenant; how many thresholds."""
    told, failed = 0, set[int]()
    for _turn in range(TENANTS_MAX):
        with platform_scope("tell of budgets"):
            rows = BudgetAlert.objects.filter(told_at=None).exclude(tenant_id__in=failed)
            tenant = rows.order_by("pk").values_list("tenant_id", flat=True).first()
        if tenant is None:
            break
        try:
            told += _tell_tenant(tenant, at)
        except Exception:
            # One tenant's trouble is not the others': it is tried again by the next run.
            logger.exception("budgets.not_told", extra={"tenant": tenant})
            failed.add(tenant)
    return told


def _tell_tenant(tenant: int, at: datetime) -> int:
    with platform_scope("tell of budgets"):
        rows = BudgetAlert.objects.select_for_update().filter(tenant_id=tenant, told_at=None)
        alerts = list(rows.order_by("pk")[:ALERTS_MAX])
        currency = Wallet.objects.filter(tenant_id=tenant).values_list("currency", flat=True)
        money = currency.first() or "USD"
        budgets: dict[tuple[str, str, int], list[BudgetAlert]] = defaultdict(list)
        for alert in alerts:
            budgets[alert.scope, alert.period, alert.budget_nano].append(alert)
        for reached in budgets.values():
            _tell(reached, _scope_of(reached[0]), money)
        BudgetAlert.objects.filter(pk__in=[alert.pk for alert in alerts]).update(told_at=at)
    return len(alerts)


def _tell(reached: Sequence[BudgetAlert], scope: _Scope, currency: str) -> None:
    """A webhook for each threshold; of those that were reached together one letter, the highest."""
    for alert in reached:
        emit_event(
            tenant=alert.tenant_id,
            kind=BUDGET_THRESHOLD_REACHED,
            data={
                "scope": scope.kind,
                "id": scope.public_id,
                "name": scope.name,
                "period": alert.period,
                "threshold": alert.threshold,
                "budget": format_amount(alert.budget_nano),
                "spent": format_amount(alert.spent_nano),
                "currency": currency,
                "blocks": alert.blocks,
            },
            key=f"budget:{alert.pk}",
        )
    highest = max(reached, key=lambda alert: alert.threshold)
    details = BillingDetails.objects.filter(tenant_id=highest.tenant_id).first()
    language = details.language if details is not None else settings.LANGUAGE_CODE
    notify_members(
        tenant=highest.tenant_id,
        notice=BUDGETS,
        key=f"budget:{highest.pk}",
        language=language,
        write=partial(_letter, highest, scope, currency),
    )


def _letter(alert: BudgetAlert, scope: _Scope, currency: str) -> Letter:
    is_day = len(alert.period) == DAY_WIDTH
    words = {
        "percent": alert.threshold,
        "name": scope.name,
        "period": alert.period,
        "spent": formats.money(alert.spent_nano, currency),
        "budget": formats.money(alert.budget_nano, currency),
    }
    subject = (
        _("%(percent)d %% of the day's budget of %(name)s is used")
        if is_day
        else _("%(percent)d %% of the month's budget of %(name)s is used")
    )
    return Letter(
        subject=subject % words,
        paragraphs=(
            _("%(spent)s of %(budget)s were spent in %(period)s (UTC).") % words,
            _consequence(alert),
        ),
        action=_("Look at the usage"),
        address=f"{settings.PUBLIC_BASE_URL}{PATH}",
        note=_("You choose which mails you get in the console: Settings, Mail you get."),
    )


def _consequence(alert: BudgetAlert) -> str:
    if not alert.blocks:
        return _("No request is refused: this budget only tells you.")
    if alert.threshold < 100:
        return _("A request that could pass the budget is refused.")
    return _("Requests are refused until %(time)s UTC, or until the budget is raised.") % {
        "time": _ends(alert.period).strftime("%Y-%m-%d %H:%M")
    }


def _ends(period: str) -> datetime:
    if len(period) == DAY_WIDTH:
        return datetime.fromisoformat(period).replace(tzinfo=UTC) + timedelta(days=1)
    first = datetime.fromisoformat(f"{period}-01").replace(tzinfo=UTC)
    return (first + timedelta(days=32)).replace(day=1)


def _scope_of(alert: BudgetAlert) -> _Scope:
    kind, number = alert.scope[0], alert.scope[1:]
    row: Tenant | Workspace | ApiKey
    if kind == "w":
        row = Workspace.objects.get(pk=int(number))
    elif kind == "k":
        row = ApiKey.objects.get(pk=int(number))
    else:
        row = Tenant.objects.get(pk=alert.tenant_id)
    return _Scope(kind=KINDS[kind], public_id=row.public_id, name=row.name)
