"""/usage: tokens, requests and money over time, for the console and programs of ours."""

from datetime import datetime, timedelta
from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.spans import read_buckets
from billing.models.ledger import Wallet
from billing.queries.requests import key_numbers, public_ids, workspace_numbers
from billing.queries.usage import WORDS, UsageQuery, UsageSum, sum_usage
from turnpike.control.caller import Power
from turnpike.control.drf import TenantView
from turnpike.control.pages import read_list
from turnpike.kernel import clock
from turnpike.kernel.errors import InvalidInput
from turnpike.kernel.money import format_amount

DEFAULT_SPAN = timedelta(days=6)
SHOWN_NUMBERS = (
    "requests",
    "input_tokens",
    "output_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_read_tokens",
    "thinking_tokens",
    "web_search_requests",
)
PARAMETERS = [
    OpenApiParameter("starting_at", datetime, description="Default: six days ago."),
    OpenApiParameter("ending_at", datetime, description="Default: now."),
    OpenApiParameter("bucket_width", str, enum=["1m", "1h", "1d"]),
    OpenApiParameter("limit", int, description="Buckets in an answer."),
    OpenApiParameter("cursor", str),
    OpenApiParameter("group_by", str, many=True, enum=list(WORDS)),
    OpenApiParameter("api_key_id", str, many=True),
    OpenApiParameter("workspace_id", str, many=True),
    OpenApiParameter("model", str, many=True),
]


class BucketSerializer(serializers.Serializer[Any]):
    """One bucket; `results` has a row for each combination of what was grouped by."""

    starting_at = serializers.CharField()
    ending_at = serializers.CharField()
    results = serializers.ListField(child=serializers.DictField())


class UsagePageSerializer(serializers.Serializer[Any]):
    """Buckets, the oldest first; empty ones included."""

    data = BucketSerializer(many=True)  # type: ignore[assignment]
    next_cursor = serializers.CharField(allow_null=True)


class UsageView(TenantView):
    """The tenant's usage."""

    powers: ClassVar = {"GET": Power.USAGE_READ}

    @extend_schema(operation_id="get_usage", parameters=PARAMETERS, responses=UsagePageSerializer)
    def get(self, request: Request) -> Response:
        """Requests, tokens and amounts by minute, hour or day."""
        assert self.caller.tenant is not None
        tenant = self.caller.tenant
        page = read_buckets(
            request,
            widths=("1m", "1h", "1d"),
            default_since=clock.utc_now() - DEFAULT_SPAN,
            cursor="cursor",
        )
        group_by = _read_groups(request)
        rows = sum_usage(
            UsageQuery(
                tenant=tenant,
                since=page.since,
                until=page.until,
                width=page.width,
                group_by=group_by,
                only=_read_only(request, tenant),
            )
        )
        wallet = Wallet.objects.filter(tenant_id=tenant).first() or Wallet()
        names = public_ids([row.words for row in rows])
        replaced = {"api_key_id": names.keys, "workspace_id": names.workspaces}
        results: dict[datetime, list[dict[str, Any]]] = {}
        for row in rows:
            words = {
                name: replaced[name].get(value) if name in replaced else value
                for name, value in row.words.items()
            }
            results.setdefault(row.bucket_at, []).append(
                {**words, **_numbers(row), "currency": wallet.currency}
            )
        return Response({"data": page.rows(results), "next_cursor": page.next_page})


def _numbers(row: UsageSum) -> dict[str, Any]:
    return {
        **{name: row.sums[name] for name in SHOWN_NUMBERS},
        "amount": format_amount(row.sums["amount_nano"]),
    }


def _read_groups(request: Request) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(read_list(request, "group_by")))
    unknown = [name for name in names if name not in WORDS]
    if unknown:
        raise InvalidInput(
            f"group_by knows {', '.join(WORDS)}, not {unknown[0][:64]!r}.", field="group_by"
        )
    return names


def _read_only(request: Request, tenant: int) -> dict[str, tuple[Any, ...]]:
    """Word -> the values to keep. Ids that are not the tenant's own match nothing."""
    only: dict[str, tuple[Any, ...]] = {}
    if keys := read_list(request, "api_key_id"):
        only["api_key_id"] = tuple(key_numbers(tenant=tenant, public=keys))
    if workspaces := read_list(request, "workspace_id"):
        only["workspace_id"] = tuple(workspace_numbers(tenant=tenant, public=workspaces))
    if models := read_list(request, "model"):
        only["model"] = models
    return only
