"""/operator/invoices: drafts, credit notes, payments; sellers and taxes. For staff alone."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import access_any_tenant
from accounts.api.fields import AmountField, read
from accounts.models import REASON_LENGTH_MAX
from billing.api.invoices import (
    InvoiceSerializer,
    LineRequestSerializer,
    LineSerializer,
    RequestPostingSerializer,
    WholeInvoiceSerializer,
    document_answer,
    entries_answer,
    line_answer,
    line_requests_answer,
    whole_answer,
)
from billing.api.requests import parse_request_id
from billing.models.invoices import RATE_PPM_MAX, Invoice, Seller, TaxRate
from billing.queries.documents import document_uuid
from billing.queries.everywhere import find_tenant_of
from billing.services.billing_details import (
    SELLER_FIELDS,
    set_seller,
    set_tax_rate,
    set_tenant_tax,
)
from billing.services.closing import close_due_periods, draft_documents
from billing.services.credit_notes import credit_invoice, void_invoice
from billing.services.invoice_payments import pay_invoice, write_off_invoice
from billing.services.invoices import finalize_invoice
from turnpike.control.drf import OperatorView, StrictSerializer
from turnpike.control.pages import PAGE_PARAMETERS, keyset_page, page_of
from turnpike.kernel import clock
from turnpike.kernel.errors import NotFound


class OperatorInvoiceSerializer(InvoiceSerializer):
    """A document and whose it is."""

    tenant = serializers.CharField()


class DocumentReasonInput(StrictSerializer):
    """Why."""

    reason = serializers.CharField(max_length=REASON_LENGTH_MAX)


class VoidInput(DocumentReasonInput):
    """Why an invoice is void, and whether its usage is invoiced anew."""

    redraft = serializers.BooleanField(required=False)


class CreditInput(DocumentReasonInput):
    """What is credited: a net amount, or (null) all that is left."""

    amount = AmountField(allow_null=True)


class PaymentInput(StrictSerializer):
    """A payment that arrived."""

    amount = AmountField()
    provider = serializers.CharField(max_length=40, required=False)


class RunSerializer(serializers.Serializer[Any]):
    """What a run of the closing came to."""

    closed = serializers.IntegerField()
    drawn_up = serializers.IntegerField()


class TaxRateInput(StrictSerializer):
    """A tax, in millionths of the net amount."""

    title = serializers.CharField(max_length=200)
    rate_ppm = serializers.IntegerField(min_value=0, max_value=RATE_PPM_MAX)
    note = serializers.CharField(max_length=1_000, required=False, allow_blank=True)


class TaxRateSerializer(TaxRateInput):
    """A tax by its code."""

    code = serializers.CharField()


class SellerInput(StrictSerializer):
    """Who writes invoices; what is absent stays as it is."""

    name = serializers.CharField(required=False)
    address = serializers.CharField(required=False, allow_blank=True)
    country = serializers.CharField(required=False, allow_blank=True)
    tax_id = serializers.CharField(required=False, allow_blank=True)
    email = serializers.CharField(required=False, allow_blank=True)
    payment_details = serializers.CharField(required=False, allow_blank=True)
    invoice_prefix = serializers.CharField(required=False)
    credit_note_prefix = serializers.CharField(required=False)
    due_days = serializers.IntegerField(required=False, min_value=0)
    finalize_after_hours = serializers.IntegerField(
        required=False, allow_null=True, min_value=0, max_value=10_000
    )
    is_default = serializers.BooleanField(required=False)
    tax = serializers.CharField(required=False, allow_blank=True)


class SellerSerializer(SellerInput):
    """A seller by its code."""

    code = serializers.CharField()


class TenantTaxInput(DocumentReasonInput):
    """Which seller invoices a tenant, and with which tax; empty: the default's."""

    tax = serializers.CharField(required=False, allow_blank=True)
    seller = serializers.CharField(required=False, allow_blank=True)


class OperatorInvoicesView(OperatorView):
    """All documents."""

    @extend_schema(
        operation_id="operator_invoices_list",
        parameters=PAGE_PARAMETERS,
        responses=page_of(OperatorInvoiceSerializer),
    )
    def get(self, request: Request) -> Response:
        """All documents, newest first; `status`, `kind` and `tenant` narrow them down."""
        rows = Invoice.objects.select_related("tenant", "period", "corrects")
        for name in ("status", "kind"):
            if name in request.query_params:
                rows = rows.filter(**{name: request.query_params[name]})
        if "tenant" in request.query_params:
            rows = rows.filter(
                tenant=access_any_tenant(self.caller, request.query_params["tenant"])
            )
        return Response(keyset_page(request, rows, write=_with_tenant))


class CloseMonthsView(OperatorView):
    """The run that beat makes every few minutes."""

    @extend_schema(operation_id="operator_invoices_run", request=None, responses=RunSerializer)
    def post(self, _request: Request) -> Response:
        """Close months that are over, and draw up their documents."""
        now = clock.utc_now()
        return Response({"closed": close_due_periods(at=now), "drawn_up": draft_documents(at=now)})


class _InvoiceView(OperatorView):
    """What is about one document."""

    def number(self, public_id: str) -> int:
        """The number of a document. Raises NotFound."""
        row = Invoice.objects.filter(uuid=document_uuid(public_id)).only("pk").first()
        if row is None:
            raise NotFound("There is no such invoice.")
        return int(row.pk)

    def answer(self, public_id: str) -> Response:
        """The document as it stands now."""
        row = Invoice.objects.select_related("period", "corrects").get(pk=self.number(public_id))
        return Response(whole_answer(row))


class OperatorInvoiceView(_InvoiceView):
    """One document."""

    @extend_schema(operation_id="operator_invoices_get", responses=WholeInvoiceSerializer)
    def get(self, _request: Request, invoice_id: str) -> Response:
        """A document, drafts included."""
        return self.answer(invoice_id)


class OperatorLinesView(_InvoiceView):
    """The lines of a document."""

    @extend_schema(
        operation_id="operator_invoice_lines",
        parameters=PAGE_PARAMETERS,
        responses=page_of(LineSerializer),
    )
    def get(self, request: Request, invoice_id: str) -> Response:
        """List lines, the last one first."""
        rows = Invoice.objects.get(pk=self.number(invoice_id)).lines.all()
        return Response(keyset_page(request, rows, write=line_answer, key="position"))


class OperatorLineRequestsView(_InvoiceView):
    """What a line sums."""

    @extend_schema(
        operation_id="operator_invoice_line_requests",
        parameters=PAGE_PARAMETERS,
        responses=page_of(LineRequestSerializer),
    )
    def get(self, request: Request, invoice_id: str, line: str) -> Response:
        """List the requests of a line, newest first; their amounts sum to the line's `exact`."""
        document = Invoice.objects.get(pk=self.number(invoice_id))
        return Response(line_requests_answer(request, document, line))


class OperatorEntriesView(OperatorView):
    """Where anybody's request's money went."""

    @extend_schema(
        operation_id="operator_request_entries", responses=RequestPostingSerializer(many=True)
    )
    def get(self, _request: Request, request_id: str) -> Response:
        """The postings that charged a request; each stands for all requests of its batch."""
        number = parse_request_id(request_id)
        tenant = find_tenant_of(number)
        if tenant is None:
            raise NotFound("There is no such request.")
        return Response(entries_answer(tenant, number))


class FinalizeView(_InvoiceView):
    """A draft goes out."""

    moves_money = True

    @extend_schema(
        operation_id="operator_invoices_finalize", request=None, responses=WholeInvoiceSerializer
    )
    def post(self, _request: Request, invoice_id: str) -> Response:
        """Number, post and freeze a draft."""
        number = self.number(invoice_id)
        finalize_invoice(invoice=number, at=clock.utc_now(), actor=self.caller)
        return self.answer(invoice_id)


class VoidView(_InvoiceView):
    """An unpaid invoice is taken back."""

    moves_money = True

    @extend_schema(
        operation_id="operator_invoices_void", request=VoidInput, responses=WholeInvoiceSerializer
    )
    def post(self, request: Request, invoice_id: str) -> Response:
        """Void it by a credit note; `redraft` draws its month up anew."""
        values = read(VoidInput, request.data)
        void_invoice(
            invoice=self.number(invoice_id), at=clock.utc_now(), actor=self.caller, **values
        )
        return self.answer(invoice_id)


class CreditView(_InvoiceView):
    """A credit note."""

    moves_money = True

    @extend_schema(
        operation_id="operator_invoices_credit",
        request=CreditInput,
        responses={201: WholeInvoiceSerializer},
    )
    def post(self, request: Request, invoice_id: str) -> Response:
        """Credit a net amount of an invoice, or all that is left; answers the credit note."""
        values = read(CreditInput, request.data)
        row = credit_invoice(
            invoice=self.number(invoice_id),
            net=values["amount"],
            reason=values["reason"],
            idempotency_key=self.money_key,
            at=clock.utc_now(),
            actor=self.caller,
        )
        return Response(whole_answer(row), status=201)


class PaymentView(_InvoiceView):
    """A payment by bank transfer, or from credit."""

    moves_money = True

    @extend_schema(
        operation_id="operator_invoices_pay",
        request=PaymentInput,
        responses=WholeInvoiceSerializer,
    )
    def post(self, request: Request, invoice_id: str) -> Response:
        """Book a payment; provider `credit` takes what the tenant paid ahead."""
        values = read(PaymentInput, request.data)
        pay_invoice(
            invoice=self.number(invoice_id),
            idempotency_key=self.money_key,
            at=clock.utc_now(),
            actor=self.caller,
            **values,
        )
        return self.answer(invoice_id)


class WriteOffView(_InvoiceView):
    """An invoice that nobody will pay."""

    moves_money = True

    @extend_schema(
        operation_id="operator_invoices_write_off",
        request=DocumentReasonInput,
        responses=WholeInvoiceSerializer,
    )
    def post(self, request: Request, invoice_id: str) -> Response:
        """Give up what is still open."""
        values = read(DocumentReasonInput, request.data)
        write_off_invoice(
            invoice=self.number(invoice_id), at=clock.utc_now(), actor=self.caller, **values
        )
        return self.answer(invoice_id)


class TaxRatesView(OperatorView):
    """All taxes."""

    @extend_schema(
        operation_id="operator_taxes_list",
        parameters=PAGE_PARAMETERS,
        responses=page_of(TaxRateSerializer),
    )
    def get(self, request: Request) -> Response:
        """All taxes, newest first."""
        return Response(keyset_page(request, TaxRate.objects.all(), write=_tax))


class TaxRateView(OperatorView):
    """One tax."""

    @extend_schema(
        operation_id="operator_taxes_set", request=TaxRateInput, responses=TaxRateSerializer
    )
    def put(self, request: Request, code: str) -> Response:
        """Make a tax, or change it for what is finalized from now on."""
        values = read(TaxRateInput, request.data)
        return Response(_tax(set_tax_rate(code=code, actor=self.caller, **values)))


class SellersView(OperatorView):
    """All sellers."""

    @extend_schema(
        operation_id="operator_sellers_list",
        parameters=PAGE_PARAMETERS,
        responses=page_of(SellerSerializer),
    )
    def get(self, request: Request) -> Response:
        """All sellers, newest first."""
        rows = Seller.objects.select_related("tax_rate")
        return Response(keyset_page(request, rows, write=_seller))


class SellerView(OperatorView):
    """One seller."""

    @extend_schema(
        operation_id="operator_sellers_set", request=SellerInput, responses=SellerSerializer
    )
    def put(self, request: Request, code: str) -> Response:
        """Make a seller, or change it for what is finalized from now on."""
        values = dict(read(SellerInput, request.data))
        tax = values.pop("tax", None)
        return Response(_seller(set_seller(code=code, changes=values, tax=tax, actor=self.caller)))


class TenantTaxView(OperatorView):
    """Who invoices a tenant."""

    @extend_schema(
        operation_id="operator_tenant_tax", request=TenantTaxInput, responses=TenantTaxInput
    )
    def put(self, request: Request, tenant_id: str) -> Response:
        """Choose a tenant's seller and tax for what is finalized from now on."""
        tenant = access_any_tenant(self.caller, tenant_id)
        values = read(TenantTaxInput, request.data)
        set_tenant_tax(tenant=tenant.pk, actor=self.caller, **values)
        return Response(values)


def _with_tenant(row: Invoice) -> dict[str, Any]:
    return {**document_answer(row), "tenant": row.tenant.public_id}


def _tax(row: TaxRate) -> dict[str, Any]:
    return {"code": row.code, "title": row.title, "rate_ppm": row.rate_ppm, "note": row.note}


def _seller(row: Seller) -> dict[str, Any]:
    return {
        "code": row.code,
        **{name: getattr(row, name) for name in sorted(SELLER_FIELDS)},
        "tax": "" if row.tax_rate is None else row.tax_rate.code,
    }
