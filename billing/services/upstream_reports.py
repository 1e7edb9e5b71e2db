"""compare_reports: what attempts say of usage and costs, against what upstreams' reports say.

An upstream is asked where it has a credential named ``admin``, which serves no requests. Sums are
compared by UTC day, model and kind of token, and kept: they are the evidence for what is in doubt.
Costs are compared by UTC day and model where the upstream has a cost book.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from billing.models.differences import UpstreamReportDay
from billing.models.upstreams import ADMIN_CREDENTIAL, Upstream, UpstreamCredential
from billing.services.findings import Difference
from billing.services.report_client import REPORT_ERRORS, Sums, read_usage
from billing.services.upstream_attempts import sum_attempts
from billing.services.upstream_costs import COSTS, compare_costs
from turnpike.kernel import clock

NO_REPORT = "no report"
NO_COST_REPORT = "no cost report"

_KINDS: Mapping[str, str] = {
    "uncached_input": "usage->'input_tokens'",
    "output": "usage->'output_tokens'",
    "cache_read": "usage->'cache_read_input_tokens'",
    "cache_write_5m": "usage->'cache_creation'->'ephemeral_5m_input_tokens'",
    "cache_write_1h": "usage->'cache_creation'->'ephemeral_1h_input_tokens'",
    "web_search": "usage->'server_tool_use'->'web_search_requests'",
}
_SUMS = ", ".join(
    f"coalesce(sum(CASE WHEN jsonb_typeof({place}) = 'number' THEN ({place})::bigint END), 0)"
    for place in _KINDS.values()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What differs, and the upstreams and days whose reports could be read."""

    differences: tuple[Difference, ...]
    covered: frozenset[tuple[str, ...]]


def compare_upstreams(*, since: datetime, until: datetime) -> list[str]:
    """Each difference in words, upstream by upstream; `since` and `until` begin UTC days."""
    return [row.text for row in compare_reports(since=since, until=until).differences]


def compare_reports(*, since: datetime, until: datetime) -> Compared:
    """Compare whole UTC days, and keep what both sides say of each."""
    found: list[Difference] = []
    covered: set[tuple[str, ...]] = set()
    days = [(since + timedelta(days=n)).date() for n in range((until - since).days)]
    rows = UpstreamCredential.objects.filter(name=ADMIN_CREDENTIAL)
    for row in rows.select_related("upstream__cost_book").order_by("upstream_id"):
        name = row.upstream.name
        try:
            found += _compare_usage(row, days, since=since, until=until)
        except REPORT_ERRORS as error:
            found.append(_no_report(name, NO_REPORT, error))
            continue
        covered |= {(name, NO_REPORT), *((name, day.isoformat()) for day in days)}
        try:
            found += compare_costs(row, since=since, until=until)
        except REPORT_ERRORS as error:
            found.append(_no_report(name, NO_COST_REPORT, error))
            continue
        covered |= {(name, NO_COST_REPORT), *((name, COSTS, day.isoformat()) for day in days)}
    return Compared(differences=tuple(found), covered=frozenset(covered))


def _compare_usage(
    row: UpstreamCredential, days: list[date], *, since: datetime, until: datetime
) -> list[Difference]:
    reported = read_usage(row, since=since, until=until)
    ours = _ours(row.upstream, since=since, until=until)
    _keep_days(row.upstream, days, ours=ours, reported=reported)
    return [
        _difference(row.upstream.name, place, ours.get(place, 0), reported.get(place, 0))
        for place in sorted(ours.keys() | reported.keys())
        if ours.get(place, 0) != reported.get(place, 0)
    ]


def _no_report(name: str, what: str, error: Exception) -> Difference:
    problem = type(error).__name__
    return Difference(
        cause=(name, what),
        evidence=(("upstream", name), ("problem", problem)),
        text=f"{name}: {what}, {problem}",
    )


def _difference(name: str, place: tuple[str, str, str], here: int, there: int) -> Difference:
    day, model, kind = place
    return Difference(
        cause=(name, day, model, kind),
        evidence=(
            ("upstream", name),
            ("day", day),
            ("model", model),
            ("kind", kind),
            ("ours", str(here)),
            ("reported", str(there)),
        ),
        text=f"{name}, {day}, {model}, {kind}: {here}, says {there}",
    )


def _keep_days(upstream: Upstream, days: list[date], *, ours: Sums, reported: Sums) -> None:
    figures: dict[str, dict[str, dict[str, list[int]]]] = {day.isoformat(): {} for day in days}
    for day, model, kind in ours.keys() | reported.keys():
        place = (day, model, kind)
        pair = [ours.get(place, 0), reported.get(place, 0)]
        if any(pair) and day in figures:
            figures[day].setdefault(model, {})[kind] = pair
    now = clock.utc_now()
    UpstreamReportDay.objects.bulk_create(
        [
            UpstreamReportDay(
                upstream=upstream, day=day, read_at=now, figures=figures[day.isoformat()]
            )
            for day in days
        ],
        update_conflicts=True,
        unique_fields=["upstream", "day"],
        update_fields=["read_at", "figures"],
    )


def _ours(upstream: Upstream, *, since: datetime, until: datetime) -> Sums:
    return {
        (day, model, kind): int(count)
        for day, model, *counts in sum_attempts(
            _SUMS, upstream=upstream.pk, since=since, until=until
        )
        for kind, count in zip(_KINDS, counts, strict=True)
    }
