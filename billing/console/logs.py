"""Logs: every request with what it used and cost, and one request's receipt."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.console.pages import TenantPage
from accounts.models import ApiKey, Workspace
from billing.console.exports import export_links
from billing.models.catalog import PriceSet
from billing.models.usage import UsageEvent
from billing.queries.documents import COMPONENTS, correction_keys
from billing.queries.requests import (
    NUMBERS,
    WORDS,
    RequestFilter,
    key_numbers,
    list_attempts,
    list_postings,
    list_requests,
    list_revisions,
)
from billing.queries.usage import sum_span
from turnpike.control.caller import Power
from turnpike.kernel import clock, ids
from turnpike.kernel.errors import NotFound
from turnpike.kernel.money import nanos_of_micros

SHOWN = 50
SPANS = {
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
STATUSES = (200, 400, 404, 429, 500, 529)
NOBODY = -1
TEXT_LENGTH_MAX = 128
# What became of an attempt at an upstream.
OUTCOMES: Mapping[str, Any] = {
    "answered": gettext_lazy("Answered"),
    "refused": gettext_lazy("Refused"),
    "failed": gettext_lazy("Failed"),
    "cut": gettext_lazy("Cut off"),
    "unknown": gettext_lazy("Unknown"),
    "reconciled": gettext_lazy("Settled by hand"),
}
KNOWLEDGE: Mapping[str, Any] = {
    "void": gettext_lazy("Nothing was used"),
    "estimated": gettext_lazy("Estimated from what was sent"),
    "observed": gettext_lazy("Counted while it went by"),
    "reported": gettext_lazy("Reported by the model"),
    "reconciled": gettext_lazy("Confirmed by the upstream's bill"),
    "unrated": gettext_lazy("Something was used that has no price yet"),
}


class LogsPage(TenantPage):
    """The organization's requests, newest first."""

    powers = {"GET": Power.REQUESTS_READ}

    def get(self, request: HttpRequest) -> HttpResponse:
        """One page of requests; an id that is searched for opens its receipt."""
        searched = request.GET.get("q", "").strip()[:TEXT_LENGTH_MAX]
        if searched.startswith(f"{ids.REQUEST}_"):
            return redirect("console-log", request_id=searched)
        chosen = {name: request.GET.get(name, "")[:TEXT_LENGTH_MAX] for name in ("key", "span")}
        chosen |= {"status": request.GET.get("status", ""), "model": searched}
        rows = list_requests(
            tenant=self.tenant,
            chosen=self._filter(chosen),
            after=_uuid(request.GET.get("after", "")),
            limit=SHOWN + 1,
        )
        shown = rows[:SHOWN]
        keys = {
            key.pk: key for key in ApiKey.objects.filter(tenant_id=self.tenant).order_by("name")
        }
        return self.page(
            "billing/logs.html",
            {
                "requests": [_row(row, keys) for row in shown],
                "next": str(shown[-1]["request_id"]) if len(rows) > SHOWN else "",
                "keys": keys.values(),
                "models": self._models(),
                "statuses": [str(status) for status in STATUSES],
                "spans": _spans(),
                "chosen": chosen,
                "exports": export_links("console-usage-export"),
                "is_filtered": any(chosen.values()) or "after" in request.GET,
            },
        )

    def _filter(self, chosen: Mapping[str, str]) -> RequestFilter:
        key = None
        if chosen["key"]:
            key = next(iter(key_numbers(tenant=self.tenant, public=[chosen["key"]])), NOBODY)
        span = SPANS.get(chosen["span"])
        status = chosen["status"]
        return RequestFilter(
            model=chosen["model"] or None,
            http_status=int(status) if status in map(str, STATUSES) else None,
            key=key,
            since=clock.utc_now() - span if span else None,
        )

    def _models(self) -> list[str]:
        now = clock.utc_now()
        rows = sum_span(
            tenant=self.tenant, since=now - SPANS["30d"], until=now, group_by=("model",)
        )
        return sorted(row.words["model"] for row in rows)


class LogPage(TenantPage):
    """One request's receipt: what it used, at which prices, and where its money went."""

    powers = {"GET": Power.REQUESTS_READ}

    def get(self, _request: HttpRequest, request_id: str) -> HttpResponse:
        """Everything that its amount rests on."""
        number = _parse(request_id)
        revisions = list_revisions(tenant=self.tenant, request=number)
        if not revisions:
            raise NotFound("There is no such request.")
        newest = revisions[-1]
        row: dict[str, Any] = {name: getattr(newest, name) for name in WORDS}
        row |= {name: sum(getattr(item, name) for item in revisions) for name in NUMBERS}
        keys = {key.pk: key for key in ApiKey.objects.filter(pk=newest.api_key_id)}
        postings = {item.posting_id for item in revisions if item.amount_nano}
        return self.page(
            "billing/log.html",
            {
                "request_row": _row(row, keys),
                "public_id": request_id,
                "section": "console-logs",
                "workspace": Workspace.objects.filter(pk=newest.workspace_id).first(),
                "knowledge": KNOWLEDGE.get(newest.status, newest.status),
                "newest": newest,
                "hold_nano": nanos_of_micros(newest.hold_micro),
                "components": _components(newest),
                "price_set": PriceSet.objects.filter(pk=newest.price_set_id)
                .select_related("book")
                .first(),
                "revisions": revisions,
                "attempts": [
                    (item, OUTCOMES.get(item.outcome, item.outcome))
                    for item in list_attempts(tenant=self.tenant, request=number)
                ],
                "postings": list_postings(
                    tenant=self.tenant,
                    postings=postings,
                    keys=correction_keys(tenant=self.tenant, request=number),
                ),
                "can_read_money": self.caller.has_power(Power.BILLING_READ),
            },
        )


def _row(row: Mapping[str, Any], keys: Mapping[int, ApiKey]) -> dict[str, Any]:
    status = row["http_status"]
    taken = row["finished_at"] - row["started_at"]
    return {
        **row,
        "public_id": ids.public_id(ids.REQUEST, row["request_id"]),
        "tone": tone_of(status),
        "key": keys.get(row["api_key_id"]),
        "input_total": sum(
            row[name]
            for name in (
                "input_tokens",
                "cache_write_5m_tokens",
                "cache_write_1h_tokens",
                "cache_read_tokens",
            )
        ),
        "duration_us": taken // timedelta(microseconds=1),
    }


def rows_of(rows: Sequence[Mapping[str, Any]], keys: Mapping[int, ApiKey]) -> list[dict[str, Any]]:
    """Requests as tables show them."""
    return [_row(row, keys) for row in rows]


def tone_of(status: int | None) -> str:
    """The colour of an HTTP status."""
    if status is None or status >= 500:
        return "danger"
    return "ok" if status < 400 else "warn"


def _components(newest: UsageEvent) -> list[dict[str, Any]]:
    return [
        {**item, "title": COMPONENTS.get(item["component"], item["component"])}
        for item in newest.components
        if item.get("quantity")
    ]


def _spans() -> list[tuple[str, str]]:
    return [
        ("1h", _("Last hour")),
        ("24h", _("Last 24 hours")),
        ("7d", _("Last 7 days")),
        ("30d", _("Last 30 days")),
    ]


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _parse(text: str) -> UUID:
    try:
        return ids.parse_public_id(ids.REQUEST, text)
    except ValueError as error:
        raise NotFound("There is no such request.") from error
