"""What operators can do to a tenant: with a reason, audited, in force from the next request."""

from collections.abc import Mapping
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse

from accounts.access import access_any_tenant
from accounts.console.operators import OperatorPage
from billing.models.catalog import DEFAULT_BOOK
from billing.models.ledger import Wallet
from billing.models.tiers import Subscription
from turnpike.control.forms import short_amount
from turnpike.web.operators import tenant_forms, tenant_money_forms
from turnpike.web.operators.tenant_forms import TenantForm

# By the name that stands in the address, in the order in which they are shown.
CHANGES: Mapping[str, type[TenantForm]] = {
    "suspend": tenant_forms.SuspendForm,
    "restore": tenant_forms.RestoreForm,
    "grant": tenant_money_forms.GrantForm,
    "transfer": tenant_money_forms.TransferForm,
    "payment": tenant_money_forms.PaymentForm,
    "prices": tenant_money_forms.PricesForm,
    "tier": tenant_forms.TierForm,
    "limits": tenant_forms.LimitsForm,
    "disconnect": tenant_forms.DisconnectForm,
    "close": tenant_forms.CloseForm,
}


class ChangeTenantPage(OperatorPage):
    """Doing one of these things."""

    def back(self) -> str:
        """The tab from which it was done."""
        change = CHANGES.get(self.kwargs["change"], TenantForm)
        return tab_address(self.kwargs["tenant_id"], change.tab)

    def post(self, request: HttpRequest, tenant_id: str, change: str) -> HttpResponse:
        """Do it; it holds from the next request."""
        if change not in CHANGES:
            raise Http404
        tenant = access_any_tenant(self.caller, tenant_id)
        form = CHANGES[change](request.POST)
        if not form.is_valid():
            return self.refused(form)
        form.apply(self.caller, tenant)
        return self.done(form.done)


def tab_address(tenant_id: str, tab: str) -> str:
    """Where a tab of a tenant is."""
    if tab == "overview":
        return reverse("operator-tenant", args=[tenant_id])
    return reverse("operator-tenant-tab", args=[tenant_id, tab])


def find_subscription(tenant: int) -> Subscription | None:
    """A tenant's subscription with its tier and book."""
    rows = Subscription.objects.select_related("tier", "book")
    return rows.filter(tenant_id=tenant).first()


def initial_of(wallet: Wallet, subscription: Subscription | None) -> dict[str, Any]:
    """What the forms begin with: what holds now."""
    found: dict[str, Any] = {
        "mode": wallet.mode,
        "credit_limit_nano": short_amount(wallet.credit_limit_nano),
        "book": DEFAULT_BOOK,
        "discount_percent": "0.00",
    }
    if subscription is None:
        return found
    bp, book = subscription.discount_bp, subscription.book
    return found | {
        "tier": subscription.tier.code,
        "book": book.name if book is not None else DEFAULT_BOOK,
        "discount_percent": f"{bp // 100}.{bp % 100:02d}",
        "on_disconnect": subscription.on_disconnect,
        "drain_seconds": subscription.drain_seconds,
        **subscription.overrides,
    }
