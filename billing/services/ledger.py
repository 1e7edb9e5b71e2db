"""post: one balanced posting, exactly once; accounts by name.

The database keeps the sums and refuses what does not balance. Posting touches a tenant's wallet row
in the same transaction. Callers run in `platform_scope`: row level security refuses others.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction
from django.db.models import F

from billing.locks import lock_accounts, lock_wallet
from billing.models.ledger import (
    CREDIT,
    DEBIT,
    NORMAL_OF_KIND,
    WALLET_KINDS,
    LedgerAccount,
    LedgerTxn,
    Wallet,
)
from turnpike.kernel.errors import Conflict, InvalidInput

LINES_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One side of a posting; `account` is its number, `amount` nanos above zero."""

    account: int
    side: int
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PostedTxn:
    """A posting that has just been made."""

    txn: int
    key: str


def debit(account: int, amount: int) -> Line:
    """A line on the debit side."""
    return Line(account=account, side=DEBIT, amount=amount)


def credit(account: int, amount: int) -> Line:
    """A line on the credit side."""
    return Line(account=account, side=CREDIT, amount=amount)


def account_for(
    *, kind: str, currency: str, tenant: int | None = None, ref: str = ""
) -> LedgerAccount:
    """The account of that name, made if there is none; without a tenant it is the platform's."""
    name = {"tenant_id": tenant, "kind": kind, "ref": ref, "currency": currency}
    found = LedgerAccount.objects.filter(**name).first()
    if found is not None:
        return found
    made = LedgerAccount(**name, normal=NORMAL_OF_KIND[kind])
    LedgerAccount.objects.bulk_create([made], ignore_conflicts=True)
    return LedgerAccount.objects.get(**name)


def post(
    *,
    key: str,
    kind: str,
    currency: str,
    lines: Sequence[Line],
    actor: str,
    memo: Mapping[str, Any] | None = None,
    reverses: int | None = None,
) -> PostedTxn | None:
    """Post balanced lines under an idempotency key; None if the same was posted before.

    Raises Conflict where the key was used with other content. What does not balance, or mixes
    currencies, is refused by the database at commit.
    """
    _check_lines(lines)
    with transaction.atomic():
        accounts = LedgerAccount.objects.in_bulk({line.account for line in lines})
        changes = _wallet_changes(lines, accounts)
        for tenant in sorted(changes):
            lock_wallet(tenant=tenant, currency=currency)
        fingerprint = _fingerprint(kind, currency, lines, reverses)
        owners = {account.tenant_id for account in accounts.values()} - {None}
        tenant_of_txn = owners.pop() if len(owners) == 1 else None
        named = (key, kind, currency, tenant_of_txn, fingerprint)
        txn = _insert_txn((*named, reverses, actor, json.dumps(dict(memo or {}))))
        if txn is None:
            _check_same(key, fingerprint)
            return None
        lock_accounts(account_ids=accounts.keys())
        _insert_entries(txn, lines)
        for tenant, change in changes.items():
            Wallet.objects.filter(tenant_id=tenant).update(
                balance_nano=F("balance_nano") + change, version=F("version") + 1
            )
    return PostedTxn(txn=txn, key=key)


def reverse(*, txn: int, actor: str, reason: str) -> PostedTxn | None:
    """Undo a posting by its mirror image, once; None if that was done before."""
    original = LedgerTxn.objects.prefetch_related("entries").get(pk=txn)
    return post(
        key=f"reverse:{txn}",
        kind="reversal",
        currency=original.currency,
        lines=[
            Line(account=entry.account_id, side=-entry.side, amount=entry.amount)
            for entry in original.entries.order_by("line")
        ],
        actor=actor,
        memo={"reason": reason},
        reverses=txn,
    )


def _check_lines(lines: Sequence[Line]) -> None:
    if not 2 <= len(lines) <= LINES_MAX:
        raise InvalidInput(f"A posting has 2 to {LINES_MAX} lines, not {len(lines)}.")
    if any(line.amount <= 0 for line in lines):
        raise InvalidInput("Every line of a posting is above zero.")
    if sum(line.side * line.amount for line in lines) != 0:
        raise InvalidInput("The debits of a posting equal its credits.")


def _wallet_changes(lines: Sequence[Line], accounts: Mapping[int, LedgerAccount]) -> dict[int, int]:
    changes: dict[int, int] = {}
    for line in lines:
        account = accounts.get(line.account)
        if account is None:
            raise InvalidInput(f"There is no ledger account {line.account}.")
        if account.kind in WALLET_KINDS and account.tenant_id is not None:
            before = changes.get(account.tenant_id, 0)
            changes[account.tenant_id] = before - line.side * line.amount
    return changes


def _fingerprint(kind: str, currency: str, lines: Sequence[Line], reverses: int | None) -> bytes:
    ordered = sorted((line.account, line.side, line.amount) for line in lines)
    return hashlib.sha256(json.dumps([kind, currency, ordered, reverses]).encode()).digest()


def _insert_txn(values: tuple[Any, ...]) -> int | None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO billing_ledger_txn"
            " (idem_key, kind, currency, tenant_id, fingerprint, reverses_id, actor, memo)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (idem_key) DO NOTHING RETURNING id",
            values,
        )
        row = cursor.fetchone()
    return None if row is None else int(row[0])


def _check_same(key: str, fingerprint: bytes) -> None:
    stored = LedgerTxn.objects.values_list("fingerprint", flat=True).get(idem_key=key)
    if bytes(stored) != fingerprint:
        raise Conflict(f"The key {key!r} was posted before with other content.")


def _insert_entries(txn: int, lines: Sequence[Line]) -> None:
    with connection.cursor() as cursor:
        # Balances and versions are filled by the trigger, which runs in the order of the lines.
        cursor.execute(
            "INSERT INTO billing_ledger_entry"
            " (txn_id, line, account_id, side, amount, account_version, balance_after)"
            " SELECT %s, line, account, side, amount, 0, 0"
            " FROM unnest(%s::bigint[], %s::smallint[], %s::bigint[]) WITH ORDINALITY"
            " AS given (account, side, amount, line) ORDER BY line",
            [
                txn,
                [line.account for line in lines],
                [line.side for line in lines],
                [line.amount for line in lines],
            ],
        )
