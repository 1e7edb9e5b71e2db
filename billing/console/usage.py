"""Usage: tokens, requests and money over time, and a table with the very same numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from accounts.console.pages import TenantPage
from accounts.models import ApiKey
from billing.console.charts import SERIES_MAX, Chart, stacked_bars
from billing.console.exports import export_links
from billing.queries.balance import read_balance
from billing.queries.requests import key_numbers
from billing.queries.usage import UsageQuery, UsageSum, floor_to, fold, sum_span, sum_usage, total
from turnpike.control import formats
from turnpike.control.caller import Power
from turnpike.control.exports import CsvEncoder, csv_lines
from turnpike.control.formats import spreadsheet_cell
from turnpike.kernel import clock, ids
from turnpike.kernel.money import format_amount

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PERIODS = {
    "24h": (24, HOUR),
    "7d": (7, DAY),
    "30d": (30, DAY),
    "90d": (90, DAY),
    "365d": (52, 7 * DAY),
}
BACK_MAX = 120
NAME_LENGTH_MAX = 128
TOKENS = (
    "input_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_read_tokens",
    "output_tokens",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A span that a page shows, cut into buckets of one width."""

    name: str
    since: datetime
    until: datetime
    width: timedelta
    # How many such periods before the one of now.
    back: int = 0

    @property
    def last(self) -> datetime:
        """The last instant that belongs to it."""
        return self.until - timedelta(microseconds=1)

    @property
    def starts(self) -> list[datetime]:
        """The start of each bucket."""
        count = (self.until - self.since) // self.width
        return [self.since + place * self.width for place in range(count)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the address asks for."""

    period: Period
    group: str
    measure: str
    model: str
    key: str


def period_of(name: str, *, back: int = 0) -> Period:
    """The period of that name that ends with the bucket of now, or so many periods before it."""
    known = name if name in PERIODS else "30d"
    count, width = PERIODS[known]
    until = floor_to(clock.utc_now(), width) + width - back * count * width
    return Period(name=known, since=until - count * width, until=until, width=width, back=back)


class UsagePage(TenantPage):
    """Usage over time."""

    powers = {"GET": Power.USAGE_READ}

    def get(self, request: HttpRequest) -> HttpResponse:
        """The chart and the table, or the table as CSV."""
        choice = _read(request)
        rows = sum_usage(self._query(choice))
        names = self._names(choice)
        groups = sorted(
            fold(rows, by=_word(choice)), key=lambda row: -_measured(row.sums, choice.measure)
        )
        table = [_line(row, names) for row in groups]
        if request.GET.get("format") == "csv":
            return _csv(choice, table)
        sums = total(rows)
        span = choice.period.until - choice.period.since
        before = sum_span(
            tenant=self.tenant,
            since=choice.period.since - span,
            until=choice.period.since,
            only=self._only(choice),
        )
        return self.page(
            "billing/usage.html",
            {
                "choice": choice,
                "periods": _periods(),
                "older": min(choice.period.back + 1, BACK_MAX),
                "newer": choice.period.back - 1,
                "currency": read_balance(self.tenant).currency,
                "chart": _chart(choice, rows, groups, names) if rows else None,
                "table": table,
                "total": _figures(sums),
                "before": _figures(total(before)),
                "keys": ApiKey.objects.filter(tenant_id=self.tenant).order_by("name", "pk"),
                "models": self._models(choice),
                "exports": export_links("console-usage-export"),
                "can_read_requests": self.caller.has_power(Power.REQUESTS_READ),
            },
        )

    def _query(self, choice: Choice) -> UsageQuery:
        return UsageQuery(
            tenant=self.tenant,
            since=choice.period.since,
            until=choice.period.until,
            width=choice.period.width,
            group_by=_word(choice),
            only=self._only(choice),
        )

    def _only(self, choice: Choice) -> Mapping[str, tuple[Any, ...]]:
        only: dict[str, tuple[Any, ...]] = {}
        if choice.model:
            only["model"] = (choice.model,)
        if choice.key:
            only["api_key_id"] = tuple(key_numbers(tenant=self.tenant, public=[choice.key]))
        return only

    def _names(self, choice: Choice) -> Mapping[Any, tuple[str, str]]:
        if choice.group != "key":
            return {}
        rows = ApiKey.objects.filter(tenant_id=self.tenant).values_list("pk", "name", "uuid")
        return {number: (name, ids.public_id(ids.API_KEY, uuid)) for number, name, uuid in rows}

    def _models(self, choice: Choice) -> list[str]:
        rows = sum_span(
            tenant=self.tenant,
            since=choice.period.since,
            until=choice.period.until,
            group_by=("model",),
        )
        return sorted(row.words["model"] for row in rows)


def choice_of(period: str) -> Choice:
    """What the page shows of a period when nothing else is asked for."""
    return Choice(period=period_of(period), group="model", measure="tokens", model="", key="")


def by_bucket(rows: Sequence[UsageSum], starts: Sequence[datetime]) -> list[Mapping[str, int]]:
    """The sums of each bucket, zeros where nothing was used."""
    found: dict[datetime, list[UsageSum]] = {}
    for row in rows:
        found.setdefault(row.bucket_at, []).append(row)
    return [total(found.get(at, ())) for at in starts]


def chart_of(choice: Choice, rows: Sequence[UsageSum]) -> Chart:
    """The chart of usage by model."""
    groups = sorted(
        fold(rows, by=_word(choice)), key=lambda row: -_measured(row.sums, choice.measure)
    )
    return _chart(choice, rows, groups, {})


def _read(request: HttpRequest) -> Choice:
    group, measure = request.GET.get("group", ""), request.GET.get("measure", "")
    return Choice(
        period=period_of(request.GET.get("period", ""), back=_back(request.GET.get("back", ""))),
        group=group if group in ("key", "kind") else "model",
        measure=measure if measure in ("cost", "requests") else "tokens",
        model=request.GET.get("model", "")[:NAME_LENGTH_MAX],
        key=request.GET.get("key", "")[:NAME_LENGTH_MAX],
    )


def _periods() -> list[tuple[str, str, str]]:
    """The periods that a press of a key chooses: name, title, key."""
    return [
        ("24h", _("Day"), "d"),
        ("7d", _("Week"), "w"),
        ("30d", _("Month"), "m"),
        ("90d", _("Quarter"), ""),
        ("365d", _("Year"), "y"),
    ]


def _back(text: str) -> int:
    return min(int(text), BACK_MAX) if text.isascii() and text.isdigit() and len(text) < 4 else 0


def _word(choice: Choice) -> tuple[str, ...]:
    return ("api_key_id",) if choice.group == "key" else ("model",)


def _measured(sums: Mapping[str, int], measure: str) -> int:
    if measure == "cost":
        return sums["amount_nano"]
    if measure == "requests":
        return sums["requests"]
    return tokens_of(sums)


def tokens_of(sums: Mapping[str, int]) -> int:
    """All tokens, whatever they cost."""
    return sum(sums[name] for name in TOKENS)


def _figures(sums: Mapping[str, int]) -> dict[str, int]:
    return {
        "requests": sums["requests"],
        "input": sums["input_tokens"],
        "cache_write": sums["cache_write_5m_tokens"] + sums["cache_write_1h_tokens"],
        "cache_read": sums["cache_read_tokens"],
        "output": sums["output_tokens"],
        "tokens": tokens_of(sums),
        "amount_nano": sums["amount_nano"],
    }


def _line(row: UsageSum, names: Mapping[Any, tuple[str, str]]) -> dict[str, Any]:
    if "model" in row.words:
        model = row.words["model"]
        return {"name": model, "id": model, **_figures(row.sums)}
    name, public = names.get(row.words["api_key_id"], ("–", ""))
    return {"name": name, "id": public, **_figures(row.sums)}


def _chart(
    choice: Choice,
    rows: Sequence[UsageSum],
    groups: Sequence[UsageSum],
    names: Mapping[Any, tuple[str, str]],
) -> Chart:
    starts = choice.period.starts
    if choice.group == "kind":
        series = _by_kind(starts, rows, choice.measure)
    else:
        series = _by_word(starts, rows, groups, names, choice)
    write: Callable[[datetime], str] = (
        (lambda at: at.strftime("%H:00")) if choice.period.width == HOUR else formats.day_short
    )
    return stacked_bars(
        labels=[write(at) for at in starts], series=series, is_money=choice.measure == "cost"
    )


def _by_word(
    starts: Sequence[datetime],
    rows: Sequence[UsageSum],
    groups: Sequence[UsageSum],
    names: Mapping[Any, tuple[str, str]],
    choice: Choice,
) -> dict[str, list[int]]:
    word = _word(choice)[0]
    place_of = {at: place for place, at in enumerate(starts)}
    shown = [row.words[word] for row in groups[:SERIES_MAX]]
    by_value: dict[Any, list[int]] = {value: [0] * len(starts) for value in shown}
    rest = [0] * len(starts)
    for row in rows:
        values = by_value.get(row.words[word], rest)
        values[place_of[row.bucket_at]] += _measured(row.sums, choice.measure)
    series: dict[str, list[int]] = {}
    for value, values in by_value.items():
        title = value if word == "model" else names.get(value, ("–", ""))[0]
        # Two keys may have one name.
        series[title if title not in series else f"{title} ({names[value][1][-6:]})"] = values
    if any(rest):
        series[_("Others")] = rest
    return series


def _by_kind(
    starts: Sequence[datetime], rows: Sequence[UsageSum], measure: str
) -> dict[str, list[int]]:
    ending = "_nano" if measure == "cost" else "_tokens"
    kinds = {
        _("Input"): ("input",),
        _("Cache write"): ("cache_write_5m", "cache_write_1h"),
        _("Cache read"): ("cache_read",),
        _("Output"): ("output",),
    }
    if measure == "cost":
        kinds[_("Web search")] = ("web_search",)
    place_of = {at: place for place, at in enumerate(starts)}
    series = {title: [0] * len(starts) for title in kinds}
    for row in rows:
        for title, columns in kinds.items():
            series[title][place_of[row.bucket_at]] += sum(
                row.sums[f"{column}{ending}"] for column in columns
            )
    return series


def _csv(choice: Choice, table: Sequence[Mapping[str, Any]]) -> HttpResponse:
    columns = ("requests", "input", "cache_write", "cache_read", "output")
    lines: list[Sequence[Any]] = [("name", "id", *columns, "amount")]
    for line in table:
        named = (spreadsheet_cell(line["name"]), spreadsheet_cell(str(line["id"])))
        lines.append(
            (*named, *(line[name] for name in columns), format_amount(line["amount_nano"]))
        )
    response = HttpResponse(csv_lines(lines), content_type=CsvEncoder.media_type)
    filename = f"usage-{choice.period.since:%Y%m%d}-{choice.period.until:%Y%m%d}.csv"
    response["content-disposition"] = f'attachment; filename="{filename}"'
    return response
