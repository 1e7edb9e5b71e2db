"""rate(usage, price): the one function that turns usage into money.

Usage is the Messages API's own object. `output_tokens` already contains thinking, so thinking is
never priced again. Where `iterations` are present they replace the top-level counters, each entry
at its own model's price. A refusal without output costs nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from turnpike.contracts.snapshots import Price, PriceSet
from turnpike.kernel.money import Nanos, half_even_div

INPUT = "input"
OUTPUT = "output"
CACHE_WRITE_5M = "cache_write_5m"
CACHE_WRITE_1H = "cache_write_1h"
CACHE_READ = "cache_read"
WEB_SEARCH = "web_search"
TOKEN_COMPONENTS = (INPUT, OUTPUT, CACHE_WRITE_5M, CACHE_WRITE_1H, CACHE_READ)
COMPONENTS = (*TOKEN_COMPONENTS, WEB_SEARCH)
PROMPT_COMPONENTS = (INPUT, CACHE_WRITE_5M, CACHE_WRITE_1H, CACHE_READ)

# Types of iterations that are attempts at the answer itself.
MESSAGE = "message"
FALLBACK = "fallback_message"

# What an answer says of itself that the model did not want to give.
REFUSAL = "refusal"

ANY_MODEL = "*"
STANDARD = "standard"
TOKENS_PER_PRICE = 1_000_000
BASIS_POINTS = 10_000
# An int column; no answer of any model comes near.
COUNT_MAX = 2**31 - 1


@dataclass(slots=True, kw_only=True)  # not frozen: one is made for every request
class UsageLine:
    """Counts of one model within an answer."""

    model: str
    variant: str
    counts: Mapping[str, int]

    @property
    def prompt_tokens(self) -> int:
        """Everything that was read: what long-context brackets look at."""
        return prompt_tokens_of(self.counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One priced part of an event; `nanos` is None where no price exists."""

    model: str
    component: str
    variant: str
    quantity: int
    rate_nanos: int | None
    nanos: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rated:
    """The price of an event, before it is capped by the hold."""

    nanos: Nanos
    components: tuple[Component, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every part that was used has a price."""
        return all(component.nanos is not None for component in self.components)


def rate(
    usage: Mapping[str, Any],
    *,
    model: str,
    price_set: PriceSet,
    discount_bp: int = 0,
    stop_reason: str | None = None,
    is_batch: bool = False,
) -> Rated:
    """Price an answer's usage. Deterministic, monotone in every count, additive over components."""
    lines = usage_lines(usage, model=model, is_batch=is_batch)
    if is_free(lines, stop_reason=stop_reason):
        return Rated(nanos=Nanos(0), components=())
    components = tuple(
        component
        for line in lines
        for component in _price_line(line, price_set=price_set, discount_bp=discount_bp)
    )
    return Rated(nanos=Nanos(sum(item.nanos or 0 for item in components)), components=components)


def is_free(lines: Sequence[UsageLine], *, stop_reason: str | None) -> bool:
    """Whether an answer costs nothing: a refusal before any output."""
    return stop_reason == REFUSAL and all(line.counts[OUTPUT] == 0 for line in lines)


def nanos_of(lines: Sequence[UsageLine], *, price_set: PriceSet, discount_bp: int) -> Nanos:
    """The sum that `rate` comes to, without saying of what: for the path of every request."""
    return Nanos(
        sum(
            nanos_of_call(
                line.counts,
                price_set=price_set,
                model=line.model,
                variant=line.variant,
                discount_bp=discount_bp,
            )
            for line in lines
        )
    )


def nanos_of_call(
    counts: Mapping[str, int],
    price_set: PriceSet,
    model: str,
    discount_bp: int,
    variant: str = STANDARD,
) -> int:
    """What the counts of one model call come to."""
    brackets = _brackets(price_set, model, variant)
    first = brackets[0]
    if len(brackets) > 1:
        first = _reached(brackets, prompt_tokens_of(counts))
    rates, total, kept = first.rates, 0, BASIS_POINTS - discount_bp
    for name, count in counts.items():
        if count and name in rates:
            rate_nanos, divisor = rates[name]
            total += half_even_div(count * rate_nanos * kept, divisor)
    return total


def prompt_tokens_of(counts: Mapping[str, int]) -> int:
    """Everything that a call read: what long-context brackets look at."""
    return sum([counts.get(name, 0) for name in PROMPT_COMPONENTS])


def plain_counts(
    *,
    input_tokens: int,
    output_tokens: int,
    cache_creation: int,
    five_minutes: int,
    one_hour: int,
    cache_read: int,
) -> dict[str, int]:
    """The counts by component of one model call that used no tools and was served as usual."""
    # The split comes in message_start alone; what the total has beyond it is priced as 5m.
    rest = cache_creation - one_hour
    return {
        INPUT: input_tokens,
        OUTPUT: output_tokens,
        CACHE_WRITE_5M: rest if rest > five_minutes else five_minutes,
        CACHE_WRITE_1H: one_hour,
        CACHE_READ: cache_read,
        WEB_SEARCH: 0,
    }


def usage_lines(usage: Mapping[str, Any], *, model: str, is_batch: bool = False) -> list[UsageLine]:
    """The counts that are billed, one line for each model call; each from 0 to COUNT_MAX."""
    variant = variant_of(usage, is_batch=is_batch)
    iterations = usage.get("iterations")
    entries = (
        [entry for entry in iterations if isinstance(entry, dict)]
        if isinstance(iterations, list)
        else None
    )
    searches = _searches(usage)
    if not entries:
        counts = _counts(usage)
        counts[WEB_SEARCH] = searches
        return [UsageLine(model=model, variant=variant, counts=counts)]
    has_fallback = any(entry.get("type") == FALLBACK for entry in entries)
    lines = []
    for entry in entries:
        counts = _counts(entry)
        if has_fallback and entry.get("type") in (MESSAGE, FALLBACK) and counts[OUTPUT] == 0:
            continue  # an attempt that declined before any output is free
        name = entry.get("model")
        called = name if isinstance(name, str) and name else model
        lines.append(UsageLine(model=called, variant=variant, counts=counts))
    if searches:
        counts = {OUTPUT: 0, WEB_SEARCH: searches}
        lines.append(UsageLine(model=model, variant=variant, counts=counts))
    return lines


def token_counts(usage: Mapping[str, Any]) -> dict[str, int]:
    """The sums over all lines by component, for rollups and for what people read."""
    return sum_counts(usage_lines(usage, model=""))


def sum_counts(lines: Sequence[UsageLine]) -> dict[str, int]:
    """The sums over lines by component."""
    totals = dict.fromkeys(COMPONENTS, 0)
    if len(lines) == 1:
        totals.update(lines[0].counts)
        return totals
    for line in lines:
        for name, count in line.counts.items():
            totals[name] += count
    return totals


def thinking_tokens(usage: Mapping[str, Any]) -> int:
    """The part of the output that was thinking; never priced by itself."""
    details = usage.get("output_tokens_details")
    return _count(details.get("thinking_tokens")) if isinstance(details, dict) else 0


def variant_of(usage: Mapping[str, Any], *, is_batch: bool = False) -> str:
    """The price variant an answer reports: `standard`, or its factors joined by `+`, sorted."""
    parts = []
    if is_batch or usage.get("service_tier") == "batch":
        parts.append("batch")
    if usage.get("speed") == "fast":
        parts.append("fast")
    if usage.get("inference_geo") == "us":
        parts.append("us")
    return "+".join(parts) or STANDARD


def prices_of(
    price_set: PriceSet, *, model: str, variant: str, prompt_tokens: int
) -> Mapping[str, Price]:
    """The rows in force for one model call, by component; a component without a price is missing.

    Long prompts take the highest bracket that they pass. What is sold by the unit has one price for
    all models.
    """
    return _reached(_brackets(price_set, model, variant), prompt_tokens).rows


def find_price(
    price_set: PriceSet, *, model: str, component: str, variant: str, prompt_tokens: int
) -> Price | None:
    """The row that prices one component, or None."""
    rows = prices_of(price_set, model=model, variant=variant, prompt_tokens=prompt_tokens)
    return rows.get(component)


class _Bracket(msgspec.Struct, frozen=True):
    """The prices of one call above so long a prompt, and their rates with what divides them."""

    min_input: int
    rows: Mapping[str, Price]
    rates: Mapping[str, tuple[int, int]]


def _reached(brackets: Sequence[_Bracket], prompt_tokens: int) -> _Bracket:
    for bracket in brackets:
        if bracket.min_input == 0 or prompt_tokens > bracket.min_input:
            return bracket
    raise AssertionError("there is always a bracket from zero on")


@lru_cache(maxsize=4_096)
def _brackets(price_set: PriceSet, model: str, variant: str) -> tuple[_Bracket, ...]:
    """The rows of one call by the prompt they apply above, the highest first."""
    rows = sorted(
        (row for row in price_set.prices.get(model, ()) if row.variant == variant),
        key=lambda row: row.min_input,
    )
    units = {row.component: row for row in price_set.prices.get(ANY_MODEL, ())}
    starts = sorted({0, *(row.min_input for row in rows)}, reverse=True)
    reached = (
        (start, {row.component: row for row in rows if row.min_input <= start} | units)
        for start in starts
    )
    return tuple(_Bracket(start, found, _rates_of(found)) for start, found in reached)


def _rates_of(rows: Mapping[str, Price]) -> dict[str, tuple[int, int]]:
    rated = ((name, *_rate_of(row)) for name, row in rows.items())
    return {name: (rate, per * BASIS_POINTS) for name, rate, per in rated if rate is not None}


def _price_line(line: UsageLine, *, price_set: PriceSet, discount_bp: int) -> Iterator[Component]:
    rows = prices_of(
        price_set, model=line.model, variant=line.variant, prompt_tokens=line.prompt_tokens
    )
    for name in COMPONENTS:
        quantity = line.counts.get(name, 0)
        if quantity > 0:
            rate_nanos, per = _rate_of(rows[name]) if name in rows else (None, 1)
            yield Component(
                model=line.model,
                component=name,
                variant=line.variant,
                quantity=quantity,
                rate_nanos=rate_nanos,
                nanos=_amount(quantity, rate_nanos, per=per, discount_bp=discount_bp),
            )


def _rate_of(row: Price) -> tuple[int | None, int]:
    """A row's rate, and how many pieces it is for."""
    if row.nano_per_mtok is not None:
        return row.nano_per_mtok, TOKENS_PER_PRICE
    return row.nano_per_unit, 1


def _amount(quantity: int, rate_nanos: int | None, *, per: int, discount_bp: int) -> int | None:
    """The discount comes before the one rounding, to the nearest nano, halves to even."""
    if rate_nanos is None:
        return None
    return half_even_div(quantity * rate_nanos * (BASIS_POINTS - discount_bp), per * BASIS_POINTS)


def _counts(usage: Mapping[str, Any]) -> dict[str, int]:
    created = _count(usage.get("cache_creation_input_tokens"))
    split = usage.get("cache_creation")
    split = split if isinstance(split, dict) else {}
    one_hour = _count(split.get("ephemeral_1h_input_tokens"))
    return plain_counts(
        input_tokens=_count(usage.get("input_tokens")),
        output_tokens=_count(usage.get("output_tokens")),
        cache_creation=created,
        five_minutes=_count(split.get("ephemeral_5m_input_tokens")),
        one_hour=one_hour,
        cache_read=_count(usage.get("cache_read_input_tokens")),
    )


def _searches(usage: Mapping[str, Any]) -> int:
    tools = usage.get("server_tool_use")
    return _count(tools.get("web_search_requests")) if isinstance(tools, dict) else 0


def _count(value: Any) -> int:
    if type(value) is not int:
        return 0
    return value if 0 <= value <= COUNT_MAX else min(max(value, 0), COUNT_MAX)
