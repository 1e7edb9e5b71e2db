"""/operator/rehearsals, corrections, margins: prices tried out, put right, held against costs."""

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import access_any_tenant
from accounts.api.fields import AmountField, read
from accounts.models import REASON_LENGTH_MAX, Tenant
from billing.api.spans import read_time
from billing.queries.margins import list_margins
from billing.services.catalog_file import PriceRow
from billing.services.correction import Corrected, make_corrected_set, rate_again
from billing.services.costs import set_cost_book
from billing.services.rehearsal import Outcome, Proposal, rehearse
from billing.services.upstream_control import get_upstream
from turnpike.contracts.rating import COMPONENTS, STANDARD, WEB_SEARCH
from turnpike.control.drf import OperatorView, StrictSerializer
from turnpike.kernel import clock
from turnpike.kernel.errors import InvalidInput
from turnpike.kernel.money import format_amount

ROWS_MAX = 500
OUTCOMES_MAX = 1_000
PAGE_TIMES = [
    OpenApiParameter("starting_at", str, required=True),
    OpenApiParameter("ending_at", str),
]


class PriceInput(StrictSerializer):
    """A price of one component: per million tokens, or per search."""

    model = serializers.CharField(max_length=200)
    component = serializers.ChoiceField(COMPONENTS)
    variant = serializers.CharField(max_length=50, required=False)
    min_input = serializers.IntegerField(required=False, min_value=0)
    price = AmountField()


class SpanInput(StrictSerializer):
    """The requests that began in a span."""

    starting_at = serializers.DateTimeField()
    ending_at = serializers.DateTimeField()


class RehearsalInput(SpanInput):
    """What is proposed: prices, a discount, a tier; any of them."""

    prices = PriceInput(many=True, required=False)
    discount_bp = serializers.IntegerField(required=False)
    tier = serializers.CharField(max_length=50, required=False)
    tenant = serializers.CharField(max_length=60, required=False)


class ModelOutcomeSerializer(serializers.Serializer[Any]):
    """One model's part of an outcome."""

    model = serializers.CharField()
    before = serializers.CharField()
    after = serializers.CharField()


class OutcomeSerializer(serializers.Serializer[Any]):
    """What would have become of one tenant's usage."""

    tenant = serializers.CharField()
    name = serializers.CharField()
    currency = serializers.CharField()
    requests = serializers.IntegerField()
    before = serializers.CharField()
    after = serializers.CharField()
    difference = serializers.CharField()
    refused = serializers.IntegerField(help_text="By the limits of the proposed tier.")
    models = ModelOutcomeSerializer(many=True)


class CorrectionInput(SpanInput):
    """A price set that was wrong, and the right prices."""

    price_set = serializers.IntegerField()
    prices = PriceInput(many=True)
    reason = serializers.CharField(max_length=REASON_LENGTH_MAX)


class CorrectionSerializer(serializers.Serializer[Any]):
    """What a re-rating came to."""

    run = serializers.CharField()
    tenants = serializers.IntegerField()
    requests = serializers.IntegerField()
    amounts = serializers.DictField(help_text="The difference in each currency.")
    credit_notes = serializers.ListField(child=serializers.CharField())


class MarginSerializer(serializers.Serializer[Any]):
    """A tenant's and model's margin."""

    tenant = serializers.CharField()
    model = serializers.CharField()
    currency = serializers.CharField()
    requests = serializers.IntegerField()
    charged = serializers.CharField()
    cost = serializers.CharField()
    margin = serializers.CharField()
    uncosted_attempts = serializers.IntegerField()


class CostBookInput(StrictSerializer):
    """The book that says what an upstream costs; empty: none."""

    book = serializers.CharField(max_length=100, allow_blank=True)
    reason = serializers.CharField(max_length=REASON_LENGTH_MAX)


class RehearsalsView(OperatorView):
    """What a change would have done."""

    @extend_schema(
        operation_id="operator_rehearse",
        request=RehearsalInput,
        responses=OutcomeSerializer(many=True),
    )
    def post(self, request: Request) -> Response:
        """Rate a span's requests under a proposal, tenant by tenant; nothing is written."""
        values = read(RehearsalInput, request.data)
        tenant = values.get("tenant")
        outcomes = rehearse(
            since=values["starting_at"],
            until=values["ending_at"],
            proposal=Proposal(
                rows=price_rows(values.get("prices", [])),
                discount_bp=values.get("discount_bp"),
                tier=values.get("tier", ""),
            ),
            tenant=None if tenant is None else access_any_tenant(self.caller, tenant).pk,
        )
        return Response({"data": [_outcome(item) for item in outcomes[:OUTCOMES_MAX]]})


class CorrectionsView(OperatorView):
    """Re-rating after a price error."""

    moves_money = True

    @extend_schema(
        operation_id="operator_correct_prices",
        request=CorrectionInput,
        responses={201: CorrectionSerializer},
    )
    def post(self, request: Request) -> Response:
        """Rate a span's requests under the right prices and post the differences; once by key."""
        key = self.money_key
        values = read(CorrectionInput, request.data)
        right = make_corrected_set(
            wrong_set=values["price_set"],
            rows=price_rows(values["prices"]),
            name=f"corrected {values['price_set']} {key}"[:100],
        )
        result = rate_again(
            wrong_set=values["price_set"],
            right_set=right.pk,
            since=values["starting_at"],
            until=values["ending_at"],
            reason=values["reason"],
            idempotency_key=f"api:{key}",
            actor=self.caller.actor,
            at=clock.utc_now(),
        )
        return Response(correction_answer(result), status=201)


class MarginsView(OperatorView):
    """What is earned."""

    @extend_schema(
        operation_id="operator_margins",
        parameters=PAGE_TIMES,
        responses=MarginSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        """Charges and costs of requests that began in a span, by tenant and model."""
        since = read_time(request, "starting_at")
        if since is None:
            raise InvalidInput("starting_at is needed.", field="starting_at")
        until = read_time(request, "ending_at") or clock.utc_now()
        rows = list_margins(since=since, until=until)
        numbers = {row.tenant for row in rows}
        names = {row.pk: row.public_id for row in Tenant.objects.filter(pk__in=numbers)}
        return Response(
            {
                "data": [
                    {
                        "tenant": names.get(row.tenant, ""),
                        "model": row.model,
                        "currency": row.currency,
                        "requests": row.requests,
                        "charged": format_amount(row.charged_nano),
                        "cost": format_amount(row.cost_nano),
                        "margin": format_amount(row.charged_nano - row.cost_nano),
                        "uncosted_attempts": row.uncosted,
                    }
                    for row in rows
                ]
            }
        )


class CostBookView(OperatorView):
    """What an upstream costs."""

    @extend_schema(
        operation_id="operator_upstream_cost_book", request=CostBookInput, responses=CostBookInput
    )
    def put(self, request: Request, upstream_id: str) -> Response:
        """Choose the book from which an upstream's attempts are costed from now on."""
        values = read(CostBookInput, request.data)
        set_cost_book(upstream=get_upstream(upstream_id).pk, actor=self.caller, **values)
        return Response(values)


def price_rows(items: list[Mapping[str, Any]]) -> list[PriceRow]:
    """Price rows from what was sent. Raises InvalidInput for more than a proposal may have."""
    if len(items) > ROWS_MAX:
        raise InvalidInput(f"At most {ROWS_MAX} prices.", field="prices")
    return [
        PriceRow(
            model=item["model"],
            component=item["component"],
            variant=item.get("variant", STANDARD),
            min_input=item.get("min_input", 0),
            nano_per_mtok=None if item["component"] == WEB_SEARCH else item["price"],
            nano_per_unit=item["price"] if item["component"] == WEB_SEARCH else None,
        )
        for item in items
    ]


def correction_answer(result: Corrected) -> dict[str, Any]:
    """A re-rating's result as programs read it."""
    return {
        "run": str(result.run),
        "tenants": result.tenants,
        "requests": result.requests,
        "amounts": {name: format_amount(nano) for name, nano in result.nanos.items()},
        "credit_notes": list(result.credit_notes),
    }


def _outcome(item: Outcome) -> dict[str, Any]:
    return {
        "tenant": item.tenant,
        "name": item.name,
        "currency": item.currency,
        "requests": item.requests,
        "before": format_amount(item.before_nano),
        "after": format_amount(item.after_nano),
        "difference": format_amount(item.after_nano - item.before_nano),
        "refused": item.refused,
        "models": [
            {"model": model, "before": format_amount(before), "after": format_amount(after)}
            for model, (before, after) in sorted(item.by_model.items())
        ],
    }
