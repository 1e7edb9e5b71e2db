"""Audit log: who did what to what, newest first."""

import json
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from accounts.access import access_audit_events
from accounts.console.pages import TenantPage
from accounts.console.words import ACTIONS, ACTORS
from accounts.models import AuditEvent, User
from turnpike.control.caller import Power
from turnpike.control.pages import parse_bigint

SHOWN = 50
FILTER_LENGTH_MAX = 64


class AuditPage(TenantPage):
    """The audit log of the organization."""

    powers = {"GET": Power.AUDIT_READ}

    def get(self, request: HttpRequest) -> HttpResponse:
        """One page of events, narrowed by what stands in the address."""
        rows = list(self._events(request).order_by("-pk")[: SHOWN + 1])
        shown = rows[:SHOWN]
        return self.page(
            "accounts/audit.html",
            {
                "events": describe(shown),
                "next": shown[-1].pk if len(rows) > SHOWN else None,
                "actions": sorted(ACTIONS.items(), key=lambda item: str(item[1])),
                "chosen": {name: request.GET.get(name, "") for name in ("action", "target")},
            },
        )

    def _events(self, request: HttpRequest) -> QuerySet[AuditEvent]:
        rows = access_audit_events(self.caller, power=Power.AUDIT_READ)
        for name in ("action", "target"):
            value = request.GET.get(name, "").strip()[:FILTER_LENGTH_MAX]
            if value and value.isprintable():
                rows = rows.filter(**{name: value})
        try:
            before = parse_bigint(request.GET["before"])
        except (KeyError, ValueError):
            return rows
        return rows.filter(pk__lt=before)


def describe(rows: list[AuditEvent]) -> list[dict[str, Any]]:
    """Events as pages show them, with who did them by email address."""
    names = _names(rows)
    return [_event(row, names) for row in rows]


def _names(rows: list[AuditEvent]) -> dict[str, str]:
    uuids = []
    for row in rows:
        try:
            uuids.append(User.parse_public_id(row.actor))
        except ValueError:
            continue
    return {user.public_id: user.email for user in User.objects.filter(uuid__in=uuids)}


def _event(row: AuditEvent, names: dict[str, str]) -> dict[str, Any]:
    fields = sorted({*row.before, *row.after})
    return {
        "row": row,
        "title": ACTIONS.get(row.action, row.action),
        "actor": names.get(row.actor) or ACTORS.get(row.actor, row.actor),
        "changes": [
            (name, _text(row.before.get(name)), _text(row.after.get(name))) for name in fields
        ],
    }


def _text(value: Any) -> str:
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value)
