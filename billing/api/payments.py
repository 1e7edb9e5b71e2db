"""Endpoints for money on its way: top-ups, auto-reload, codes; transfers and refunds for staff."""

from typing import Any, ClassVar

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import access_any_tenant
from accounts.api.fields import AmountField, read
from accounts.models import REASON_LENGTH_MAX
from billing.models.ledger import CreditGrant
from billing.models.payments import Payment
from billing.queries.documents import get_document
from billing.services.payments.orders import (
    record_transfer,
    start_invoice_payment,
    start_top_up,
)
from billing.services.payments.refunds import refund_payment
from billing.services.redemption import CodeTerms, create_code, redeem_code
from turnpike.control.caller import Power
from turnpike.control.drf import OperatorView, StrictSerializer, TenantView
from turnpike.kernel import clock
from turnpike.kernel.errors import NotFound
from turnpike.kernel.money import format_amount


class TopUpInput(StrictSerializer):
    """How much is paid."""

    amount = AmountField()


class PaymentSerializer(serializers.Serializer[Any]):
    """A payment; `url` is where it is paid, only in the answer that started it."""

    id = serializers.CharField()
    status = serializers.ChoiceField(Payment.Status.values)
    amount = serializers.CharField()
    currency = serializers.CharField()
    refunded = serializers.CharField()
    created_at = serializers.DateTimeField()
    url = serializers.CharField(allow_blank=True)


class RedemptionInput(StrictSerializer):
    """A code."""

    code = serializers.CharField(max_length=64)


class CreditSerializer(serializers.Serializer[Any]):
    """Credit that a tenant was given."""

    id = serializers.UUIDField()
    amount = serializers.CharField()
    expires_at = serializers.DateTimeField(allow_null=True)


class TransferInput(StrictSerializer):
    """A bank transfer that was seen."""

    amount = AmountField()
    reference = serializers.CharField(max_length=200)
    reason = serializers.CharField(max_length=REASON_LENGTH_MAX)


class RefundInput(StrictSerializer):
    """What is given back, and why."""

    amount = AmountField()
    reason = serializers.CharField(max_length=REASON_LENGTH_MAX)


class RefundSerializer(serializers.Serializer[Any]):
    """A refund."""

    id = serializers.CharField()
    status = serializers.CharField()
    amount = serializers.CharField()


class CodeInput(StrictSerializer):
    """A code to be made."""

    amount = AmountField()
    uses = serializers.IntegerField(min_value=1)
    ends_at = serializers.DateTimeField(required=False, allow_null=True)
    credit_days = serializers.IntegerField(required=False, allow_null=True, min_value=1)
    reason = serializers.CharField(max_length=REASON_LENGTH_MAX)


class CodeSerializer(serializers.Serializer[Any]):
    """A code; `secret` is what is typed, shown this once."""

    id = serializers.CharField()
    secret = serializers.CharField(allow_null=True)
    hint = serializers.CharField()


class TopUpsView(TenantView):
    """A tenant's top-ups."""

    moves_money = True
    powers: ClassVar = {"POST": Power.BILLING_WRITE}

    @extend_schema(operation_id="start_top_up", request=TopUpInput, responses=PaymentSerializer)
    def post(self, request: Request) -> Response:
        """Start a top-up: open `url` to pay it. The credit follows once it was paid."""
        assert self.caller.tenant is not None
        started = start_top_up(
            tenant=self.caller.tenant,
            amount=read(TopUpInput, request.data)["amount"],
            key=self.money_key,
            caller=self.caller,
            return_url=f"{settings.PUBLIC_BASE_URL}/console/billing",
            at=clock.utc_now(),
        )
        return Response(_payment(started.payment, url=started.url), status=201)


class InvoicePaymentsView(TenantView):
    """Paying an invoice by card."""

    moves_money = True
    powers: ClassVar = {"POST": Power.BILLING_WRITE}

    @extend_schema(operation_id="pay_invoice", request=None, responses=PaymentSerializer)
    def post(self, _request: Request, invoice_id: str) -> Response:
        """Order what is still to pay: open `url` to pay it. It is settled once it was paid."""
        assert self.caller.tenant is not None
        started = start_invoice_payment(
            invoice=get_document(tenant=self.caller.tenant, public_id=invoice_id),
            key=self.money_key,
            caller=self.caller,
            return_url=f"{settings.PUBLIC_BASE_URL}/console/billing/invoices/{invoice_id}",
            at=clock.utc_now(),
        )
        return Response(_payment(started.payment, url=started.url), status=201)


class RedemptionsView(TenantView):
    """Codes that a tenant redeems."""

    moves_money = True
    powers: ClassVar = {"POST": Power.BILLING_WRITE}

    @extend_schema(operation_id="redeem_code", request=RedemptionInput, responses=CreditSerializer)
    def post(self, request: Request) -> Response:
        """Turn a code into credit."""
        assert self.caller.tenant is not None
        grant = redeem_code(
            tenant=self.caller.tenant,
            words=read(RedemptionInput, request.data)["code"],
            caller=self.caller,
            at=clock.utc_now(),
        )
        return Response(credit_answer(grant), status=201)


class TransfersView(OperatorView):
    """Bank transfers of a tenant."""

    moves_money = True

    @extend_schema(
        operation_id="record_transfer", request=TransferInput, responses=PaymentSerializer
    )
    def post(self, request: Request, tenant_id: str) -> Response:
        """Credit a transfer that arrived."""
        tenant = access_any_tenant(self.caller, tenant_id)
        given = read(TransferInput, request.data)
        payment = record_transfer(
            tenant=tenant.pk,
            key=f"api:{self.caller.actor}:{self.money_key}",
            caller=self.caller,
            at=clock.utc_now(),
            **given,
        )
        return Response(_payment(payment), status=201)


class RefundsView(OperatorView):
    """Refunds of a payment."""

    moves_money = True

    @extend_schema(operation_id="refund_payment", request=RefundInput, responses=RefundSerializer)
    def post(self, request: Request, payment_id: str) -> Response:
        """Give back what was paid and not used."""
        try:
            payment = Payment.objects.get(uuid=Payment.parse_public_id(payment_id))
        except (ValueError, Payment.DoesNotExist) as error:
            raise NotFound("There is no such payment.") from error
        made = refund_payment(
            payment=payment.pk,
            key=f"{self.caller.actor}:{self.money_key}",
            caller=self.caller,
            **read(RefundInput, request.data),
        )
        said = {
            "id": made.public_id,
            "status": made.status,
            "amount": format_amount(made.amount_nano),
        }
        return Response(said, status=201)


class CodesView(OperatorView):
    """Redemption codes."""

    moves_money = True

    @extend_schema(operation_id="create_code", request=CodeInput, responses=CodeSerializer)
    def post(self, request: Request) -> Response:
        """Make a code; it is shown once."""
        given = read(CodeInput, request.data)
        reason, uses = given.pop("reason"), given.pop("uses")
        made = create_code(
            terms=CodeTerms(uses_max=uses, **given),
            key=f"api:{self.caller.actor}:{self.money_key}",
            reason=reason,
            caller=self.caller,
        )
        said = {"id": made.row.public_id, "secret": made.words or None, "hint": made.row.hint}
        return Response(said, status=201)


def credit_answer(grant: CreditGrant) -> dict[str, Any]:
    """Credit that was given, for an answer."""
    return {
        "id": str(grant.uuid),
        "amount": format_amount(grant.amount_nano),
        "expires_at": None if grant.expires_at is None else clock.rfc3339(grant.expires_at),
    }


def _payment(row: Payment, *, url: str = "") -> dict[str, Any]:
    return {
        "id": row.public_id,
        "status": row.status,
        "amount": format_amount(row.amount_nano),
        "currency": row.currency,
        "refunded": format_amount(row.refunded_nano),
        "created_at": row.created_at.isoformat().replace("+00:00", "Z"),
        "url": url,
    }
