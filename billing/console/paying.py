"""Adding money: a top-up by card, auto-reload, a code. Each wants a fresh proof of identity."""

from typing import Any

from django import forms
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.console.pages import TenantPage
from billing.models.payments import CreditPlan
from billing.queries.documents import get_document
from billing.services.billing_details import details_of, find_default_seller
from billing.services.payments.orders import start_invoice_payment, start_top_up
from billing.services.payments.plans import WARN_DAYS_MAX, plan_of, set_plan
from billing.services.payments.registry import has_stripe
from billing.services.redemption import TYPED_LENGTH_MAX, redeem_code
from turnpike.control.caller import Power
from turnpike.control.forms import AmountField, ConsoleForm, short_amount
from turnpike.kernel import clock, ids
from turnpike.kernel.errors import InvalidInput


class OnceForm(ConsoleForm):
    """Something that is ordered once, however often it is sent."""

    once = forms.CharField(widget=forms.HiddenInput, max_length=36)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["once"].initial = str(ids.uuid7())


class TopUpForm(OnceForm):
    """An amount that is paid by card."""

    amount_nano = AmountField(label=gettext_lazy("Amount"), initial="25.00")


class ReloadForm(ConsoleForm):
    """When the saved card is charged, and when somebody is told."""

    is_on = forms.BooleanField(label=gettext_lazy("Reload by itself"), required=False)
    threshold_nano = AmountField(label=gettext_lazy("When the balance falls below"))
    amount_nano = AmountField(label=gettext_lazy("Charge"))
    monthly_cap_nano = AmountField(label=gettext_lazy("At most in a month"))
    pays_invoices = forms.BooleanField(
        label=gettext_lazy("Pay invoices from the saved card"), required=False
    )
    warn_days = forms.IntegerField(
        label=gettext_lazy("Warn this many days before the credit ends"),
        min_value=0,
        max_value=WARN_DAYS_MAX,
        help_text=gettext_lazy("At the pace of the last week. 0: never."),
    )


class CodeForm(ConsoleForm):
    """A code that is worth credit."""

    code = forms.CharField(
        label=gettext_lazy("Code"),
        max_length=TYPED_LENGTH_MAX,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )


def paying_context(tenant: int) -> dict[str, Any]:
    """What the billing page needs to offer the three."""
    plan = plan_of(tenant)
    seller = details_of(tenant).seller or find_default_seller()
    return {
        "plan": plan,
        "has_cards": has_stripe(),
        "transfer_details": seller.payment_details if seller is not None else "",
        "top_up_form": TopUpForm(),
        "reload_form": ReloadForm(initial=_initial(plan)),
        "code_form": CodeForm(),
    }


def _initial(plan: CreditPlan) -> dict[str, Any]:
    return {
        "is_on": plan.is_on,
        "threshold_nano": short_amount(plan.threshold_nano),
        "amount_nano": short_amount(plan.amount_nano),
        "monthly_cap_nano": short_amount(plan.monthly_cap_nano),
        "pays_invoices": plan.pays_invoices,
        "warn_days": plan.warn_days,
    }


class _PayingPage(TenantPage):
    """A change that is asked for on the billing page."""

    powers = {"POST": Power.BILLING_WRITE}
    proved = frozenset({"POST"})

    def back(self) -> str:
        """The billing page."""
        return reverse("console-billing")

    def refused(self, form: forms.Form) -> HttpResponse:
        """Say what is wrong at the first field that is."""
        for name, errors in form.errors.items():
            label = "" if name == "__all__" else f"{form.fields[name].label}: "
            raise InvalidInput(f"{label}{' '.join(map(str, errors))}", field=name)
        raise Http404


class TopUpPage(_PayingPage):
    """Paying by card."""

    def post(self, request: HttpRequest) -> HttpResponse:
        """Lead to the provider's page."""
        form = TopUpForm(request.POST)
        if not form.is_valid():
            return self.refused(form)
        started = start_top_up(
            tenant=self.tenant,
            amount=form.cleaned_data["amount_nano"] or 0,
            key=form.cleaned_data["once"],
            caller=self.caller,
            return_url=f"{settings.PUBLIC_BASE_URL}{self.back()}",
            at=clock.utc_now(),
        )
        return redirect(started.url)


class PayInvoicePage(_PayingPage):
    """Paying an invoice by card."""

    def back(self) -> str:
        """The invoice."""
        return reverse("console-invoice", args=[self.kwargs["invoice_id"]])

    def post(self, request: HttpRequest, invoice_id: str) -> HttpResponse:
        """Lead to the provider's page."""
        form = OnceForm(request.POST)
        if not form.is_valid():
            return self.refused(form)
        started = start_invoice_payment(
            invoice=get_document(tenant=self.tenant, public_id=invoice_id),
            key=form.cleaned_data["once"],
            caller=self.caller,
            return_url=f"{settings.PUBLIC_BASE_URL}{self.back()}",
            at=clock.utc_now(),
        )
        return redirect(started.url)


class ReloadPage(_PayingPage):
    """Auto-reload and the warning."""

    def post(self, request: HttpRequest) -> HttpResponse:
        """Change them."""
        form = ReloadForm(request.POST)
        if not form.is_valid():
            return self.refused(form)
        values = form.cleaned_data
        set_plan(
            tenant=self.tenant,
            is_on=values["is_on"],
            threshold=values["threshold_nano"] or 0,
            amount=values["amount_nano"] or 0,
            monthly_cap=values["monthly_cap_nano"] or 0,
            warn_days=values["warn_days"],
            pays_invoices=values["pays_invoices"],
            caller=self.caller,
        )
        return self.done(_("Saved. It holds from now on."))


class RedeemPage(_PayingPage):
    """Turning a code into credit."""

    def post(self, request: HttpRequest) -> HttpResponse:
        """Redeem it."""
        form = CodeForm(request.POST)
        if not form.is_valid():
            return self.refused(form)
        redeem_code(
            tenant=self.tenant,
            words=form.cleaned_data["code"],
            caller=self.caller,
            at=clock.utc_now(),
        )
        return self.done(_("The code was redeemed. The credit can be spent."))
