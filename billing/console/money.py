"""Billing: what is left, the credit that was given, and what moved the balance."""

import contextlib
from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _

from accounts.console.pages import TenantPage
from billing.models.ledger import WALLET_KINDS, LedgerTxn
from billing.queries.balance import change_of, list_grants, list_ledger, read_balance
from turnpike.control.caller import Power
from turnpike.control.pages import parse_bigint

SHOWN = 50
KINDS: Mapping[str, Any] = {
    "grant": _("Credit granted"),
    "grant_expiry": _("Credit expired"),
    "top_up": _("Top-up"),
    "usage": _("Usage"),
    "reversal": _("Reversal"),
}


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
        return self.page(
            "billing/money.html",
            {
                "balance": read_balance(self.tenant),
                "grants": grants,
                "granted_nano": sum(grant.account.balance_nano for grant in grants),
                "postings": [_posting(row) for row in shown],
                "next": shown[-1].pk if len(found) > SHOWN else None,
            },
        )


def _posting(row: LedgerTxn) -> dict[str, Any]:
    entries = list(row.entries.all())
    return {
        "row": row,
        "title": KINDS.get(row.kind, row.kind),
        "change_nano": change_of(entries),
        "reason": str(row.memo.get("reason", "")),
        "entries": [entry for entry in entries if entry.account.kind in WALLET_KINDS],
    }
