"""Audit log of the platform and all tenants: filters, keyset pages, CSV."""

import contextlib
import json
from typing import Any

from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse

from accounts.console.audit import describe
from accounts.console.operators import OperatorPage
from accounts.console.words import ACTIONS
from accounts.models import AuditEvent, Tenant, User
from turnpike.control import formats
from turnpike.control.exports import CsvEncoder, csv_lines
from turnpike.control.pages import parse_bigint
from turnpike.kernel import clock

SHOWN = 50
CSV_MAX = 10_000
TEXT_LENGTH_MAX = 64
FILTERS = ("action", "actor", "target", "tenant")
PLATFORM = "platform"
COLUMNS = ("at", "tenant", "actor", "action", "target", "before", "after", "address", "reason")


class AuditPage(OperatorPage):
    """Who did what, anywhere."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """One page of events, or as many as a file may have."""
        chosen = {name: request.GET.get(name, "").strip()[:TEXT_LENGTH_MAX] for name in FILTERS}
        rows = _filtered(chosen).select_related("tenant").order_by("-pk")
        if request.GET.get("format") == "csv":
            return _csv(rows[:CSV_MAX])
        with contextlib.suppress(ValueError):
            rows = rows.filter(pk__lt=parse_bigint(request.GET.get("before", "")))
        found = list(rows[: SHOWN + 1])
        shown = found[:SHOWN]
        return self.page(
            "operator/audit.html",
            {
                "events": describe(shown),
                "next": shown[-1].pk if len(found) > SHOWN else None,
                "actions": sorted(ACTIONS.items(), key=lambda item: str(item[1])),
                "chosen": chosen,
                "platform": PLATFORM,
            },
        )


def _filtered(chosen: dict[str, str]) -> QuerySet[AuditEvent]:
    rows = AuditEvent.objects.all()
    for name in ("action", "target"):
        if chosen[name] and chosen[name].isprintable():
            rows = rows.filter(**{name: chosen[name]})
    if chosen["actor"] and chosen["actor"].isprintable():
        rows = rows.filter(_actors(chosen["actor"]))
    if chosen["tenant"] == PLATFORM:
        rows = rows.filter(tenant=None)
    elif chosen["tenant"]:
        try:
            rows = rows.filter(tenant__uuid=Tenant.parse_public_id(chosen["tenant"]))
        except ValueError:
            rows = rows.none()
    return rows


def _actors(text: str) -> Q:
    user = User.objects.filter(email=text.lower()).first()
    return Q(actor=text if user is None else user.public_id)


def _csv(rows: QuerySet[AuditEvent]) -> HttpResponse:
    lines = [[formats.spreadsheet_cell(value) for value in _values(row)] for row in rows]
    response = HttpResponse(csv_lines([COLUMNS, *lines]), content_type=CsvEncoder.media_type)
    response["content-disposition"] = 'attachment; filename="audit.csv"'
    response["cache-control"] = "no-store"
    return response


def _values(row: AuditEvent) -> tuple[Any, ...]:
    return (
        clock.rfc3339(row.created_at),
        PLATFORM if row.tenant is None else row.tenant.public_id,
        row.actor,
        row.action,
        row.target,
        json.dumps(row.before, ensure_ascii=False),
        json.dumps(row.after, ensure_ascii=False),
        row.address,
        row.reason,
    )
