"""Differences: what comparisons of the books found, each open until a person closes it."""

import contextlib
from datetime import date
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.console.operators import OperatorPage, ReasonForm
from accounts.models import Tenant
from billing.console.logs import OUTCOMES
from billing.models.differences import ReconciliationItem
from billing.models.invoices import Invoice
from billing.models.ledger import LedgerAccount
from billing.models.upstreams import Upstream
from billing.queries.doubts import list_candidates
from billing.services.differences import close_difference
from turnpike.control import formats
from turnpike.control.pages import parse_bigint
from turnpike.kernel import ids
from turnpike.kernel.errors import NotFound
from turnpike.web.operators.ledger import CHECKS

SHOWN = 50
STATES = [
    ("open", gettext_lazy("To be decided")),
    ("closed", gettext_lazy("Decided")),
    ("all", gettext_lazy("All of them")),
]
# What the columns of a comparison are called. The rest are names of the ledger, shown as they are.
COLUMNS: dict[str, Any] = {
    "tenant_id": gettext_lazy("Tenant"),
    "request_id": gettext_lazy("Request"),
    "invoice_id": gettext_lazy("Document"),
    "account_id": gettext_lazy("Account"),
    "upstream": gettext_lazy("Upstream"),
    "day": gettext_lazy("Day"),
    "model": gettext_lazy("Model"),
    "kind": gettext_lazy("Kind of token"),
    "ours": gettext_lazy("Our attempts"),
    "reported": gettext_lazy("The upstream's report"),
    "problem": gettext_lazy("Problem"),
    "provider": gettext_lazy("Payment provider"),
    "payment": gettext_lazy("Payment"),
    "what": gettext_lazy("What"),
    "amount": gettext_lazy("Amount"),
    "period": gettext_lazy("Day or month"),
    "scope": gettext_lazy("Scope"),
    "number": gettext_lazy("Number"),
    "currency": gettext_lazy("Currency"),
    "stored": gettext_lazy("Stored"),
    "rebuilt": gettext_lazy("Rebuilt"),
}
COUNTED = ("_nano", "ours", "reported")


class CloseForm(ReasonForm):
    """Why a difference needs nobody any more."""


class DifferencesPage(OperatorPage):
    """All items, newest first; those that are open unless others are asked for."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """One page of them."""
        rows, state, kind = _chosen(request)
        found = list(rows[: SHOWN + 1])
        shown = found[:SHOWN]
        return self.page(
            "operator/differences.html",
            {
                "items": [{"row": row, "title": CHECKS.get(row.kind, row.kind)} for row in shown],
                "next": shown[-1].pk if len(found) > SHOWN else None,
                "states": STATES,
                "state": state,
                "kinds": sorted(CHECKS.items(), key=lambda item: str(item[1])),
                "kind": kind,
                "open": ReconciliationItem.objects.filter(state="open").count(),
            },
        )


class DifferencePage(OperatorPage):
    """One item with its evidence."""

    def get(self, _request: HttpRequest, reconciliationitem_id: str) -> HttpResponse:
        """What was compared with what, and what may explain it."""
        return self._show(find_item(reconciliationitem_id), CloseForm())

    def post(self, request: HttpRequest, reconciliationitem_id: str) -> HttpResponse:
        """Close it."""
        row = find_item(reconciliationitem_id)
        form = CloseForm(request.POST)
        if not form.is_valid():
            return self._show(row, form, status=400)
        close_difference(caller=self.caller, item=row.pk, reason=form.cleaned_data["reason"])
        return self.done(_("The difference is closed."), to=reverse("operator-differences"))

    def _show(self, row: ReconciliationItem, form: CloseForm, *, status: int = 200) -> HttpResponse:
        return self.page(
            "operator/difference.html",
            {
                "row": row,
                "title": CHECKS.get(row.kind, row.kind),
                "evidence": [_figure(name, value) for name, value in row.evidence],
                "candidates": _candidates(dict(row.evidence)),
                "form": form,
                "section": "operator-differences",
            },
            status=status,
        )


def find_item(text: str) -> ReconciliationItem:
    """An item by its public id. Raises NotFound."""
    try:
        uuid = ReconciliationItem.parse_public_id(text)
    except ValueError as error:
        raise NotFound("There is no such difference.") from error
    row = ReconciliationItem.objects.filter(uuid=uuid).first()
    if row is None:
        raise NotFound("There is no such difference.")
    return row


def _chosen(request: HttpRequest) -> tuple[QuerySet[ReconciliationItem], str, str]:
    rows = ReconciliationItem.objects.order_by("-pk")
    state, kind = request.GET.get("state", "open"), request.GET.get("kind", "")
    if state in ReconciliationItem.State.values:
        rows = rows.filter(state=state)
    if kind in CHECKS:
        rows = rows.filter(kind=kind)
    with contextlib.suppress(KeyError, ValueError):
        rows = rows.filter(pk__lt=parse_bigint(request.GET["before"]))
    return rows, state, kind


def _figure(name: str, value: str) -> dict[str, Any]:
    """A column of the comparison in words, and where it leads."""
    shown, address = value, ""
    with contextlib.suppress(ValueError):
        shown, address = _link(name, value) or (value, "")
    if name.endswith(COUNTED) and value.lstrip("-").isdecimal():
        shown = formats.number(int(value))
    return {"title": COLUMNS.get(name, name), "value": shown, "address": address}


def _link(name: str, value: str) -> tuple[str, str] | None:
    """The name and address of what a column's number stands for. ValueError: it is no number."""
    if name == "request_id":
        public = ids.public_id(ids.REQUEST, UUID(value))
        return public, reverse("operator-log", args=[public])
    if name == "tenant_id":
        tenant = Tenant.objects.filter(pk=int(value)).first()
        if tenant is not None:
            return tenant.name, reverse("operator-tenant", args=[tenant.public_id])
    if name == "invoice_id":
        invoice = Invoice.objects.filter(pk=int(value)).first()
        if invoice is not None:
            address = reverse("operator-invoice", args=[invoice.public_id])
            return invoice.number or invoice.public_id, address
    if name == "account_id":
        account = LedgerAccount.objects.filter(pk=int(value)).first()
        if account is not None:
            return f"{account.kind} {account.ref}".strip(), ""
    return None


def _candidates(evidence: dict[str, str]) -> list[dict[str, Any]]:
    """Attempts in doubt of the day and model that an upstream's report differs in."""
    upstream = Upstream.objects.filter(name=evidence.get("upstream", "")).first()
    if upstream is None or "day" not in evidence:
        return []
    found = list_candidates(
        upstream=upstream.pk,
        day=date.fromisoformat(evidence["day"]),
        model=evidence["model"],
    )
    return [{"row": item, "outcome": OUTCOMES.get(item.outcome, item.outcome)} for item in found]
