"""/refusals: why requests were refused, with the numbers at that moment, and counts by hour."""

from typing import Any, ClassVar
from uuid import UUID

import redis
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from billing.queries.refusals import read_outcomes, read_refusals
from billing.queries.requests import public_ids
from turnpike.control.caller import Power
from turnpike.control.drf import TenantView
from turnpike.control.pages import read_limit
from turnpike.kernel import clock, ids
from turnpike.kernel.errors import InvalidInput, Unavailable
from turnpike.kernel.money import format_amount, nanos_of_micros

REFUSALS_MAX = 1_000
HOURS_DEFAULT, HOURS_MAX = 24, 960


class RefusalSerializer(serializers.Serializer[Any]):
    """One refused request and the limit that refused it."""

    at = serializers.CharField()
    request_id = serializers.CharField(allow_null=True)
    reason = serializers.CharField(
        help_text="For example rate:requests, concurrency:tenant, credit."
    )
    http_status = serializers.IntegerField(allow_null=True)
    type = serializers.CharField(allow_null=True)
    message = serializers.CharField(allow_null=True)
    model = serializers.CharField(allow_null=True)
    api_key_id = serializers.CharField(allow_null=True)
    limit = serializers.IntegerField(allow_null=True)
    retry_after_ms = serializers.IntegerField(allow_null=True)
    available = serializers.CharField(allow_null=True, help_text="Credit at that moment.")


class HourSerializer(serializers.Serializer[Any]):
    """How requests of one hour (UTC) ended, by outcome."""

    starting_at = serializers.CharField()
    outcomes = serializers.DictField(child=serializers.IntegerField())


class RefusalsSerializer(serializers.Serializer[Any]):
    """The newest refusals and the counts of the last hours; hours without requests are left out."""

    data = RefusalSerializer(many=True)  # type: ignore[assignment]
    hours = HourSerializer(many=True)


class RefusalsView(TenantView):
    """What the tenant was refused."""

    powers: ClassVar = {"GET": Power.REQUESTS_READ}

    @extend_schema(
        operation_id="list_refusals",
        parameters=[
            OpenApiParameter("limit", int, description=f"1 to {REFUSALS_MAX}."),
            OpenApiParameter("hours", int, description=f"1 to {HOURS_MAX}; {HOURS_DEFAULT}."),
        ],
        responses=RefusalsSerializer,
    )
    def get(self, request: Request) -> Response:
        """The last refusals, newest first, and outcomes by hour, oldest first."""
        assert self.caller.tenant is not None
        limit, hours = read_limit(request, maximum=REFUSALS_MAX), _read_hours(request)
        try:
            rows = read_refusals(self.caller.tenant, limit=limit)
            counts = read_outcomes(self.caller.tenant, hours=hours)
        except redis.RedisError as error:
            raise Unavailable("Refusals cannot be read now; try again soon.") from error
        names = public_ids([{"api_key_id": _number(row.get("key"))} for row in rows])
        return Response(
            {"data": [_refusal(row, names.keys.get(_number(row.get("key")) or 0)) for row in rows]}
            | {"hours": counts}
        )


def _refusal(row: dict[str, Any], key_id: str | None) -> dict[str, Any]:
    at_us = _number(row.get("at_us")) or 0
    wait_us, available = _number(row.get("wait_us")), _number(row.get("available_micro"))
    return {
        "at": clock.rfc3339(clock.datetime_of_us(at_us)),
        "request_id": _request_id(row.get("request_id")),
        "reason": str(row.get("reason", "")),
        "http_status": row.get("status"),
        "type": row.get("type"),
        "message": row.get("message"),
        "model": row.get("model"),
        "api_key_id": key_id,
        "limit": row.get("limit"),
        "retry_after_ms": None if wait_us is None or wait_us < 0 else -(-wait_us // 1_000),
        "available": None if available is None else format_amount(nanos_of_micros(available)),
    }


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _request_id(value: Any) -> str | None:
    """As the response header named it, whichever form the data plane wrote."""
    if not isinstance(value, str):
        return None
    try:
        return ids.public_id(ids.REQUEST, UUID(value))
    except ValueError:
        return value


def _read_hours(request: Request) -> int:
    text = request.query_params.get("hours", str(HOURS_DEFAULT))
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= HOURS_MAX:
        raise InvalidInput(f"hours must be a whole number from 1 to {HOURS_MAX}.", field="hours")
    return int(text)
