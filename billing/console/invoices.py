"""Invoices: a document, the requests of a line, the entries of a request; and who is addressed."""

from typing import Any
from uuid import UUID

from django import forms
from django.http import HttpRequest, HttpResponse
from django.templatetags.static import static
from django.urls import reverse
from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _

from accounts.console.pages import TenantPage
from billing.api.invoices import pdf_answer
from billing.api.requests import parse_request_id
from billing.console.paying import OnceForm
from billing.models.invoices import LANGUAGES, Invoice
from billing.queries.documents import (
    correction_keys,
    get_document,
    get_line,
    line_words,
    requests_of_line,
    sheet_of,
)
from billing.queries.requests import list_postings, list_revisions
from billing.services.billing_details import details_of, set_details
from billing.services.documents import STYLE, can_render, render_html
from billing.services.payments.registry import has_stripe
from turnpike.control.caller import Power
from turnpike.control.forms import ConsoleForm
from turnpike.kernel import ids
from turnpike.kernel.errors import InvalidInput, NotFound

ICON = "turnpike/mark.svg"
SHOWN = 50


class DetailsForm(ConsoleForm):
    """Whom invoices are addressed to."""

    name = forms.CharField(label=gettext_lazy("Company or name"), required=False, max_length=200)
    address = forms.CharField(
        label=gettext_lazy("Address"),
        required=False,
        max_length=1_000,
        widget=forms.Textarea(attrs={"rows": 3}),
    )
    country = forms.CharField(
        label=gettext_lazy("Country"),
        required=False,
        max_length=2,
        help_text=gettext_lazy("Two letters, like DE or SG."),
    )
    tax_id = forms.CharField(label=gettext_lazy("Tax number"), required=False, max_length=100)
    email = forms.EmailField(label=gettext_lazy("Email for invoices"), required=False)
    reference = forms.CharField(
        label=gettext_lazy("Your reference"),
        required=False,
        max_length=100,
        help_text=gettext_lazy("Printed on each invoice: a purchase order, for example."),
    )
    language = forms.ChoiceField(label=gettext_lazy("Language of invoices"), choices=LANGUAGES)

    def clean_country(self) -> str:
        """Codes are written in capitals."""
        return str(self.cleaned_data["country"]).upper()


class _DocumentPage(TenantPage):
    """What is about one document."""

    powers = {"GET": Power.BILLING_READ}

    def document(self, public_id: str) -> Invoice:
        """The tenant's document. Raises NotFound."""
        return get_document(tenant=self.tenant, public_id=public_id)


class InvoicePage(_DocumentPage):
    """One invoice, credit note or statement."""

    def get(self, _request: HttpRequest, invoice_id: str) -> HttpResponse:
        """Its facts and lines; each line leads to its requests."""
        return self.page(
            "billing/invoice.html",
            {
                "sheet": sheet_of(self.document(invoice_id)),
                "section": "console-billing",
                "languages_of_files": LANGUAGES,
                "can_render": can_render(),
                "pay_form": OnceForm()
                if has_stripe() and self.caller.has_power(Power.BILLING_WRITE)
                else None,
            },
        )


class LinePage(_DocumentPage):
    """The requests that a line sums."""

    def get(self, request: HttpRequest, invoice_id: str, line: int) -> HttpResponse:
        """One page of them, newest first."""
        context = line_context(request, self.document(invoice_id), line)
        return self.page("billing/invoice_line.html", {**context, "section": "console-billing"})


class EntriesPage(TenantPage):
    """Where a request's money went."""

    powers = {"GET": Power.BILLING_READ}

    def get(self, _request: HttpRequest, request_id: str) -> HttpResponse:
        """The postings that charged it, with the entries on the tenant's accounts."""
        number = parse_request_id(request_id)
        revisions = list_revisions(tenant=self.tenant, request=number)
        if not revisions:
            raise NotFound("There is no such request.")
        return self.page(
            "billing/entries.html",
            {
                "public_id": request_id,
                "newest": revisions[-1],
                "amount_nano": sum(item.amount_nano for item in revisions),
                "postings": list_postings(
                    tenant=self.tenant,
                    postings={item.posting_id for item in revisions if item.amount_nano},
                    keys=correction_keys(tenant=self.tenant, request=number),
                ),
                "can_read_requests": self.caller.has_power(Power.REQUESTS_READ),
                "section": "console-billing",
            },
        )


class InvoiceFilePage(_DocumentPage):
    """A document as PDF."""

    def get(self, request: HttpRequest, invoice_id: str) -> HttpResponse:
        """The file in a language, the document's own where none is asked for."""
        document = self.document(invoice_id)
        response = pdf_answer(document, language=request.GET.get("language", ""))
        response["cache-control"] = "no-store"
        return response


class PrintPage(_DocumentPage):
    """A document to print from the browser."""

    def get(self, request: HttpRequest, invoice_id: str) -> HttpResponse:
        """The same page that becomes the PDF."""
        document = self.document(invoice_id)
        chosen = request.GET.get("language", "")
        language = chosen if chosen in dict(LANGUAGES) else get_language() or "en"
        back = reverse("console-invoice", args=[invoice_id])
        assets = {"style": static(STYLE), "icon": static(ICON)}
        response = HttpResponse(render_html(document, language=language, back=back, **assets))
        response["cache-control"] = "no-store"
        return response


class DetailsPage(TenantPage):
    """Whom invoices are addressed to."""

    powers = {"GET": Power.BILLING_READ, "POST": Power.BILLING_WRITE}

    def get(self, _request: HttpRequest) -> HttpResponse:
        """The form, filled in."""
        row = details_of(self.tenant)
        initial = {name: getattr(row, name) for name in DetailsForm.base_fields}
        return self._form(DetailsForm(initial=initial))

    def post(self, request: HttpRequest) -> HttpResponse:
        """Change it for what is finalized from now on."""
        form = DetailsForm(request.POST)
        if form.is_valid():
            try:
                set_details(tenant=self.tenant, changes=form.cleaned_data, actor=self.caller)
            except InvalidInput as error:
                form.refuse(error)
            else:
                return self.done(_("The next invoice will be addressed like this."))
        return self._form(form, status=400)

    def _form(self, form: DetailsForm, *, status: int = 200) -> HttpResponse:
        context: dict[str, Any] = {
            "form": form,
            "shown": details_of(self.tenant),
            "may_change": self.caller.has_power(Power.BILLING_WRITE),
            "section": "console-billing",
        }
        return self.page("billing/details.html", context, status=status)


def line_context(request: HttpRequest, document: Invoice, position: int) -> dict[str, Any]:
    """What a page about a line shows: its words, and one page of its requests. Raises NotFound."""
    row = get_line(document=document, position=position)
    requests = requests_of_line(document, row)
    after = _uuid(request.GET.get("before", ""))
    if after is not None:
        requests = requests.filter(request_id__lt=after)
    found = list(requests[: SHOWN + 1])
    shown = found[:SHOWN]
    return {
        "document": document,
        "line": line_words(row),
        "requests": [
            {**item, "public_id": ids.public_id(ids.REQUEST, item["request_id"])} for item in shown
        ],
        "next": shown[-1]["request_id"] if len(found) > SHOWN else None,
    }


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
