"""import_catalog, publish_prices: what is sold and at what price, from now on.

A price set never changes. New prices end the set in force and begin another one; sets that have not
begun may be withdrawn.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from django.db import connection, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from billing.locks import lock_book
from billing.models.catalog import (
    DEFAULT_BOOK,
    CatalogModel,
    ModelAlias,
    Price,
    PriceBook,
    PriceSet,
)
from billing.services.catalog_file import (
    BEGINNING,
    Catalog,
    ModelRow,
    PriceRow,
    read_catalog,
)
from billing.services.publication import touch_plane
from billing.services.tiers import ensure_tiers
from billing.services.upstreams import add_missing_routes
from turnpike.contracts.rating import ANY_MODEL
from turnpike.kernel.errors import NotFound

SHIPPED_CATALOG = Path(__file__).resolve().parents[1] / "catalog" / "catalog.json"

# The prices of a book over time: the instant from which each list holds.
Timeline = Mapping[datetime, frozenset[PriceRow]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """What an import changed; all zero when nothing differed."""

    models_added: int
    models_changed: int
    price_sets_added: int
    routes_added: int
    tiers_added: int

    @property
    def is_change(self) -> bool:
        """Whether anything changed."""
        counts = (self.models_added, self.models_changed, self.price_sets_added)
        return any((*counts, self.routes_added, self.tiers_added))


def import_catalog(path: Path = SHIPPED_CATALOG, *, book: str = DEFAULT_BOOK) -> ImportResult:
    """Bring models, aliases and prices to what a file says; the same file again changes nothing.

    Models and prices that the file does not name stay, and so do the operator's own switches,
    aliases, and prices of models that were set by hand.
    """
    catalog = read_catalog(path)
    with transaction.atomic():
        row, _ = PriceBook.objects.get_or_create(name=book, defaults={"currency": catalog.currency})
        lock_book(book=row.pk)
        added, changed = _import_models(catalog)
        result = ImportResult(
            models_added=added,
            models_changed=changed,
            price_sets_added=_import_prices(row, catalog),
            routes_added=add_missing_routes(),
            tiers_added=ensure_tiers(),
        )
        if result.is_change:
            touch_plane()
    return result


def publish_prices(
    *, book: str, rows: Iterable[PriceRow], begins_at: datetime | None = None
) -> int:
    """Change prices of a book from an instant on (none: now); how many sets were added.

    Every model that the rows name gets exactly these rows; the others keep theirs.
    """
    new = frozenset(rows)
    names = {row.model for row in new}
    with transaction.atomic():
        found, _ = PriceBook.objects.get_or_create(name=book)
        lock_book(book=found.pk)
        now = _database_now()
        begin = max(begins_at or now, now)
        current = _timeline(found, since=now)
        instants = {at for at in current if at > begin} | {begin}
        desired = {at: rows for at, rows in current.items() if at < begin}
        for at in instants:
            kept = frozenset(row for row in _at(current, at) if row.model not in names)
            desired[at] = kept | new
        added = _write_prices(found, desired=desired, current=current)
        if added:
            touch_plane()
    return added


def set_model_switches(
    *, model: str, is_enabled: bool | None = None, is_successor_allowed: bool | None = None
) -> CatalogModel:
    """Turn a model on or off, and let its successor answer for it; from the next request."""
    with transaction.atomic():
        row = CatalogModel.objects.select_for_update().filter(model=model).first()
        if row is None:
            raise NotFound(f"There is no model {model!r}.")
        row.is_enabled = row.is_enabled if is_enabled is None else is_enabled
        if is_successor_allowed is not None:
            row.is_successor_allowed = is_successor_allowed
        row.save()
        touch_plane()
    return row


def _import_models(catalog: Catalog) -> tuple[int, int]:
    known = {row.model: row for row in CatalogModel.objects.prefetch_related("aliases")}
    new = [item for item in catalog.models if item.model not in known]
    added = CatalogModel.objects.bulk_create(
        CatalogModel(model=item.model, **item.columns) for item in new
    )
    differing = [
        (known[item.model], item)
        for item in catalog.models
        if item.model in known and _differs(known[item.model], item)
    ]
    for row, item in differing:
        CatalogModel.objects.filter(pk=row.pk).update(**item.columns)
    _set_aliases([*zip(added, new, strict=True), *differing])
    return len(added), len(differing)


def _differs(row: CatalogModel, item: ModelRow) -> bool:
    aliases = {alias.alias for alias in row.aliases.all() if not alias.is_own}
    return aliases != set(item.aliases) or any(
        getattr(row, name) != value for name, value in item.columns.items()
    )


def _set_aliases(rows: Collection[tuple[CatalogModel, ModelRow]]) -> None:
    wanted = {alias: row for row, item in rows for alias in item.aliases}
    shipped = ModelAlias.objects.filter(model__in=[row for row, _ in rows], is_own=False)
    shipped.exclude(alias__in=wanted).delete()
    ModelAlias.objects.bulk_create(
        (ModelAlias(alias=alias, model=row, is_own=False) for alias, row in wanted.items()),
        update_conflicts=True,
        unique_fields=["alias"],
        update_fields=["model", "is_own"],
    )


def _import_prices(book: PriceBook, catalog: Catalog) -> int:
    names = ({row.model for row in catalog.models} | {ANY_MODEL}) - set(book.own_models)
    if not book.sets.exists():
        return _write_prices(book, desired=catalog.prices, current={})
    now = _database_now()
    current = _timeline(book, since=now)
    instants = {now} | {at for at in (*catalog.prices, *current) if at > now}
    desired = {}
    for at in instants:
        kept = frozenset(row for row in _at(current, at) if row.model not in names)
        shipped = frozenset(row for row in _at(catalog.prices, at) if row.model in names)
        desired[at] = kept | shipped
    return _write_prices(book, desired=desired, current=current)


def _write_prices(book: PriceBook, *, desired: Timeline, current: Timeline) -> int:
    """Make a book's timeline what is desired, from the first difference on."""
    wanted, existing = _merged(desired), _merged(current)
    if wanted == existing:
        return 0
    instants = sorted({*wanted, *existing})
    first = next(at for at in instants if _at(wanted, at) != _at(existing, at))
    _cut(book, at=first)
    begins = [at for at in sorted(wanted) if at > first]
    for begin, end in zip([first, *begins], [*begins, None], strict=True):
        _create_set(book, begin=begin, end=end, rows=_at(wanted, begin))
    return 1 + len(begins)


def _merged(timeline: Timeline) -> Timeline:
    merged: dict[datetime, frozenset[PriceRow]] = {}
    last: frozenset[PriceRow] | None = None
    for at in sorted(timeline):
        if timeline[at] != last:
            merged[at] = last = timeline[at]
    return merged


def _at(timeline: Timeline, at: datetime) -> frozenset[PriceRow]:
    begun = [begin for begin in timeline if begin <= at]
    return timeline[max(begun)] if begun else frozenset()


def _timeline(book: PriceBook, *, since: datetime) -> Timeline:
    timeline = {}
    sets = book.sets.filter(effective__isempty=False).prefetch_related("prices")
    for row in sets:
        begin, end = row.effective.lower or BEGINNING, row.effective.upper
        if end is None or end > since:
            timeline[max(begin, since)] = frozenset(_row(price) for price in row.prices.all())
    return timeline


def _row(price: Price) -> PriceRow:
    return PriceRow(
        model=price.model,
        component=price.component,
        variant=price.variant,
        min_input=price.min_input,
        nano_per_mtok=price.nano_per_mtok,
        nano_per_unit=price.nano_per_unit,
    )


def _cut(book: PriceBook, *, at: datetime) -> None:
    """End the set in force at an instant, and withdraw those that begin later."""
    for row in book.sets.filter(effective__isempty=False):
        begin, end = row.effective.lower or BEGINNING, row.effective.upper
        if begin >= at:
            row.effective = DateTimeTZRange(empty=True)
            row.save(update_fields=["effective"])
        elif end is None or end > at:
            row.effective = DateTimeTZRange(row.effective.lower, at)
            row.save(update_fields=["effective"])


def _create_set(
    book: PriceBook, *, begin: datetime, end: datetime | None, rows: frozenset[PriceRow]
) -> None:
    lower = None if begin == BEGINNING else begin
    price_set = PriceSet.objects.create(book=book, effective=DateTimeTZRange(lower, end))
    ordered = sorted(rows, key=lambda row: (row.model, row.component, row.variant, row.min_input))
    Price.objects.bulk_create(
        Price(
            price_set=price_set,
            model=row.model,
            component=row.component,
            variant=row.variant,
            min_input=row.min_input,
            nano_per_mtok=row.nano_per_mtok,
            nano_per_unit=row.nano_per_unit,
        )
        for row in ordered
    )


def _database_now() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        (now,) = cursor.fetchone()
    assert isinstance(now, datetime)
    return now
