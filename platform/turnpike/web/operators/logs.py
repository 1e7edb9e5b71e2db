"""Logs: requests of all tenants, bounded by time, and one request with what it cost us."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.console.operators import OperatorPage
from accounts.models import ApiKey, Tenant, Workspace
from billing.console.exports import operator_export_links
from billing.console.logs import KNOWLEDGE, OUTCOMES, rows_of
from billing.models.upstreams import Upstream
from billing.queries.documents import COMPONENTS, correction_keys
from billing.queries.everywhere import find_tenant_of, list_all_requests
from billing.queries.requests import (
    NUMBERS,
    WORDS,
    list_attempts,
    list_postings,
    list_revisions,
)
from turnpike.kernel import clock, ids
from turnpike.kernel.errors import NotFound
from turnpike.kernel.money import nanos_of_micros

SHOWN = 50
TEXT_LENGTH_MAX = 128
SPANS = {
    "1h": (gettext_lazy("Last hour"), timedelta(hours=1)),
    "24h": (gettext_lazy("Last 24 hours"), timedelta(hours=24)),
    "7d": (gettext_lazy("Last 7 days"), timedelta(days=7)),
    "30d": (gettext_lazy("Last 30 days"), timedelta(days=30)),
}
DEFAULT_SPAN = "24h"
CONDITIONS: dict[str, dict[str, Any]] = {
    "200": {"http_status": 200},
    "400": {"http_status__gte": 400, "http_status__lt": 500},
    "500": {"http_status__gte": 500},
    "cut": {"http_status": None},
    "waived": {"waived_nano__gt": 0},
}
STATUSES = {
    "200": gettext_lazy("Answered"),
    "400": gettext_lazy("400 to 499"),
    "500": gettext_lazy("500 to 599"),
    "cut": gettext_lazy("Cut off"),
    "waived": gettext_lazy("Waived in part"),
}


class LogsPage(OperatorPage):
    """Requests of everybody."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """One page of them; an id opens its request."""
        searched = request.GET.get("q", "").strip()[:TEXT_LENGTH_MAX]
        if searched.startswith(f"{ids.REQUEST}_"):
            return redirect("operator-log", request_id=searched)
        chosen = {
            "q": searched,
            "tenant": request.GET.get("tenant", "").strip()[:TEXT_LENGTH_MAX],
            "status": request.GET.get("status", ""),
            "span": request.GET.get("span", ""),
        }
        if chosen["span"] not in SPANS:
            chosen["span"] = DEFAULT_SPAN
        found = list_all_requests(
            since=clock.utc_now() - SPANS[chosen["span"]][1],
            after=_uuid(request.GET.get("after", "")),
            chosen=_conditions(chosen),
            limit=SHOWN + 1,
        )
        shown = found[:SHOWN]
        return self.page(
            "operator/logs.html",
            {
                "requests": _rows(shown),
                "next": str(shown[-1]["request_id"]) if len(found) > SHOWN else "",
                "chosen": chosen,
                "exports": operator_export_links("usage", tenant=chosen["tenant"]),
                "spans": [(name, title) for name, (title, _span) in SPANS.items()],
                "statuses": list(STATUSES.items()),
                "is_filtered": any(chosen[name] for name in ("q", "tenant", "status")),
            },
        )


class LogPage(OperatorPage):
    """One request of anybody."""

    def get(self, _request: HttpRequest, request_id: str) -> HttpResponse:
        """What it used, what it was charged, what it cost us, and where it went."""
        number = _parse(request_id)
        tenant = find_tenant_of(number)
        if tenant is None:
            raise NotFound("There is no such request.")
        revisions = list_revisions(tenant=tenant, request=number)
        newest = revisions[-1]
        row: dict[str, Any] = {name: getattr(newest, name) for name in WORDS}
        row |= {name: sum(getattr(item, name) for item in revisions) for name in NUMBERS}
        keys = {key.pk: key for key in ApiKey.objects.filter(pk=newest.api_key_id)}
        attempts = list_attempts(tenant=tenant, request=number)
        names = dict(Upstream.objects.values_list("pk", "name"))
        costs = [item.cost_nano for item in attempts if item.cost_nano is not None]
        postings = {item.posting_id for item in revisions if item.amount_nano}
        return self.page(
            "operator/log.html",
            {
                "row": rows_of([row], keys)[0],
                "public_id": request_id,
                "section": "operator-logs",
                "tenant": Tenant.objects.filter(pk=tenant).first(),
                "workspace": Workspace.objects.filter(pk=newest.workspace_id).first(),
                "knowledge": KNOWLEDGE.get(newest.status, newest.status),
                "newest": newest,
                "hold_nano": nanos_of_micros(newest.hold_micro),
                "components": [
                    {**item, "title": COMPONENTS.get(item["component"], item["component"])}
                    for item in newest.components
                    if item.get("quantity")
                ],
                "attempts": [
                    {
                        "row": item,
                        "upstream": names.get(item.upstream_id, _("unknown")),
                        "outcome": OUTCOMES.get(item.outcome, item.outcome),
                    }
                    for item in attempts
                ],
                "cost_nano": sum(costs) if costs else None,
                "revisions": [
                    (item, KNOWLEDGE.get(item.status, item.status)) for item in revisions
                ],
                "postings": list_postings(
                    tenant=tenant,
                    postings=postings,
                    keys=correction_keys(tenant=tenant, request=number),
                ),
            },
        )


def _rows(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    keys = ApiKey.objects.filter(pk__in={row["api_key_id"] for row in found})
    tenants = Tenant.objects.in_bulk({row["tenant_id"] for row in found})
    rows = rows_of(found, {key.pk: key for key in keys})
    return [{**row, "tenant": tenants.get(row["tenant_id"])} for row in rows]


def _conditions(chosen: dict[str, str]) -> dict[str, Any]:
    conditions = dict(CONDITIONS.get(chosen["status"], {}))
    text = chosen["q"]
    if text.startswith(f"{ids.API_KEY}_"):
        conditions["api_key_id__in"] = list(
            ApiKey.objects.filter(uuid=_public(ApiKey, text)).values_list("pk", flat=True)
        )
    elif text:
        conditions["model"] = text
    if chosen["tenant"]:
        uuid = _public(Tenant, chosen["tenant"])
        conditions["tenant_id__in"] = list(
            Tenant.objects.filter(uuid=uuid).values_list("pk", flat=True)
        )
    return conditions


def _public(model: type[ApiKey] | type[Tenant], text: str) -> UUID:
    """The UUID behind a public id; one that nothing has where it is none."""
    try:
        return model.parse_public_id(text)
    except ValueError:
        return UUID(int=0)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _parse(request_id: str) -> UUID:
    try:
        return ids.parse_public_id(ids.REQUEST, request_id)
    except ValueError as error:
        raise NotFound("There is no such request.") from error
