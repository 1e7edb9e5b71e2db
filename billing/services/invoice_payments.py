"""pay_invoice, write_off_invoice: how a final invoice is settled. Whoever pays: one way in."""

from datetime import datetime
from functools import partial

from django.db import transaction

from billing.locks import lock_invoice, lock_wallet
from billing.models.invoices import Invoice
from billing.models.ledger import LedgerAccount, LedgerTxn
from billing.services.invoices import note
from billing.services.ledger import account_for, credit, debit, post
from billing.services.posting import publish_wallet
from billing.services.suspension import lift_suspension
from turnpike.control.caller import Caller
from turnpike.control.scope import platform_scope
from turnpike.kernel.errors import Conflict, InsufficientCredit, InvalidInput

Status = Invoice.Status
FROM_CREDIT = "credit"


def pay_invoice(
    *,
    invoice: int,
    amount: int,
    idempotency_key: str,
    at: datetime,
    actor: Caller | str,
    provider: str = "manual",
) -> Invoice:
    """Book a payment; once under its key. Provider `credit` takes it from what was paid ahead.

    Raises Conflict where the invoice is not open or less is left to pay.
    """
    if amount <= 0:
        raise InvalidInput(f"The amount must be above zero, not {amount}.", field="amount")
    with platform_scope("billing.pay_invoice"):
        row = _lock(invoice)
        key = f"invoice_payment:{provider}:{idempotency_key}"
        if LedgerTxn.objects.filter(idem_key=key).exists():
            _check_same(key, row, amount)
            return row
        if row.status != Status.OPEN or amount > row.open_nano:
            raise Conflict("This invoice does not ask for that much.")
        source = _source(row, provider, amount)
        _settle(row, source, amount, key=key, kind="invoice_payment", actor=actor)
        row.paid_nano += amount
        if row.open_nano == 0:
            row.status, row.settled_at = Status.PAID, at
        row.save(update_fields=["paid_nano", "status", "settled_at"])
        note(row, "invoice.paid", actor=actor, reason=provider)
        if row.status == Status.PAID:
            lift_suspension(tenant=row.tenant_id, at=at)
    return row


def write_off_invoice(*, invoice: int, at: datetime, actor: Caller | str, reason: str) -> Invoice:
    """Give up what is still open; a second call changes nothing."""
    with platform_scope("billing.write_off_invoice"):
        row = _lock(invoice)
        if row.status == Status.UNCOLLECTIBLE:
            return row
        if row.status != Status.OPEN or row.open_nano <= 0:
            raise Conflict("Only an invoice with something left to pay is written off.")
        amount = row.open_nano
        bad_debt = account_for(kind="bad_debt", currency=row.currency)
        key = f"write_off:{row.uuid}"
        _settle(row, bad_debt, amount, key=key, kind="write_off", actor=actor)
        row.written_off_nano += amount
        row.status, row.settled_at = Status.UNCOLLECTIBLE, at
        row.save(update_fields=["written_off_nano", "status", "settled_at"])
        note(row, "invoice.written_off", actor=actor, reason=reason)
    return row


def _lock(invoice: int) -> Invoice:
    tenant = Invoice.objects.values_list("tenant_id", flat=True).get(pk=invoice)
    lock_wallet(tenant=tenant)
    row = lock_invoice(invoice=invoice)
    if row.kind != Invoice.Kind.INVOICE:
        raise Conflict("Only invoices are paid.")
    return row


def _source(row: Invoice, provider: str, amount: int) -> LedgerAccount:
    if provider != FROM_CREDIT:
        return account_for(kind="cash", ref=provider, currency=row.currency)
    prepaid = account_for(tenant=row.tenant_id, kind="prepaid", currency=row.currency)
    if prepaid.balance_nano < amount:
        raise InsufficientCredit("There is less credit than that.")
    return prepaid


def _settle(
    row: Invoice,
    source: LedgerAccount,
    amount: int,
    *,
    key: str,
    kind: str,
    actor: Caller | str,
) -> None:
    receivable = account_for(tenant=row.tenant_id, kind="receivable", currency=row.currency)
    post(
        key=key,
        kind=kind,
        currency=row.currency,
        lines=[debit(source.pk, amount), credit(receivable.pk, amount)],
        actor=actor if isinstance(actor, str) else actor.actor,
        memo={"invoice": row.public_id, "number": row.number, "amount_nano": amount},
    )
    transaction.on_commit(partial(publish_wallet, tenant=row.tenant_id))


def _check_same(key: str, row: Invoice, amount: int) -> None:
    memo = LedgerTxn.objects.values_list("memo", flat=True).get(idem_key=key)
    if (memo.get("invoice"), memo.get("amount_nano")) != (row.public_id, amount):
        raise Conflict(f"The key {key!r} was used before with other content.")
