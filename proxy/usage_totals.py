"""Merges what a stream says of its usage, and names what no price is known for.

Counters are totals, so the highest sane value of each stays. Values that no honest upstream sends
(negative, falling, of a wrong type) are left out, and a flag tells that this happened.
"""

from collections.abc import Mapping
from typing import Any

COUNT_MAX = 2**31 - 1
FLAG_INVALID = "usage_invalid"
FLAG_DECREASING = "usage_decreasing"
FLAG_UNKNOWN_FIELD = "usage_unknown_field"
# What may cost and has no price: "unbilled:" and the name of the field or of its value.
FLAG_UNBILLED = "unbilled:"
UNBILLED_NAME_MAX = 64
ITERATIONS_LOOKED_AT_MAX = 100

_COUNTERS = frozenset(
    (
        "input_tokens",
        "output_tokens",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
    )
)
_KNOWN_FIELDS = _COUNTERS | {
    "cache_creation",
    "output_tokens_details",
    "server_tool_use",
    "service_tier",
    "speed",
    "inference_geo",
    "iterations",
    "fallback_credit",
}


# Fields in which nothing can hide: numbers that are priced.
_PRICED_ALONE = _COUNTERS
_PRICED_WITHIN: Mapping[str, frozenset[str]] = {
    "cache_creation": frozenset(("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")),
    "server_tool_use": frozenset(("web_search_requests", "web_fetch_requests")),
    # A breakdown of what is counted already.
    "output_tokens_details": frozenset(("thinking_tokens",)),
    "iterations": _COUNTERS | {"cache_creation"},
    "fallback_credit": frozenset(),
}
_PRICED_VALUES: Mapping[str, frozenset[str]] = {
    "service_tier": frozenset(("standard", "priority", "batch")),
    "speed": frozenset(("standard", "fast")),
    "inference_geo": frozenset(("global", "us", "not_available")),
}


def merge_usage(usage: dict[str, Any], news: Mapping[str, Any], flags: set[str]) -> bool:
    """Take over the values that are sane and not lower; says whether anything changed."""
    has_changed = False
    for name, value in news.items():
        if name not in _PRICED_ALONE:
            _flag_unbilled(name, value, flags)
        merged = _merged(name, usage.get(name), value, flags)
        # A null is kept as it came where nothing better is known; a refused value is not.
        if merged is None and value is not None:
            continue
        if name not in usage or merged != usage[name]:
            usage[name] = merged
            has_changed = True
    return has_changed


def _flag_unbilled(name: str, value: Any, flags: set[str]) -> None:
    """Flag what a field may cost beyond what is priced: unknown counts, unknown price variants."""
    if name not in _KNOWN_FIELDS:
        flags.add(FLAG_UNKNOWN_FIELD)
    if name in _PRICED_VALUES:
        if value is not None and value not in _PRICED_VALUES[name]:
            flags.add(f"{FLAG_UNBILLED}{name}={str(value)[:UNBILLED_NAME_MAX]}")
        return
    priced = _PRICED_WITHIN.get(name, frozenset())
    parts = value if isinstance(value, list) else [value]
    for part in parts[:ITERATIONS_LOOKED_AT_MAX]:
        counts = part if isinstance(part, dict) else {"": part}
        for inner, count in counts.items():
            is_count = isinstance(count, int | float) and not isinstance(count, bool) and count > 0
            if is_count and inner not in priced:
                path = f"{name}.{inner}" if inner else name
                flags.add(FLAG_UNBILLED + path[:UNBILLED_NAME_MAX])


def _merged(name: str, known: Any, value: Any, flags: set[str]) -> Any:
    """The better of two values of a field."""
    if value is None:
        return known
    if name in _COUNTERS or (isinstance(known, int) and not isinstance(known, bool)):
        return _higher(known, value, flags)
    if isinstance(value, dict):
        return _merged_counts(known if isinstance(known, dict) else {}, value, flags)
    if isinstance(value, list) and isinstance(known, list) and _sum(value) < _sum(known):
        flags.add(FLAG_DECREASING)
        return known
    return value


def _merged_counts(
    known: Mapping[str, Any], news: Mapping[str, Any], flags: set[str]
) -> dict[str, Any]:
    merged = dict(known)
    for name, value in news.items():
        is_count = isinstance(value, int | float) and not isinstance(value, bool)
        better = _higher(merged.get(name), value, flags) if is_count else value
        if better is not None:
            merged[name] = better
    return merged


def _higher(known: Any, value: Any, flags: set[str]) -> int | None:
    best = known if isinstance(known, int) else None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= COUNT_MAX:
        flags.add(FLAG_INVALID)
        return best
    if best is not None and value < best:
        flags.add(FLAG_DECREASING)
        return best
    return value


def _sum(entries: list[Any]) -> int:
    """All counts of a list of iterations, to tell which of two lists knows more."""
    return sum(
        value
        for entry in entries
        if isinstance(entry, dict)
        for value in entry.values()
        if isinstance(value, int) and 0 < value <= COUNT_MAX
    )
