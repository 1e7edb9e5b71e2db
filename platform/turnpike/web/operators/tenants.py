"""Tenants: who they are, what they may, what they have; and making a new one."""

import contextlib
from typing import Any

from django import forms
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.console.operators import OperatorPage, ReasonForm
from accounts.models import EMAIL_LENGTH_MAX, NAME_LENGTH_MAX, Member, Role, Tenant, TenantStatus
from accounts.services.invite_letters import invitation_address
from accounts.services.members import SentInvite, invite_member
from accounts.services.settings import check_reason
from accounts.services.tenants import create_tenant
from billing.models.tiers import DEFAULT_TIER, Tier
from billing.queries.overall import charged_by_tenant, days_until
from billing.queries.risks import wallet_of
from billing.services.tiers import set_tier
from turnpike.control.pages import parse_bigint
from turnpike.kernel import clock, ids
from turnpike.kernel.errors import InvalidInput
from turnpike.web.operators.words import MODES, STATES

SHOWN = 25
SEARCH_LENGTH_MAX = 100
MATCHED_MAX = 500


class NewTenantForm(ReasonForm):
    """A new tenant. Its owner is invited if an address is given."""

    name = forms.CharField(label=gettext_lazy("Name"), max_length=NAME_LENGTH_MAX)
    tier = forms.ChoiceField(label=gettext_lazy("Tier"), initial=DEFAULT_TIER)
    owner_email = forms.EmailField(
        label=gettext_lazy("Owner's email address"),
        max_length=EMAIL_LENGTH_MAX,
        required=False,
        help_text=gettext_lazy("Gets an invitation, whose link is shown to you once."),
        widget=forms.EmailInput(attrs={"autocomplete": "off"}),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["tier"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = list(Tier.objects.order_by("pk").values_list("code", "name"))


class TenantsPage(OperatorPage):
    """All tenants, newest first."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """One page of them, narrowed by what stands in the address."""
        searched = request.GET.get("q", "").strip()[:SEARCH_LENGTH_MAX]
        if searched.startswith(f"{ids.TENANT}_"):
            return redirect("operator-tenant", tenant_id=searched)
        return self._show()

    def post(self, request: HttpRequest) -> HttpResponse:
        """Make a tenant; the link of its owner's invitation is shown once."""
        form = NewTenantForm(request.POST)
        if not form.is_valid():
            return self._show(form=form, status=400)
        values = form.cleaned_data
        try:
            reason = check_reason(values["reason"])
            tenant = create_tenant(caller=self.caller, name=values["name"], reason=reason)
        except InvalidInput as error:
            form.refuse(error)
            return self._show(form=form, status=400)
        set_tier(tenant=tenant.pk, tier=values["tier"], actor=self.caller, reason=reason)
        if not values["owner_email"]:
            return self.done(
                _("The tenant was created."),
                to=reverse("operator-tenant", args=[tenant.public_id]),
            )
        sent = invite_member(
            caller=self.caller, tenant=tenant, email=values["owner_email"], role=Role.OWNER
        )
        return self._show(made=tenant, sent=sent)

    def _show(
        self,
        *,
        form: NewTenantForm | None = None,
        made: Tenant | None = None,
        sent: SentInvite | None = None,
        status: int = 200,
    ) -> HttpResponse:
        chosen = {
            name: self.request.GET.get(name, "")[:SEARCH_LENGTH_MAX]
            for name in ("q", "status", "tier")
        }
        rows = list(self._rows(chosen)[: SHOWN + 1])
        return self.page(
            "operator/tenants.html",
            {
                "tenants": describe(rows[:SHOWN]),
                "next": rows[SHOWN - 1].pk if len(rows) > SHOWN else None,
                "chosen": chosen,
                "is_filtered": any(chosen.values()),
                "statuses": STATES.items(),
                "tiers": Tier.objects.order_by("pk"),
                "form": form or NewTenantForm(),
                "is_new": form is not None or "new" in self.request.GET,
                "made": made,
                "link": invitation_address(sent.token) if sent is not None else "",
            },
            status=status,
        )

    def _rows(self, chosen: dict[str, str]) -> QuerySet[Tenant]:
        rows = Tenant.objects.select_related("wallet", "subscription__tier").order_by("-pk")
        if chosen["status"] in TenantStatus.values:
            rows = rows.filter(status=chosen["status"])
        if chosen["tier"]:
            rows = rows.filter(subscription__tier__code=chosen["tier"])
        text = chosen["q"].strip()
        if text and text.isprintable():
            members = Member.objects.filter(user__email__icontains=text).values("tenant")
            rows = rows.filter(Q(name__icontains=text) | Q(pk__in=members[:MATCHED_MAX]))
        with contextlib.suppress(KeyError, ValueError):
            rows = rows.filter(pk__lt=parse_bigint(self.request.GET["before"]))
        return rows


def describe(rows: list[Tenant]) -> list[dict[str, Any]]:
    """Tenants as lists show them, with what they were charged in 30 days: one query more."""
    since, until = days_until(clock.utc_now())
    charged = charged_by_tenant(tenants=[row.pk for row in rows], since=since, until=until)
    found = []
    for row in rows:
        wallet, subscription = wallet_of(row), getattr(row, "subscription", None)
        title, tone = STATES[row.status]
        found.append(
            {
                "row": row,
                "status": title,
                "tone": tone,
                "tier": subscription.tier.name if subscription is not None else "",
                "mode": MODES[wallet.mode],
                "available_nano": wallet.balance_nano + wallet.credit_limit_nano,
                "currency": wallet.currency,
                "charged_nano": charged.get(row.pk, 0),
            }
        )
    return found
