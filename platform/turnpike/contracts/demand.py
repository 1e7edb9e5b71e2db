"""What a Messages body can cause, read before anything is sent: the worst case that is held.

hold = input estimate x the dearest input component that the body can cause + max_tokens x output +
web searches, at the dearest variant and bracket that the request can reach; the input once more for
each call that the upstream's tools may cause, and all of it once more for compaction and for each
other model that the body names. Both planes ask here: the proxy for each request, the control plane
for each item of a message batch.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from turnpike.contracts import rating
from turnpike.contracts.features import NOTHING, Wants, read_wants
from turnpike.contracts.measure import Measure, estimate_input_tokens, measure
from turnpike.contracts.snapshots import Price, PriceSet
from turnpike.kernel.money import NANOS_PER_MICRO

# What a tool of the upstream adds to the prompt of its next call.
TOOL_RESULT_TOKENS = 5_000
_PROMPT_FIELDS = ("messages", "system", "tools")
_PLAIN_VARIANTS = (rating.STANDARD,)
# What input may be billed as, by whether a body has cache control, and whether for an hour.
_COMPONENTS = {
    (False, False): (rating.INPUT,),
    (False, True): (rating.INPUT, rating.CACHE_WRITE_1H),
    (True, False): (rating.INPUT, rating.CACHE_WRITE_5M),
    (True, True): (rating.INPUT, rating.CACHE_WRITE_5M, rating.CACHE_WRITE_1H),
}
_COMPONENTS_COUNT = len(rating.COMPONENTS)
_UNDERSCORE = ord("_")
_RATE_DIVISOR = rating.TOKENS_PER_PRICE * rating.BASIS_POINTS


__all__ = [
    "Demand",
    "OtherCalls",
    "at_batch_prices",
    "decode_field",
    "estimate_input_tokens",
    "hold_micro",
    "prompt_parts",
    "read_demand",
]


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What a body can cause, read from it before anything is sent.

    `input_estimate` is the likely size of its input, `held_input` what is held where that is more.
    """

    input_estimate: int
    max_tokens: int
    held_input: int = 0
    measure: Measure = Measure()
    has_cache_control: bool = False
    has_one_hour_cache: bool = False
    wants: Wants = NOTHING
    variants: tuple[str, ...] = _PLAIN_VARIANTS


def prompt_parts(fields: Mapping[str, msgspec.Raw]) -> list[bytes]:
    """The bytes of a body that become input tokens."""
    parts = []
    for name in _PROMPT_FIELDS:
        if name in fields:
            parts.append(bytes(fields[name]))
    return parts


def read_demand(fields: Mapping[str, msgspec.Raw], raw: bytes, max_tokens: int) -> Demand:
    """The demand of a body whose top level was read: `fields` are its values as they came.

    Raises NotServed for what nobody can price.
    """
    parts = prompt_parts(fields)
    has_cache = "cache_control" in fields
    for part in parts:
        # A search for one byte is a hundred times as fast as one for several.
        has_cache = has_cache or (_UNDERSCORE in part and b'"cache_control"' in part)
    has_hour = has_cache and b'"1h"' in raw
    size = measure(parts)
    return Demand(
        input_estimate=size.plain_tokens(),
        max_tokens=max_tokens,
        measure=size,
        has_cache_control=has_cache,
        has_one_hour_cache=has_hour,
        wants=read_wants(
            fields, parts[0] if "messages" in fields else b"", has_escapes=size.has_escapes
        ),
        variants=_variants(fields),
    )


def decode_field(fields: Mapping[str, msgspec.Raw], name: str) -> Any:
    """A field's value, or None when it is absent or no JSON that we read."""
    raw = fields.get(name)
    try:
        return None if raw is None else msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


class OtherCalls(msgspec.Struct, frozen=True):
    """Calls of another model that a request may cause, each at most as large as its own."""

    model: str
    calls: int


def hold_micro(
    demand: Demand,
    *,
    price_set: PriceSet,
    model: str,
    discount_bp: int,
    others: Sequence[OtherCalls] = (),
) -> int | None:
    """The worst-case price of a request in micros, rounded up; None where a part has no price."""
    components = _COMPONENTS[demand.has_cache_control, demand.has_one_hour_cache]
    if demand.wants is NOTHING and demand.variants == _PLAIN_VARIANTS and not others:
        # Most requests: one call of one model. The long way says the same, at twice the price.
        dearest = _variant_nanos(demand, components, rating.STANDARD, price_set, model)
    else:
        dearest = _all_nanos(demand, components, price_set=price_set, model=model, others=others)
    if dearest is None:
        return None
    # Both roundings are up. Rating rounds each component by itself, so each may come out half a
    # nano dearer.
    nanos = -(-dearest * (rating.BASIS_POINTS - discount_bp) // _RATE_DIVISOR)
    return -(-(nanos + _COMPONENTS_COUNT) // NANOS_PER_MICRO)


def _all_nanos(
    demand: Demand,
    components: tuple[str, ...],
    *,
    price_set: PriceSet,
    model: str,
    others: Sequence[OtherCalls],
) -> int | None:
    """Nanos times a million of all calls and searches; None where a part has no price."""
    dearest = _tokens_nanos(demand, components, price_set=price_set, model=model, others=others)
    searches = _search_nanos(demand, price_set=price_set, model=model)
    return None if dearest is None or searches is None else dearest + searches


def at_batch_prices(demand: Demand) -> Demand:
    """The same demand where a batch causes it: each variant has its batch price."""
    variants = {
        "batch" if name == rating.STANDARD else "+".join(sorted(("batch", *name.split("+"))))
        for name in demand.variants
    }
    return msgspec.structs.replace(demand, variants=tuple(sorted(variants)))


def _variants(fields: Mapping[str, msgspec.Raw]) -> tuple[str, ...]:
    """The price variants that the request can reach: what it asks for, and the plain one."""
    if "speed" not in fields and "inference_geo" not in fields:
        return _PLAIN_VARIANTS
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
    demand: Demand, components: tuple[str, ...], variant: str, price_set: PriceSet, model: str
) -> int | None:
    """Nanos times a million, so that nothing is divided before the end."""
    loops = demand.wants.loops
    first, held = demand.input_estimate, demand.held_input
    if held > first:
        first = held
    grown = first + loops * TOOL_RESULT_TOKENS
    # An estimate may be off by half, so brackets within twice its size count as reachable.
    reach = 2 * grown
    for min_input, input_rate, output_rate in _dearest(price_set, model, components, variant):
        if min_input <= reach:
            if input_rate is None or output_rate is None:
                return None
            return (loops * first + grown) * input_rate + demand.max_tokens * output_rate
    return None


def _tokens_nanos(
    demand: Demand,
    components: tuple[str, ...],
    *,
    price_set: PriceSet,
    model: str,
    others: Sequence[OtherCalls],
) -> int | None:
    dearest = 0
    for variant in demand.variants:
        worst = _variant_nanos(demand, components, variant, price_set, model)
        if worst is None:
            return None
        if worst > dearest:
            dearest = worst
    if demand.wants.is_compacted:
        dearest *= 2
    for other in others:
        worst = _dearest_variant(demand, components, price_set=price_set, model=other.model)
        if worst is None:
            return None
        dearest += other.calls * worst
    return dearest


def _search_nanos(demand: Demand, *, price_set: PriceSet, model: str) -> int | None:
    if not demand.wants.searches:
        return 0
    row = rating.find_price(
        price_set,
        model=model,
        component=rating.WEB_SEARCH,
        variant=rating.STANDARD,
        prompt_tokens=0,
    )
    if row is None or row.nano_per_unit is None:
        return None
    return demand.wants.searches * row.nano_per_unit * rating.TOKENS_PER_PRICE


def _dearest_variant(
    demand: Demand, components: tuple[str, ...], *, price_set: PriceSet, model: str
) -> int | None:
    """The same for another model, which need not have every variant, but the plain one."""
    plain = _variant_nanos(demand, components, rating.STANDARD, price_set=price_set, model=model)
    if plain is None:
        return None
    worst = [
        _variant_nanos(demand, components, variant, price_set, model) for variant in demand.variants
    ]
    return max([plain, *(nanos for nanos in worst if nanos is not None)])


@lru_cache(maxsize=4_096)
def _dearest(
    price_set: PriceSet, model: str, components: tuple[str, ...], variant: str
) -> tuple[tuple[int, int | None, int | None], ...]:
    """Where brackets begin, the highest first, and the dearest rates of prompts that reach it.

    The first rate is that of these components, the second that of output; None where one has none.
    """
    output = (rating.OUTPUT,)
    rows = [
        row
        for row in price_set.prices.get(model, ())
        if row.variant == variant and row.component in (*components, *output)
    ]
    starts = sorted({row.min_input for row in rows}, reverse=True)
    return tuple(
        (start, _dearest_of(rows, components, start), _dearest_of(rows, output, start))
        for start in starts
    )


def _dearest_of(rows: list[Price], components: tuple[str, ...], reach: int) -> int | None:
    found = [row for row in rows if row.component in components and row.min_input <= reach]
    rates = [row.nano_per_mtok for row in found if row.nano_per_mtok is not None]
    if len(rates) < len(found) or {row.component for row in found} != set(components):
        return None
    return max(rates)
