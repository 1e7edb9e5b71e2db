"""The navigation of the operator console. Entries whose page is not there are left out."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext_lazy as _


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A page in the navigation."""

    route: str
    title: Any
    icon: str


SECTIONS: tuple[tuple[Any, tuple[Entry, ...]], ...] = (
    (
        "",
        (
            Entry(route="operator", title=_("Dashboard"), icon="layout-dashboard"),
            Entry(route="operator-live", title=_("Live traffic"), icon="activity"),
        ),
    ),
    (
        _("Customers"),
        (
            Entry(route="operator-tenants", title=_("Tenants"), icon="building-2"),
            Entry(route="operator-tiers", title=_("Tiers"), icon="gauge"),
        ),
    ),
    (
        _("What is sold"),
        (
            Entry(route="operator-models", title=_("Models"), icon="cpu"),
            Entry(route="operator-prices", title=_("Prices"), icon="tag"),
            Entry(route="operator-upstreams", title=_("Upstreams"), icon="server"),
        ),
    ),
    (
        _("Money"),
        (
            Entry(route="operator-ledger", title=_("Ledger"), icon="coins"),
            Entry(route="operator-invoices", title=_("Invoices"), icon="receipt-text"),
            Entry(route="operator-payments", title=_("Payments"), icon="credit-card"),
            Entry(route="operator-codes", title=_("Redemption codes"), icon="ticket"),
            Entry(route="operator-differences", title=_("Differences"), icon="filter"),
            Entry(route="operator-doubts", title=_("Usage in doubt"), icon="eye-off"),
        ),
    ),
    (
        _("Operations"),
        (
            Entry(route="operator-health", title=_("System health"), icon="heart-pulse"),
            Entry(route="operator-jobs", title=_("Jobs"), icon="list-checks"),
            Entry(route="operator-logs", title=_("Logs"), icon="scroll-text"),
            Entry(route="operator-webhooks", title=_("Webhook deliveries"), icon="webhook"),
            Entry(route="operator-mail", title=_("Mail"), icon="mail"),
        ),
    ),
    (
        _("Platform"),
        (
            Entry(route="operator-announcements", title=_("Announcements"), icon="megaphone"),
            Entry(route="operator-audit", title=_("Audit log"), icon="shield-check"),
            Entry(route="operator-users", title=_("Operators"), icon="users"),
            Entry(route="operator-settings", title=_("Settings"), icon="settings"),
        ),
    ),
)


@cache
def sections() -> list[tuple[Any, list[Entry]]]:
    """The sections with the pages that are there."""
    found = [
        (title, [entry for entry in entries if _is_there(entry)]) for title, entries in SECTIONS
    ]
    return [(title, entries) for title, entries in found if entries]


def _is_there(entry: Entry) -> bool:
    try:
        reverse(entry.route)
    except NoReverseMatch:
        return False
    return True
