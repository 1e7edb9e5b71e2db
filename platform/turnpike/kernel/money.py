"""Money as whole nano-units: one dollar is 1_000_000_000 nanos; micro-units only in Redis.

Redis keeps micros because Lua numbers are doubles, exact up to 2**53. Crossing that border rounds
against the spender: holds up, balances down.
"""

from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import NewType

Nanos = NewType("Nanos", int)
Micros = NewType("Micros", int)

NANOS_PER_UNIT = 1_000_000_000
NANOS_PER_MICRO = 1_000
AMOUNT_DECIMALS = 9
# Reading an amount rounds nothing: what would be rounded is refused.
_EXACT = Context(prec=60, traps=[Inexact, InvalidOperation, Overflow])
# What a bigint column can hold; a larger amount is a mistake, not wealth.
NANOS_MAX = 2**63 - 1


def ceil_div(numerator: int, denominator: int) -> int:
    """Divide and round up: a fraction is charged, never given away."""
    assert denominator > 0
    return -(-numerator // denominator)


def half_even_div(numerator: int, denominator: int) -> int:
    """Divide and round to the nearest whole number, halves to the even one."""
    assert denominator > 0
    quotient, remainder = divmod(numerator, denominator)
    if not remainder:
        return quotient
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient % 2 == 1):
        return quotient + 1
    return quotient


def micros_up(nanos: int) -> Micros:
    """Nanos as micros, rounded up: for holds and amounts that are owed."""
    return Micros(-(-nanos // NANOS_PER_MICRO))


def micros_down(nanos: int) -> Micros:
    """Nanos as micros, rounded down: for balances and limits that may be spent."""
    return Micros(nanos // NANOS_PER_MICRO)


def nanos_of_micros(micros: int) -> Nanos:
    """Micros as nanos, exactly."""
    return Nanos(micros * NANOS_PER_MICRO)


def format_amount(nanos: int) -> str:
    """Nanos as a decimal string of the major unit, nine decimals: ``-0.000455000``."""
    sign = "-" if nanos < 0 else ""
    units, fraction = divmod(abs(nanos), NANOS_PER_UNIT)
    return f"{sign}{units}.{fraction:09d}"


def parse_amount(text: str) -> Nanos:
    """A decimal string of the major unit as nanos.

    Raises ValueError for anything that is no plain finite number, has more than nine decimals, or
    does not fit a bigint.
    """
    try:
        scaled = _EXACT.scaleb(Decimal(text), AMOUNT_DECIMALS)
    except ArithmeticError as error:
        raise ValueError(f"Not an amount: {text[:40]!r}.") from error
    if not scaled.is_finite() or abs(scaled) > NANOS_MAX:
        raise ValueError(f"Amount out of range: {text[:40]!r}.")
    if scaled != scaled.to_integral_value():
        raise ValueError(f"Not an amount with at most {AMOUNT_DECIMALS} decimals: {text[:40]!r}.")
    return Nanos(int(scaled))


def format_cents(nanos: int) -> str:
    """Nanos as a decimal string of cents, as the Admin API writes costs: ``123.78912``."""
    text = f"{Decimal(nanos).scaleb(-7):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


# How many decimals people pay in, where it is not two.
MINOR_DIGITS = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF"), 0),
    **dict.fromkeys(("UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}


def minor_digits(currency: str) -> int:
    """How many decimals amounts of a currency are paid in."""
    return MINOR_DIGITS.get(currency, 2)


def round_to_minor(nanos: int, currency: str) -> Nanos:
    """The nearest amount that can be paid, halves away from zero: how an invoice's line rounds."""
    unit = minor_unit(currency)
    whole = (2 * abs(nanos) + unit) // (2 * unit) * unit
    return Nanos(whole if nanos >= 0 else -whole)


def minor_unit(currency: str) -> int:
    """The nanos of the smallest amount that can be paid in a currency."""
    return int(10 ** (AMOUNT_DECIMALS - minor_digits(currency)))


def tax_of(nanos: int, *, rate_ppm: int, currency: str) -> Nanos:
    """The tax on a net amount, rounded once, halves away from zero."""
    scaled = abs(nanos) * rate_ppm
    unit = minor_unit(currency) * 1_000_000
    whole = (2 * scaled + unit) // (2 * unit) * minor_unit(currency)
    return Nanos(whole if nanos >= 0 else -whole)
