"""How numbers, money and times are written for people, in the language of the page.

Templates use the filters of the same names in `turnpike.web.filters`. Nothing here is a float.
"""

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

from babel import Locale, dates, numbers
from babel.units import format_unit
from django.utils.translation import get_language, gettext

from turnpike.kernel import clock

_LOCALES = {
    "en": Locale("en"),
    "zh-hans": Locale("zh", script="Hans"),
    "ru": Locale("ru"),
}
_CENT = Decimal("0.01")
_SMALL_DECIMALS = 6
# The last four are the wide forms that Chinese and Japanese keyboards write.
_FORMULA_STARTS = (*"=+-@\t\r\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
COMPACT_FROM = 10_000
CHANGE_MAX = Decimal("9.99")


def locale() -> Locale:
    """The locale of the language in use."""
    return _LOCALES.get(get_language() or "en", _LOCALES["en"])


def money(nanos: int, currency: str = "USD") -> str:
    """An amount with two decimals; what would be shown as nothing has up to six."""
    amount = Decimal(nanos).scaleb(-9)
    if amount and abs(amount) < _CENT:
        return exact_money(nanos, currency)
    rounded = amount.quantize(_CENT, rounding=ROUND_HALF_EVEN)
    return str(numbers.format_currency(rounded, currency, locale=locale()))


def paid_money(nanos: int, currency: str = "USD") -> str:
    """An amount that is paid, with all the decimals that its currency is paid in."""
    amount = Decimal(nanos).scaleb(-9)
    return str(numbers.format_currency(amount, currency, locale=locale()))


def exact_money(nanos: int, currency: str = "USD") -> str:
    """An amount with two to six decimals, for single requests; more only where six say nothing."""
    amount = Decimal(nanos).scaleb(-9)
    decimals = _SMALL_DECIMALS if not nanos or abs(nanos) >= 1_000 else 9
    rounded = amount.quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_HALF_EVEN)
    pattern = (
        locale()
        .currency_formats["standard"]
        .apply(
            rounded.normalize() if rounded else Decimal(0),
            locale(),
            currency=currency,
            currency_digits=False,
            decimal_quantization=False,
        )
    )
    return str(pattern)


def number(value: int) -> str:
    """A whole number with its thousands apart."""
    return str(numbers.format_decimal(value, locale=locale()))


def compact(value: int) -> str:
    """A count in few characters: 14.6M; whole below ten thousand."""
    if abs(value) < COMPACT_FROM:
        return number(value)
    return str(numbers.format_compact_decimal(value, locale=locale(), fraction_digits=1))


def percent(part: int, whole: int) -> str:
    """A share with at most one decimal; a dash of nothing."""
    if not whole:
        return "–"
    share = (Decimal(part) / Decimal(whole)).quantize(Decimal("0.001"))
    return str(numbers.format_percent(share, locale=locale(), decimal_quantization=False))


def moment(at: datetime) -> str:
    """A date and a time in UTC, to the second."""
    return f"{day(at)}, {time_of_day(at)} UTC"


def day(at: datetime) -> str:
    """A date in UTC."""
    return str(dates.format_date(at.astimezone(UTC), "medium", locale=locale()))


def month(at: datetime) -> str:
    """A month and its year."""
    return str(dates.format_skeleton("yMMMM", at.astimezone(UTC), tzinfo=UTC, locale=locale()))


def day_short(at: datetime) -> str:
    """A date without its year, for the axis of a chart."""
    return str(dates.format_skeleton("MMMd", at.astimezone(UTC), tzinfo=UTC, locale=locale()))


def time_of_day(at: datetime) -> str:
    """Hours, minutes and seconds in UTC."""
    return at.astimezone(UTC).strftime("%H:%M:%S")


def ago(at: datetime, *, now: datetime | None = None) -> str:
    """How long ago, or in how long, in words."""
    distance: timedelta = at - (now or clock.utc_now())
    return str(
        dates.format_timedelta(distance, add_direction=True, format="short", locale=locale())
    )


def duration(microseconds: int) -> str:
    """A duration: milliseconds below a second, seconds with one decimal above."""
    milliseconds = microseconds // 1_000
    if milliseconds < 1_000:
        return str(_unit(Decimal(milliseconds), "duration-millisecond"))
    seconds = (Decimal(milliseconds) / 1_000).quantize(Decimal("0.01"))
    return str(_unit(seconds, "duration-second"))


def _unit(value: Decimal, unit: str) -> str:
    text = str(format_unit(value, unit, length="narrow", locale=locale()))
    if unit not in text:
        return text
    # Some languages write this unit in one length alone.
    return str(format_unit(value, unit, length="short", locale=locale()))


def change(now: int, before: int) -> str:
    """How much more or less than before, with its sign; a dash where nothing was before."""
    if not before:
        return "–"
    share = ((Decimal(now) - Decimal(before)) / Decimal(before)).quantize(Decimal("0.001"))
    if share > CHANGE_MAX:
        most = numbers.format_percent(CHANGE_MAX, locale=locale())
        return gettext("more than %(share)s") % {"share": f"+{most}"}
    text = str(numbers.format_percent(abs(share), locale=locale(), decimal_quantization=False))
    return f"{'−' if share < 0 else '+'}{text}"


def spreadsheet_cell(text: str) -> str:
    """Text as a CSV file may hold it: what a spreadsheet would take for a formula is quoted."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
