"""/requests: what each request used and cost, and its receipt."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.spans import read_time
from billing.models.catalog import PriceSet
from billing.models.ledger import DEBIT, LedgerEntry, LedgerTxn
from billing.models.usage import UpstreamAttempt, UsageEvent
from billing.queries.documents import correction_keys
from billing.queries.requests import (
    NUMBERS,
    WORDS,
    PublicIds,
    RequestFilter,
    key_numbers,
    list_attempts,
    list_postings,
    list_requests,
    list_revisions,
    public_ids,
    workspace_numbers,
)
from turnpike.contracts.rating import WEB_SEARCH
from turnpike.control.caller import Power
from turnpike.control.drf import TenantView
from turnpike.control.pages import PAGE_PARAMETERS, page_of, read_cursor, read_limit, write_cursor
from turnpike.kernel import clock, ids
from turnpike.kernel.errors import InvalidInput, NotFound
from turnpike.kernel.money import format_amount, nanos_of_micros

REQUESTS_MAX = 10_000
NOBODY = -1
FILTER_PARAMETERS = [
    OpenApiParameter("status", str, description="void, estimated, observed, reported, …"),
    OpenApiParameter("http_status", int),
    OpenApiParameter("model", str),
    OpenApiParameter("api_key_id", str),
    OpenApiParameter("workspace_id", str),
    OpenApiParameter("starting_at", datetime),
    OpenApiParameter("ending_at", datetime),
]


class RequestSerializer(serializers.Serializer[Any]):
    """A request: `usage` has the shape of the Messages API, `amount` is a decimal string."""

    request_id = serializers.CharField()
    status = serializers.CharField(help_text="How good the knowledge is: void … reconciled.")
    http_status = serializers.IntegerField(allow_null=True)
    model = serializers.CharField()
    requested_model = serializers.CharField()
    usage = serializers.DictField()
    amount = serializers.CharField()
    currency = serializers.CharField()
    started_at = serializers.CharField()
    finished_at = serializers.CharField()
    time_to_first_token_ms = serializers.IntegerField(allow_null=True)
    stream = serializers.BooleanField()
    stop_reason = serializers.CharField(allow_null=True)
    error_type = serializers.CharField(allow_null=True)
    api_key_id = serializers.CharField(allow_null=True)
    workspace_id = serializers.CharField(allow_null=True)
    member = serializers.CharField(allow_null=True)
    revision = serializers.IntegerField()


class ReceiptSerializer(RequestSerializer):
    """A request with everything that its amount rests on."""

    waived = serializers.CharField(help_text="Worth beyond the hold; not charged.")
    hold = serializers.CharField()
    components = serializers.ListField(child=serializers.DictField())
    price_set = serializers.DictField(allow_null=True)
    revisions = serializers.ListField(child=serializers.DictField())
    ledger = serializers.ListField(child=serializers.DictField())
    attempts = serializers.ListField(child=serializers.DictField())


class RequestsView(TenantView):
    """The tenant's requests."""

    powers: ClassVar = {"GET": Power.REQUESTS_READ}

    @extend_schema(
        operation_id="list_requests",
        parameters=[*PAGE_PARAMETERS, *FILTER_PARAMETERS],
        responses=page_of(RequestSerializer),
    )
    def get(self, request: Request) -> Response:
        """List requests, newest first; `limit` may be as large as 10,000."""
        assert self.caller.tenant is not None
        limit = read_limit(request, maximum=REQUESTS_MAX)
        rows = list_requests(
            tenant=self.caller.tenant,
            chosen=_read_filter(request, self.caller.tenant),
            after=read_cursor(request, parse=UUID),
            limit=limit + 1,
        )
        shown = rows[:limit]
        names = public_ids(shown)
        return Response(
            {
                "data": [request_answer(row, names) for row in shown],
                "next_cursor": (
                    write_cursor(shown[-1]["request_id"]) if len(rows) > limit else None
                ),
            }
        )


class RequestView(TenantView):
    """One request's receipt."""

    powers: ClassVar = {"GET": Power.REQUESTS_READ}

    @extend_schema(operation_id="get_request", responses=ReceiptSerializer)
    def get(self, _request: Request, request_id: str) -> Response:
        """The event and its revisions, prices, ledger entries and attempts."""
        assert self.caller.tenant is not None
        tenant = self.caller.tenant
        number = parse_request_id(request_id)
        revisions = list_revisions(tenant=tenant, request=number)
        if not revisions:
            raise NotFound("There is no such request.")
        row = _total(revisions)
        newest = revisions[-1]
        postings = {item.posting_id for item in revisions if item.amount_nano}
        return Response(
            {
                **request_answer(row, public_ids([row])),
                "waived": format_amount(row["waived_nano"]),
                "hold": format_amount(nanos_of_micros(newest.hold_micro)),
                "discount_bp": newest.discount_bp,
                "components": [_component(item) for item in newest.components],
                "price_set": _price_set(newest.price_set_id),
                "revisions": [_revision(item) for item in revisions],
                "ledger": [
                    posting_answer(txn, entries)
                    for txn, entries in list_postings(
                        tenant=tenant,
                        postings=postings,
                        keys=correction_keys(tenant=tenant, request=number),
                    )
                ],
                "attempts": [
                    _attempt(item) for item in list_attempts(tenant=tenant, request=number)
                ],
            }
        )


def usage_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """A request's counts as the Messages API writes usage."""
    five_minutes, one_hour = row["cache_write_5m_tokens"], row["cache_write_1h_tokens"]
    searches, thinking = row["web_search_requests"], row["thinking_tokens"]
    return {
        "input_tokens": row["input_tokens"],
        "output_tokens": row["output_tokens"],
        "cache_creation_input_tokens": five_minutes + one_hour,
        "cache_read_input_tokens": row["cache_read_tokens"],
        "cache_creation": {
            "ephemeral_5m_input_tokens": five_minutes,
            "ephemeral_1h_input_tokens": one_hour,
        },
        "output_tokens_details": {"thinking_tokens": thinking} if thinking else None,
        "server_tool_use": {"web_search_requests": searches} if searches else None,
        "service_tier": row["tier"].partition("+")[0],
    }


def request_answer(row: Mapping[str, Any], names: PublicIds) -> dict[str, Any]:
    """A request as the list and the receipt show it."""
    return {
        "request_id": ids.public_id(ids.REQUEST, row["request_id"]),
        "status": row["status"],
        "http_status": row["http_status"],
        "model": row["model"],
        "requested_model": row["requested_model"] or row["model"],
        "usage": usage_of(row),
        "amount": format_amount(row["amount_nano"]),
        "currency": row["currency"],
        "started_at": clock.rfc3339(row["started_at"]),
        "finished_at": clock.rfc3339(row["finished_at"]),
        "time_to_first_token_ms": None if row["ttft_us"] is None else row["ttft_us"] // 1_000,
        "stream": row["is_stream"],
        "stop_reason": row["stop_reason"],
        "error_type": row["error_type"],
        "api_key_id": names.keys.get(row["api_key_id"]),
        "workspace_id": names.workspaces.get(row["workspace_id"]),
        "member": row["member"],
        "revision": row["revision"],
    }


def _total(revisions: list[UsageEvent]) -> dict[str, Any]:
    """The newest words and the sum of all revisions' numbers."""
    return {
        **{name: getattr(revisions[-1], name) for name in WORDS},
        **{name: sum(getattr(item, name) for item in revisions) for name in NUMBERS},
    }


def _component(item: Mapping[str, Any]) -> dict[str, Any]:
    is_unit = item["component"] == WEB_SEARCH
    return {
        "model": item["model"],
        "component": item["component"],
        "variant": item["variant"],
        "quantity": item["quantity"],
        "unit": "unit" if is_unit else "million_tokens",
        "price": None if item["rate_nanos"] is None else format_amount(item["rate_nanos"]),
        "amount": None if item["nanos"] is None else format_amount(item["nanos"]),
    }


def _price_set(number: int) -> dict[str, Any] | None:
    row = PriceSet.objects.filter(pk=number).select_related("book").first()
    if row is None:
        return None
    lower, upper = row.effective.lower, row.effective.upper
    return {
        "id": str(row.pk),
        "book": row.book.name,
        "currency": row.book.currency,
        "from": None if lower is None else clock.rfc3339(lower),
        "until": None if upper is None else clock.rfc3339(upper),
    }


def _revision(item: UsageEvent) -> dict[str, Any]:
    return {
        "revision": item.revision,
        "rank": item.rank,
        "status": item.status,
        "amount": format_amount(item.amount_nano),
        "waived": format_amount(item.waived_nano),
        "input_tokens": item.input_tokens,
        "output_tokens": item.output_tokens,
        "hold": format_amount(nanos_of_micros(item.hold_micro)),
        "price_set": str(item.price_set_id),
        "posting_id": str(item.posting_id),
        "late": item.is_late,
        "ingested_at": clock.rfc3339(item.ingested_at),
        "reported_usage": item.raw_usage,
    }


def posting_answer(txn: LedgerTxn, entries: list[LedgerEntry]) -> dict[str, Any]:
    """A posting of a batch: its entries stand for all requests that it charged."""
    return {
        "id": str(txn.pk),
        "key": txn.idem_key,
        "posted_at": clock.rfc3339(txn.posted_at),
        "entries": [
            {
                "line": entry.line,
                "account": entry.account.kind,
                "side": "debit" if entry.side == DEBIT else "credit",
                "amount": format_amount(entry.amount),
                "balance_after": format_amount(entry.balance_after),
            }
            for entry in entries
        ],
    }


def _attempt(item: UpstreamAttempt) -> dict[str, Any]:
    return {
        "attempt": item.attempt,
        "upstream": str(item.upstream_id),
        "upstream_request_id": item.upstream_request_id,
        "outcome": item.outcome,
        "billed": item.is_billed,
        "usage": item.usage,
    }


def parse_request_id(text: str) -> UUID:
    """The UUID of a request's public id. Raises NotFound."""
    try:
        return ids.parse_public_id(ids.REQUEST, text)
    except ValueError as error:
        raise NotFound("There is no such request.") from error


def _read_filter(request: Request, tenant: int) -> RequestFilter:
    query = request.query_params
    key, workspace = query.get("api_key_id"), query.get("workspace_id")
    status = query.get("http_status")
    if status is not None and not (status.isascii() and status.isdigit() and len(status) == 3):
        raise InvalidInput("http_status must be a number like 200.", field="http_status")
    return RequestFilter(
        status=query.get("status"),
        model=query.get("model"),
        http_status=None if status is None else int(status),
        key=_one(key_numbers(tenant=tenant, public=[key])) if key is not None else None,
        workspace=(
            _one(workspace_numbers(tenant=tenant, public=[workspace]))
            if workspace is not None
            else None
        ),
        since=read_time(request, "starting_at"),
        until=read_time(request, "ending_at"),
    )


def _one(numbers: list[int]) -> int:
    """The number that was found; of somebody else's id, one that nobody has."""
    return numbers[0] if numbers else NOBODY
