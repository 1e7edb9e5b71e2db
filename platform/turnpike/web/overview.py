"""Overview: money, tokens, requests and speed at a glance, and what to do first."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse
from redis import RedisError

from accounts.access import access_keys
from accounts.console.pages import TenantPage
from accounts.models import ApiKey
from billing.console.charts import sparkline
from billing.console.logs import rows_of
from billing.console.usage import (
    DAY,
    HOUR,
    Period,
    by_bucket,
    chart_of,
    choice_of,
    period_of,
    tokens_of,
)
from billing.queries.balance import read_balance
from billing.queries.refusals import read_outcomes
from billing.queries.requests import RequestFilter, list_requests
from billing.queries.usage import UsageQuery, UsageSum, sum_span, sum_usage, total
from turnpike.control.caller import Power
from turnpike.kernel import clock

RECENT = 6
# Speed is read from the newest requests alone: a bounded number, however many there are.
SPEED_SAMPLE = 200
KEYS_SHOWN = 5
RUN_DAYS = 7
ACCEPTED = "accepted"


class OverviewPage(TenantPage):
    """What one sees first."""

    powers = {"GET": Power.USAGE_READ}

    def get(self, _request: HttpRequest) -> HttpResponse:
        """Figures, the last requests, the busiest keys, and first steps until there was a call."""
        now = clock.utc_now()
        month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        by_key = sum_span(tenant=self.tenant, since=month, until=now, group_by=("api_key_id",))
        month_choice = choice_of("30d")
        daily = sum_usage(self._query(month_choice.period, DAY, ("model",)))
        days = by_bucket(daily, month_choice.period.starts)
        context = {
            "spent_nano": total(by_key)["amount_nano"],
            "budget_nano": self.visit.tenant.monthly_budget_nano,
            "balance": read_balance(self.tenant),
            "month": month,
            "next_month": (month + 32 * DAY).replace(day=1),
            "spend_spark": sparkline([row["amount_nano"] for row in days]),
            "chart": chart_of(month_choice, daily) if daily else None,
            "top_keys": self._top_keys(by_key),
            **self._last_day(),
            **self._money_lasts(days),
        }
        if self.caller.has_power(Power.REQUESTS_READ):
            context |= self._requests()
        if self.caller.has_power(Power.KEYS_READ):
            context["steps"] = self._steps(has_usage=bool(by_key) or any(map(_is_used, days)))
        return self.page("turnpike/overview.html", context)

    def _query(self, period: Period, width: timedelta, by: tuple[str, ...] = ()) -> UsageQuery:
        return UsageQuery(
            tenant=self.tenant, since=period.since, until=period.until, width=width, group_by=by
        )

    def _last_day(self) -> dict[str, Any]:
        period = period_of("24h")
        rows = sum_usage(self._query(period, HOUR))
        hours = by_bucket(rows, period.starts)
        sums = total(rows)
        before = total(sum_span(tenant=self.tenant, since=period.since - DAY, until=period.since))
        cached = sums["cache_read_tokens"]
        return {
            "tokens": tokens_of(sums),
            "tokens_before": tokens_of(before),
            "cached_tokens": cached,
            "input_tokens": tokens_of(sums) - sums["output_tokens"],
            "requests_count": sums["requests"],
            "requests_before": before["requests"],
            "tokens_spark": sparkline([tokens_of(hour) for hour in hours]),
            "requests_spark": sparkline([hour["requests"] for hour in hours]),
        }

    def _money_lasts(self, days: list[Mapping[str, int]]) -> dict[str, Any]:
        """For how many days the credit lasts at the pace of the last seven."""
        recent = sum(day["amount_nano"] for day in days[-RUN_DAYS:])
        available = read_balance(self.tenant).available_nano
        if recent <= 0 or available <= 0:
            return {"days_left": None}
        return {"days_left": available * RUN_DAYS // recent}

    def _requests(self) -> dict[str, Any]:
        rows = list_requests(
            tenant=self.tenant, chosen=RequestFilter(), after=None, limit=SPEED_SAMPLE
        )
        keys = {
            key.pk: key
            for key in ApiKey.objects.filter(pk__in={row["api_key_id"] for row in rows[:RECENT]})
        }
        times = sorted(row["ttft_us"] for row in rows if row["ttft_us"] is not None)
        return {
            "recent": rows_of(rows[:RECENT], keys),
            "has_requests": True,
            "ttft_us": times[(len(times) * 95 - 1) // 100] if times else None,
            "ttft_spark": sparkline(
                [row["ttft_us"] for row in reversed(rows[:60]) if row["ttft_us"] is not None]
            ),
            "sampled": len(times),
            **self._outcomes(),
        }

    def _outcomes(self) -> dict[str, int | None]:
        try:
            hours = read_outcomes(self.tenant, hours=24)
        except RedisError:
            return {"accepted": None, "refused": None}
        counts = [hour["outcomes"] for hour in hours]
        accepted = sum(count.get(ACCEPTED, 0) for count in counts)
        return {
            "accepted": accepted,
            "refused": sum(sum(count.values()) for count in counts) - accepted,
        }

    def _top_keys(self, by_key: list[UsageSum]) -> list[dict[str, Any]]:
        top = sorted(by_key, key=lambda row: -row.sums["amount_nano"])[:KEYS_SHOWN]
        keys = ApiKey.objects.in_bulk([row.words["api_key_id"] for row in top])
        largest = max((row.sums["amount_nano"] for row in top), default=0)
        return [
            {
                "key": keys[row.words["api_key_id"]],
                "spent_nano": row.sums["amount_nano"],
                "largest_nano": largest,
            }
            for row in top
            if row.words["api_key_id"] in keys
        ]

    def _steps(self, *, has_usage: bool) -> dict[str, bool]:
        keys = access_keys(self.caller, power=Power.KEYS_READ)
        steps = {
            "has_credit": read_balance(self.tenant).available_nano > 0,
            "has_key": keys.filter(kind=ApiKey.Kind.API, revoked_at=None).exists(),
            "has_usage": has_usage,
        }
        return {} if all(steps.values()) else steps


def _is_used(day: Mapping[str, int]) -> bool:
    return day["requests"] > 0
