"""Executes the worked examples of docs/money.md, exact to the nano."""

import json
import re
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from proxy.pricing import Demand, hold_micro
from tests.billing.price_lists import shipped_prices
from turnpike.contracts import rating
from turnpike.contracts.features import Wants
from turnpike.kernel.money import format_amount, parse_amount

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "money.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(
    r"```json\n(.*?)```\n\n\| component .*?\n\|---.*?\n(.*?)\| \*\*sum\*\* .*?\*\*([\d.]+)\*\*",
    PAGE,
    re.DOTALL,
)


def rate_example(text: str) -> rating.Rated:
    """Rate the usage of an example as the platform does."""
    example: dict[str, Any] = json.loads(text)
    started_at = example.get("started_at")
    return rating.rate(
        example["usage"],
        model=example["model"],
        price_set=shipped_prices(started_at and datetime.fromisoformat(started_at)),
        discount_bp=example.get("discount_bp", 0),
        stop_reason=example.get("stop_reason", "end_turn"),
    )


def row_of(component: rating.Component) -> str:
    """A component as the page writes it."""
    assert component.rate_nanos is not None
    assert component.nanos is not None
    price = f"{Decimal(component.rate_nanos).scaleb(-9).normalize():f}"
    amount = format_amount(component.nanos)
    return f"| {component.component} | {component.quantity:,} | {price} | {amount} |\n"


def test_every_example_of_the_page_is_executed() -> None:
    assert len(EXAMPLES) == PAGE.count("```json") == 17


@pytest.mark.parametrize(("usage", "table", "total"), EXAMPLES)
def test_the_page_says_what_the_platform_charges(usage: str, table: str, total: str) -> None:
    rated = rate_example(usage)

    assert "".join(row_of(component) for component in rated.components) == table
    assert rated.nanos == parse_amount(total)
    assert rated.is_complete is True


def test_the_hold_on_the_page_is_the_hold_of_the_data_plane() -> None:
    demand = Demand(
        input_estimate=1_000,
        max_tokens=4_096,
        has_cache_control=True,
        has_one_hour_cache=True,
        wants=Wants(searches=3, loops=3),
    )

    held = hold_micro(demand, price_set=shipped_prices(), model="claude-opus-4-8", discount_bp=0)

    assert held == 322_401
    assert f"**{held:,} micros**" in PAGE
