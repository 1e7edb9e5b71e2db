"""Errors of the management API as problem+json (RFC 9457), with stable codes and the request id."""

import logging
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.http import Http404
from rest_framework import exceptions, serializers
from rest_framework.response import Response

from turnpike.kernel import errors

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_TITLES = {
    400: "The request cannot be accepted",
    401: "Not authenticated",
    402: "Not enough credit",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    409: "Conflict",
    415: "Unsupported media type",
    429: "Too many requests",
    500: "Something broke on our side",
    503: "Temporarily unavailable",
}
_CODES = {
    400: "invalid_input",
    401: "not_authenticated",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    415: "unsupported_media_type",
    429: "rate_limited",
}


class FieldErrorSerializer(serializers.Serializer[Any]):
    """One field and what is wrong with it."""

    field = serializers.CharField()
    message = serializers.CharField()


class ProblemSerializer(serializers.Serializer[Any]):
    """An error: `code` is stable and for programs, `detail` is for people."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    code = serializers.CharField()
    request_id = serializers.CharField()
    errors = FieldErrorSerializer(many=True, required=False)  # type: ignore[assignment]


def problem_json(error: Exception, context: dict[str, Any]) -> Response:
    """DRF's exception handler: every failure becomes one problem document."""
    request_id = getattr(context.get("request"), "request_id", "")
    if isinstance(error, errors.TurnpikeError):
        return _of_ours(error, request_id)
    if isinstance(error, Http404):
        return _problem(status=404, code="not_found", detail="Not found.", request_id=request_id)
    if isinstance(error, DjangoPermissionDenied):
        error = exceptions.PermissionDenied()
    if isinstance(error, exceptions.APIException):
        return _of_framework(error, request_id)
    logger.error("request.broke", exc_info=error, extra={"request_id": request_id})
    detail = "The error was recorded under this request id."
    return _problem(status=500, code="internal_error", detail=detail, request_id=request_id)


def field_errors(path: str, detail: Any) -> list[dict[str, str]]:
    """Fields and what is wrong with each, from a serializer's errors; nested ones by path."""
    if isinstance(detail, Mapping):
        found = []
        for name, item in detail.items():
            below = path if name == "non_field_errors" else f"{path}.{name}".lstrip(".")
            found.extend(field_errors(below, item))
        return found
    if isinstance(detail, list):
        found = []
        for item in detail:
            found.extend(field_errors(path, item))
        return found
    return [{"field": path, "message": str(detail)}]


def _of_ours(error: errors.TurnpikeError, request_id: str) -> Response:
    field = getattr(error, "field", "")
    fields = [{"field": field, "message": error.message}] if field else []
    return _problem(
        status=error.status,
        code=error.code,
        detail=error.message,
        request_id=request_id,
        fields=fields,
    )


def _of_framework(error: exceptions.APIException, request_id: str) -> Response:
    status = error.status_code
    fields: list[dict[str, str]] = []
    if isinstance(error, exceptions.ValidationError):
        fields = field_errors("", error.detail)
        detail = "; ".join(f"{item['field']}: {item['message']}" for item in fields[:5])
    else:
        detail = str(error.detail)
    response = _problem(
        status=status,
        code="invalid_json"
        if isinstance(error, exceptions.ParseError)
        else _CODES.get(status, "error"),
        detail=detail,
        request_id=request_id,
        fields=fields,
    )
    if getattr(error, "auth_header", None):
        response["WWW-Authenticate"] = error.auth_header  # type: ignore[attr-defined]
    wait = getattr(error, "wait", None)
    if wait is not None:
        response["Retry-After"] = str(int(wait))
    return response


def _problem(
    *,
    status: int,
    code: str,
    detail: str,
    request_id: str,
    fields: list[dict[str, str]] | None = None,
) -> Response:
    body: dict[str, Any] = {
        "type": f"urn:turnpike:problem:{code}",
        "title": _TITLES.get(status, "Refused"),
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
    }
    if fields:
        body["errors"] = fields
    return Response(body, status=status, content_type=MEDIA_TYPE)
