"""Dashboard: money, traffic and health of the platform at a glance."""

from datetime import datetime
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from redis import RedisError

from accounts.console.operators import OperatorPage
from accounts.models import Tenant
from billing.console.charts import sparkline, stacked_bars
from billing.console.usage import DAY, HOUR, period_of, tokens_of
from billing.models.upstreams import Upstream
from billing.queries import risks
from billing.queries.live import (
    ACCEPTED,
    Breaker,
    count_outcomes,
    read_breakers,
    read_open_requests,
    read_queues,
)
from billing.queries.overall import (
    SPEND_DAYS,
    UpstreamSpeed,
    charged_by_day,
    charged_by_tenant,
    days_until,
    read_margin,
    read_speed,
    read_upstream_speeds,
    sum_platform,
)
from turnpike.control import formats
from turnpike.kernel import clock
from turnpike.web.operators.words import BREAKERS, RISKS, UPSTREAM_STATES

TOP = 5
UPSTREAMS_SHOWN_MAX = 12
BUSY_MAX = 50
REFUSED_HOURS = 24
NEVER_TRIED = UpstreamSpeed(sampled=0, ttft_p50_us=None, ttft_p95_us=None, outcomes={})


class DashboardPage(OperatorPage):
    """What an operator sees first."""

    def get(self, _request: HttpRequest) -> HttpResponse:
        """The figures of the platform."""
        now = clock.utc_now()
        context = {
            **money(now),
            **traffic(),
            "speed": read_speed(),
            "margin": read_margin(),
            "upstreams": list_upstreams(),
            "top": list_top(now),
        }
        try:
            context |= at_this_moment(now)
        except RedisError:
            context["is_away"] = True
        return self.page("operator/dashboard.html", context)


def money(now: datetime) -> dict[str, Any]:
    """What was charged this month and on each of the last days."""
    since, today = days_until(now)
    month = today.replace(day=1)
    names = [(since + place * DAY).date().isoformat() for place in range(SPEND_DAYS)]
    days = charged_by_day(since=min(since, month), until=today)
    values = [days.get(name, 0) for name in names]
    charged = sum(nano for name, nano in days.items() if name >= month.date().isoformat())
    labels = [formats.day_short(since + place * DAY) for place in range(SPEND_DAYS)]
    return {
        "month": month,
        "charged_nano": charged,
        "today_nano": values[-1],
        "yesterday_nano": values[-2],
        "charged_spark": sparkline(values),
        "charged_chart": stacked_bars(labels=labels, series={_("Charged"): values}, is_money=True)
        if any(values)
        else None,
    }


def traffic() -> dict[str, Any]:
    """Requests and tokens of 24 hours, and of the 24 before."""
    period = period_of("24h")
    rows = dict(sum_platform(since=period.since - DAY, until=period.until, width=HOUR))
    hours = [rows.get(at) for at in period.starts]
    before = [sums for at, sums in rows.items() if at < period.since]
    requests = [hour["requests"] if hour else 0 for hour in hours]
    tokens = [tokens_of(hour) if hour else 0 for hour in hours]
    return {
        "requests_count": sum(requests),
        "requests_before": sum(sums["requests"] for sums in before),
        "requests_spark": sparkline(requests),
        "tokens_count": sum(tokens),
        "tokens_before": sum(map(tokens_of, before)),
        "tokens_spark": sparkline(tokens),
    }


def at_this_moment(now: datetime) -> dict[str, Any]:
    """What Redis alone knows. Raises RedisError."""
    since, today = days_until(now, count=2)
    charged = charged_by_tenant(tenants=None, since=since, until=today)
    busy = sorted(charged, key=lambda number: -charged[number])[:BUSY_MAX]
    counts = count_outcomes(busy, hours=REFUSED_HOURS).values()
    accepted = sum(count.get(ACCEPTED, 0) for count in counts)
    found = risks.list_risks(now=now)
    return {
        "running": read_open_requests(),
        "queues": read_queues(),
        "refused": sum(sum(count.values()) for count in counts) - accepted,
        "asked": sum(sum(count.values()) for count in counts),
        "risks": [
            {"risk": risk, "title": RISKS[risk.kind][0], "tone": RISKS[risk.kind][1], **_note(risk)}
            for risk in found
        ],
    }


def list_upstreams() -> list[dict[str, Any]]:
    """Upstreams in service with their health, the first to be asked first."""
    rows = list(
        Upstream.objects.order_by("-is_enabled", "default_priority", "name")[:UPSTREAMS_SHOWN_MAX]
    )
    speeds = read_upstream_speeds()
    breakers = find_breakers(rows)
    return [describe(row, breakers.get(row.pk), speeds.get(row.pk)) for row in rows]


def find_breakers(rows: list[Upstream]) -> dict[int, Breaker]:
    """What the gateways think of upstreams; nothing while Redis is away."""
    try:
        return dict(read_breakers([row.pk for row in rows]))
    except RedisError:
        return {}


def describe(row: Upstream, breaker: Breaker | None, speed: UpstreamSpeed | None) -> dict[str, Any]:
    """An upstream as lists show it."""
    state = "disabled" if not row.is_enabled else "draining" if row.is_draining else "enabled"
    title, tone = UPSTREAM_STATES[state]
    health, health_tone = BREAKERS[breaker.state] if breaker is not None else (None, "")
    return {
        "row": row,
        "state": state,
        "title": title,
        "tone": tone,
        "breaker": breaker,
        "health": health,
        "health_tone": health_tone,
        "speed": speed or NEVER_TRIED,
    }


def list_top(now: datetime) -> list[dict[str, Any]]:
    """Who was charged most in the last days."""
    since, today = days_until(now)
    charged = charged_by_tenant(tenants=None, since=since, until=today)
    numbers = sorted(charged, key=lambda number: -charged[number])[:TOP]
    tenants = Tenant.objects.in_bulk(numbers)
    largest = max((charged[number] for number in numbers), default=0)
    return [
        {"tenant": tenants[number], "nano": charged[number], "largest": largest}
        for number in numbers
        if number in tenants and charged[number]
    ]


def _note(risk: risks.Risk) -> dict[str, str]:
    available = formats.money(risk.available_nano, risk.currency)
    if risk.kind == risks.LOW_CREDIT:
        text = ngettext(
            "%(amount)s left: less than %(count)d day at the pace of the last seven",
            "%(amount)s left: less than %(count)d days at the pace of the last seven",
            risk.number + 1,
        ) % {"amount": available, "count": risk.number + 1}
    elif risk.kind == risks.BUDGET:
        text = _("%(percent)d %% of the month's budget used") % {"percent": risk.number}
    elif risk.kind == risks.LIMITS:
        text = ngettext(
            "%(count)d request refused by limits in two hours",
            "%(count)d requests refused by limits in two hours",
            risk.number,
        ) % {"count": risk.number}
    elif risk.kind == risks.SUSPENDED:
        text = risk.tenant.status_reason
    else:
        text = _("%(amount)s can be spent") % {"amount": available}
    return {"note": text}
