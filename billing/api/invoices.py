"""/invoices: documents, their lines, the requests of a line, the ledger entries of a request.

From a total to the postings below it in three steps, each by id and in pages.
"""

from typing import Any, ClassVar
from uuid import UUID

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.fields import read
from billing.api.requests import parse_request_id, posting_answer
from billing.models.invoices import BillingDetails, Invoice, InvoiceLine, InvoiceTax
from billing.queries.documents import (
    correction_keys,
    get_document,
    get_line,
    list_documents,
    percent_of,
    requests_of_line,
)
from billing.queries.requests import list_postings, list_revisions
from billing.services.billing_details import details_of, set_details
from billing.services.documents import file_of
from turnpike.control.caller import Power
from turnpike.control.drf import StrictSerializer, TenantView
from turnpike.control.pages import (
    PAGE_PARAMETERS,
    keyset_page,
    page_of,
    read_cursor,
    read_limit,
    write_cursor,
)
from turnpike.kernel import clock, ids
from turnpike.kernel.errors import NotFound
from turnpike.kernel.money import format_amount

POSITION_DIGITS_MAX = 9
DETAILS = ("name", "address", "country", "tax_id", "email", "reference", "language")


class InvoiceSerializer(serializers.Serializer[Any]):
    """A document; amounts are decimal strings of the currency's major unit."""

    id = serializers.CharField()
    kind = serializers.ChoiceField(Invoice.Kind.choices)
    status = serializers.ChoiceField(Invoice.Status.choices)
    number = serializers.CharField(allow_null=True)
    currency = serializers.CharField()
    subtotal = serializers.CharField()
    tax = serializers.CharField()
    total = serializers.CharField()
    amount_due = serializers.CharField()
    starts_at = serializers.DateTimeField(allow_null=True)
    ends_at = serializers.DateTimeField(allow_null=True)
    issued_at = serializers.DateTimeField(allow_null=True)
    due_at = serializers.DateTimeField(allow_null=True)
    corrects = serializers.CharField(allow_null=True, help_text="The invoice of a credit note.")
    reason = serializers.CharField()
    digest = serializers.CharField(help_text="SHA-256 of all that the document says.")


class LineSerializer(serializers.Serializer[Any]):
    """One line; `amount` is `exact` rounded once to what the currency is paid in."""

    line = serializers.IntegerField()
    kind = serializers.ChoiceField(InvoiceLine.Kind.choices)
    model = serializers.CharField()
    component = serializers.CharField()
    tier = serializers.CharField()
    price_set = serializers.CharField(allow_null=True)
    late = serializers.BooleanField()
    text = serializers.CharField()
    quantity = serializers.IntegerField()
    price = serializers.CharField(allow_null=True, help_text="Null where there were several.")
    exact = serializers.CharField()
    amount = serializers.CharField()


class TaxSerializer(serializers.Serializer[Any]):
    """One tax of a document."""

    code = serializers.CharField()
    title = serializers.CharField()
    rate = serializers.CharField()
    base = serializers.CharField()
    amount = serializers.CharField()


class WholeInvoiceSerializer(InvoiceSerializer):
    """A document with its parties and taxes; its lines come in pages of their own."""

    seller = serializers.DictField()
    buyer = serializers.DictField()
    taxes = TaxSerializer(many=True)
    summary = serializers.DictField(help_text="Balances and movements of a statement.")


class LineRequestSerializer(serializers.Serializer[Any]):
    """What one request adds to a line."""

    request_id = serializers.CharField()
    quantity = serializers.IntegerField()
    amount = serializers.CharField()


class RequestPostingSerializer(serializers.Serializer[Any]):
    """A posting that charged a request, with its entries on the tenant's accounts."""

    id = serializers.CharField()
    key = serializers.CharField()
    posted_at = serializers.DateTimeField()
    entries = serializers.ListField(child=serializers.DictField())


class DetailsInput(StrictSerializer):
    """Whom invoices are addressed to."""

    name = serializers.CharField(required=False, allow_blank=True)
    address = serializers.CharField(required=False, allow_blank=True)
    country = serializers.CharField(required=False, allow_blank=True)
    tax_id = serializers.CharField(required=False, allow_blank=True)
    email = serializers.CharField(required=False, allow_blank=True)
    reference = serializers.CharField(required=False, allow_blank=True)
    language = serializers.CharField(required=False)


class DetailsSerializer(serializers.Serializer[Any]):
    """Whom invoices are addressed to."""

    name = serializers.CharField()
    address = serializers.CharField()
    country = serializers.CharField()
    tax_id = serializers.CharField()
    email = serializers.CharField()
    reference = serializers.CharField()
    language = serializers.CharField()


class _DocumentView(TenantView):
    """What is about one document of the tenant."""

    powers: ClassVar = {"GET": Power.BILLING_READ}

    def document(self, public_id: str) -> Invoice:
        """The tenant's document. Raises NotFound."""
        assert self.caller.tenant is not None
        return get_document(tenant=self.caller.tenant, public_id=public_id)


class InvoicesView(TenantView):
    """The tenant's invoices, credit notes and statements."""

    powers: ClassVar = {"GET": Power.BILLING_READ}

    @extend_schema(
        operation_id="list_invoices",
        parameters=PAGE_PARAMETERS,
        responses=page_of(InvoiceSerializer),
    )
    def get(self, request: Request) -> Response:
        """List documents, newest first; drafts are not among them."""
        assert self.caller.tenant is not None
        rows = list_documents(self.caller.tenant)
        return Response(keyset_page(request, rows, write=document_answer))


class InvoiceView(_DocumentView):
    """One document."""

    @extend_schema(operation_id="get_invoice", responses=WholeInvoiceSerializer)
    def get(self, _request: Request, invoice_id: str) -> Response:
        """A document with its parties and taxes."""
        return Response(whole_answer(self.document(invoice_id)))


class InvoiceLinesView(_DocumentView):
    """The lines of a document."""

    @extend_schema(
        operation_id="list_invoice_lines",
        parameters=PAGE_PARAMETERS,
        responses=page_of(LineSerializer),
    )
    def get(self, request: Request, invoice_id: str) -> Response:
        """List lines, the last one first."""
        rows = self.document(invoice_id).lines.all()
        return Response(keyset_page(request, rows, write=line_answer, key="position"))


class LineRequestsView(_DocumentView):
    """What a line sums."""

    @extend_schema(
        operation_id="list_invoice_line_requests",
        parameters=PAGE_PARAMETERS,
        responses=page_of(LineRequestSerializer),
    )
    def get(self, request: Request, invoice_id: str, line: str) -> Response:
        """List the requests of a line, newest first; their amounts sum to the line's `exact`."""
        return Response(line_requests_answer(request, self.document(invoice_id), line))


class RequestEntriesView(TenantView):
    """Where a request's money went."""

    powers: ClassVar = {"GET": Power.BILLING_READ}

    @extend_schema(
        operation_id="list_request_entries", responses=RequestPostingSerializer(many=True)
    )
    def get(self, _request: Request, request_id: str) -> Response:
        """The postings that charged a request; each stands for all requests of its batch."""
        tenant = self.caller.tenant
        assert tenant is not None
        return Response(entries_answer(tenant, parse_request_id(request_id)))


class InvoiceFileView(_DocumentView):
    """A document as PDF."""

    @extend_schema(
        operation_id="get_invoice_pdf",
        parameters=[OpenApiParameter("language", str, description="en, zh-hans or ru")],
        responses={(200, "application/pdf"): OpenApiTypes.BINARY},
    )
    def get(self, request: Request, invoice_id: str) -> HttpResponse:
        """The PDF in a language, the document's own where none is asked for."""
        document = self.document(invoice_id)
        language = request.query_params.get("language", "")
        return pdf_answer(document, language=language)


class BillingDetailsView(TenantView):
    """Whom invoices are addressed to."""

    powers: ClassVar = {"GET": Power.BILLING_READ, "PATCH": Power.BILLING_WRITE}

    @extend_schema(operation_id="get_billing_details", responses=DetailsSerializer)
    def get(self, _request: Request) -> Response:
        """The name, address and numbers that the next invoice will have."""
        assert self.caller.tenant is not None
        return Response(_details(details_of(self.caller.tenant)))

    @extend_schema(
        operation_id="change_billing_details", request=DetailsInput, responses=DetailsSerializer
    )
    def patch(self, request: Request) -> Response:
        """Change them for what is finalized from now on."""
        assert self.caller.tenant is not None
        changes = read(DetailsInput, request.data)
        row = set_details(tenant=self.caller.tenant, changes=changes, actor=self.caller)
        return Response(_details(row))


def document_answer(row: Invoice) -> dict[str, Any]:
    """A document as lists show it."""
    return {
        "id": row.public_id,
        "kind": row.kind,
        "status": row.status,
        "number": row.number,
        "currency": row.currency,
        "subtotal": format_amount(row.subtotal_nano),
        "tax": format_amount(row.tax_nano),
        "total": format_amount(row.total_nano),
        "amount_due": format_amount(row.open_nano),
        "starts_at": None if row.period is None else clock.rfc3339(row.period.starts_at),
        "ends_at": None if row.period is None else clock.rfc3339(row.period.ends_at),
        "issued_at": None if row.issued_at is None else clock.rfc3339(row.issued_at),
        "due_at": None if row.due_at is None else clock.rfc3339(row.due_at),
        "corrects": None if row.corrects is None else row.corrects.public_id,
        "reason": row.reason,
        "digest": row.digest,
    }


def whole_answer(row: Invoice) -> dict[str, Any]:
    """A document with everything but its lines."""
    return {
        **document_answer(row),
        "seller": row.seller_copy,
        "buyer": row.buyer_copy,
        "taxes": [_tax(tax) for tax in row.taxes.order_by("code")],
        "summary": row.summary,
    }


def line_answer(line: InvoiceLine) -> dict[str, Any]:
    """A line as lists show it."""
    return {
        "line": line.position,
        "kind": line.kind,
        "model": line.model,
        "component": line.component,
        "tier": line.tier,
        "price_set": None if line.price_set_id is None else str(line.price_set_id),
        "late": line.is_late,
        "text": line.text,
        "quantity": line.quantity,
        "price": None if line.price_nano is None else format_amount(line.price_nano),
        "exact": format_amount(line.exact_nano),
        "amount": format_amount(line.amount_nano),
    }


def line_requests_answer(request: Request, document: Invoice, line: str) -> dict[str, Any]:
    """One page of what a line sums, newest first. Raises NotFound."""
    if not (line.isascii() and line.isdigit() and len(line) <= POSITION_DIGITS_MAX):
        raise NotFound("There is no such line.")
    row = get_line(document=document, position=int(line))
    limit, after = read_limit(request), read_cursor(request, parse=UUID)
    rows = requests_of_line(document, row)
    if after is not None:
        rows = rows.filter(request_id__lt=after)
    found = list(rows[: limit + 1])
    shown = found[:limit]
    more = len(found) > limit
    return {
        "data": [_line_request(item) for item in shown],
        "next_cursor": write_cursor(shown[-1]["request_id"]) if more else None,
    }


def entries_answer(tenant: int, request: UUID) -> dict[str, Any]:
    """The postings that charged a tenant's request. Raises NotFound."""
    revisions = list_revisions(tenant=tenant, request=request)
    if not revisions:
        raise NotFound("There is no such request.")
    postings = list_postings(
        tenant=tenant,
        postings={item.posting_id for item in revisions if item.amount_nano},
        keys=correction_keys(tenant=tenant, request=request),
    )
    return {"data": [posting_answer(txn, entries) for txn, entries in postings]}


def pdf_answer(document: Invoice, *, language: str = "") -> HttpResponse:
    """A document's file to download, with its hash as the entity tag."""
    found = file_of(document=document.pk, language=language)
    response = HttpResponse(bytes(found.content), content_type="application/pdf")
    name = document.number or document.public_id
    response["content-disposition"] = f'attachment; filename="{name}.pdf"'
    response["etag"] = f'"{found.sha256}"'
    return response


def _line_request(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "request_id": ids.public_id(ids.REQUEST, item["request_id"]),
        "quantity": item["quantity"],
        "amount": format_amount(item["nano"]),
    }


def _tax(tax: InvoiceTax) -> dict[str, str]:
    return {
        "code": tax.code,
        "title": tax.title,
        "rate": percent_of(tax.rate_ppm),
        "base": format_amount(tax.base_nano),
        "amount": format_amount(tax.amount_nano),
    }


def _details(row: BillingDetails) -> dict[str, str]:
    return {name: str(getattr(row, name)) for name in DETAILS}
