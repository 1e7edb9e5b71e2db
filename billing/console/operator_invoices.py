"""Operators' invoices: runs and drafts, what is open, and every way in which an invoice can end."""

import contextlib
from collections.abc import Callable
from typing import Any

from django import forms
from django.db.models import Count, F, Q, Sum
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.console.operators import OnceForm, OperatorPage, ReasonForm
from billing.console.exports import operator_export_links
from billing.console.invoices import line_context
from billing.models.invoices import RATE_PPM_MAX, Invoice, Seller, TaxRate
from billing.queries.documents import KINDS, STATUSES, TONES, document_uuid, sheet_of
from billing.services.billing_details import find_default_seller, set_seller, set_tax_rate
from billing.services.closing import close_due_periods, draft_documents
from billing.services.credit_notes import credit_invoice, void_invoice
from billing.services.invoice_payments import pay_invoice, write_off_invoice
from billing.services.invoices import finalize_invoice
from turnpike.control.forms import AmountField, ConsoleForm
from turnpike.control.pages import parse_bigint
from turnpike.kernel import clock
from turnpike.kernel.errors import InvalidInput, NotFound

SHOWN = 50
DEFAULT_SELLER = "main"
DEFAULT_TAX = "tax"


class MoneyForm(OnceForm):
    """An amount and a reason."""

    amount = AmountField(
        label=gettext_lazy("Amount"),
        required=False,
        help_text=gettext_lazy("Empty: all that is left."),
    )


class VoidForm(ReasonForm):
    """Why, and whether the month is invoiced anew."""

    redraft = forms.BooleanField(
        label=gettext_lazy("Draw its month up anew"), required=False, initial=True
    )


class SellerForm(ConsoleForm):
    """Who writes invoices, and the tax on them."""

    name = forms.CharField(label=gettext_lazy("Company or name"), max_length=200)
    address = forms.CharField(
        label=gettext_lazy("Address"),
        required=False,
        max_length=1_000,
        widget=forms.Textarea(attrs={"rows": 3}),
    )
    country = forms.CharField(label=gettext_lazy("Country"), required=False, max_length=2)
    tax_id = forms.CharField(label=gettext_lazy("Tax number"), required=False, max_length=100)
    email = forms.EmailField(label=gettext_lazy("Email"), required=False)
    payment_details = forms.CharField(
        label=gettext_lazy("How to pay"),
        required=False,
        max_length=1_000,
        widget=forms.Textarea(attrs={"rows": 3}),
    )
    due_days = forms.IntegerField(
        label=gettext_lazy("Days until due"), min_value=0, max_value=365, initial=14
    )
    tax_title = forms.CharField(
        label=gettext_lazy("Tax"),
        required=False,
        max_length=200,
        help_text=gettext_lazy("As it is printed, like VAT. Empty: no tax."),
    )
    tax_percent = forms.DecimalField(
        label=gettext_lazy("Tax in percent"),
        required=False,
        min_value=0,
        max_value=100,
        decimal_places=4,
    )


class InvoicesPage(OperatorPage):
    """All documents, and what waits for a person."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """The list, narrowed to a status; what is open in each currency."""
        status = request.GET.get("status", "")
        rows = Invoice.objects.select_related("tenant", "period").order_by("-pk")
        if status in Invoice.Status.values:
            rows = rows.filter(status=status)
        with contextlib.suppress(KeyError, ValueError):
            rows = rows.filter(pk__lt=parse_bigint(request.GET["before"]))
        found = list(rows[: SHOWN + 1])
        shown = found[:SHOWN]
        counts = Invoice.objects.aggregate(
            drafts=Count("pk", filter=Q(status="draft")),
            overdue=Count("pk", filter=Q(status="open", due_at__lt=clock.utc_now())),
        )
        return self.page(
            "billing/operator_invoices.html",
            {
                **counts,
                "rows": [_words(row) for row in shown],
                "next": shown[-1].pk if len(found) > SHOWN else None,
                "status": status,
                "exports": operator_export_links("invoices"),
                "statuses": [("", _("All")), *STATUSES.items()],
                "open_sums": _open_sums(),
                "has_seller": find_default_seller() is not None,
            },
        )

    def post(self, _request: HttpRequest) -> HttpResponse:
        """Close the months that are over, as beat does every few minutes."""
        now = clock.utc_now()
        closed, drawn_up = close_due_periods(at=now), draft_documents(at=now)
        return self.done(
            _("Months closed: %(closed)s. Documents drawn up: %(drawn_up)s.")
            % {"closed": closed, "drawn_up": drawn_up}
        )


class InvoicePage(OperatorPage):
    """One document, and what can be done with it."""

    def get(self, _request: HttpRequest, invoice_id: str) -> HttpResponse:
        """Its facts, lines and forms."""
        row = _get(invoice_id)
        return self.page(
            "billing/operator_invoice.html",
            {
                "sheet": sheet_of(row),
                "tenant_row": row.tenant,
                "reminders": row.reminders.order_by("step"),
                "money_form": MoneyForm(auto_id="credit_%s"),
                "pay_form": MoneyForm(auto_id="pay_%s"),
                "void_form": VoidForm(auto_id="void_%s"),
                "write_off_form": ReasonForm(auto_id="write_off_%s"),
                "is_untouched": not (row.paid_nano or row.credited_nano),
                "section": "operator-invoices",
            },
        )

    def post(self, request: HttpRequest, invoice_id: str) -> HttpResponse:
        """Finalize, credit, book a payment, void, or write off."""
        row = _get(invoice_id)
        actions: dict[str, Callable[[Invoice, HttpRequest], HttpResponse]] = {
            "finalize": self._finalize,
            "credit": self._credit,
            "pay": self._pay,
            "void": self._void,
            "write_off": self._write_off,
        }
        action = actions.get(request.POST.get("action", ""))
        if action is None:
            raise InvalidInput("There is no such action.", field="action")
        return action(row, request)

    def _finalize(self, row: Invoice, _request: HttpRequest) -> HttpResponse:
        done = finalize_invoice(invoice=row.pk, at=clock.utc_now(), actor=self.caller)
        return self.done(_("It went out as %(number)s.") % {"number": done.number})

    def _credit(self, row: Invoice, request: HttpRequest) -> HttpResponse:
        form = MoneyForm(request.POST)
        if not form.is_valid():
            return self.refused(form)
        note = credit_invoice(
            invoice=row.pk,
            net=form.cleaned_data["amount"],
            reason=form.cleaned_data["reason"],
            idempotency_key=f"console:{form.cleaned_data['once']}",
            at=clock.utc_now(),
            actor=self.caller,
        )
        return self.done(_("Credited by %(number)s.") % {"number": note.number})

    def _pay(self, row: Invoice, request: HttpRequest) -> HttpResponse:
        form = MoneyForm(request.POST)
        if not form.is_valid():
            return self.refused(form)
        pay_invoice(
            invoice=row.pk,
            amount=form.cleaned_data["amount"] or row.open_nano,
            idempotency_key=f"console:{form.cleaned_data['once']}",
            at=clock.utc_now(),
            actor=self.caller,
        )
        return self.done(_("The payment is booked."))

    def _void(self, row: Invoice, request: HttpRequest) -> HttpResponse:
        form = VoidForm(request.POST)
        if not form.is_valid():
            return self.refused(form)
        note = void_invoice(
            invoice=row.pk, at=clock.utc_now(), actor=self.caller, **form.cleaned_data
        )
        return self.done(_("It is void; %(number)s says so.") % {"number": note.number})

    def _write_off(self, row: Invoice, request: HttpRequest) -> HttpResponse:
        form = ReasonForm(request.POST)
        if not form.is_valid():
            return self.refused(form)
        reason = form.cleaned_data["reason"]
        write_off_invoice(invoice=row.pk, at=clock.utc_now(), actor=self.caller, reason=reason)
        return self.done(_("What was open is written off."))


class LinePage(OperatorPage):
    """The requests that a line of anybody's document sums."""

    def get(self, request: HttpRequest, invoice_id: str, line: int) -> HttpResponse:
        """One page of them; each leads to its events, attempts and entries."""
        context = line_context(request, _get(invoice_id), line)
        page = "billing/operator_invoice_line.html"
        return self.page(page, {**context, "section": "operator-invoices"})


class SellerPage(OperatorPage):
    """Who writes invoices."""

    def get(self, _request: HttpRequest) -> HttpResponse:
        """The form, filled in with the default seller."""
        return self._form(SellerForm(initial=_seller_values()))

    def post(self, request: HttpRequest) -> HttpResponse:
        """Change it for what is finalized from now on."""
        form = SellerForm(request.POST)
        if not form.is_valid():
            return self._form(form, status=400)
        values = dict(form.cleaned_data)
        title, percent = values.pop("tax_title"), values.pop("tax_percent")
        seller = find_default_seller()
        try:
            if title:
                rate_ppm = int((percent or 0) * RATE_PPM_MAX // 100)
                tax = seller.tax_rate if seller is not None else None
                code = DEFAULT_TAX if tax is None else tax.code
                set_tax_rate(code=code, title=title, rate_ppm=rate_ppm, actor=self.caller)
            code_of_tax = _tax_code(seller) if title else ""
            set_seller(
                code=DEFAULT_SELLER if seller is None else seller.code,
                changes={**values, "country": values["country"].upper()},
                tax=code_of_tax,
                actor=self.caller,
            )
        except InvalidInput as error:
            form.refuse(error)
            return self._form(form, status=400)
        return self.done(_("Invoices go out like this from now on."), to=reverse("operator-seller"))

    def _form(self, form: SellerForm, *, status: int = 200) -> HttpResponse:
        context = {
            "form": form,
            "shown": find_default_seller(),
            "section": "operator-invoices",
        }
        return self.page("billing/operator_seller.html", context, status=status)


def _tax_code(seller: Seller | None) -> str:
    tax = None if seller is None else seller.tax_rate
    return DEFAULT_TAX if tax is None else tax.code


def _seller_values() -> dict[str, Any]:
    seller = find_default_seller()
    if seller is None:
        return {}
    names = [name for name in SellerForm.base_fields if not name.startswith("tax_")]
    values = {name: getattr(seller, name) for name in (*names, "tax_id")}
    tax: TaxRate | None = seller.tax_rate
    if tax is not None:
        values |= {"tax_title": tax.title, "tax_percent": tax.rate_ppm / 10_000}
    return values


def _get(invoice_id: str) -> Invoice:
    rows = Invoice.objects.select_related("tenant", "period", "corrects")
    row = rows.filter(uuid=document_uuid(invoice_id)).first()
    if row is None:
        raise NotFound("There is no such invoice.")
    return row


def _open_sums() -> list[dict[str, Any]]:
    settled = F("paid_nano") + F("credited_nano") - F("credit_beyond_nano") + F("written_off_nano")
    rows = Invoice.objects.filter(status="open", kind="invoice").values("currency")
    sums = rows.annotate(nano=Sum(F("total_nano") - settled)).order_by("currency")
    return [{"currency": row["currency"], "nano": row["nano"]} for row in sums]


def _words(row: Invoice) -> dict[str, Any]:
    return {
        "row": row,
        "title": KINDS[row.kind],
        "status": STATUSES[row.status],
        "tone": TONES[Invoice.Status(row.status)],
    }
