"""Price sets as the events name them, kept in memory: a used set never changes."""

from collections.abc import Iterable

from billing.models.catalog import PriceSet as PriceSetRow
from billing.snapshots import price_set_snapshot
from turnpike.contracts.snapshots import PriceSet

CACHED_MAX = 1_000

_cache: dict[int, PriceSet] = {}


def load_price_sets(numbers: Iterable[int]) -> dict[int, PriceSet]:
    """The sets of these numbers, those that exist."""
    wanted = set(numbers)
    missing = wanted - _cache.keys()
    if missing:
        if len(_cache) + len(missing) > CACHED_MAX:
            _cache.clear()
            missing = wanted
        rows = PriceSetRow.objects.filter(pk__in=missing).select_related("book")
        for row in rows.prefetch_related("prices"):
            _cache[row.pk] = price_set_snapshot(row)
    return {number: _cache[number] for number in wanted if number in _cache}


def forget_price_sets() -> None:
    """Start with an empty memory, as a new process does."""
    _cache.clear()
