"""What operators do with tiers, models and prices: with a reason, audited, from the next request.

Prices are versions: a change ends the set in force at an instant and begins another one; nothing is
edited. What is set by hand stays when the catalogue is imported again. Everywhere the audit log's
lock is taken before that of the platform's state.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from accounts.services.audit import record_audit
from accounts.services.settings import check_name, check_reason
from billing.locks import lock_book
from billing.models.catalog import CatalogModel, ModelAlias, Price, PriceBook
from billing.models.tiers import Tier, TierGroupLimit
from billing.models.upstreams import Route
from billing.services.catalog import publish_prices
from billing.services.catalog_file import PriceRow
from billing.services.publication import touch_plane
from billing.services.tiers import create_tier, set_group_limits
from turnpike.contracts.rating import STANDARD
from turnpike.contracts.snapshots import LIMIT_NAMES, Limits
from turnpike.control.caller import Caller
from turnpike.kernel import clock
from turnpike.kernel.errors import Conflict, InvalidInput, NotFound
from turnpike.kernel.money import format_amount, half_even_div

ALIAS_LENGTH_MAX = 200
WEIGHT_MAX, PRIORITY_MAX = 1_000_000, 1_000
FACTOR_BP_MAX = 100_000
Rates = Mapping[tuple[str, int], int]


def save_tier(
    *, caller: Caller, code: str, limits: Limits, values: Mapping[str, Any], reason: str
) -> Tier:
    """Make a tier, or change the one of that code, for every tenant that is on it."""
    checked_reason = check_reason(reason)
    name = check_name(str(values["name"]))
    with transaction.atomic():
        known = Tier.objects.select_for_update().filter(code=code).first()
        _record(
            caller,
            "tier.created" if known is None else "tier.changed",
            f"tier/{code}",
            before=_tier_values(known) if known is not None else None,
            after={**values, **_limits(limits)},
            reason=checked_reason,
        )
        return create_tier(code=code, limits=limits, **{**values, "name": name})


def save_group_limits(
    *, caller: Caller, tier: str, limit_group: str, limits: Limits, reason: str
) -> None:
    """Limit a group of models within a tier; no limits at all take the group's away."""
    checked_reason = check_reason(reason)
    with transaction.atomic():
        rows = TierGroupLimit.objects.filter(tier__code=tier, limit_group=limit_group)
        known = rows.first()
        _record(
            caller,
            "tier.changed",
            f"tier/{tier}",
            before={limit_group: _limits(known.limits) if known is not None else None},
            after={limit_group: _limits(limits)},
            reason=checked_reason,
        )
        if any(getattr(limits, name) is not None for name in LIMIT_NAMES):
            set_group_limits(tier=tier, limit_group=limit_group, limits=limits)
        else:
            rows.delete()
            touch_plane()


def switch_model(
    *,
    caller: Caller,
    model: str,
    reason: str,
    is_enabled: bool | None = None,
    is_successor_allowed: bool | None = None,
) -> CatalogModel:
    """Sell a model or not, and let its successor answer once it is retired, or not."""
    checked_reason = check_reason(reason)
    wanted = {"is_enabled": is_enabled, "is_successor_allowed": is_successor_allowed}
    changes = {name: value for name, value in wanted.items() if value is not None}
    with transaction.atomic():
        row = _lock_model(model)
        before = {name: getattr(row, name) for name in changes}
        for name, value in changes.items():
            setattr(row, name, value)
        row.save()
        _record(
            caller,
            "model.changed",
            f"model/{model}",
            before=before,
            after=changes,
            reason=checked_reason,
        )
        touch_plane()
    return row


def add_alias(*, caller: Caller, model: str, alias: str, reason: str) -> None:
    """Let a model be asked for by another name too. Raises Conflict for a name in use."""
    checked_reason, name = check_reason(reason), alias.strip()
    if not name or len(name) > ALIAS_LENGTH_MAX or not name.isascii() or not name.isprintable():
        raise InvalidInput(f"An alias is 1 to {ALIAS_LENGTH_MAX} printable letters.", field="alias")
    with transaction.atomic():
        row = _lock_model(model)
        is_taken = Q(model=name) | Q(aliases__alias=name)
        if CatalogModel.objects.filter(is_taken).exists():
            raise Conflict(f"{name!r} is the name of a model already.")
        ModelAlias.objects.create(alias=name, model=row, is_own=True)
        _record(
            caller,
            "model.alias_added",
            f"model/{model}",
            after={"alias": name},
            reason=checked_reason,
        )
        touch_plane()


def remove_alias(*, caller: Caller, model: str, alias: str, reason: str) -> None:
    """Take a name of one's own away; those of the catalogue stay."""
    checked_reason = check_reason(reason)
    with transaction.atomic():
        row = _lock_model(model)
        deleted, _rows = ModelAlias.objects.filter(model=row, alias=alias, is_own=True).delete()
        if not deleted:
            raise NotFound(f"{alias!r} is no alias that an operator added.")
        _record(
            caller,
            "model.alias_removed",
            f"model/{model}",
            before={"alias": alias},
            reason=checked_reason,
        )
        touch_plane()


def change_route(
    *, caller: Caller, model: str, route: int, changes: Mapping[str, Any], reason: str
) -> Route:
    """Whether an upstream answers for a model, with which weight and priority, by which name."""
    checked_reason = check_reason(reason)
    with transaction.atomic():
        rows = Route.objects.select_for_update(of=("self",)).select_related("upstream")
        row = rows.filter(pk=route, model__model=model).first()
        if row is None:
            raise NotFound("There is no such route.")
        if not 1 <= int(changes.get("weight", row.weight)) <= WEIGHT_MAX:
            raise InvalidInput(f"weight is between 1 and {WEIGHT_MAX}.", field="weight")
        if not 0 <= int(changes.get("priority", row.priority)) <= PRIORITY_MAX:
            raise InvalidInput(f"priority is between 0 and {PRIORITY_MAX}.", field="priority")
        before = {name: getattr(row, name) for name in changes}
        for name, value in changes.items():
            setattr(row, name, value)
        row.save()
        _record(
            caller,
            "model.route_changed",
            f"model/{model}",
            before={"upstream": row.upstream.name, **before},
            after={"upstream": row.upstream.name, **changes},
            reason=checked_reason,
        )
        touch_plane()
    return row


def list_rates(*, book: str, model: str) -> list[Price]:
    """The prices of a model that are in force in a book now, in all variants and brackets."""
    rows = Price.objects.filter(
        price_set__book__name=book, price_set__effective__contains=Now(), model=model
    )
    return list(rows.order_by("min_input", "component", "variant"))


def change_prices(
    *,
    caller: Caller,
    book: str,
    model: str,
    rates: Rates,
    reason: str,
    begins_at: datetime | None = None,
) -> int:
    """New prices of a model from an instant on (none: now); how many price sets were added.

    `rates` are nanos per million tokens in the standard variant by component and bracket. Other
    variants follow in proportion; what is counted by piece stays.
    """
    checked_reason = check_reason(reason)
    if begins_at is not None and begins_at <= clock.utc_now():
        raise InvalidInput("Prices begin now or later, never in the past.", field="begins_at")
    with transaction.atomic():
        row = _lock_book(book)
        current = list_rates(book=book, model=model)
        rows = list(scaled(model, current, rates))
        if model not in row.own_models:
            row.own_models = sorted({*row.own_models, model})
            row.save(update_fields=["own_models"])
        _record(
            caller,
            "prices.changed",
            f"book/{book}",
            before=_shown_rates(model, current),
            after={
                **_shown_rates(model, rows),
                "begins_at": "now" if begins_at is None else clock.rfc3339(begins_at),
            },
            reason=checked_reason,
        )
        return publish_prices(book=book, rows=rows, begins_at=begins_at)


def create_book(
    *, caller: Caller, name: str, based_on: str, factor_bp: int, reason: str
) -> PriceBook:
    """A new book with the prices of another one that are in force, times a factor."""
    checked_reason, checked_name = check_reason(reason), check_name(name)
    if not 0 <= factor_bp <= FACTOR_BP_MAX:
        raise InvalidInput(f"A factor is 0 to {FACTOR_BP_MAX} basis points.", field="factor")
    with transaction.atomic():
        source = _lock_book(based_on)
        if PriceBook.objects.filter(name=checked_name).exists():
            raise Conflict(f"There is a price book {checked_name!r} already.")
        book = PriceBook.objects.create(name=checked_name, currency=source.currency)
        prices = Price.objects.filter(price_set__book=source, price_set__effective__contains=Now())
        _record(
            caller,
            "prices.book_created",
            f"book/{checked_name}",
            after={"based_on": based_on, "factor_bp": factor_bp},
            reason=checked_reason,
        )
        publish_prices(book=checked_name, rows=[_times(price, factor_bp) for price in prices])
    return book


def scaled(model: str, current: Iterable[Price], rates: Rates) -> Iterable[PriceRow]:
    """All rows of a model at new standard prices; variants keep their share of the standard one."""
    prices = list(current)
    standard = {
        (price.component, price.min_input): price.nano_per_mtok
        for price in prices
        if price.variant == STANDARD and price.nano_per_mtok is not None
    }
    for (component, min_input), nanos in rates.items():
        if not nanos >= 0:
            raise InvalidInput("A price is not below zero.", field=component)
        if (component, min_input) not in standard:
            yield PriceRow(
                model=model, component=component, min_input=min_input, nano_per_mtok=nanos
            )
    for price in prices:
        place = (price.component, price.min_input)
        old, new = standard.get(place), rates.get(place)
        nanos_now = price.nano_per_mtok
        if nanos_now is not None and old is not None and new is not None and old > 0:
            nanos_now = half_even_div(nanos_now * new, old)
        elif nanos_now is not None and new is not None and price.variant == STANDARD:
            nanos_now = new
        yield PriceRow(
            model=model,
            component=price.component,
            variant=price.variant,
            min_input=price.min_input,
            nano_per_mtok=nanos_now,
            nano_per_unit=price.nano_per_unit,
        )


def _times(price: Price, factor_bp: int) -> PriceRow:
    rates = {
        name: None if value is None else half_even_div(value * factor_bp, 10_000)
        for name, value in (
            ("nano_per_mtok", price.nano_per_mtok),
            ("nano_per_unit", price.nano_per_unit),
        )
    }
    return PriceRow(
        model=price.model,
        component=price.component,
        variant=price.variant,
        min_input=price.min_input,
        **rates,
    )


def _lock_model(model: str) -> CatalogModel:
    row = CatalogModel.objects.select_for_update().filter(model=model).first()
    if row is None:
        raise NotFound(f"There is no model {model!r}.")
    return row


def _lock_book(name: str) -> PriceBook:
    found = PriceBook.objects.filter(name=name).first()
    if found is None:
        raise NotFound(f"There is no price book {name!r}.")
    lock_book(book=found.pk)
    return PriceBook.objects.get(pk=found.pk)


def _record(
    caller: Caller,
    action: str,
    target: str,
    *,
    reason: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    record_audit(
        actor=caller,
        tenant=None,
        action=action,
        target=target[:64],
        before=before,
        after=after,
        reason=reason,
    )


def _tier_values(row: Tier) -> dict[str, Any]:
    return {
        "name": row.name,
        **_limits(row.limits),
        "count_tokens_per_minute": row.count_tokens_per_minute,
        "output_reserve_max": row.output_reserve_max,
        "denied_models": row.denied_models,
        "denied_betas": row.denied_betas,
    }


def _limits(limits: Limits) -> dict[str, int | None]:
    return {name: getattr(limits, name) for name in LIMIT_NAMES}


def _shown_rates(model: str, rows: Iterable[Price | PriceRow]) -> dict[str, Any]:
    return {
        "model": model,
        **{
            f"{row.component}>{row.min_input}" if row.min_input else row.component: format_amount(
                row.nano_per_mtok
            )
            for row in rows
            if row.variant == STANDARD and row.nano_per_mtok is not None
        },
    }
