"""Limits: what is used now against what is allowed, from the buckets that decide."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from redis import RedisError

from accounts.console.pages import TenantPage
from billing.queries.limits import Level, ScopeLevels, read_limits
from billing.queries.refusals import read_outcomes, read_refusals
from billing.snapshots import TierOfTenant, tier_of_tenant
from turnpike.contracts.snapshots import Limits
from turnpike.control.caller import Power
from turnpike.control.polling import is_polled
from turnpike.kernel import clock
from turnpike.kernel.errors import Unavailable

HOURS = 24
REFUSALS_SHOWN = 10
ACCEPTED = "accepted"


class LimitsPage(TenantPage):
    """Limits of the organization, its groups of models, workspaces and keys."""

    powers = {"GET": Power.USAGE_READ}

    def get(self, request: HttpRequest) -> HttpResponse:
        """The page; for its own refreshing, the live part alone."""
        found = tier_of_tenant(self.tenant)
        own, groups = limits_of(found)
        try:
            levels = read_limits(self.tenant, own=own, groups=groups)
            context: dict[str, Any] = {
                "scopes": [_scope(item) for item in levels],
                "now": clock.utc_now(),
            }
            if is_polled(request):
                return self.page("billing/limits.html#live", context)
            context |= self._refused()
        except RedisError as error:
            raise Unavailable("The buckets cannot be read now.") from error
        return self.page("billing/limits.html", {**context, "tier": found.tier.name})

    def _refused(self) -> dict[str, Any]:
        if not self.caller.has_power(Power.REQUESTS_READ):
            return {}
        hours = read_outcomes(self.tenant, hours=HOURS)
        counts: dict[str, int] = {}
        for hour in hours:
            for name, count in hour["outcomes"].items():
                counts[name] = counts.get(name, 0) + count
        return {
            "has_refusals": True,
            "accepted": counts.pop(ACCEPTED, 0),
            "refused": sum(counts.values()),
            "refusals": [
                {**row, "when": clock.datetime_of_us(int(row.get("at_us", 0)))}
                for row in read_refusals(self.tenant, limit=REFUSALS_SHOWN)
            ],
        }


def limits_of(found: TierOfTenant) -> tuple[Limits, dict[str, Limits]]:
    """A tenant's limits and those of groups of models, its own overrides applied."""
    names = {*found.tier.group_limits, *found.terms.group_overrides}
    groups = {
        name: found.terms.group_overrides.get(name, Limits()).over(
            found.tier.group_limits.get(name, Limits())
        )
        for name in names
    }
    return found.terms.overrides.over(found.tier.limits), groups


def _scope(item: ScopeLevels) -> dict[str, Any]:
    kinds = {
        "tenant": _("Whole organization"),
        "group": _("Group of models"),
        "workspace": _("Workspace"),
        "key": _("Key"),
    }
    return {
        "title": item.scope.title if item.scope.kind != "tenant" else kinds["tenant"],
        "note": "" if item.scope.kind == "tenant" else kinds[item.scope.kind],
        "levels": [level_row(level) for level in item.levels],
    }


def level_row(level: Level) -> dict[str, Any]:
    """A limit as pages show it."""
    titles = {
        "requests": _("Requests per minute"),
        "tokens": _("Tokens per minute"),
        "input_tokens": _("Input tokens per minute"),
        "output_tokens": _("Output tokens per minute"),
        "concurrency": _("At once"),
    }
    return {
        "title": titles[level.kind],
        "used": level.used,
        "limit": level.limit,
        "capacity": level.capacity,
        "full_in_seconds": -(-level.full_in_us // 1_000_000),
        "kind": level.kind,
    }
