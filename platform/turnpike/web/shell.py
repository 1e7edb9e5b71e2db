"""What every page shares: the navigation that the reader's role opens, language, theme, credit."""

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from billing.queries.balance import read_balance
from billing.services.announcements import list_current, words_of
from turnpike.control.caller import Power
from turnpike.kernel import clock
from turnpike.web import upstreams
from turnpike.web.operators import navigation

THEME_COOKIE = "turnpike_theme"
THEMES = ("light", "dark")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A page in the navigation; `power` is what its reader needs."""

    route: str
    title: Any
    icon: str
    power: Power
    # `g` and this letter lead there.
    letter: str = ""


SECTIONS: tuple[tuple[Any, tuple[Entry, ...]], ...] = (
    (
        "",
        (
            Entry(
                route="console",
                title=_("Overview"),
                icon="layout-dashboard",
                power=Power.USAGE_READ,
                letter="o",
            ),
            Entry(
                route="console-start",
                title=_("Get started"),
                icon="rocket",
                power=Power.KEYS_READ,
                letter="t",
            ),
            Entry(
                route="console-playground",
                title=_("Playground"),
                icon="terminal",
                power=Power.KEYS_WRITE,
                letter="p",
            ),
        ),
    ),
    (
        _("Build"),
        (
            Entry(
                route="console-keys",
                title=_("API keys"),
                icon="key-round",
                power=Power.KEYS_READ,
                letter="k",
            ),
            Entry(
                route="console-webhooks",
                title=_("Webhooks"),
                icon="webhook",
                power=Power.WEBHOOKS_READ,
                letter="h",
            ),
            Entry(
                route="console-limits",
                title=_("Limits"),
                icon="gauge",
                power=Power.USAGE_READ,
                letter="i",
            ),
            Entry(
                route="console-models",
                title=_("Models and prices"),
                icon="cpu",
                power=Power.USAGE_READ,
                letter="m",
            ),
            Entry(
                route="console-docs",
                title=_("Docs"),
                icon="book-open",
                power=Power.TENANT_READ,
                letter="d",
            ),
        ),
    ),
    (
        _("Observe"),
        (
            Entry(
                route="console-usage",
                title=_("Usage"),
                icon="chart-column",
                power=Power.USAGE_READ,
                letter="u",
            ),
            Entry(
                route="console-logs",
                title=_("Logs"),
                icon="scroll-text",
                power=Power.REQUESTS_READ,
                letter="l",
            ),
            Entry(
                route="console-status",
                title=_("Status"),
                icon="heart-pulse",
                power=Power.USAGE_READ,
            ),
        ),
    ),
    (
        _("Organization"),
        (
            Entry(
                route="console-billing",
                title=_("Billing"),
                icon="credit-card",
                power=Power.BILLING_READ,
                letter="b",
            ),
            Entry(
                route="console-members",
                title=_("Members"),
                icon="users",
                power=Power.MEMBERS_READ,
                letter="e",
            ),
            Entry(
                route="console-workspaces",
                title=_("Workspaces"),
                icon="building-2",
                power=Power.WORKSPACES_READ,
                letter="w",
            ),
            Entry(
                route="console-audit",
                title=_("Audit log"),
                icon="shield-check",
                power=Power.AUDIT_READ,
                letter="a",
            ),
            Entry(
                route="console-data",
                title=_("Your data"),
                icon="download",
                power=Power.OWNERS_WRITE,
            ),
            Entry(
                route="console-settings",
                title=_("Settings"),
                icon="settings",
                power=Power.TENANT_READ,
                letter="s",
            ),
        ),
    ),
)


def shell(request: HttpRequest) -> dict[str, Any]:
    """Context of every template."""
    theme = request.COOKIES.get(THEME_COOKIE)
    context: dict[str, Any] = {
        "theme": theme if theme in THEMES else "",
        "languages": settings.LANGUAGES,
        "base_url": settings.PUBLIC_BASE_URL,
    }
    operator_visit = getattr(request, "operator_visit", None)
    if operator_visit is not None:
        return context | {
            "operator_visit": operator_visit,
            "sections": navigation.sections(),
            "is_simulated": upstreams.is_simulated(),
        }
    visit = getattr(request, "visit", None)
    if visit is None:
        return context
    caller = visit.caller
    sections = [
        (title, [entry for entry in entries if caller.has_power(entry.power)])
        for title, entries in SECTIONS
    ]
    return context | {
        "visit": visit,
        "powers": caller.powers,
        "sections": [(title, entries) for title, entries in sections if entries],
        "credit": read_balance(visit.tenant.pk) if caller.has_power(Power.BILLING_READ) else None,
        "is_simulated": upstreams.is_simulated(),
        "announcements": _announcements(),
    }


def _announcements() -> list[dict[str, Any]]:
    rows = list_current(at=clock.utc_now())
    return [{"row": row, "words": words_of(row)} for row in rows]
