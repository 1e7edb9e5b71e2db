"""Picks the price from the snapshot; estimates before, rates after.

hold = input estimate x the dearest input component that the body can cause + max_tokens x output +
web searches, at the dearest variant and bracket that the request can reach. What the answer was
worth is `turnpike.contracts.rating`; what is charged is never more than the hold.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
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


def worst_case_micro(
    usage: Mapping[str, Any], *, price_set: PriceSet, model: str, max_tokens: int, discount_bp: int
) -> int:
    """The most that a stream can still cost once `message_start` has told its exact input."""
    full = {**usage, "output_tokens": max(max_tokens, _output(usage))}
    return rated_micro(full, price_set=price_set, model=model, discount_bp=discount_bp)


def rated_micro(
    usage: Mapping[str, Any],
    *,
    price_set: PriceSet,
    model: str,
    discount_bp: int,
    stop_reason: str | None = None,
) -> int:
    """What an answer's usage is worth in micros, rounded up; unpriced parts count as nothing."""
    lines = rating.usage_lines(usage, model=model)
    return lines_micro(lines, price_set=price_set, discount_bp=discount_bp, stop_reason=stop_reason)


def lines_micro(
    lines: Sequence[rating.UsageLine],
    *,
    price_set: PriceSet,
    discount_bp: int,
    stop_reason: str | None,
) -> int:
    """What lines of usage are worth in micros, rounded up; unpriced parts count as nothing."""
    if rating.is_free(lines, stop_reason=stop_reason):
        return 0
    return micros_up(rating.nanos_of(lines, price_set=price_set, discount_bp=discount_bp))


def _output(usage: Mapping[str, Any]) -> int:
    value = usage.get("output_tokens")
    return value if isinstance(value, int) else 0


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
