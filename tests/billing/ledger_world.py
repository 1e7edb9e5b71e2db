"""Tenants, accounts and postings for the tests of the ledger."""

from collections.abc import Sequence
from typing import Any

from django.db import connection

from accounts.models import Tenant
from billing.models.ledger import LedgerAccount, LedgerEntry, LedgerTxn, Wallet
from billing.services.ledger import PostedTxn, account_for, credit, debit, post
from turnpike.control.scope import platform_scope
from turnpike.kernel import ids

ACTOR = "tests"


def make_tenant(name: str = "Alice's toll road") -> int:
    """A tenant without anything; its number."""
    with platform_scope("tests"):
        return int(Tenant.objects.create(name=name).pk)


def make_account(tenant: int | None, kind: str, ref: str = "", currency: str = "USD") -> int:
    """The number of an account."""
    with platform_scope("tests"):
        return int(account_for(tenant=tenant, kind=kind, ref=ref, currency=currency).pk)


def move(
    *, source: int, target: int, amount: int, key: str = "", currency: str = "USD"
) -> PostedTxn | None:
    """Post one amount: debit the source, credit the target."""
    with platform_scope("tests"):
        return post(
            key=key or str(ids.uuid7()),
            kind="correction",
            currency=currency,
            lines=[debit(source, amount), credit(target, amount)],
            actor=ACTOR,
        )


def run_sql(*statements: tuple[str, Sequence[Any]]) -> None:
    """Run statements in one transaction that sees all rows, and check what is deferred."""
    with platform_scope("tests"), connection.cursor() as cursor:
        for statement, values in statements:
            cursor.execute(statement, values)
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")


def broken_invariants() -> list[str]:
    """What does not hold of L1, L2, L5, L6 and of the wallets, as the rows are now."""
    found = []
    with platform_scope("tests"), connection.cursor() as cursor:
        for name, query in _INVARIANTS.items():
            cursor.execute(query)
            rows = cursor.fetchall()
            if rows:
                found.append(f"{name}: {rows[:3]}")
    return found


def state() -> list[Any]:
    """All rows of the ledger and the wallets, to see that a refusal changed nothing."""
    with platform_scope("tests"):
        return [
            list(model.objects.order_by("pk").values())
            for model in (LedgerAccount, LedgerTxn, LedgerEntry, Wallet)
        ]


_INVARIANTS = {
    "L1 every transaction sums to zero over two or more lines": """
        SELECT t.id FROM billing_ledger_txn t LEFT JOIN billing_ledger_entry e ON e.txn_id = t.id
        GROUP BY t.id HAVING count(e.line) < 2 OR sum(e.side::numeric * e.amount) <> 0
          OR min(e.amount) <= 0""",
    "L2 one currency": """
        SELECT e.txn_id FROM billing_ledger_entry e JOIN billing_ledger_txn t ON t.id = e.txn_id
        JOIN billing_ledger_account a ON a.id = e.account_id WHERE a.currency <> t.currency""",
    "L5 accounts are the sums of their entries": """
        SELECT a.id FROM billing_ledger_account a
        LEFT JOIN billing_ledger_entry e ON e.account_id = a.id GROUP BY a.id
        HAVING a.debits <> coalesce(sum(e.amount) FILTER (WHERE e.side = 1), 0)
            OR a.credits <> coalesce(sum(e.amount) FILTER (WHERE e.side = -1), 0)
            OR a.version <> count(e.line) OR a.version <> coalesce(max(e.account_version), 0)""",
    "L5 replaying the entries gives every balance": """
        SELECT * FROM (SELECT e.account_id, e.account_version, e.balance_after,
            a.normal * sum(e.side::numeric * e.amount)
              OVER (PARTITION BY e.account_id ORDER BY e.account_version) AS replayed
          FROM billing_ledger_entry e JOIN billing_ledger_account a ON a.id = e.account_id) r
        WHERE balance_after <> replayed""",
    "L6 debits equal credits": """
        SELECT currency FROM billing_ledger_account GROUP BY currency
        HAVING sum(debits::numeric) <> sum(credits)""",
    "wallets are their accounts": """
        SELECT w.tenant_id FROM billing_wallet w
        LEFT JOIN billing_ledger_account a ON a.tenant_id = w.tenant_id
          AND a.kind IN ('prepaid', 'promo', 'unbilled', 'receivable')
        GROUP BY w.tenant_id HAVING w.balance_nano <> coalesce(sum(a.credits - a.debits), 0)""",
}
