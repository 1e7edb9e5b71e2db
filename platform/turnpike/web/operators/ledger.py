"""Ledger: every posting of every account, entries by hand, and whether the books agree."""

import contextlib
from typing import Any

from django import forms
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.access import access_any_tenant
from accounts.console.operators import OnceForm, OperatorPage, ReasonForm
from accounts.models import Tenant
from billing.console.exports import operator_export_links
from billing.models.ledger import DEBIT, LedgerTxn
from billing.models.upkeep import ReconciliationRun
from billing.queries.documents import MOVEMENTS
from billing.services.adjustments import KIND, post_adjustment, undo_adjustment
from billing.services.reconciliation import reconcile_and_keep
from turnpike.control.forms import AmountField
from turnpike.control.pages import parse_bigint
from turnpike.kernel.errors import InvalidInput, NotFound
from turnpike.web.operators.jobs import number_of

SHOWN = 50
KEY_LENGTH_MAX = 64
COUNTERS = [
    ("correction", gettext_lazy("Correction")),
    ("cash", gettext_lazy("Money that came or went")),
    ("bad_debt", gettext_lazy("Debt that is given up")),
    ("fees", gettext_lazy("Fees")),
]
CHECKS: dict[str, Any] = {
    "events_and_ledger": gettext_lazy("Usage and ledger"),
    "events_in_order": gettext_lazy("Revisions of requests"),
    "entries_and_accounts": gettext_lazy("Entries and accounts"),
    "running_balances": gettext_lazy("Running balances"),
    "zero_sum": gettext_lazy("Debits and credits"),
    "wallets_and_accounts": gettext_lazy("Wallets and accounts"),
    "holds_and_accounts": gettext_lazy("Holds and accounts"),
    "holds_and_batches": gettext_lazy("Holds and batches"),
    "invoice_lines": gettext_lazy("Invoices and their lines"),
    "invoice_sums": gettext_lazy("Sums of invoices"),
    "invoices_and_ledger": gettext_lazy("Invoices and ledger"),
    "invoice_numbers": gettext_lazy("Numbers of documents"),
    "receivable": gettext_lazy("What is owed"),
    "unbilled": gettext_lazy("What is not billed yet"),
    "corrections_and_ledger": gettext_lazy("Corrections and ledger"),
    "credit_notes": gettext_lazy("Credit notes"),
    "upstreams": gettext_lazy("Usage reports of upstreams"),
    "rated_again": gettext_lazy("Requests rated again, by chance"),
    "payments": gettext_lazy("Payments and the provider's list"),
    "stray_rows": gettext_lazy("Stray rows"),
    "rollups": gettext_lazy("Sums for charts"),
    "counters": gettext_lazy("Spending counters"),
    "redis": gettext_lazy("Balances and holds in Redis"),
}


class EntryForm(OnceForm):
    """Money that a person moves by hand."""

    tenant = forms.CharField(
        label=gettext_lazy("Tenant"),
        max_length=KEY_LENGTH_MAX,
        widget=forms.TextInput(attrs={"placeholder": "ten_…", "autocomplete": "off"}),
    )
    direction = forms.ChoiceField(
        label=gettext_lazy("Direction"),
        choices=[
            ("give", gettext_lazy("Give to the tenant")),
            ("take", gettext_lazy("Take from the tenant")),
        ],
    )
    amount = AmountField(label=gettext_lazy("Amount in dollars"))
    counter = forms.ChoiceField(label=gettext_lazy("What it is"), choices=COUNTERS)


class UndoForm(ReasonForm):
    """Why an entry is undone."""


class LedgerPage(OperatorPage):
    """All postings, newest first."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """One page of them, and how the last reconciliation ended."""
        return self._show(request, EntryForm())

    def post(self, request: HttpRequest) -> HttpResponse:
        """Make an entry by hand."""
        form = EntryForm(request.POST)
        if not form.is_valid():
            return self._show(request, form, status=400)
        chosen = form.cleaned_data
        try:
            tenant = access_any_tenant(self.caller, chosen["tenant"].strip())
            post_adjustment(
                caller=self.caller,
                tenant=tenant,
                amount=chosen["amount"] * (1 if chosen["direction"] == "give" else -1),
                counter=chosen["counter"],
                key=chosen["once"],
                reason=chosen["reason"],
            )
        except NotFound:
            form.add_error("tenant", _("There is no tenant of that id."))
            return self._show(request, form, status=400)
        except InvalidInput as error:
            form.refuse(error)
            return self._show(request, form, status=400)
        return self.done(_("The entry was posted."))

    def _show(self, request: HttpRequest, form: EntryForm, *, status: int = 200) -> HttpResponse:
        rows, chosen = _chosen(request)
        found = list(rows[: SHOWN + 1])
        shown = found[:SHOWN]
        run = ReconciliationRun.objects.order_by("-pk").first()
        return self.page(
            "operator/ledger.html",
            {
                "postings": [_posting(row) for row in shown],
                "next": shown[-1].pk if len(found) > SHOWN else None,
                "chosen": chosen,
                "exports": operator_export_links("ledger", tenant=chosen["tenant"]),
                "kinds": sorted(MOVEMENTS.items(), key=lambda item: str(item[1])),
                "form": form,
                "is_form_open": status != 200 or "new" in request.GET,
                "run": run,
                "findings": [_finding(item) for item in run.findings] if run else [],
            },
            status=status,
        )


class ReversalPage(OperatorPage):
    """Undoing an entry made by hand."""

    def back(self) -> str:
        """The list."""
        return reverse("operator-ledger")

    def post(self, request: HttpRequest, txn_id: str) -> HttpResponse:
        """Post its mirror image."""
        form = UndoForm(request.POST)
        if not form.is_valid():
            return self.refused(form)
        txn = LedgerTxn.objects.filter(pk=number_of(txn_id)).first()
        if txn is None:
            raise NotFound("There is no such posting.")
        undo_adjustment(caller=self.caller, txn=txn, reason=form.cleaned_data["reason"])
        return self.done(_("The entry was undone by its mirror image."))


class ReconcilePage(OperatorPage):
    """Comparing the books now."""

    def back(self) -> str:
        """The list."""
        return reverse("operator-ledger")

    def post(self, _request: HttpRequest) -> HttpResponse:
        """Run every check and keep what it found."""
        run = reconcile_and_keep(actor=self.caller.actor)
        if run.differences:
            return self.done(_("There are differences; they are listed below."))
        return self.done(_("All books agree."))


def _chosen(request: HttpRequest) -> tuple[QuerySet[LedgerTxn], dict[str, str]]:
    rows = LedgerTxn.objects.select_related("tenant", "reversed_by").order_by("-pk")
    rows = rows.prefetch_related("entries__account")
    chosen = {name: request.GET.get(name, "").strip()[:64] for name in ("tenant", "kind")}
    if chosen["tenant"]:
        try:
            rows = rows.filter(tenant__uuid=Tenant.parse_public_id(chosen["tenant"]))
        except ValueError:
            rows = rows.none()
    if chosen["kind"].isidentifier():
        rows = rows.filter(kind=chosen["kind"])
    with contextlib.suppress(KeyError, ValueError):
        rows = rows.filter(pk__lt=parse_bigint(request.GET["before"]))
    return rows, chosen


def _posting(row: LedgerTxn) -> dict[str, Any]:
    entries = sorted(row.entries.all(), key=lambda entry: entry.line)
    is_undone = getattr(row, "reversed_by", None) is not None
    return {
        "row": row,
        "title": MOVEMENTS.get(row.kind, row.kind),
        "reason": str(row.memo.get("reason", "")),
        "amount_nano": sum(entry.amount for entry in entries if entry.side == DEBIT),
        "entries": [
            {"entry": entry, "is_debit": entry.side == DEBIT, "is_own": bool(entry.tenant_id)}
            for entry in entries
        ],
        "undo": UndoForm(auto_id=f"undo-{row.pk}-%s")
        if row.kind == KIND and not is_undone
        else None,
    }


def _finding(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "title": CHECKS.get(item["check"], item["check"])}
