"""What attempts cost at their upstreams, rated from the upstream's own book as they are written."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from accounts.services.audit import record_audit
from billing.models.catalog import PriceBook, PriceSet
from billing.models.upstreams import Upstream
from billing.services.prices import load_price_sets
from turnpike.contracts import rating, snapshots
from turnpike.control.caller import Caller
from turnpike.control.scope import platform_scope
from turnpike.kernel.errors import NotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class CostBooks:
    """The price sets of upstreams' cost books, by upstream; those without a book are absent."""

    sets: Mapping[int, tuple[snapshots.PriceSet, ...]]

    def cost_of(
        self,
        usage: Mapping[str, Any] | None,
        *,
        upstream: int,
        models: Iterable[str],
        at_us: int,
        is_batch: bool,
    ) -> int | None:
        """What an attempt cost, in nanos of the book; None where no book or price says so.

        The first of the models that the book knows is rated.
        """
        if usage is None:
            return None
        for price_set in self.sets.get(upstream, ()):
            ends = price_set.until_us
            if price_set.from_us <= at_us and (ends is None or at_us < ends):
                known = (model for model in models if model in price_set.prices)
                model = next(known, None)
                if model is None:
                    return None
                rated = rating.rate(usage, model=model, price_set=price_set, is_batch=is_batch)
                return int(rated.nanos) if rated.is_complete else None
        return None


def load_cost_books(upstreams: Iterable[int]) -> CostBooks:
    """The cost books of these upstreams: one query where none of them has any."""
    rows = Upstream.objects.filter(pk__in=set(upstreams), cost_book__isnull=False)
    book_of = dict(rows.values_list("pk", "cost_book_id"))
    if not book_of:
        return CostBooks(sets={})
    sets_of: dict[int, list[int]] = {}
    numbers = PriceSet.objects.filter(book__in=book_of.values(), effective__isempty=False)
    for number, book in numbers.order_by("pk").values_list("pk", "book_id"):
        sets_of.setdefault(book, []).append(number)
    loaded = load_price_sets(number for found in sets_of.values() for number in found)
    return CostBooks(
        sets={
            upstream: tuple(loaded[number] for number in sets_of.get(book, ()))
            for upstream, book in book_of.items()
        }
    )


def set_cost_book(*, upstream: int, book: str, actor: Caller | str, reason: str) -> Upstream:
    """From which book an upstream's attempts are costed from now on; empty: from none."""
    with platform_scope("billing.set_cost_book"):
        row = Upstream.objects.select_for_update().filter(pk=upstream).first()
        if row is None:
            raise NotFound("There is no such upstream.")
        found = PriceBook.objects.filter(name=book).first() if book else None
        if book and found is None:
            raise NotFound(f"There is no price book {book!r}.")
        row.cost_book = found
        row.save(update_fields=["cost_book"])
        record_audit(
            actor=actor,
            tenant=None,
            action="upstream.cost_book_set",
            target=row.name,
            after={"book": book},
            reason=reason,
        )
    return row


def ensure_book(*, name: str, currency: str) -> PriceBook:
    """A price book of that name; an existing one keeps its currency."""
    row, _ = PriceBook.objects.get_or_create(name=name, defaults={"currency": currency})
    return row
