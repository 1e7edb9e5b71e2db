"""Reads a catalogue file: models with aliases, and prices expanded into rows over time.

Prices are decimal strings per million tokens of the major unit. A variant is a factor on every
token price of a model; factors multiply, so two variants make a third one.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from itertools import combinations
from pathlib import Path
from typing import Any

from turnpike.contracts.rating import ANY_MODEL, STANDARD, TOKEN_COMPONENTS
from turnpike.kernel.errors import InvalidInput
from turnpike.kernel.money import AMOUNT_DECIMALS

SCHEMA = 1
VARIANTS = ("batch", "fast", "us")
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRow:
    """One price; exactly one of the rates is set."""

    model: str
    component: str
    variant: str = STANDARD
    min_input: int = 0
    nano_per_mtok: int | None = None
    nano_per_unit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """One model as the file describes it, its prices aside."""

    model: str
    aliases: tuple[str, ...]
    columns: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """A whole file. `prices` maps the instant from which a list holds to the list."""

    currency: str
    models: tuple[ModelRow, ...]
    prices: Mapping[datetime, frozenset[PriceRow]]


def read_catalog(path: Path) -> Catalog:
    """Read and check a catalogue file. Raises InvalidInput with the place of the mistake."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} is no readable JSON file: {error}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise InvalidInput(f"{path} is no catalogue of schema {SCHEMA}.")
    try:
        return _catalog(content)
    except (KeyError, TypeError, AttributeError, ValueError, InvalidOperation) as error:
        raise InvalidInput(f"{path} does not have a catalogue's form: {error!r}") from error


def _catalog(content: Mapping[str, Any]) -> Catalog:
    models = tuple(_model(item) for item in content["models"])
    _check_names(models)
    return Catalog(
        currency=content["currency"],
        models=models,
        prices=_price_lists(content),
    )


def _model(item: Mapping[str, Any]) -> ModelRow:
    return ModelRow(
        model=item["id"],
        aliases=tuple(item["aliases"]),
        columns={
            "display_name": item["display_name"],
            "line": item["line"],
            "limit_group": item["limit_group"],
            "released_at": _instant(item["created_at"]),
            "lifecycle": item["lifecycle"],
            "deprecated_at": _instant_or_none(item["deprecated_at"]),
            "retires_at": _instant_or_none(item["retires_at"]),
            "max_input_tokens": item["max_input_tokens"],
            "max_tokens": item["max_tokens"],
            "capabilities": item["capabilities"],
            "successor": item.get("successor") or "",
        },
    )


def _check_names(models: tuple[ModelRow, ...]) -> None:
    seen: set[str] = set()
    for name in (name for row in models for name in (row.model, *row.aliases)):
        if name in seen:
            raise ValueError(f"the name {name!r} stands twice")
        seen.add(name)
    successors = {row.columns["successor"] for row in models} - {""}
    if not successors <= {row.model for row in models}:
        raise ValueError("a successor is not in the catalogue")


def _price_lists(content: Mapping[str, Any]) -> dict[datetime, frozenset[PriceRow]]:
    units = frozenset(
        PriceRow(model=ANY_MODEL, component=name, nano_per_unit=_nanos(price))
        for name, price in content["units"].items()
    )
    instants = {_begin(price) for item in content["models"] for price in item["prices"]} | {
        BEGINNING
    }
    return {
        instant: units.union(*(_rows_at(item, instant) for item in content["models"]))
        for instant in sorted(instants)
    }


def _rows_at(item: Mapping[str, Any], instant: datetime) -> Iterator[PriceRow]:
    """A model's rows in force at an instant: its newest list, every bracket and variant of it."""
    begun = [_begin(price) for price in item["prices"] if _begin(price) <= instant]
    newest = max(begun, default=None)
    for price in (price for price in item["prices"] if _begin(price) == newest):
        for component in TOKEN_COMPONENTS:
            for variant, factor in _variants(item["variants"]):
                yield PriceRow(
                    model=item["id"],
                    component=component,
                    variant=variant,
                    min_input=price["min_input"],
                    nano_per_mtok=_nanos(price[component], factor),
                )


def _variants(factors: Mapping[str, str]) -> Iterator[tuple[str, Decimal]]:
    names = sorted(factors)
    if not set(names) <= set(VARIANTS):
        raise ValueError(f"unknown variants in {names}")
    yield STANDARD, Decimal(1)
    for size in range(1, len(names) + 1):
        for group in combinations(names, size):
            product = Decimal(1)
            for name in group:
                product *= Decimal(factors[name])
            yield "+".join(group), product


def _nanos(price: str, factor: Decimal = Decimal(1)) -> int:
    nanos = (Decimal(price) * factor).scaleb(AMOUNT_DECIMALS)
    if nanos != nanos.to_integral_value() or nanos < 0:
        raise ValueError(f"the price {price!r} times {factor} is no whole number of nanos")
    return int(nanos)


def _begin(price: Mapping[str, Any]) -> datetime:
    return BEGINNING if price["from"] is None else _instant(price["from"])


def _instant(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)


def _instant_or_none(text: str | None) -> datetime | None:
    return None if text is None else _instant(text)
