"""OrganizationView: the base of answers below /v1/organizations, errors in Anthropic's shape."""

import logging
from collections.abc import Callable
from typing import Any

from rest_framework import exceptions
from rest_framework.response import Response

from turnpike.control.drf import TenantView
from turnpike.kernel.errors import TurnpikeError

logger = logging.getLogger(__name__)

TYPE_OF_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    406: "invalid_request_error",
    409: "conflict_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class OrganizationView(TenantView):
    """A view for programs that speak the Admin API."""

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response]:
        """Failures become Anthropic's error object."""
        return anthropic_error


def anthropic_error(error: Exception, context: dict[str, Any]) -> Response:
    """One failure as ``{"type": "error", "error": {…}, "request_id": …}``."""
    request_id = getattr(context.get("request"), "request_id", "")
    status, message = _status_and_message(error)
    if status >= 500 and not isinstance(error, TurnpikeError):
        logger.error("request.broke", exc_info=error, extra={"request_id": request_id})
    headers = {}
    wait_seconds = getattr(error, "wait", None)
    if isinstance(error, exceptions.Throttled) and wait_seconds is not None:
        headers["retry-after"] = str(int(wait_seconds) + 1)
    return Response(
        {
            "type": "error",
            "error": {"type": TYPE_OF_STATUS.get(status, "api_error"), "message": message},
            "request_id": request_id,
        },
        status=status,
        headers=headers,
    )


def _status_and_message(error: Exception) -> tuple[int, str]:
    if isinstance(error, TurnpikeError):
        return error.status, error.message
    if isinstance(error, exceptions.APIException):
        return error.status_code, str(error.detail)
    return 500, "Internal server error"
