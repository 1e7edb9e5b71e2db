"""Rates what an answer used; what a body can cause is `turnpike.contracts.demand`.

What the answer was worth is `turnpike.contracts.rating`; what is charged is never more than the
hold.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from turnpike.contracts import rating
from turnpike.contracts.demand import Demand, estimate_input_tokens, hold_micro
from turnpike.contracts.snapshots import PriceSet
from turnpike.kernel.money import NANOS_PER_MICRO, micros_up

__all__ = [
    "Demand",
    "call_micro",
    "estimate_input_tokens",
    "hold_micro",
    "lines_micro",
    "rated_micro",
    "worst_case_micro",
]


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


def call_micro(counts: Mapping[str, int], price_set: PriceSet, model: str, discount_bp: int) -> int:
    """The same for one plain call that was not refused, by its counts."""
    nanos = rating.nanos_of_call(counts, price_set, model, discount_bp)
    return -(-nanos // NANOS_PER_MICRO)


def _output(usage: Mapping[str, Any]) -> int:
    value = usage.get("output_tokens")
    return value if isinstance(value, int) else 0
