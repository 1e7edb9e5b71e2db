"""What a Messages body can cause, read before anything is sent: the worst case that is held.

hold = input estimate x the dearest input component that the body can cause + max_tokens x output +
web searches, at the dearest variant and bracket that the request can reach. Both planes ask here:
the proxy for each request, the control plane for each item of a message batch.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from turnpike.contracts import rating
from turnpike.contracts.snapshots import Price, PriceSet
from turnpike.kernel.money import ceil_div, micros_up

LATIN_BYTES_PER_TOKEN = 4
# Other scripts: three bytes a character in UTF-8 and about two tokens.
OTHER_BYTES_PER_TOKEN_TENTHS = 15
IMAGE_TOKENS = 1_600
PDF_BYTES_PER_PAGE = 30_000
PDF_TOKENS_PER_PAGE = 2_500
REQUEST_TOKENS = 8
WEB_SEARCHES_DEFAULT = 10
WEB_SEARCHES_MAX = 100

_ASCII = bytes(range(128))
_BASE64 = re.compile(rb'"data"\s*:\s*"([A-Za-z0-9+/=\\]{256,})"')
_MEDIA = re.compile(rb'"media_type"\s*:\s*"(image|application)')
_URL_SOURCE = re.compile(rb'"type"\s*:\s*"url"')


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What a body can cause, read from it before anything is sent."""

    input_estimate: int
    max_tokens: int
    has_cache_control: bool = False
    has_one_hour_cache: bool = False
    web_searches: int = 0
    variants: tuple[str, ...] = (rating.STANDARD,)


def prompt_parts(fields: Mapping[str, msgspec.Raw]) -> list[bytes]:
    """The bytes of a body that become input tokens."""
    names = ("messages", "system", "tools")
    return [bytes(fields[name]) for name in names if name in fields]


def read_demand(fields: Mapping[str, msgspec.Raw], *, raw: bytes, max_tokens: int) -> Demand:
    """The demand of a body whose top level was read: `fields` are its values as they came."""
    parts = prompt_parts(fields)
    has_cache = "cache_control" in fields
    for part in parts:
        # A search for one byte is a hundred times as fast as one for several.
        has_cache = has_cache or (b"_" in part and b'"cache_control"' in part)
    has_hour = has_cache and b'"1h"' in raw
    searches = 0
    if "tools" in fields and b"web_search_" in bytes(fields["tools"]):
        searches = _web_searches(decode_field(fields, "tools"))
    return Demand(
        input_estimate=estimate_input_tokens(parts),
        max_tokens=max_tokens,
        has_cache_control=has_cache,
        has_one_hour_cache=has_hour,
        web_searches=searches,
        variants=_variants(fields),
    )


def decode_field(fields: Mapping[str, msgspec.Raw], name: str) -> Any:
    """A field's value, or None when it is absent or no JSON that we read."""
    raw = fields.get(name)
    try:
        return None if raw is None else msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


def estimate_input_tokens(parts: Iterable[bytes]) -> int:
    """The likely number of input tokens of a body's parts, rounded up.

    A quarter of the bytes for Latin text, more for other scripts; base64 counts as what it encodes.
    """
    tokens = REQUEST_TOKENS
    for part in parts:
        text_bytes = len(part)
        if b'"source"' in part:
            encoded = sum(match.end(1) - match.start(1) for match in _BASE64.finditer(part))
            if encoded or b'"base64"' in part:
                text_bytes -= encoded
                tokens += _media_tokens(part, encoded)
            tokens += IMAGE_TOKENS * len(_URL_SOURCE.findall(part))
        tokens += _text_tokens(part, text_bytes)
    return tokens


def hold_micro(demand: Demand, *, price_set: PriceSet, model: str, discount_bp: int) -> int | None:
    """The worst-case price of a request in micros, rounded up; None where a part has no price."""
    components: tuple[str, ...] = (rating.INPUT,)
    if demand.has_cache_control:
        components = (*components, rating.CACHE_WRITE_5M)
    if demand.has_one_hour_cache:
        components = (*components, rating.CACHE_WRITE_1H)
    dearest = 0
    for variant in demand.variants:
        worst = _variant_nanos(demand, components, variant, price_set=price_set, model=model)
        if worst is None:
            return None
        dearest = max(dearest, worst)
    if demand.web_searches:
        row = rating.find_price(
            price_set,
            model=model,
            component=rating.WEB_SEARCH,
            variant=rating.STANDARD,
            prompt_tokens=0,
        )
        if row is None or row.nano_per_unit is None:
            return None
        dearest += demand.web_searches * row.nano_per_unit * rating.TOKENS_PER_PRICE
    kept = rating.BASIS_POINTS - discount_bp
    nanos = ceil_div(dearest * kept, rating.TOKENS_PER_PRICE * rating.BASIS_POINTS)
    # Rating rounds each component by itself, so each may come out half a nano dearer.
    return micros_up(nanos + len(rating.COMPONENTS))


def at_batch_prices(demand: Demand) -> Demand:
    """The same demand where a batch causes it: each variant has its batch price."""
    variants = {
        "batch" if name == rating.STANDARD else "+".join(sorted(("batch", *name.split("+"))))
        for name in demand.variants
    }
    return msgspec.structs.replace(demand, variants=tuple(sorted(variants)))


def _text_tokens(part: bytes, text_bytes: int) -> int:
    # A search for the one byte is far cheaper than the count, and most often ends it.
    escaped = 6 * part.count(b"\\u") if b"\\" in part else 0
    if not escaped and part.isascii():
        return ceil_div(max(0, text_bytes), LATIN_BYTES_PER_TOKEN)
    other = escaped // 2 + (0 if part.isascii() else len(part.translate(None, _ASCII)))
    latin = max(0, text_bytes - other - escaped // 2)
    return ceil_div(latin, LATIN_BYTES_PER_TOKEN) + ceil_div(
        10 * other, OTHER_BYTES_PER_TOKEN_TENTHS
    )


def _media_tokens(part: bytes, encoded: int) -> int:
    kinds = _MEDIA.findall(part)
    images = kinds.count(b"image")
    if len(kinds) == images:
        return images * IMAGE_TOKENS
    pages = ceil_div(encoded * 3 // 4, PDF_BYTES_PER_PAGE)
    return images * IMAGE_TOKENS + pages * PDF_TOKENS_PER_PAGE


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


def _variants(fields: Mapping[str, msgspec.Raw]) -> tuple[str, ...]:
    """The price variants that the request can reach: what it asks for, and the plain one."""
    if "speed" not in fields and "inference_geo" not in fields:
        return (rating.STANDARD,)
    parts = []
    if _is(fields, "speed", b'"fast"'):
        parts.append("fast")
    if _is(fields, "inference_geo", b'"us"'):
        parts.append("us")
    # An upstream may fall back from either, and then bills what it served.
    return tuple({rating.STANDARD, *parts, "+".join(parts) or rating.STANDARD})


def _is(fields: Mapping[str, msgspec.Raw], name: str, value: bytes) -> bool:
    field = fields.get(name)
    return field is not None and bytes(field) == value


def _variant_nanos(
    demand: Demand, components: tuple[str, ...], variant: str, *, price_set: PriceSet, model: str
) -> int | None:
    """Nanos times a million, so that nothing is divided before the end."""
    # An estimate may be off by half, so brackets within twice its size count as reachable.
    reach = 2 * demand.input_estimate
    input_rate = _dearest_rate(price_set, model, components, variant, reach)
    output_rate = _dearest_rate(price_set, model, (rating.OUTPUT,), variant, reach)
    if input_rate is None or output_rate is None:
        return None
    return demand.input_estimate * input_rate + demand.max_tokens * output_rate


def _dearest_rate(
    price_set: PriceSet, model: str, components: tuple[str, ...], variant: str, reach: int
) -> int | None:
    """The dearest rate of these components for prompts up to `reach`; None where one has none."""
    for min_input, rate in _dearest_by_bracket(price_set, model, components, variant):
        if min_input <= reach:
            return rate
    return None


@lru_cache(maxsize=4_096)
def _dearest_by_bracket(
    price_set: PriceSet, model: str, components: tuple[str, ...], variant: str
) -> tuple[tuple[int, int | None], ...]:
    """What `_dearest_rate` is for each reach: where brackets begin, the highest first."""
    rows = [
        row
        for row in price_set.prices.get(model, ())
        if row.variant == variant and row.component in components
    ]
    starts = sorted({row.min_input for row in rows}, reverse=True)
    return tuple(
        (start, _dearest_of([row for row in rows if row.min_input <= start], components))
        for start in starts
    )


def _dearest_of(rows: list[Price], components: tuple[str, ...]) -> int | None:
    rates = [row.nano_per_mtok for row in rows if row.nano_per_mtok is not None]
    if len(rates) < len(rows) or {row.component for row in rows} != set(components):
        return None
    return max(rates)
