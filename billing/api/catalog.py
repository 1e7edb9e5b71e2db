"""Endpoints for what is sold: models, prices and the tenant's tier."""

from typing import Any, ClassVar

from django.db.models.functions import Now
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from billing.models.catalog import CatalogModel, Price
from billing.snapshots import tier_of_tenant
from turnpike.contracts.snapshots import LIMIT_NAMES, Limits
from turnpike.control.caller import Power
from turnpike.control.drf import TenantView
from turnpike.control.pages import PAGE_PARAMETERS, keyset_page, page_of
from turnpike.kernel.money import format_amount

MODEL_NAME_LENGTH_MAX = 200
PRICES_PER_PAGE_MAX = 1_000


class LimitsSerializer(serializers.Serializer[Any]):
    """Limits of one scope; null: not limited here."""

    requests_per_minute = serializers.IntegerField(allow_null=True)
    tokens_per_minute = serializers.IntegerField(allow_null=True)
    input_tokens_per_minute = serializers.IntegerField(allow_null=True)
    output_tokens_per_minute = serializers.IntegerField(allow_null=True)
    concurrency = serializers.IntegerField(allow_null=True)
    burst_seconds = serializers.IntegerField(allow_null=True)


class ModelSerializer(serializers.Serializer[Any]):
    """A model of the catalogue."""

    id = serializers.CharField()
    display_name = serializers.CharField()
    line = serializers.CharField(allow_null=True)
    lifecycle = serializers.ChoiceField(["active", "deprecated", "retired"])
    created_at = serializers.DateTimeField()
    deprecated_at = serializers.DateTimeField(allow_null=True)
    retires_at = serializers.DateTimeField(allow_null=True)
    max_input_tokens = serializers.IntegerField(allow_null=True)
    max_tokens = serializers.IntegerField(allow_null=True)
    aliases = serializers.ListField(child=serializers.CharField())
    limit_group = serializers.CharField()
    successor = serializers.CharField(allow_null=True)


class PriceSerializer(serializers.Serializer[Any]):
    """One price in force, before the tenant's discount."""

    price_set = serializers.CharField()
    model = serializers.CharField(help_text="`*`: the same for every model.")
    component = serializers.CharField()
    variant = serializers.CharField()
    min_input = serializers.IntegerField(help_text="For prompts above this many tokens.")
    unit = serializers.ChoiceField(["million_tokens", "unit"])
    price = serializers.CharField(help_text="Decimal string of the currency's major unit.")
    currency = serializers.CharField()


class TierSerializer(serializers.Serializer[Any]):
    """What the tenant bought; limits with its own overrides applied."""

    tier = serializers.CharField()
    name = serializers.CharField()
    limits = LimitsSerializer()
    group_limits = serializers.DictField(child=LimitsSerializer())
    count_tokens_per_minute = serializers.IntegerField()
    mode = serializers.ChoiceField(["prepaid", "postpaid"])
    book = serializers.CharField()
    discount_bp = serializers.IntegerField()


class ModelsView(TenantView):
    """The models that this platform knows."""

    powers: ClassVar = {"GET": Power.TENANT_READ}

    @extend_schema(
        operation_id="list_models", parameters=PAGE_PARAMETERS, responses=page_of(ModelSerializer)
    )
    def get(self, request: Request) -> Response:
        """List models that are switched on, the one that was added last first."""
        rows = CatalogModel.objects.filter(is_enabled=True).prefetch_related("aliases")
        return Response(keyset_page(request, rows, write=_model))


class PricesView(TenantView):
    """The prices in force in the tenant's book."""

    powers: ClassVar = {"GET": Power.BILLING_READ}

    @extend_schema(
        operation_id="list_prices",
        parameters=[*PAGE_PARAMETERS, OpenApiParameter("model", str)],
        responses=page_of(PriceSerializer),
    )
    def get(self, request: Request) -> Response:
        """List prices in force now, up to 1,000 a page."""
        assert self.caller.tenant is not None
        rows = Price.objects.filter(
            price_set__book=tier_of_tenant(self.caller.tenant).terms.book,
            price_set__effective__contains=Now(),
        ).select_related("price_set__book")
        model = request.query_params.get("model")
        if model is not None:
            rows = rows.filter(model=model[:MODEL_NAME_LENGTH_MAX])
        return Response(keyset_page(request, rows, write=_price, maximum=PRICES_PER_PAGE_MAX))


class TierView(TenantView):
    """The tenant's tier."""

    powers: ClassVar = {"GET": Power.BILLING_READ}

    @extend_schema(operation_id="get_tier", responses=TierSerializer)
    def get(self, _request: Request) -> Response:
        """The tier with the limits that hold for this tenant."""
        assert self.caller.tenant is not None
        found = tier_of_tenant(self.caller.tenant)
        groups = {*found.tier.group_limits, *found.terms.group_overrides}
        return Response(
            {
                "tier": found.tier.tier,
                "name": found.tier.name,
                "limits": _limits(found.terms.overrides.over(found.tier.limits)),
                "group_limits": {
                    group: _limits(
                        found.terms.group_overrides.get(group, Limits()).over(
                            found.tier.group_limits.get(group, Limits())
                        )
                    )
                    for group in sorted(groups)
                },
                "count_tokens_per_minute": found.tier.count_tokens_per_minute,
                "mode": found.terms.mode,
                "book": found.book_name,
                "discount_bp": found.terms.discount_bp,
            }
        )


def _limits(limits: Limits) -> dict[str, int | None]:
    return {name: getattr(limits, name) for name in LIMIT_NAMES}


def _model(row: CatalogModel) -> dict[str, Any]:
    return {
        "id": row.model,
        "display_name": row.display_name,
        "line": row.line,
        "lifecycle": row.lifecycle,
        "created_at": row.released_at,
        "deprecated_at": row.deprecated_at,
        "retires_at": row.retires_at,
        "max_input_tokens": row.max_input_tokens,
        "max_tokens": row.max_tokens,
        "aliases": sorted(alias.alias for alias in row.aliases.all()),
        "limit_group": row.limit_group,
        "successor": row.successor or None,
    }


def _price(row: Price) -> dict[str, Any]:
    is_token_price = row.nano_per_mtok is not None
    nanos = row.nano_per_mtok if is_token_price else row.nano_per_unit
    return {
        "price_set": str(row.price_set_id),
        "model": row.model,
        "component": row.component,
        "variant": row.variant,
        "min_input": row.min_input,
        "unit": "million_tokens" if is_token_price else "unit",
        "price": format_amount(nanos or 0),
        "currency": row.price_set.book.currency,
    }
