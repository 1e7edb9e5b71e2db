"""Sums over all tenants, for operators: from rollups, counters and the newest requests alone."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection
from django.db.models import Count, QuerySet, Sum
from django.db.models.functions import Length

from billing.models.usage import SpendCounter, UpstreamAttempt, UsageEvent
from billing.queries.usage import SUMS
from turnpike.kernel import clock

TENANT_SCOPE = "t"
DAY_LENGTH = len("2026-11-21")
SPEND_DAYS = 30
# How things go is read from the newest requests: a bounded number, however many there are.
SAMPLE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How the newest requests went; the times are None where none was measured."""

    sampled: int
    since: datetime | None
    ttft_p50_us: int | None
    ttft_p95_us: int | None
    duration_p50_us: int | None
    duration_p95_us: int | None
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """Charge and cost of the newest requests; the cost is None where no upstream's book says it."""

    sampled: int
    charged_nano: int
    cost_nano: int | None
    uncosted: int

    @property
    def margin_nano(self) -> int | None:
        """What is left of the charge."""
        return None if self.cost_nano is None else self.charged_nano - self.cost_nano


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSpeed:
    """How the newest tries at an upstream went, and how they ended by outcome."""

    sampled: int
    ttft_p50_us: int | None
    ttft_p95_us: int | None
    outcomes: Mapping[str, int]

    @property
    def failed(self) -> int:
        """Tries that brought nothing."""
        return self.sampled - self.outcomes.get("answered", 0)


def charged_by_day(*, since: datetime, until: datetime) -> Mapping[str, int]:
    """What all tenants were charged on each UTC day (`2026-11-21`) of a span."""
    rows = _counters(since, until)
    sums = rows.order_by("period").values("period").annotate(nano=Sum("spent_nano"))
    return {row["period"]: int(row["nano"]) for row in sums}


def charged_by_tenant(
    *, tenants: Collection[int] | None, since: datetime, until: datetime
) -> Mapping[int, int]:
    """What each of these tenants (None: all) was charged on the UTC days of a span."""
    rows = _counters(since, until)
    if tenants is not None:
        rows = rows.filter(tenant_id__in=tenants)
    sums = rows.order_by("tenant_id").values("tenant_id").annotate(nano=Sum("spent_nano"))
    return {row["tenant_id"]: int(row["nano"]) for row in sums}


def charged_this_month(tenants: Collection[int], *, now: datetime) -> Mapping[int, int]:
    """What each of these tenants was charged in the UTC month of an instant."""
    rows = SpendCounter.objects.filter(
        scope=TENANT_SCOPE, period=now.strftime("%Y-%m"), tenant_id__in=tenants
    )
    return dict(rows.values_list("tenant_id", "spent_nano"))


def read_margin() -> Margin:
    """What the newest requests were charged and what their tries cost, by the upstreams' books."""
    newest = UsageEvent.objects.filter(revision=0).order_by("-request_id")
    requests = list(newest.values_list("request_id", flat=True)[:SAMPLE])
    charged = UsageEvent.objects.filter(request_id__in=requests).aggregate(nano=Sum("amount_nano"))
    billed = UpstreamAttempt.objects.filter(request_id__in=requests, is_billed=True)
    costs = billed.aggregate(
        nano=Sum("cost_nano"), tries=Count("attempt"), known=Count("cost_nano")
    )
    return Margin(
        sampled=len(requests),
        charged_nano=int(charged["nano"] or 0),
        cost_nano=int(costs["nano"] or 0) if costs["known"] else None,
        uncosted=costs["tries"] - costs["known"],
    )


def sum_platform(
    *, since: datetime, until: datetime, width: timedelta
) -> list[tuple[datetime, Mapping[str, int]]]:
    """The rollups of all tenants in buckets of a width, the oldest first; empty ones left out."""
    totals = ", ".join(f"sum({name})::bigint" for name in SUMS)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT date_bin(%s::interval, bucket_at, 'epoch') AS bucket, {totals}"  # noqa: S608
            " FROM billing_usage_rollup WHERE bucket_at >= %s AND bucket_at < %s"
            " GROUP BY bucket ORDER BY bucket",
            [f"{width.total_seconds()} seconds", since, until],
        )
        rows = cursor.fetchall()
    return [(row[0], dict(zip(SUMS, row[1:], strict=True))) for row in rows]


def read_speed() -> Speed:
    """How the newest requests of all tenants went."""
    rows = list(
        UsageEvent.objects.filter(revision=0)
        .order_by("-request_id")
        .values_list("started_at", "finished_at", "ttft_us", "http_status", "error_type")[:SAMPLE]
    )
    first = sorted(ttft for _start, _end, ttft, _status, _error in rows if ttft is not None)
    whole = sorted((end - start) // timedelta(microseconds=1) for start, end, *_rest in rows)
    return Speed(
        sampled=len(rows),
        since=min((row[0] for row in rows), default=None),
        ttft_p50_us=percentile(first, 50),
        ttft_p95_us=percentile(first, 95),
        duration_p50_us=percentile(whole, 50),
        duration_p95_us=percentile(whole, 95),
        failed=sum(is_failed(status, error) for *_times, status, error in rows),
    )


def read_upstream_speeds() -> Mapping[int, UpstreamSpeed]:
    """How the newest tries went, by upstream."""
    tries = list(
        UpstreamAttempt.objects.order_by("-request_id", "-attempt").values_list(
            "request_id", "upstream_id", "outcome"
        )[:SAMPLE]
    )
    first_bytes = dict(
        UsageEvent.objects.filter(
            request_id__in={request for request, _upstream, _outcome in tries}, revision=0
        ).values_list("request_id", "ttft_us")
    )
    times: dict[int, list[int]] = {}
    outcomes: dict[int, dict[str, int]] = {}
    for request, upstream, outcome in tries:
        counts = outcomes.setdefault(upstream, {})
        counts[outcome] = counts.get(outcome, 0) + 1
        ttft = first_bytes.get(request)
        if outcome == "answered" and ttft is not None:
            times.setdefault(upstream, []).append(ttft)
    return {
        upstream: UpstreamSpeed(
            sampled=sum(counts.values()),
            ttft_p50_us=percentile(sorted(times.get(upstream, [])), 50),
            ttft_p95_us=percentile(sorted(times.get(upstream, [])), 95),
            outcomes=counts,
        )
        for upstream, counts in outcomes.items()
    }


def percentile(ordered: list[int], share: int) -> int | None:
    """The value below which so many percent of ordered values lie, by nearest rank."""
    return ordered[(len(ordered) * share - 1) // 100] if ordered else None


def is_failed(http_status: int | None, error_type: str | None) -> bool:
    """Whether a request that was let in ended badly."""
    return bool(error_type) or (http_status or 0) >= 500


def days_until(now: datetime, *, count: int = SPEND_DAYS) -> tuple[datetime, datetime]:
    """The first and the last of so many UTC days that end with that of an instant."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=count - 1), today


def _counters(since: datetime, until: datetime) -> QuerySet[SpendCounter]:
    """The counters of whole tenants on the days of a span; months have shorter names."""
    rows = SpendCounter.objects.filter(
        scope=TENANT_SCOPE, period__gte=_day(since), period__lte=_day(until)
    )
    return rows.alias(size=Length("period")).filter(size=DAY_LENGTH)


def _day(at: datetime) -> str:
    return clock.rfc3339(at)[:DAY_LENGTH]
