"""The forms with which operators change a tenant's money: what it has, how it pays, its prices."""

from datetime import UTC, datetime, time, timedelta
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from accounts.console.operators import OnceForm
from accounts.models import Tenant
from billing.models.catalog import DEFAULT_BOOK, PriceBook
from billing.services import tiers, wallet
from billing.services.payments.orders import record_transfer
from turnpike.control.caller import Caller
from turnpike.control.forms import AmountField, set_choices
from turnpike.kernel import clock
from turnpike.kernel.errors import InvalidInput
from turnpike.web.operators.tenant_forms import TenantForm
from turnpike.web.operators.words import MODES

BASIS_POINTS_OF_PERCENT = 100


class GrantForm(TenantForm, OnceForm):
    """Credit that is given away."""

    tab = "billing"
    title = _("Grant credit")
    note = _("Used before what was paid; booked as an expense of yours")
    icon = "coins"
    done = _("The credit was granted.")

    amount_nano = AmountField(label=_("Amount"), help_text=_("In the currency of the wallet."))
    expires_on = forms.DateField(
        label=_("Expires after"),
        required=False,
        help_text=_("Empty: never. What is left is taken back at the end of that day, UTC."),
        widget=forms.DateInput(attrs={"type": "date"}),
    )

    def apply(self, caller: Caller, tenant: Tenant) -> None:
        """Give it credit, once however often the form is sent."""
        day = self.cleaned_data["expires_on"]
        end = None if day is None else datetime.combine(day, time(tzinfo=UTC)) + timedelta(days=1)
        if not self.cleaned_data["amount_nano"]:
            raise InvalidInput(str(_("An amount above zero is needed.")), field="amount_nano")
        wallet.grant_credit(
            amount=self.cleaned_data["amount_nano"],
            idempotency_key=f"operator:{tenant.pk}:{self.cleaned_data['once']}",
            expires_at=end,
            **self.ordered(caller, tenant),
        )


class TransferForm(TenantForm, OnceForm):
    """A bank transfer that arrived."""

    tab = "billing"
    title = _("Record a bank transfer")
    note = _("Money that you saw on your account; it can be spent at once")
    icon = "receipt-text"
    done = _("The transfer was credited.")

    amount_nano = AmountField(label=_("Amount"), help_text=_("In the currency of the wallet."))
    reference = forms.CharField(label=_("Reference of the transfer"), max_length=200)

    def apply(self, caller: Caller, tenant: Tenant) -> None:
        """Credit it, once however often the form is sent."""
        record_transfer(
            tenant=tenant.pk,
            amount=self.cleaned_data["amount_nano"] or 0,
            reference=self.cleaned_data["reference"],
            reason=self.why,
            key=self.cleaned_data["once"],
            caller=caller,
            at=clock.utc_now(),
        )


class PaymentForm(TenantForm):
    """How the tenant pays, and how far below zero it may go."""

    tab = "billing"
    title = _("Change how it pays")
    note = _("Prepaid or by invoice, and the credit line")
    icon = "credit-card"
    done = _("The terms of payment hold from the next request on.")

    mode = forms.ChoiceField(label=_("Pays"), choices=list(MODES.items()))
    credit_limit_nano = AmountField(
        label=_("Credit line"), help_text=_("How far the balance may go below zero.")
    )

    def apply(self, caller: Caller, tenant: Tenant) -> None:
        """Prepaid or by invoice, and the credit line."""
        limit = self.cleaned_data["credit_limit_nano"] or 0
        wallet.set_mode(mode=self.cleaned_data["mode"], **self.ordered(caller, tenant))
        wallet.set_credit_line(limit=limit, **self.ordered(caller, tenant))


class PricesForm(TenantForm):
    """Which list of prices holds for the tenant, and what is taken off."""

    tab = "billing"
    title = _("Change its prices")
    note = _("A price book and a discount; requests that run keep theirs")
    icon = "tag"
    done = _("The prices hold from the next request on.")

    book = forms.ChoiceField(label=_("Price book"), initial=DEFAULT_BOOK)
    discount_percent = forms.DecimalField(
        label=_("Discount in percent"), min_value=0, max_value=100, decimal_places=2, initial=0
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = PriceBook.objects.filter(upstream__isnull=True).order_by("pk").distinct()
        set_choices(self, "book", [(name, name) for name in names.values_list("name", flat=True)])

    def apply(self, caller: Caller, tenant: Tenant) -> None:
        """Give it another book or discount."""
        discount_bp = int(self.cleaned_data["discount_percent"] * BASIS_POINTS_OF_PERCENT)
        tiers.set_prices(
            book=self.cleaned_data["book"],
            discount_bp=min(tiers.DISCOUNT_BP_MAX, discount_bp),
            **self.ordered(caller, tenant),
        )
