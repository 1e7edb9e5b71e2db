"""Endpoints for a tenant's money: its balance and what moved it."""

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from billing.models.ledger import DEBIT, CreditGrant, LedgerTxn
from billing.queries.balance import change_of, list_grants, list_ledger, read_balance
from turnpike.control.caller import Power
from turnpike.control.drf import TenantView
from turnpike.control.pages import PAGE_PARAMETERS, keyset_page, page_of
from turnpike.kernel.money import format_amount


class GrantSerializer(serializers.Serializer[Any]):
    """Promotional credit and what is left of it."""

    id = serializers.UUIDField()
    amount = serializers.CharField()
    remaining = serializers.CharField()
    reason = serializers.CharField()
    expires_at = serializers.DateTimeField(allow_null=True)


class BalanceSerializer(serializers.Serializer[Any]):
    """What a tenant can spend; amounts are decimal strings of the currency's major unit."""

    currency = serializers.CharField()
    balance = serializers.CharField(help_text="Below zero where a tenant owes.")
    credit_limit = serializers.CharField()
    available = serializers.CharField(help_text="Balance and credit line, open requests aside.")
    mode = serializers.ChoiceField(["prepaid", "postpaid"])
    grants = GrantSerializer(many=True)


class EntrySerializer(serializers.Serializer[Any]):
    """One line of a posting on an account of the tenant."""

    account = serializers.CharField()
    ref = serializers.CharField()
    side = serializers.ChoiceField(["debit", "credit"])
    amount = serializers.CharField()
    balance_after = serializers.CharField()


class PostingSerializer(serializers.Serializer[Any]):
    """One posting: `amount` is what it changed in the balance."""

    id = serializers.CharField()
    kind = serializers.CharField()
    amount = serializers.CharField()
    currency = serializers.CharField()
    posted_at = serializers.DateTimeField()
    reason = serializers.CharField()
    entries = EntrySerializer(many=True)


class BalanceView(TenantView):
    """The tenant's balance."""

    powers: ClassVar = {"GET": Power.BILLING_READ}

    @extend_schema(operation_id="get_balance", responses=BalanceSerializer)
    def get(self, _request: Request) -> Response:
        """Balance, credit line and credit that has not been used up."""
        assert self.caller.tenant is not None
        balance = read_balance(self.caller.tenant)
        return Response(
            {
                "currency": balance.currency,
                "balance": format_amount(balance.balance_nano),
                "credit_limit": format_amount(balance.credit_limit_nano),
                "available": format_amount(balance.available_nano),
                "mode": balance.mode,
                "grants": [_grant(row) for row in list_grants(self.caller.tenant)],
            }
        )


class LedgerView(TenantView):
    """The tenant's postings."""

    powers: ClassVar = {"GET": Power.BILLING_READ}

    @extend_schema(
        operation_id="list_ledger", parameters=PAGE_PARAMETERS, responses=page_of(PostingSerializer)
    )
    def get(self, request: Request) -> Response:
        """List postings, newest first, each with its lines on the tenant's accounts."""
        assert self.caller.tenant is not None
        rows = list_ledger(self.caller.tenant)
        return Response(keyset_page(request, rows, write=_posting))


def _grant(row: CreditGrant) -> dict[str, Any]:
    return {
        "id": str(row.uuid),
        "amount": format_amount(row.amount_nano),
        "remaining": format_amount(row.account.balance_nano),
        "reason": row.reason,
        "expires_at": row.expires_at,
    }


def _posting(row: LedgerTxn) -> dict[str, Any]:
    entries = list(row.entries.all())
    return {
        "id": str(row.pk),
        "kind": row.kind,
        "amount": format_amount(change_of(entries)),
        "currency": row.currency,
        "posted_at": row.posted_at,
        "reason": str(row.memo.get("reason", "")),
        "entries": [
            {
                "account": entry.account.kind,
                "ref": entry.account.ref,
                "side": "debit" if entry.side == DEBIT else "credit",
                "amount": format_amount(entry.amount),
                "balance_after": format_amount(entry.balance_after),
            }
            for entry in entries
        ],
    }
