"""The catalogue file, its import, and prices over time."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, IntegrityError, connection, transaction

from billing.models.catalog import CatalogModel, ModelAlias, Price, PriceBook, PriceSet
from billing.models.state import PlatformState
from billing.services.catalog import (
    SHIPPED_CATALOG,
    import_catalog,
    publish_prices,
    set_model_switches,
)
from billing.services.catalog_file import PriceRow, read_catalog
from billing.snapshots import price_set_snapshot
from tests.billing.catalog_file import EditCatalog
from turnpike.contracts import rating
from turnpike.kernel.errors import InvalidInput

pytestmark = pytest.mark.django_db


def model_of(content: dict[str, Any], name: str) -> dict[str, Any]:
    """One model of a catalogue file."""
    found: dict[str, Any] = next(item for item in content["models"] if item["id"] == name)
    return found


def price_of(model: str, component: str, *, variant: str = "standard", min_input: int = 0) -> str:
    """The price in force now, in dollars per million tokens."""
    row = Price.objects.get(
        model=model,
        component=component,
        variant=variant,
        min_input=min_input,
        price_set__effective__contains=datetime.now(UTC),
    )
    assert row.nano_per_mtok is not None
    return f"{Decimal(row.nano_per_mtok).scaleb(-9).normalize():f}"


def test_importing_the_shipped_file_twice_changes_nothing_the_second_time() -> None:
    first = import_catalog()
    sets, version = PriceSet.objects.count(), PlatformState.objects.get().policy_version

    second = import_catalog()

    assert (first.models_added, first.price_sets_added, first.tiers_added) == (29, 2, 3)
    assert second.is_change is False
    assert PriceSet.objects.count() == sets
    assert PlatformState.objects.get().policy_version == version


# USD per million tokens: input, 5m, 1h, read, output.
PRICES = {
    "claude-fable-5-2": "8 10 16 0.2 40",
    "claude-mythos-5-2": "8 10 16 0.2 40",
    "claude-fable-5-1": "10 12.5 20 0.25 50",
    "claude-mythos-5-1": "10 12.5 20 0.25 50",
    "claude-fable-5": "10 12.5 20 1 50",
    "claude-mythos-5": "10 12.5 20 1 50",
    "claude-opus-5-5": "4 5 8 0.2 20",
    "claude-opus-5": "5 6.25 10 0.5 25",
    "claude-opus-4-8": "5 6.25 10 0.5 25",
    "claude-opus-4-7": "5 6.25 10 0.5 25",
    "claude-opus-4-6": "5 6.25 10 0.5 25",
    "claude-opus-4-5-20251101": "5 6.25 10 0.5 25",
    "claude-sonnet-5-5": "2 2.5 4 0.1 10",
    "claude-sonnet-5": "2 2.5 4 0.2 10",
    "claude-sonnet-4-6": "3 3.75 6 0.3 15",
    "claude-sonnet-4-5-20250929": "3 3.75 6 0.3 15",
    "claude-haiku-5-5": "0.1 0.125 0.2 0.01 0.5",
    "claude-haiku-4-5-20251001": "1 1.25 2 0.1 5",
    "claude-mythos-preview": "10 12.5 20 1 50",
    "claude-opus-4-1-20250805": "15 18.75 30 1.5 75",
    "claude-opus-4-20250514": "15 18.75 30 1.5 75",
    "claude-sonnet-4-20250514": "3 3.75 6 0.3 15",
    "claude-3-7-sonnet-20250219": "3 3.75 6 0.3 15",
    "claude-3-5-sonnet-20241022": "3 3.75 6 0.3 15",
    "claude-3-5-sonnet-20240620": "3 3.75 6 0.3 15",
    "claude-3-5-haiku-20241022": "0.8 1 1.6 0.08 4",
    "claude-3-opus-20240229": "15 18.75 30 1.5 75",
    "claude-3-sonnet-20240229": "3 3.75 6 0.3 15",
    "claude-3-haiku-20240307": "0.25 0.3 0.5 0.03 1.25",
}


def test_every_published_price_is_in_force() -> None:
    import_catalog()
    components = ("input", "cache_write_5m", "cache_write_1h", "cache_read", "output")

    found = {
        model: " ".join(price_of(model, component) for component in components) for model in PRICES
    }

    assert found == PRICES
    assert set(CatalogModel.objects.values_list("model", flat=True)) == set(PRICES)


def test_long_prompts_web_search_and_variants_have_rows_of_their_own() -> None:
    import_catalog()

    assert price_of("claude-haiku-5-5", "output", min_input=100_000) == "2.5"
    assert price_of("claude-haiku-5-5", "cache_read", min_input=100_000) == "0.05"
    assert price_of("claude-opus-4-8", "input", variant="batch") == "2.5"
    assert price_of("claude-opus-5-5", "output", variant="fast") == "40"
    assert price_of("claude-opus-5-5", "cache_read", variant="fast") == "0.4"
    assert price_of("claude-sonnet-4-6", "input", variant="us") == "3.3"
    assert price_of("claude-opus-4-8", "output", variant="batch+fast+us") == "27.5"
    assert not Price.objects.filter(model="claude-opus-4-6", variant__contains="fast").exists()
    assert not Price.objects.filter(model="claude-haiku-4-5-20251001", variant="us").exists()
    units = Price.objects.filter(model="*", price_set__effective__endswith=None)
    assert units.get().nano_per_unit == 10_000_000


def test_prices_that_changed_are_dated_sets() -> None:
    import_catalog()
    change = datetime(2026, 10, 7, tzinfo=UTC)

    found = {}
    for at in (change - timedelta(microseconds=1), change):
        row = PriceSet.objects.get(effective__contains=at)
        prices = price_set_snapshot(row)
        rated = rating.rate(
            {"cache_read_input_tokens": 1_000_000}, model="claude-sonnet-5-5", price_set=prices
        )
        found[at] = rated.nanos

    assert list(found.values()) == [200_000_000, 100_000_000]


@pytest.mark.parametrize(
    ("alias", "model"),
    [
        ("claude-3.5-sonnet", "claude-3-5-sonnet-20241022"),
        ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022"),
        ("claude-3.7-sonnet", "claude-3-7-sonnet-20250219"),
        ("claude-sonnet-4", "claude-sonnet-4-20250514"),
        ("claude-opus-4-0", "claude-opus-4-20250514"),
        ("claude-4-opus-20250514", "claude-opus-4-20250514"),
        ("claude-opus-4-1", "claude-opus-4-1-20250805"),
        ("claude-haiku-4-5", "claude-haiku-4-5-20251001"),
        ("claude-haiku-4.5", "claude-haiku-4-5-20251001"),
        ("claude-opus-4-5", "claude-opus-4-5-20251101"),
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
        ("claude-3-opus-latest", "claude-3-opus-20240229"),
        ("claude-opus-5.5", "claude-opus-5-5"),
    ],
)
def test_other_names_of_a_model(alias: str, model: str) -> None:
    import_catalog()

    assert ModelAlias.objects.get(alias=alias).model.model == model


def test_retired_models_name_a_successor_and_when_they_ended() -> None:
    import_catalog()

    retired = CatalogModel.objects.filter(lifecycle="retired")

    assert retired.count() == 11
    assert not retired.filter(successor="").exists()
    assert not retired.filter(retires_at=None).exists()
    ending = CatalogModel.objects.get(lifecycle="deprecated")
    assert ending.model == "claude-sonnet-4-5-20250929"
    assert ending.retires_at == datetime(2026, 11, 30, tzinfo=UTC)


def test_a_changed_price_ends_the_set_in_force_and_begins_one(edited: EditCatalog) -> None:
    import_catalog()
    before = PriceSet.objects.get(effective__endswith=None)

    result = import_catalog(
        edited(lambda c: model_of(c, "claude-sonnet-5-5")["prices"][1].update(output="11"))
    )

    assert result.price_sets_added == 1
    assert price_of("claude-sonnet-5-5", "output") == "11"
    before.refresh_from_db()
    after = PriceSet.objects.get(effective__endswith=None)
    assert before.effective.upper == after.effective.lower
    assert (
        before.prices.get(
            model="claude-sonnet-5-5", component="output", variant="standard"
        ).nano_per_mtok
        == 10 * 10**9
    )


def test_prices_to_come_are_sets_to_come_and_may_be_withdrawn(edited: EditCatalog) -> None:
    import_catalog()
    coming = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    coming_price = {
        "from": coming.isoformat(),
        "min_input": 0,
        "input": "9",
        "output": "9",
        "cache_write_5m": "9",
        "cache_write_1h": "9",
        "cache_read": "9",
    }
    path = edited(lambda c: model_of(c, "claude-opus-5")["prices"].append(coming_price))

    assert import_catalog(path).price_sets_added == 1
    assert import_catalog(path).price_sets_added == 0
    announced = PriceSet.objects.get(effective__startswith=coming)
    assert price_of("claude-opus-5", "input") == "5"
    assert announced.prices.filter(
        model="claude-opus-5", variant="standard", nano_per_mtok=9 * 10**9
    ).count() == len(rating.TOKEN_COMPONENTS)

    assert import_catalog().price_sets_added == 1
    announced.refresh_from_db()
    assert announced.effective.isempty is True
    assert PriceSet.objects.get(effective__contains=coming).effective.upper is None


def test_an_operators_own_models_prices_and_switches_outlive_an_import() -> None:
    import_catalog()
    own = [
        PriceRow(model="llama-on-prem", component=name, nano_per_mtok=1)
        for name in rating.TOKEN_COMPONENTS
    ]
    assert publish_prices(book="list", rows=own) == 1
    set_model_switches(model="claude-opus-5", is_enabled=False, is_successor_allowed=True)

    result = import_catalog()

    assert result.is_change is False
    assert Price.objects.filter(
        model="llama-on-prem", price_set__effective__endswith=None
    ).count() == len(own)
    assert CatalogModel.objects.get(model="claude-opus-5").is_enabled is False


def test_a_book_of_ones_own_begins_with_what_it_is_given() -> None:
    rows = [PriceRow(model="m", component="input", nano_per_mtok=5)]

    assert publish_prices(book="acme", rows=rows) == 1
    assert publish_prices(book="acme", rows=rows) == 0

    assert PriceBook.objects.get(name="acme").sets.count() == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE billing_price SET nano_per_mtok = 1 WHERE nano_per_mtok IS NOT NULL",
        "DELETE FROM billing_price",
        "TRUNCATE billing_price",
        "DELETE FROM billing_price_set",
        "UPDATE billing_price_set SET effective = tstzrange('2020-01-01', NULL)"
        " WHERE upper(effective) IS NULL",
        "UPDATE billing_price_set SET effective = tstzrange(lower(effective), '2026-10-08')"
        " WHERE upper(effective) IS NULL",
        "UPDATE billing_price_set SET effective = 'empty'",
        "INSERT INTO billing_price_set (created_at, book_id, effective)"
        " SELECT now(), book_id, tstzrange('2026-10-01', '2026-10-02') FROM billing_price_set"
        " LIMIT 1",
    ],
)
def test_the_database_refuses_changes_of_prices(statement: str) -> None:
    import_catalog()
    before = list(Price.objects.order_by("pk").values())

    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)

    assert list(Price.objects.order_by("pk").values()) == before
    assert PriceSet.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_a_set_is_complete_when_its_transaction_ends() -> None:
    publish_prices(book="acme", rows=[PriceRow(model="m", component="input", nano_per_mtok=5)])
    price_set = PriceSet.objects.get(book__name="acme")

    with pytest.raises(IntegrityError, match="is complete"):
        Price.objects.create(price_set=price_set, model="n", component="input", nano_per_mtok=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(schema=2), "no catalogue of schema 1"),
        (lambda c: c.pop("units"), "units"),
        (lambda c: c["models"].append(c["models"][0]), "stands twice"),
        (lambda c: c["models"][0].update(successor="nobody"), "successor is not in"),
        (lambda c: c["models"][0]["variants"].update(turbo="2"), "unknown variants"),
        (lambda c: c["models"][0]["prices"][0].update(input="0.0000000001"), "whole number"),
        (lambda c: c["models"][0]["prices"][0].update(input="-1"), "whole number"),
        (lambda c: c["models"][0]["prices"][0].update(input="cheap"), "catalogue's form"),
    ],
)
def test_a_bad_file_is_refused_whole(
    edited: EditCatalog, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        import_catalog(edited(change))

    assert CatalogModel.objects.exists() is False


def test_a_missing_file_is_an_error_of_the_command(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no readable JSON"):
        call_command("import_catalog", str(tmp_path / "none.json"))


def test_the_command_prints_what_changed(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("import_catalog", "--json")
    call_command("import_catalog")

    first, second = capsys.readouterr().out.splitlines()
    assert json.loads(first)["models_added"] == 29
    assert second.startswith("0 models added, 0 changed, 0 price sets")


def test_the_shipped_file_reads_as_the_design_says() -> None:
    content = json.loads(SHIPPED_CATALOG.read_text())
    catalog = read_catalog(SHIPPED_CATALOG)

    assert {"schema", "as_of", "currency", "models", "units"} == set(content)
    assert content["units"] == {"web_search": "0.01"}
    assert len(catalog.models) == len(content["models"]) == 29
    assert sorted(catalog.prices) == [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2026, 10, 7, tzinfo=UTC),
    ]
