"""OrganizationView and id_page: what answers below /v1/organizations, in the Admin API's shapes.

Errors are Anthropic's object. Lists are pages by id: ``?limit=&after_id=&before_id=`` ->
``{data, has_more, first_id, last_id}``. Ids carry their time, so a page needs no row of its cursor:
what was deleted meanwhile breaks no listing, and an id of somebody else's says nothing.
"""

import logging
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from django.db.models import Model, QuerySet
from drf_spectacular.utils import OpenApiParameter
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response

from turnpike.control import idempotency
from turnpike.control.drf import TenantView
from turnpike.control.pages import read_limit
from turnpike.control.problems import field_errors
from turnpike.control.publication import Publication
from turnpike.kernel import ids
from turnpike.kernel.errors import Conflict, InvalidInput, TurnpikeError

logger = logging.getLogger(__name__)

Row = TypeVar("Row", bound=Model)

LIMIT_MAX = 1_000
EFFECTIVE_HEADER = "turnpike-effective"
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
ID_PAGE_PARAMETERS = [
    OpenApiParameter("limit", int, description=f"1 to {LIMIT_MAX}; 20 if missing."),
    OpenApiParameter("after_id", str, description="`last_id` of the page before."),
    OpenApiParameter("before_id", str, description="`first_id` of the page after."),
]


class OrganizationView(TenantView):
    """A view for programs that speak the Admin API.

    Whether a change holds already stands in a header: the body has the Admin API's fields alone.
    """

    says_effective: ClassVar[bool] = False

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response]:
        """Failures become Anthropic's error object."""
        return _refused

    def _say_effective(
        self,
        response: Response,
        claim: idempotency.IdempotentAnswer | None,
        publication: Publication,
    ) -> None:
        if publication.planned:
            response[EFFECTIVE_HEADER] = "true" if publication.is_effective else "false"


def id_page(
    request: Request,
    rows: QuerySet[Row],
    *,
    prefix: str,
    write: Callable[[Row], dict[str, Any]],
    key: str = "uuid",
    shown: str = "id",
) -> dict[str, Any]:
    """One page of rows, newest first. `key`: the column of the ids; `shown`: where answers say it.

    Raises InvalidInput naming the parameter.
    """
    limit = read_limit(request, maximum=LIMIT_MAX)
    after, before = (_read_id(request, name, prefix) for name in ("after_id", "before_id"))
    if after is not None and before is not None:
        raise InvalidInput("before_id: cannot be combined with after_id", field="before_id")
    if before is not None:
        found = list(rows.filter(**{f"{key}__gt": before}).order_by(key)[: limit + 1])
        page = found[:limit][::-1]
    else:
        rest = rows if after is None else rows.filter(**{f"{key}__lt": after})
        found = list(rest.order_by(f"-{key}")[: limit + 1])
        page = found[:limit]
    data = [write(row) for row in page]
    return {
        "data": data,
        "has_more": len(found) > limit,
        "first_id": data[0][shown] if data else None,
        "last_id": data[-1][shown] if data else None,
    }


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
    said: dict[str, Any] = {"type": TYPE_OF_STATUS.get(status, "api_error"), "message": message}
    if error_code := getattr(error, "error_code", ""):
        said["details"] = {"error_code": error_code}
    return Response(
        {"type": "error", "error": said, "request_id": request_id}, status=status, headers=headers
    )


def _refused(error: Exception, context: dict[str, Any]) -> Response:
    """The SDKs send a 409 again; what the state forbids is no better the second time: 400."""
    response = anthropic_error(error, context)
    if isinstance(error, Conflict):
        response.status_code = 400
        response.data["error"]["type"] = TYPE_OF_STATUS[400]
    return response


def _status_and_message(error: Exception) -> tuple[int, str]:
    if isinstance(error, TurnpikeError):
        return error.status, error.message
    if isinstance(error, exceptions.ValidationError):
        return 400, "; ".join(
            f"{item['field']}: {item['message']}".removeprefix(": ")
            for item in field_errors("", error.detail)[:5]
        )
    if isinstance(error, exceptions.APIException):
        return error.status_code, str(error.detail)
    return 500, "Internal server error"


def _read_id(request: Request, name: str, prefix: str) -> UUID | None:
    text = request.query_params.get(name)
    if not text:
        return None
    try:
        return ids.parse_public_id(prefix, text)
    except ValueError as error:
        raise InvalidInput(f"{name}: is not an id of this list", field=name) from error
