"""Billing: what is left, documents, the credit that was given, what moved the balance."""

import contextlib
from typing import Any

from django.http import HttpRequest, HttpResponse

from accounts.console.pages import TenantPage
from billing.console.exports import export_links
from billing.console.paying import paying_context
from billing.models.invoices import Invoice
from billing.models.ledger import WALLET_KINDS, LedgerTxn
from billing.queries.balance import change_of, list_grants, list_ledger, read_balance
from billing.queries.documents import KINDS, MOVEMENTS, STATUSES, TONES, list_documents
from billing.services.documents import can_render
from turnpike.control.caller import Power
from turnpike.control.pages import parse_bigint

SHOWN = 50
DOCUMENTS_SHOWN = 13


class BillingPage(TenantPage):
    """The organization's money."""

    powers = {"GET": Power.BILLING_READ}

    def get(self, request: HttpRequest) -> HttpResponse:
        """Balance, grants, and one page of the ledger."""
        rows = list_ledger(self.tenant).order_by("-pk")
        with contextlib.suppress(KeyError, ValueError):
            rows = rows.filter(pk__lt=parse_bigint(request.GET["before"]))
        found = list(rows[: SHOWN + 1])
        shown = found[:SHOWN]
        grants = list_grants(self.tenant)
        documents = list_documents(self.tenant).order_by("-pk")
        with contextlib.suppress(KeyError, ValueError):
            documents = documents.filter(pk__lt=parse_bigint(request.GET["documents"]))
        found_documents = list(documents[: DOCUMENTS_SHOWN + 1])
        shown_documents = found_documents[:DOCUMENTS_SHOWN]
        return self.page(
            "billing/money.html",
            {
                **paying_context(self.tenant),
                "ledger_exports": export_links("console-ledger-export"),
                "invoice_exports": export_links("console-invoices-export"),
                "balance": read_balance(self.tenant),
                "grants": grants,
                "granted_nano": sum(grant.account.balance_nano for grant in grants),
                "postings": [posting_of(row) for row in shown],
                "documents": [_document(row) for row in shown_documents],
                "next_document": (
                    shown_documents[-1].pk if len(found_documents) > DOCUMENTS_SHOWN else None
                ),
                "can_render": can_render(),
                "next": shown[-1].pk if len(found) > SHOWN else None,
            },
        )


def _document(row: Invoice) -> dict[str, Any]:
    return {
        "row": row,
        "title": KINDS[row.kind],
        "status": STATUSES[row.status],
        "tone": TONES[Invoice.Status(row.status)],
    }


def posting_of(row: LedgerTxn) -> dict[str, Any]:
    """A posting as pages show it."""
    entries = list(row.entries.all())
    return {
        "row": row,
        "title": MOVEMENTS.get(row.kind, row.kind),
        "change_nano": change_of(entries),
        "reason": str(row.memo.get("reason", "")),
        "entries": [entry for entry in entries if entry.account.kind in WALLET_KINDS],
    }
