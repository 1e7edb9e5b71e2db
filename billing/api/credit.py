"""/auto_reload: when a card is charged by itself; grants and adjustments, which operators make."""

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import access_any_tenant
from accounts.api.fields import AmountField, read
from accounts.models import REASON_LENGTH_MAX
from accounts.services.settings import check_reason
from billing.api.payments import CreditSerializer, credit_answer
from billing.models.ledger import LedgerTxn
from billing.models.payments import CreditPlan
from billing.queries.balance import read_balance
from billing.services.adjustments import COUNTER_ACCOUNTS, KIND, post_adjustment
from billing.services.payments.plans import WARN_DAYS_MAX, plan_of, set_plan
from billing.services.wallet import grant_credit
from turnpike.control.caller import Power
from turnpike.control.drf import OperatorView, StrictSerializer, TenantView
from turnpike.kernel import clock
from turnpike.kernel.errors import InvalidInput
from turnpike.kernel.money import format_amount

GIVE, TAKE = "give", "take"


class AutoReloadInput(StrictSerializer):
    """When the saved card is charged, and how much; when somebody is told."""

    enabled = serializers.BooleanField()
    threshold = AmountField(help_text="Below this balance it is charged.")
    amount = AmountField(help_text="What is charged at a time.")
    monthly_cap = AmountField(help_text="What is charged in a UTC month at most.")
    pays_invoices = serializers.BooleanField(
        required=False, help_text="Whether the saved card pays invoices; missing: as it is."
    )
    warn_days = serializers.IntegerField(
        min_value=0,
        max_value=WARN_DAYS_MAX,
        help_text="Days before the credit ends at last week's pace; 0: no warning.",
    )


class AutoReloadSerializer(AutoReloadInput):
    """The settings, and what they work with."""

    currency = serializers.CharField()
    card = serializers.CharField(allow_null=True, help_text="Kept when a top-up was paid by card.")
    failures = serializers.IntegerField(help_text="Charges that were declined in a row.")


class GrantInput(StrictSerializer):
    """Promotional credit."""

    amount = AmountField()
    reason = serializers.CharField(max_length=REASON_LENGTH_MAX)
    expires_at = serializers.DateTimeField(required=False, allow_null=True)


class AdjustmentInput(StrictSerializer):
    """Money that a person moves: to the tenant or from it, and what stands on the other side."""

    direction = serializers.ChoiceField([GIVE, TAKE])
    amount = AmountField()
    counter = serializers.ChoiceField(COUNTER_ACCOUNTS)
    reason = serializers.CharField(max_length=REASON_LENGTH_MAX)


class AdjustmentSerializer(serializers.Serializer[Any]):
    """A posting made by hand; `amount` is what it changed in the balance."""

    id = serializers.CharField()
    kind = serializers.CharField()
    amount = serializers.CharField()
    currency = serializers.CharField()
    posted_at = serializers.DateTimeField()


class AutoReloadView(TenantView):
    """The tenant's auto-reload."""

    powers: ClassVar = {"GET": Power.BILLING_READ, "PUT": Power.BILLING_WRITE}

    @extend_schema(operation_id="get_auto_reload", responses=AutoReloadSerializer)
    def get(self, _request: Request) -> Response:
        """How it is set."""
        assert self.caller.tenant is not None
        return Response(_plan(self.caller.tenant, plan_of(self.caller.tenant)))

    @extend_schema(
        operation_id="set_auto_reload", request=AutoReloadInput, responses=AutoReloadSerializer
    )
    def put(self, request: Request) -> Response:
        """Set it; turned on, it needs a card that a top-up was paid with."""
        assert self.caller.tenant is not None
        values = read(AutoReloadInput, request.data)
        plan = set_plan(
            tenant=self.caller.tenant,
            is_on=values.pop("enabled"),
            caller=self.caller,
            **values,
        )
        return Response(_plan(self.caller.tenant, plan))


class GrantsView(OperatorView):
    """Credit that a tenant is given."""

    moves_money = True

    @extend_schema(
        operation_id="operator_grant", request=GrantInput, responses={201: CreditSerializer}
    )
    def post(self, request: Request, tenant_id: str) -> Response:
        """Give a tenant promotional credit, once by key."""
        tenant = access_any_tenant(self.caller, tenant_id)
        values = read(GrantInput, request.data)
        expires_at = values.get("expires_at")
        if expires_at is not None and expires_at <= clock.utc_now():
            raise InvalidInput("expires_at must be in the future.", field="expires_at")
        grant = grant_credit(
            tenant=tenant.pk,
            amount=values["amount"],
            idempotency_key=f"api:{tenant.pk}:{self.caller.actor}:{self.money_key}",
            reason=check_reason(values["reason"]),
            actor=self.caller,
            expires_at=expires_at,
        )
        return Response(credit_answer(grant), status=201)


class AdjustmentsView(OperatorView):
    """Entries that a person makes."""

    moves_money = True

    @extend_schema(
        operation_id="operator_adjust",
        request=AdjustmentInput,
        responses={201: AdjustmentSerializer},
    )
    def post(self, request: Request, tenant_id: str) -> Response:
        """Add to what a tenant can spend, or take from it, once by key."""
        tenant = access_any_tenant(self.caller, tenant_id)
        values = read(AdjustmentInput, request.data)
        amount = values["amount"] if values["direction"] == GIVE else -values["amount"]
        key = f"api:{tenant.pk}:{self.caller.actor}:{self.money_key}"
        post_adjustment(
            caller=self.caller,
            tenant=tenant,
            amount=amount,
            counter=values["counter"],
            key=key,
            reason=values["reason"],
        )
        # Found, not made, where the same key came after its answer was forgotten.
        row = LedgerTxn.objects.get(idem_key=f"{KIND}:{key}")
        said = {
            "id": str(row.pk),
            "kind": row.kind,
            "amount": format_amount(amount),
            "currency": row.currency,
            "posted_at": clock.rfc3339(row.posted_at),
        }
        return Response(said, status=201)


def _plan(tenant: int, plan: CreditPlan) -> dict[str, Any]:
    return {
        "enabled": plan.is_on,
        "threshold": format_amount(plan.threshold_nano),
        "amount": format_amount(plan.amount_nano),
        "monthly_cap": format_amount(plan.monthly_cap_nano),
        "pays_invoices": plan.pays_invoices,
        "warn_days": plan.warn_days,
        "currency": read_balance(tenant).currency,
        "card": plan.method_label or None,
        "failures": plan.failures,
    }
