"""One tenant, in tabs: what it is, has, may and did."""

from typing import Any
from uuid import UUID

from allauth.mfa.models import Authenticator
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _
from redis import RedisError

from accounts.access import access_any_tenant
from accounts.console import audit
from accounts.console.operators import OperatorPage, ReasonForm
from accounts.console.words import ROLES
from accounts.models import ApiKey, AuditEvent, Member, Tenant, TenantStatus, Workspace
from billing.console.charts import sparkline, stacked_bars
from billing.console.limits import level_row, limits_of
from billing.console.logs import rows_of
from billing.console.money import posting_of
from billing.console.usage import by_bucket, period_of, tokens_of
from billing.queries.balance import list_grants, list_ledger, read_balance
from billing.queries.limits import read_limits
from billing.queries.live import count_outcomes, read_open_requests
from billing.queries.overall import charged_by_tenant, days_until
from billing.queries.requests import RequestFilter, list_requests
from billing.queries.risks import wallet_of
from billing.queries.usage import UsageQuery, last_used_at, sum_span, sum_usage, total
from billing.snapshots import tier_of_tenant
from turnpike.contracts.snapshots import LIMIT_NAMES, Limits
from turnpike.control import formats
from turnpike.control.pages import parse_bigint
from turnpike.control.scope import tenant_scope
from turnpike.kernel import clock
from turnpike.kernel.errors import NotFound
from turnpike.web.keys import describe as describe_key
from turnpike.web.operators.tenant_changes import CHANGES, find_subscription, initial_of
from turnpike.web.operators.tenant_forms import LimitsForm
from turnpike.web.operators.words import ADMISSIONS, LIMITS, MODES, STATES

SHOWN = 50
KEYS_SHOWN_MAX = 200
OUTCOME_HOURS = 24

TABS = {
    "overview": _("Overview"),
    "keys": _("API keys"),
    "members": _("Members"),
    "limits": _("Limits"),
    "billing": _("Billing"),
    "requests": _("Requests"),
    "audit": _("Audit log"),
}


class TenantPage(OperatorPage):
    """A tenant's tab."""

    def get(self, request: HttpRequest, tenant_id: str, tab: str = "overview") -> HttpResponse:
        """What stands on it."""
        if tab not in TABS:
            raise Http404
        tenant = access_any_tenant(self.caller, tenant_id)
        subscription = find_subscription(tenant.pk)
        title, tone = STATES[tenant.status]
        context = {
            "tenant": tenant,
            "section": "operator-tenants",
            "status": title,
            "tone": tone,
            "subscription": subscription,
            "wallet": wallet_of(tenant),
            "balance": read_balance(tenant.pk),
            "mode": MODES[wallet_of(tenant).mode],
            "tabs": TABS.items(),
            "tab": tab,
            "view_form": ReasonForm(auto_id="view_%s"),
            "changes": self._changes(tenant, tab),
        }
        # As the tenant itself would see it, so that no other one's rows can slip in.
        with tenant_scope(tenant.pk):
            context |= getattr(self, f"_{tab}")(tenant)
        return self.page(f"operator/tenant_{tab}.html", context)

    def _changes(self, tenant: Tenant, tab: str) -> list[dict[str, Any]]:
        if tenant.status == TenantStatus.CLOSED:
            return []
        hidden = {"suspend"} if tenant.status == TenantStatus.SUSPENDED else {"restore"}
        initial = initial_of(wallet_of(tenant), find_subscription(tenant.pk))
        found = []
        for name, change in CHANGES.items():
            if change.tab != tab or name in hidden:
                continue
            more = {"shown": _tier_limits(tenant)} if change is LimitsForm else {}
            form = change(initial=initial, auto_id=f"{name}_%s", **more)
            found.append({"name": name, "form": form})
        return found

    def _overview(self, tenant: Tenant) -> dict[str, Any]:
        now = clock.utc_now()
        since, today = days_until(now)
        period = period_of("30d")
        query = UsageQuery(
            tenant=tenant.pk, since=period.since, until=period.until, width=period.width
        )
        rows = sum_usage(query)
        days = by_bucket(rows, period.starts)
        labels = [formats.day_short(at) for at in period.starts]
        month = total(sum_span(tenant=tenant.pk, since=today.replace(day=1), until=now))
        charged = charged_by_tenant(tenants=[tenant.pk], since=since, until=today)
        amounts = [day["amount_nano"] for day in days]
        return {
            "charged_nano": charged.get(tenant.pk, 0),
            "month_nano": month["amount_nano"],
            "requests_count": sum(day["requests"] for day in days),
            "tokens_count": sum(map(tokens_of, days)),
            "requests_spark": sparkline([day["requests"] for day in days]),
            "chart": stacked_bars(labels=labels, series={str(_("Charged")): amounts}, is_money=True)
            if any(amounts)
            else None,
            "keys_count": ApiKey.objects.filter(tenant=tenant, revoked_at=None).count(),
            "members_count": Member.objects.filter(tenant=tenant).count(),
            "workspaces_count": Workspace.objects.filter(tenant=tenant, archived_at=None).count(),
            **self._now(tenant),
        }

    def _now(self, tenant: Tenant) -> dict[str, Any]:
        try:
            counts = count_outcomes([tenant.pk], hours=OUTCOME_HOURS)[tenant.pk]
            return {
                "running": read_open_requests(tenant=tenant.pk),
                "outcomes": [
                    (ADMISSIONS.get(name, name), count)
                    for name, count in sorted(counts.items(), key=lambda item: -item[1])
                ],
            }
        except RedisError:
            return {"is_away": True}

    def _keys(self, tenant: Tenant) -> dict[str, Any]:
        now = clock.utc_now()
        month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        spent = {
            row.words["api_key_id"]: row.sums["amount_nano"]
            for row in sum_span(tenant=tenant.pk, since=month, until=now, group_by=("api_key_id",))
        }
        used = last_used_at(tenant=tenant.pk, since=days_until(now)[0])
        rows = ApiKey.objects.filter(tenant=tenant).select_related("workspace", "created_by")
        return {
            "keys": [
                describe_key(row, now, spent_nano=spent.get(row.pk, 0), used_at=used.get(row.pk))
                for row in rows.order_by("revoked_at", "-pk")[:KEYS_SHOWN_MAX]
            ]
        }

    def _members(self, tenant: Tenant) -> dict[str, Any]:
        rows = list(Member.objects.filter(tenant=tenant).select_related("user").order_by("pk"))
        users = [row.user_id for row in rows]
        factors = Authenticator.objects.filter(user__in=users).exclude(
            type=Authenticator.Type.RECOVERY_CODES
        )
        protected = set(factors.values_list("user_id", flat=True))
        return {
            "members": [
                {"row": row, "role": ROLES[row.role], "is_protected": row.user_id in protected}
                for row in rows
            ]
        }

    def _limits(self, tenant: Tenant) -> dict[str, Any]:
        found = _terms(tenant)
        if found is None:
            return {"limits": []}
        own, groups = limits_of(found)
        overrides = found.terms.overrides
        context: dict[str, Any] = {
            "limits": [
                {
                    "title": LIMITS[name],
                    "tier": getattr(found.tier.limits, name),
                    "own": getattr(overrides, name),
                    "holds": getattr(own, name),
                }
                for name in LIMIT_NAMES
            ],
            "tier_name": found.tier.name,
            "terms": found.terms,
        }
        try:
            levels = read_limits(tenant.pk, own=own, groups=groups)
            context["levels"] = [level_row(level) for item in levels[:1] for level in item.levels]
        except RedisError:
            context["is_away"] = True
        return context

    def _billing(self, tenant: Tenant) -> dict[str, Any]:
        rows = list_ledger(tenant.pk).order_by("-pk")
        before = _number(self.request.GET.get("before", ""))
        found = list((rows.filter(pk__lt=before) if before else rows)[: SHOWN + 1])
        grants = list_grants(tenant.pk)
        return {
            "grants": grants,
            "granted_nano": sum(grant.account.balance_nano for grant in grants),
            "postings": [posting_of(row) for row in found[:SHOWN]],
            "next": found[SHOWN - 1].pk if len(found) > SHOWN else None,
        }

    def _requests(self, tenant: Tenant) -> dict[str, Any]:
        rows = list_requests(
            tenant=tenant.pk,
            chosen=RequestFilter(),
            after=_uuid(self.request.GET.get("after", "")),
            limit=SHOWN + 1,
        )
        shown = rows[:SHOWN]
        numbers = {row["api_key_id"] for row in shown}
        keys = {key.pk: key for key in ApiKey.objects.filter(pk__in=numbers)}
        return {
            "requests": rows_of(shown, keys),
            "next": str(shown[-1]["request_id"]) if len(rows) > SHOWN else "",
        }

    def _audit(self, tenant: Tenant) -> dict[str, Any]:
        rows = AuditEvent.objects.filter(tenant=tenant).order_by("-pk")
        before = _number(self.request.GET.get("before", ""))
        found = list((rows.filter(pk__lt=before) if before else rows)[: SHOWN + 1])
        return {
            "events": audit.describe(found[:SHOWN]),
            "next": found[SHOWN - 1].pk if len(found) > SHOWN else None,
        }


def _terms(tenant: Tenant) -> Any:
    try:
        return tier_of_tenant(tenant.pk)
    except NotFound:
        return None


def _tier_limits(tenant: Tenant) -> Limits | None:
    found = _terms(tenant)
    return found.tier.limits if found is not None else None


def _number(text: str) -> int | None:
    try:
        return parse_bigint(text)
    except ValueError:
        return None


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
