"""Settings: the organization's name and budgets."""

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.access import access_tenant
from accounts.console.limited import BudgetsForm, budgets_initial
from accounts.console.pages import TenantPage
from accounts.models import Tenant
from accounts.services.tenants import update_tenant
from turnpike.control.caller import Power
from turnpike.control.forms import AmountField
from turnpike.kernel.errors import InvalidInput


class TenantForm(BudgetsForm):
    """What an organization says of itself, and how much it may spend."""

    name = forms.CharField(label=gettext_lazy("Name"), max_length=100)
    daily_budget_nano = AmountField(
        label=gettext_lazy("Budget for a day"),
        required=False,
        help_text=gettext_lazy("In dollars, for a UTC day; empty: none."),
    )
    monthly_budget_nano = AmountField(
        label=gettext_lazy("Budget for a month"),
        required=False,
        help_text=gettext_lazy("In dollars, for a UTC month; empty: none."),
    )


class SettingsPage(TenantPage):
    """The organization's settings."""

    powers = {"GET": Power.TENANT_READ, "POST": Power.TENANT_WRITE}
    proved = frozenset({"POST"})

    def get(self, _request: HttpRequest) -> HttpResponse:
        """What is set."""
        tenant = access_tenant(self.caller, power=Power.TENANT_READ)
        return self._show(tenant, TenantForm(initial=_initial(tenant)))

    def post(self, request: HttpRequest) -> HttpResponse:
        """Change it; holds from the next request."""
        tenant = access_tenant(self.caller, power=Power.TENANT_WRITE)
        form = TenantForm(request.POST)
        if not form.is_valid():
            return self._show(tenant, form, status=400)
        try:
            update_tenant(caller=self.caller, tenant=tenant, changes=form.cleaned_data)
        except InvalidInput as error:
            form.refuse(error)
            return self._show(tenant, form, status=400)
        return self.done(_("The settings were saved. They hold from the next request on."))

    def _show(self, tenant: Tenant, form: TenantForm, *, status: int = 200) -> HttpResponse:
        return self.page(
            "accounts/settings.html",
            {
                "tenant": tenant,
                "form": form,
                "can_write": self.caller.has_power(Power.TENANT_WRITE),
            },
            status=status,
        )


def _initial(tenant: Tenant) -> dict[str, Any]:
    return {"name": tenant.name, **budgets_initial(tenant)}
