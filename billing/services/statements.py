"""statement_summary: what a month did to a wallet, from the ledger, so that it adds up exactly."""

from datetime import datetime
from typing import Any

from django.db import connection

from billing.models.ledger import WALLET_KINDS
from turnpike.kernel.money import format_amount


def statement_summary(*, tenant: int, since: datetime, until: datetime) -> dict[str, Any]:
    """The balance before and after, and in between the sums by what the postings were.

    By the time of posting: usage of the last minutes may be posted in the next month's first.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            _MOVEMENTS,
            {
                "tenant": tenant,
                "since": since,
                "until": until,
                "wallet_kinds": sorted(WALLET_KINDS),
            },
        )
        rows = cursor.fetchall()
    opening = sum(nano for is_before, _, nano in rows if is_before)
    moved = [(kind, nano) for is_before, kind, nano in rows if not is_before]
    return {
        "opening": format_amount(opening),
        "movements": [{"kind": kind, "amount": format_amount(nano)} for kind, nano in moved],
        "closing": format_amount(opening + sum(nano for _, nano in moved)),
    }


_MOVEMENTS = """
SELECT txn.posted_at < %(since)s AS is_before, txn.kind,
  sum(-entry.side * entry.amount)::bigint AS nano
FROM billing_ledger_txn AS txn
JOIN billing_ledger_entry AS entry ON entry.txn_id = txn.id
JOIN billing_ledger_account AS account ON account.id = entry.account_id
WHERE txn.tenant_id = %(tenant)s AND txn.posted_at < %(until)s
  AND account.tenant_id = %(tenant)s AND account.kind = ANY(%(wallet_kinds)s)
GROUP BY 1, 2 ORDER BY 1 DESC, 2
"""
