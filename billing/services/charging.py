"""What an event comes to: its numbers, priced and capped by its hold. Pure arithmetic."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from billing.models.usage import CHARGE_COLUMNS, TOKEN_COLUMNS
from turnpike.contracts import rating
from turnpike.contracts.snapshots import PriceSet
from turnpike.contracts.usage import RANK_VOID, STATUS_OF_RANK, STATUS_UNRATED, UsageEvent
from turnpike.kernel.money import nanos_of_micros

BATCH = "batch"
FAST = "fast"
US_ONLY = "us"
SERVICE_TIERS = frozenset(
    ("standard", "batch", "priority", "priority_on_demand", "flex", "flex_discount")
)
LONG_CONTEXT_TOKENS = 200_000
CONTEXT_SHORT = "0-200k"
CONTEXT_LONG = "200k-1M"


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """An event's worth: what its numbers are and how it is grouped."""

    status: str
    tier: str
    context_window: str
    currency: str
    numbers: Mapping[str, int]
    components: list[dict[str, Any]]


def charge_for(event: UsageEvent, *, price_set: PriceSet) -> Charge:
    """Rate an event under its own price set. Never more than the hold that was in force.

    A part without a price makes the whole event `unrated`: kept, charged nothing, and left for an
    operator to rate again. What the hold does not cover is `waived_nano`.
    """
    usage = {} if event.rank == RANK_VOID else event.usage
    rated = rating.rate(
        usage,
        model=event.model,
        price_set=price_set,
        discount_bp=event.discount_bp,
        stop_reason=event.stop_reason,
        is_batch=event.tier == BATCH,
    )
    counts = rating.token_counts(usage)
    worth = rated.nanos if rated.is_complete else 0
    amount = min(worth, nanos_of_micros(event.hold_micro))
    return Charge(
        status=STATUS_OF_RANK[event.rank] if rated.is_complete else STATUS_UNRATED,
        tier=tier_of(usage, default=event.tier),
        context_window=_context_window(usage),
        currency=price_set.currency,
        numbers={
            **{column: counts[name] for name, column in TOKEN_COLUMNS.items()},
            "thinking_tokens": rating.thinking_tokens(usage),
            **_charged_parts(rated, amount=amount),
            "amount_nano": amount,
            "waived_nano": worth - amount,
        },
        components=[_component_row(item) for item in rated.components],
    )


def tier_of(usage: Mapping[str, Any], *, default: str) -> str:
    """The service tier, and what else changes the price, joined by `+`: ``batch+us``."""
    named = usage.get("service_tier")
    is_named = isinstance(named, str) and named in SERVICE_TIERS
    parts = [BATCH if default == BATCH else str(named) if is_named else default]
    factors = rating.variant_of(usage).split("+")
    return "+".join([*parts, *(name for name in (FAST, US_ONLY) if name in factors)])


def _context_window(usage: Mapping[str, Any]) -> str:
    prompts = (line.prompt_tokens for line in rating.usage_lines(usage, model=""))
    is_long = any(tokens > LONG_CONTEXT_TOKENS for tokens in prompts)
    return CONTEXT_LONG if is_long else CONTEXT_SHORT


def _charged_parts(rated: rating.Rated, *, amount: int) -> dict[str, int]:
    """The amount by component: in the components' order, until the amount is used up."""
    parts = dict.fromkeys(CHARGE_COLUMNS.values(), 0)
    left = amount
    for item in rated.components:
        part = min(item.nanos or 0, left)
        parts[CHARGE_COLUMNS[item.component]] += part
        left -= part
    return parts


def _component_row(item: rating.Component) -> dict[str, Any]:
    return {
        "model": item.model,
        "component": item.component,
        "variant": item.variant,
        "quantity": item.quantity,
        "rate_nanos": item.rate_nanos,
        "nanos": item.nanos,
    }
