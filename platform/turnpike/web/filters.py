"""Template filters of both consoles: money, counts, times; and the parts of meters and charts."""

from datetime import datetime
from typing import Any, TypeGuard, TypeVar

from django import template
from django.forms import BoundField, CheckboxInput, RadioSelect
from django.http import HttpRequest

from billing.queries.documents import ACCOUNTS, MOVEMENTS
from turnpike.control import formats

register = template.Library()
Value = TypeVar("Value")
METER_WARN, METER_FULL = 75, 95


def is_there(value: Value | None) -> TypeGuard[Value]:
    """Whether there is something to write; a template's variable that is missing is empty text."""
    return value is not None and value != ""


@register.filter
def money(nanos: int | None, currency: str = "USD") -> str:
    """An amount in nanos with two decimals."""
    return formats.money(nanos, currency) if is_there(nanos) else "–"


@register.filter
def paid(nanos: int | None, currency: str = "USD") -> str:
    """An amount in nanos with all the decimals that its currency is paid in."""
    return "–" if nanos is None else formats.paid_money(nanos, currency)


@register.filter
def month(at: datetime | None) -> str:
    """A month and its year."""
    return "–" if at is None else formats.month(at)


@register.filter
def exact_money(nanos: int | None, currency: str = "USD") -> str:
    """An amount in nanos, exact to a millionth."""
    return formats.exact_money(nanos, currency) if is_there(nanos) else "–"


@register.filter
def account(kind: str) -> str:
    """What an account of the ledger is called."""
    return str(ACCOUNTS.get(kind, kind))


@register.filter
def movement(kind: str) -> str:
    """What a posting of the ledger is called."""
    return str(MOVEMENTS.get(kind, kind))


@register.filter
def signed(nanos: int, currency: str = "USD") -> str:
    """A change of a balance, exact, with its sign."""
    return f"{'+' if nanos > 0 else ''}{formats.exact_money(nanos, currency)}"


@register.filter
def number(value: int | None) -> str:
    """A whole number with its thousands apart."""
    return formats.number(value) if is_there(value) else "–"


@register.filter
def compact(value: int | None) -> str:
    """A count in few characters."""
    return formats.compact(value) if is_there(value) else "–"


@register.filter
def moment(at: datetime | None) -> str:
    """A date and a time in UTC."""
    return formats.moment(at) if is_there(at) else "–"


@register.filter
def day(at: datetime | None) -> str:
    """A date in UTC."""
    return formats.day(at) if is_there(at) else "–"


@register.filter
def time_of_day(at: datetime | None) -> str:
    """Hours, minutes and seconds in UTC."""
    return formats.time_of_day(at) if is_there(at) else "–"


@register.filter
def ago(at: datetime | None) -> str:
    """How long ago, or in how long."""
    return formats.ago(at) if is_there(at) else "–"


@register.filter
def duration(microseconds: int | None) -> str:
    """A duration in milliseconds or seconds."""
    return formats.duration(microseconds) if is_there(microseconds) else "–"


@register.filter
def share(part: int | None, whole: int | None) -> int:
    """A whole percentage from 0 to 100, for meters; nothing of nothing is 0."""
    if not part or not whole or part < 0:
        return 0
    return min(100, max(1, part * 100 // whole))


@register.filter
def meter_tone(percent: int | str) -> str:
    """Which state a meter is in: `ok`, `warn` or `danger`."""
    if int(percent) >= METER_FULL:
        return "danger"
    return "warn" if int(percent) >= METER_WARN else "ok"


@register.filter
def item(mapping: Any, key: Any) -> Any:
    """The value of a key that stands in a variable."""
    return mapping.get(key)


@register.simple_tag(takes_context=True)
def query(context: dict[str, Any], **changes: Any) -> str:
    """The page's own query string with some parameters changed; None takes one away."""
    request: HttpRequest = context["request"]
    parameters = request.GET.copy()
    for name, value in changes.items():
        parameters.pop(name, None)
        if value not in (None, ""):
            parameters[name] = str(value)
    return f"?{parameters.urlencode()}"


@register.filter
def percent(part: int | None, whole: int | None) -> str:
    """A share in percent, in words of the language."""
    return formats.percent(part or 0, whole or 0)


@register.filter
def delta(now: int, before: int) -> str:
    """How much more or less than before, in percent; a dash where nothing was before."""
    return formats.change(now, before)


@register.filter
def styled(field: BoundField) -> Any:
    """A field of somebody else's form in our look."""
    is_ticked = isinstance(field.field.widget, CheckboxInput | RadioSelect)
    return field.as_widget(attrs={} if is_ticked else {"class": "input"})
