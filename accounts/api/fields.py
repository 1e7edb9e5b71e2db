"""Fields and serializers that several endpoints share: money, limits, scopes of a change."""

from collections.abc import Mapping
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from accounts.models import LimitedModel, Tenant
from turnpike.contracts.snapshots import LIMIT_NAMES
from turnpike.control.drf import StrictSerializer
from turnpike.kernel import money

CURRENCY = "USD"
AMOUNT_LENGTH_MAX = 40
_BUDGET_MODES = ("daily_budget_blocks", "monthly_budget_blocks")
_BUDGET_COLUMNS = {"daily_budget": "daily_budget_nano", "monthly_budget": "monthly_budget_nano"}


@extend_schema_field(OpenApiTypes.STR)
class AmountField(serializers.Field[int, Any, str, int]):
    """Money as a decimal string of the major unit with nine decimals; nanos inside."""

    def to_internal_value(self, data: Any) -> int:
        """The nanos of a decimal string that is not negative."""
        try:
            if not isinstance(data, str) or len(data) > AMOUNT_LENGTH_MAX:
                raise serializers.ValidationError("An amount is a decimal string.")
            nanos = money.parse_amount(data)
        except ValueError as error:
            raise serializers.ValidationError("Not an amount.") from error
        if nanos < 0:
            raise serializers.ValidationError("An amount here is not negative.")
        return nanos

    def to_representation(self, value: int) -> str:
        """The decimal string of nanos."""
        return money.format_amount(value)


class BudgetsInput(StrictSerializer):
    """Budgets that may be set or, with null, taken away; at first they refuse what passes them."""

    daily_budget = AmountField(required=False, allow_null=True)
    monthly_budget = AmountField(required=False, allow_null=True)
    daily_budget_blocks = serializers.BooleanField(
        required=False, help_text="False: it refuses nothing and only tells."
    )
    monthly_budget_blocks = serializers.BooleanField(
        required=False, help_text="False: it refuses nothing and only tells."
    )


class LimitsInput(BudgetsInput):
    """Limits and budgets that may be set or, with null, taken away."""

    requests_per_minute = serializers.IntegerField(required=False, allow_null=True)
    tokens_per_minute = serializers.IntegerField(required=False, allow_null=True)
    input_tokens_per_minute = serializers.IntegerField(required=False, allow_null=True)
    output_tokens_per_minute = serializers.IntegerField(required=False, allow_null=True)
    concurrency = serializers.IntegerField(required=False, allow_null=True)
    burst_seconds = serializers.IntegerField(required=False, allow_null=True)


class BudgetsAnswer(serializers.Serializer[Any]):
    """Budgets as they are; null: none."""

    daily_budget = AmountField(allow_null=True)
    monthly_budget = AmountField(allow_null=True)
    daily_budget_blocks = serializers.BooleanField()
    monthly_budget_blocks = serializers.BooleanField()
    currency = serializers.CharField()


class LimitsAnswer(BudgetsAnswer):
    """Limits and budgets as they are; null: not limited here."""

    requests_per_minute = serializers.IntegerField(allow_null=True)
    tokens_per_minute = serializers.IntegerField(allow_null=True)
    input_tokens_per_minute = serializers.IntegerField(allow_null=True)
    output_tokens_per_minute = serializers.IntegerField(allow_null=True)
    concurrency = serializers.IntegerField(allow_null=True)
    burst_seconds = serializers.IntegerField(allow_null=True)


def columns_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Validated input under the names of the database's columns."""
    names = {**_BUDGET_COLUMNS, "models": "allowed_models"}
    return {names.get(name, name): value for name, value in values.items()}


def write_budgets(row: Tenant | LimitedModel) -> dict[str, Any]:
    """A row's budgets for an answer."""
    return {
        **{
            name: None if (nanos := getattr(row, column)) is None else money.format_amount(nanos)
            for name, column in _BUDGET_COLUMNS.items()
        },
        **{name: getattr(row, name) for name in _BUDGET_MODES},
        "currency": CURRENCY,
    }


def write_limits(row: LimitedModel) -> dict[str, Any]:
    """A row's limits and budgets for an answer."""
    return {**{name: getattr(row, name) for name in LIMIT_NAMES}, **write_budgets(row)}


def read(serializer: type[StrictSerializer], payload: Any) -> dict[str, Any]:
    """Validated input. Raises ValidationError, which becomes a problem with the fields named."""
    bound = serializer(data=payload)
    bound.is_valid(raise_exception=True)
    return dict(bound.validated_data)
