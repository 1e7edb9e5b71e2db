"""Lists of the management API: ``?limit=&cursor=`` -> ``{data, next_cursor}``, by keyset."""

import base64
import binascii
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from django.db.models import Model, QuerySet
from drf_spectacular.utils import OpenApiParameter, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request

from turnpike.kernel.errors import InvalidInput

Row = TypeVar("Row", bound=Model)

LIMIT_DEFAULT = 20
LIMIT_MAX = 100
CURSOR_LENGTH_MAX = 200

PAGE_PARAMETERS = [
    OpenApiParameter("limit", int, description=f"1 to {LIMIT_MAX}; {LIMIT_DEFAULT} if missing."),
    OpenApiParameter("cursor", str, description="`next_cursor` of the page before."),
]


def parse_bigint(text: str) -> int:
    """A number that a bigint column can hold. Raises ValueError."""
    number = int(text)
    if not 0 <= number < 1 << 63:
        raise ValueError("out of range")
    return number


def read_limit(request: Request, *, maximum: int = LIMIT_MAX) -> int:
    """The page size that was asked for. Raises InvalidInput outside 1 to `maximum`."""
    text = request.query_params.get("limit", str(min(LIMIT_DEFAULT, maximum)))
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= maximum:
        raise InvalidInput(f"limit must be a whole number from 1 to {maximum}.", field="limit")
    return int(text)


def read_cursor(request: Request, *, parse: Callable[[str], Any]) -> Any | None:
    """The key after which the page starts, or None. Raises InvalidInput for a foreign cursor."""
    text = request.query_params.get("cursor")
    if not text:
        return None
    try:
        raw = base64.urlsafe_b64decode(text[:CURSOR_LENGTH_MAX] + "=" * (-len(text) % 4)).decode()
        return parse(raw)
    except (ValueError, binascii.Error) as error:
        raise InvalidInput("cursor is not one that we gave out.", field="cursor") from error


def read_list(request: Request, name: str) -> tuple[str, ...]:
    """All values of a parameter, written `name` or `name[]`."""
    return (*request.query_params.getlist(name), *request.query_params.getlist(f"{name}[]"))


def write_cursor(key: Any) -> str:
    """An opaque cursor for a key."""
    return base64.urlsafe_b64encode(str(key).encode()).decode().rstrip("=")


def keyset_page(
    request: Request,
    queryset: QuerySet[Row],
    *,
    write: Callable[[Row], Any],
    key: str = "pk",
    parse: Callable[[str], Any] = parse_bigint,
    maximum: int = LIMIT_MAX,
) -> dict[str, Any]:
    """One page of a queryset, newest (largest key) first, each row written by `write`."""
    limit, after = read_limit(request, maximum=maximum), read_cursor(request, parse=parse)
    if after is not None:
        queryset = queryset.filter(**{f"{key}__lt": after})
    rows = list(queryset.order_by(f"-{key}")[: limit + 1])
    has_more = len(rows) > limit
    rows = rows[:limit]
    return {
        "data": [write(row) for row in rows],
        "next_cursor": write_cursor(getattr(rows[-1], key)) if has_more else None,
    }


@cache
def page_of(serializer: type[serializers.Serializer[Any]]) -> serializers.Serializer[Any]:
    """The schema of a page of something."""
    name = serializer.__name__.removesuffix("Serializer")
    return inline_serializer(
        name=f"{name}Page",
        fields={
            "data": serializer(many=True),
            "next_cursor": serializers.CharField(allow_null=True),
        },
    )
