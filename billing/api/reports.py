"""Usage and cost reports in the Admin API's shape, for programs that speak it already."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.spans import BucketPage, read_buckets
from billing.models.ledger import Wallet
from billing.queries.requests import PublicIds, key_numbers, public_ids, workspace_numbers
from billing.queries.usage import UsageQuery, UsageSum, sum_usage
from turnpike.contracts import rating
from turnpike.control.caller import Power
from turnpike.control.organizations import OrganizationView
from turnpike.control.pages import read_list
from turnpike.kernel.errors import InvalidInput
from turnpike.kernel.money import format_cents

# Dimension -> the word of the rollup that it is read from; None: we have no such thing.
DIMENSIONS: Mapping[str, str | None] = {
    "api_key_id": "api_key_id",
    "workspace_id": "workspace_id",
    "model": "model",
    "service_tier": "tier",
    "context_window": "context_window",
    "inference_geo": "tier",
    "account_id": None,
    "service_account_id": None,
    "speed": "tier",
}
FILTERS: Mapping[str, str] = {
    "api_key_ids": "api_key_id",
    "workspace_ids": "workspace_id",
    "models": "model",
    "service_tiers": "service_tier",
    "context_window": "context_window",
    "inference_geos": "inference_geo",
    "account_ids": "account_id",
    "service_account_ids": "service_account_id",
    "speeds": "speed",
}
# In an answer even where nobody groups by them; `speed` only where somebody does.
SHOWN = tuple(name for name in DIMENSIONS if name != "speed")
COST_WORDS = ("model", "tier", "context_window")
COST_GROUPS = ("workspace_id", "description")
TOKEN_TYPES: Mapping[str, tuple[str, str]] = {
    rating.INPUT: ("uncached_input_tokens", "Input Tokens"),
    rating.OUTPUT: ("output_tokens", "Output Tokens"),
    rating.CACHE_WRITE_5M: ("cache_creation.ephemeral_5m_input_tokens", "Cache Write 5m Tokens"),
    rating.CACHE_WRITE_1H: ("cache_creation.ephemeral_1h_input_tokens", "Cache Write 1h Tokens"),
    rating.CACHE_READ: ("cache_read_input_tokens", "Cache Read Tokens"),
}
UNKNOWN_GEO = "not_available"
Results = dict[Any, list[dict[str, Any]]]


class UsageReportView(OrganizationView):
    """Tokens over time."""

    powers: ClassVar = {"GET": Power.USAGE_READ}

    @extend_schema(operation_id="get_usage_report", responses=OpenApiTypes.OBJECT)
    def get(self, request: Request) -> Response:
        """Tokens by minute, hour or day, grouped and narrowed as the query says."""
        assert self.caller.tenant is not None
        tenant = self.caller.tenant
        page = read_buckets(request, widths=("1m", "1h", "1d"))
        group_by = _read_groups(request, DIMENSIONS)
        chosen = _read_filters(request, tenant)
        words = {DIMENSIONS[name] for name in (*group_by, *chosen)} - {None}
        rows = sum_usage(
            UsageQuery(
                tenant=tenant,
                since=page.since,
                until=page.until,
                width=page.width,
                group_by=tuple(sorted(word for word in words if word is not None)),
            )
        )
        names = public_ids([row.words for row in rows])
        sums: dict[Any, dict[tuple[Any, ...], dict[str, int]]] = defaultdict(dict)
        for row in rows:
            values = dimension_values(row.words, names)
            if all(values[name] in wanted for name, wanted in chosen.items()):
                key = tuple(values[name] for name in group_by)
                total = sums[row.bucket_at].setdefault(key, defaultdict(int))
                for name, number in row.sums.items():
                    total[name] += number
        results: Results = {
            at: [
                _usage_result(total, dict(zip(group_by, key, strict=True)))
                for key, total in sorted(groups.items(), key=_by_text)
            ]
            for at, groups in sums.items()
        }
        return Response(_envelope(page, results))


class CostReportView(OrganizationView):
    """Money over time."""

    powers: ClassVar = {"GET": Power.BILLING_READ}

    @extend_schema(operation_id="get_cost_report", responses=OpenApiTypes.OBJECT)
    def get(self, request: Request) -> Response:
        """What was charged by day, in cents, grouped by workspace or by what it was for."""
        assert self.caller.tenant is not None
        tenant = self.caller.tenant
        page = read_buckets(request, widths=("1d",))
        group_by = _read_groups(request, COST_GROUPS)
        described = COST_WORDS if "description" in group_by else ()
        words = ("workspace_id", *described) if "workspace_id" in group_by else described
        rows = sum_usage(
            UsageQuery(
                tenant=tenant, since=page.since, until=page.until, width=page.width, group_by=words
            )
        )
        wallet = Wallet.objects.filter(tenant_id=tenant).first() or Wallet()
        names = public_ids([row.words for row in rows])
        results: Results = defaultdict(list)
        for row in rows:
            values = dimension_values(row.words, names)
            lines = cost_lines(row, values) if "description" in group_by else _whole(row)
            for nanos, shown in lines:
                results[row.bucket_at].append(
                    {
                        "amount": format_cents(nanos),
                        "currency": wallet.currency,
                        "workspace_id": values["workspace_id"],
                        **dict.fromkeys(_DESCRIBED),
                        **shown,
                    }
                )
        return Response(_envelope(page, results))


def dimension_values(words: Mapping[str, Any], names: PublicIds) -> dict[str, str | None]:
    """What each dimension says for a row; None where it was not asked for, or is not known."""
    tier = words.get("tier")
    parts = tier.split("+") if tier is not None else []
    return {
        "api_key_id": names.keys.get(words.get("api_key_id", -1)),
        "workspace_id": names.workspaces.get(words.get("workspace_id", -1)),
        "model": words.get("model"),
        "service_tier": parts[0] if parts else None,
        "context_window": words.get("context_window"),
        "inference_geo": ("us" if "us" in parts else UNKNOWN_GEO) if parts else None,
        "account_id": None,
        "service_account_id": None,
        "speed": ("fast" if "fast" in parts else "standard") if parts else None,
    }


def usage_numbers(sums: Mapping[str, int]) -> dict[str, Any]:
    """Token sums in the words of the Admin API."""
    return {
        "uncached_input_tokens": sums["input_tokens"],
        "cache_creation": {
            "ephemeral_5m_input_tokens": sums["cache_write_5m_tokens"],
            "ephemeral_1h_input_tokens": sums["cache_write_1h_tokens"],
        },
        "cache_read_input_tokens": sums["cache_read_tokens"],
        "output_tokens": sums["output_tokens"],
        "server_tool_use": {"web_search_requests": sums["web_search_requests"]},
    }


def cost_lines(
    row: UsageSum, values: Mapping[str, str | None]
) -> Iterable[tuple[int, dict[str, Any]]]:
    """What a row was charged for, a line for each component that cost something."""
    for component, nanos in row.charges.items():
        if nanos == 0:
            continue
        if component == rating.WEB_SEARCH:
            yield nanos, {"description": "Web Search Usage", "cost_type": "web_search"}
            continue
        token_type, title = TOKEN_TYPES[component]
        yield (
            nanos,
            {
                "description": f"{values['model']} Usage - {title}",
                "cost_type": "tokens",
                "model": values["model"],
                "token_type": token_type,
                "service_tier": values["service_tier"],
                "context_window": values["context_window"],
                "inference_geo": values["inference_geo"],
            },
        )


_DESCRIBED = (
    "description",
    "cost_type",
    "model",
    "token_type",
    "service_tier",
    "context_window",
    "inference_geo",
)


def _whole(row: UsageSum) -> Iterable[tuple[int, dict[str, Any]]]:
    if row.sums["amount_nano"]:
        yield row.sums["amount_nano"], {}


def _usage_result(sums: Mapping[str, int], grouped: Mapping[str, Any]) -> dict[str, Any]:
    return {**usage_numbers(sums), **dict.fromkeys(SHOWN), **grouped}


def _envelope(page: BucketPage, results: Mapping[Any, list[dict[str, Any]]]) -> dict[str, Any]:
    return {
        "data": page.rows(results),
        "has_more": page.next_page is not None,
        "next_page": page.next_page,
    }


def _read_groups(request: Request, known: Iterable[str]) -> tuple[str, ...]:
    names = dict.fromkeys(read_list(request, "group_by"))
    allowed = list(known)
    for name in names:
        if name not in allowed:
            raise InvalidInput(
                f"group_by: {name[:64]!r} is not one of {', '.join(allowed)}", field="group_by"
            )
    return tuple(names)


def _read_filters(request: Request, tenant: int) -> dict[str, frozenset[str]]:
    """Dimension -> the values to keep. Ids that are not the tenant's own match nothing."""
    own: Mapping[str, Callable[..., list[int]]] = {
        "api_key_ids": key_numbers,
        "workspace_ids": workspace_numbers,
    }
    chosen = {}
    for parameter, dimension in FILTERS.items():
        values = read_list(request, parameter)
        if not values:
            continue
        if parameter in own and not own[parameter](tenant=tenant, public=values):
            values = ("",)
        chosen[dimension] = frozenset(values)
    return chosen


def _by_text(item: tuple[tuple[Any, ...], Any]) -> tuple[str, ...]:
    return tuple(str(value) for value in item[0])
