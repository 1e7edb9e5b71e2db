"""Status: what works, how it did in ninety days, and what was announced; for everybody to read."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe

from accounts.console.pages import TenantPage
from accounts.services.platform_settings import SUPPORT_CONTACT, read_setting
from billing.models.upkeep import Announcement
from billing.services.announcements import words_of
from billing.services.standing import (
    API,
    CONSOLE,
    USAGE,
    Component,
    list_incidents,
    read_components,
)
from turnpike.control import formats
from turnpike.control.caller import Power
from turnpike.kernel import clock

NAMES: dict[str, Any] = {
    API: gettext_lazy("API"),
    CONSOLE: gettext_lazy("Console"),
    USAGE: gettext_lazy("Usage processing"),
    "upstream:anthropic": gettext_lazy("Models that speak Anthropic's API"),
    "upstream:openai": gettext_lazy("Models that speak chat completions"),
    "upstream:simulator": gettext_lazy("Simulator"),
}
BAR, GAP = 8, 3


@require_safe
def status(request: HttpRequest) -> HttpResponse:
    """The page for everybody; it says nothing that a tenant would not say, too."""
    return _fresh(render(request, "turnpike/status.html", read_status()))


class StatusPage(TenantPage):
    """The same in the console."""

    powers = {"GET": Power.USAGE_READ}

    def get(self, _request: HttpRequest) -> HttpResponse:
        """Components, their days, and incidents."""
        return self.page("turnpike/console_status.html", read_status())


def read_status() -> dict[str, Any]:
    """What both pages show."""
    now = clock.utc_now()
    components = [_component(item) for item in read_components(at=now)]
    down = sum(item["is_up"] is False for item in components)
    return {
        "components": components,
        "down": down,
        "incidents": [_incident(row) for row in list_incidents(at=now)],
        "contact": read_setting(SUPPORT_CONTACT),
        "now": now,
    }


def _component(item: Component) -> dict[str, Any]:
    return {
        "title": NAMES.get(item.name, item.name),
        "is_up": item.is_up,
        "checked_at": item.checked_at,
        "checks": item.checks,
        "share": formats.percent(item.answered, item.checks),
        "width": len(item.days) * (BAR + GAP) - GAP,
        "first": item.days[0].day,
        "days": [
            {
                "x": place * (BAR + GAP),
                "tone": day.tone,
                "tip": _("%(day)s: %(answered)s of %(checks)s looks answered")
                % {
                    "day": day.day.isoformat(),
                    "answered": formats.number(day.checks - day.failures),
                    "checks": formats.number(day.checks),
                }
                if day.checks
                else _("%(day)s: nobody looked") % {"day": day.day.isoformat()},
            }
            for place, day in enumerate(item.days)
        ],
    }


def _incident(row: Announcement) -> dict[str, Any]:
    return {
        "row": row,
        "words": words_of(row),
        "component": NAMES.get(row.component, ""),
        "is_incident": row.kind == Announcement.Kind.INCIDENT,
        "is_over": row.ends_at is not None and row.ends_at <= clock.utc_now(),
    }


def _fresh(response: HttpResponse) -> HttpResponse:
    response["cache-control"] = "no-store"
    return response
