"""rate(usage, price): the one function that turns usage into money.

Usage is the Messages API's own object. `output_tokens` already contains thinking, so thinking is
never priced again. Where `iterations` are present they replace the top-level counters, each entry
at its own model's price. A refusal without output costs nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

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

ANY_MODEL = "*"
STANDARD = "standard"
TOKENS_PER_PRICE = 1_000_000
BASIS_POINTS = 10_000
# An int column; no answer of any model comes near.
COUNT_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLine:
    """Counts of one model within an answer."""

    model: str
    variant: str
    counts: Mapping[str, int]

    @property
    def prompt_tokens(self) -> int:
        """Everything that was read: what long-context brackets look at."""
        names = (INPUT, CACHE_WRITE_5M, CACHE_WRITE_1H, CACHE_READ)
        return sum(self.counts.get(name, 0) for name in names)


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
    if stop_reason == "refusal" and all(line.counts[OUTPUT] == 0 for line in lines):
        return Rated(nanos=Nanos(0), components=())
    components = tuple(
        _price_component(line, name, price_set=price_set, discount_bp=discount_bp)
        for line in lines
        for name in COMPONENTS
        if line.counts.get(name, 0) > 0
    )
    return Rated(nanos=Nanos(sum(item.nanos or 0 for item in components)), components=components)


def usage_lines(usage: Mapping[str, Any], *, model: str, is_batch: bool = False) -> list[UsageLine]:
    """The counts that are billed, a line for each model call. Never negative, never above an int."""
    variant = variant_of(usage, is_batch=is_batch)
    iterations = usage.get("iterations")
    entries = [item for item in iterations if isinstance(item, dict)] if isinstance(iterations, list) else []
    if not entries:
        return [UsageLine(model=model, variant=variant, counts=_counts(usage))]
    lines = []
    for entry in entries:
        counts = _counts(entry)
        if entry.get("type") == "fallback_message" and counts[OUTPUT] == 0:
            continue  # an attempt that declined before any output is free
        name = entry.get("model")
        lines.append(
            UsageLine(model=name if isinstance(name, str) and name else model, variant=variant, counts=counts)
        )
    searches = _searches(usage)
    if searches:
        lines.append(UsageLine(model=model, variant=variant, counts={OUTPUT: 0, WEB_SEARCH: searches}))
    return lines


def token_counts(usage: Mapping[str, Any]) -> dict[str, int]:
    """The sums over all lines by component, for rollups and for what people read."""
    totals = dict.fromkeys(COMPONENTS, 0)
    for line in usage_lines(usage, model=""):
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


def find_price(
    price_set: PriceSet, *, model: str, component: str, variant: str, prompt_tokens: int
) -> Price | None:
    """The row that prices a component, or None. Long prompts take the highest bracket they pass."""
    if component == WEB_SEARCH:
        rows: Iterable[Price] = price_set.prices.get(ANY_MODEL, ())
        return next((row for row in rows if row.component == component), None)
    best: Price | None = None
    for row in price_set.prices.get(model, ()):
        fits = row.component == component and row.variant == variant
        if fits and (row.min_input == 0 or prompt_tokens > row.min_input):
            best = row if best is None or row.min_input > best.min_input else best
    return best


def _price_component(
    line: UsageLine, name: str, *, price_set: PriceSet, discount_bp: int
) -> Component:
    quantity = line.counts[name]
    row = find_price(
        price_set,
        model=line.model,
        component=name,
        variant=line.variant,
        prompt_tokens=line.prompt_tokens,
    )
    rate_nanos = None if row is None else row.nano_per_unit if name == WEB_SEARCH else row.nano_per_mtok
    nanos = None
    if rate_nanos is not None:
        per = 1 if name == WEB_SEARCH else TOKENS_PER_PRICE
        nanos = half_even_div(
            quantity * rate_nanos * (BASIS_POINTS - discount_bp), per * BASIS_POINTS
        )
    return Component(
        model=line.model,
        component=name,
        variant=line.variant,
        quantity=quantity,
        rate_nanos=rate_nanos,
        nanos=nanos,
    )


def _counts(usage: Mapping[str, Any]) -> dict[str, int]:
    created = _count(usage.get("cache_creation_input_tokens"))
    split = usage.get("cache_creation")
    split = split if isinstance(split, dict) else {}
    one_hour = _count(split.get("ephemeral_1h_input_tokens"))
    five_minutes = _count(split.get("ephemeral_5m_input_tokens"))
    # The split comes in message_start alone; what the final total has beyond it is priced as 5m.
    five_minutes += max(0, created - one_hour - five_minutes)
    return {
        INPUT: _count(usage.get("input_tokens")),
        OUTPUT: _count(usage.get("output_tokens")),
        CACHE_WRITE_5M: five_minutes,
        CACHE_WRITE_1H: one_hour,
        CACHE_READ: _count(usage.get("cache_read_input_tokens")),
        WEB_SEARCH: 0 if "type" in usage else _searches(usage),
    }


def _searches(usage: Mapping[str, Any]) -> int:
    tools = usage.get("server_tool_use")
    return _count(tools.get("web_search_requests")) if isinstance(tools, dict) else 0


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return min(max(value, 0), COUNT_MAX)
