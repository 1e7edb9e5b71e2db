"""The shipped catalogue's price sets without a database."""

from datetime import UTC, datetime
from functools import cache

from billing.services.catalog import SHIPPED_CATALOG
from billing.services.catalog_file import read_catalog
from turnpike.contracts.snapshots import Price, PriceSet


@cache
def shipped_prices(at: datetime | None = None) -> PriceSet:
    """The list prices in force at an instant (none: the newest)."""
    lists = read_catalog(SHIPPED_CATALOG).prices
    begin = max(begin for begin in lists if begin <= (at or datetime.max.replace(tzinfo=UTC)))
    prices: dict[str, list[Price]] = {}
    for row in lists[begin]:
        prices.setdefault(row.model, []).append(
            Price(
                component=row.component,
                variant=row.variant,
                min_input=row.min_input,
                nano_per_mtok=row.nano_per_mtok,
                nano_per_unit=row.nano_per_unit,
            )
        )
    return PriceSet(
        price_set=1,
        book=1,
        from_us=0,
        prices={model: tuple(rows) for model, rows in prices.items()},
    )
