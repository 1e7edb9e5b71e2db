"""What a body can cause: read from it before anything is sent, so that the worst can be held."""

from collections.abc import Mapping
from typing import Any

from proxy.api_errors import ApiError
from proxy.body import MessagesBody, decode_field
from proxy.pricing import (
    WEB_SEARCHES_DEFAULT,
    WEB_SEARCHES_MAX,
    Demand,
    estimate_input_tokens,
)
from turnpike.contracts import rating


def demand_of(body: MessagesBody) -> Demand:
    """The demand of a checked body."""
    parts = body.parts()
    has_cache = "cache_control" in body.fields
    for part in parts:
        # A search for one byte is a hundred times as fast as one for several.
        has_cache = has_cache or (b"_" in part and b'"cache_control"' in part)
    has_hour = has_cache and b'"1h"' in body.raw
    searches = 0
    if "tools" in body.fields and b"web_search_" in bytes(body.fields["tools"]):
        searches = _web_searches(decode_field(body.fields, "tools"))
    return Demand(
        input_estimate=estimate_input_tokens(parts),
        max_tokens=body.max_tokens,
        has_cache_control=has_cache,
        has_one_hour_cache=has_hour,
        web_searches=searches,
        variants=_variants(body),
    )


def refuse_denied_betas(headers: Mapping[bytes, bytes], denied: tuple[str, ...]) -> None:
    """Refuse beta values that the tier denies; all others are an open list. Raises ApiError 400."""
    if not denied:
        return
    values = [
        value.strip() for value in headers.get(b"anthropic-beta", b"").decode("latin-1").split(",")
    ]
    refused = [value for value in values if value in denied]
    if refused:
        names = ", ".join(f"`{value}`" for value in refused)
        raise ApiError(
            400,
            "invalid_request_error",
            f"Unexpected value(s) {names} for the `anthropic-beta` header",
        )


def _web_searches(tools: Any) -> int:
    total = 0
    for tool in tools if isinstance(tools, list) else []:
        kind = tool.get("type") if isinstance(tool, dict) else None
        if not isinstance(kind, str) or not kind.startswith("web_search_"):
            continue
        uses = tool.get("max_uses")
        is_number = isinstance(uses, int) and not isinstance(uses, bool) and uses >= 0
        total += uses if is_number else WEB_SEARCHES_DEFAULT
    return min(total, WEB_SEARCHES_MAX)


def _variants(body: MessagesBody) -> tuple[str, ...]:
    """The price variants that the request can reach: what it asks for, and the plain one."""
    if "speed" not in body.fields and "inference_geo" not in body.fields:
        return (rating.STANDARD,)
    parts = []
    if body.has("speed", b'"fast"'):
        parts.append("fast")
    if body.has("inference_geo", b'"us"'):
        parts.append("us")
    # An upstream may fall back from either, and then bills what it served.
    return tuple({rating.STANDARD, *parts, "+".join(parts) or rating.STANDARD})
