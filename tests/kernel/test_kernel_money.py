"""Money: whole numbers, rounding with a direction, text that reads back."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnpike.kernel.money import (
    NANOS_MAX,
    ceil_div,
    format_amount,
    format_cents,
    half_even_div,
    micros_down,
    micros_up,
    nanos_of_micros,
    parse_amount,
)

NANOS = st.integers(-NANOS_MAX, NANOS_MAX)
DIVISORS = st.integers(1, 10**15)


@given(numerator=st.integers(), denominator=DIVISORS)
def test_ceil_div_is_the_smallest_whole_number_not_below(numerator: int, denominator: int) -> None:
    result = ceil_div(numerator, denominator)

    assert (result - 1) * denominator < numerator <= result * denominator


@pytest.mark.parametrize(
    ("numerator", "denominator", "result"),
    [(1, 2, 0), (3, 2, 2), (5, 2, 2), (-1, 2, 0), (-3, 2, -2), (7, 4, 2), (5, 4, 1), (0, 9, 0)],
)
def test_half_even_div_rounds_halves_to_even(numerator: int, denominator: int, result: int) -> None:
    assert half_even_div(numerator, denominator) == result


@given(numerator=st.integers(-(10**30), 10**30), denominator=DIVISORS)
def test_half_even_div_is_pythons_rounding_without_its_floats(
    numerator: int, denominator: int
) -> None:
    result = half_even_div(numerator, denominator)

    assert 2 * abs(result * denominator - numerator) <= denominator
    if 2 * abs(result * denominator - numerator) == denominator:
        assert result % 2 == 0


@given(nanos=NANOS)
def test_crossing_to_micros_rounds_against_the_spender(nanos: int) -> None:
    up, down = nanos_of_micros(micros_up(nanos)), nanos_of_micros(micros_down(nanos))

    assert down <= nanos <= up
    assert up - down in (0, 1_000)


@given(nanos=NANOS)
def test_an_amount_reads_back_as_it_was_written(nanos: int) -> None:
    text = format_amount(nanos)

    assert parse_amount(text) == nanos
    assert Decimal(text) == Decimal(nanos).scaleb(-9)


@pytest.mark.parametrize(
    ("nanos", "text"),
    [(0, "0.000000000"), (-455_000, "-0.000455000"), (12_000_000_001, "12.000000001")],
)
def test_amounts_have_nine_decimals(nanos: int, text: str) -> None:
    assert format_amount(nanos) == text


@pytest.mark.parametrize(
    "text",
    ["", "x", "NaN", "Infinity", "-Infinity", "1e400", "0.0000000001", "9223372036.9", "1 2"],
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"[Aa]mount"):
        parse_amount(text)


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (1_237_891_200, "123.78912"),
        (0, "0"),
        (10_000_000, "1"),
        (1, "0.0000001"),
        (-5 * 10**8, "-50"),
    ],
)
def test_cents_are_exact_and_without_trailing_zeros(nanos: int, text: str) -> None:
    assert format_cents(nanos) == text
