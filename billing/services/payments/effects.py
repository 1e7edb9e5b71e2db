"""apply_seen: brings an order and the ledger to what the provider says of it now.

What is applied is the provider's whole state, and each movement is posted under the provider's own
id: events that come twice, late, at once or in the wrong order end in the same ledger.
"""

import logging
from datetime import datetime
from functools import partial
from uuid import UUID

from django.db import transaction
from django.db.models import F

from accounts.services.audit import record_audit
from accounts.services.webhook_events import emit_payment_received
from billing.locks import lock_invoice, lock_wallet
from billing.models.invoices import Invoice
from billing.models.ledger import LedgerTxn
from billing.models.payments import Payment, PaymentReversal
from billing.services.invoice_payments import pay_invoice
from billing.services.ledger import Line, account_for, credit, debit, post, reverse
from billing.services.payments.plans import (
    mail_declined,
    note_failure,
    note_success,
    switch_off,
)
from billing.services.payments.provider import Move, MoveKind, Seen, SeenPayment, SeenRefund
from billing.services.posting import publish_wallet
from billing.services.wallet import top_up
from turnpike.kernel.errors import Conflict
from turnpike.kernel.money import format_amount

logger = logging.getLogger(__name__)

SYSTEM = "system"
DISPUTED = "disputed"


class Refused(Conflict):
    """What a provider says does not fit the order: nothing is moved, and a person looks at it."""

    code = "payment_refused"


def apply_seen(*, provider: str, seen: SeenPayment, at: datetime) -> Payment:
    """Apply; runs in the caller's `platform_scope`. Raises Refused where it does not fit."""
    payment = _order_of(provider, seen)
    wallet = lock_wallet(tenant=payment.tenant_id)
    payment = Payment.objects.select_for_update().select_related("tenant").get(pk=payment.pk)
    _check(payment, seen)
    if wallet.currency != payment.currency:
        raise Refused("The wallet is kept in another currency.")
    if seen.ref and not payment.payment_ref:
        payment.payment_ref = seen.ref
        payment.save(update_fields=["payment_ref"])
    if seen.status == Seen.PAID:
        _take(payment, seen, at)
        for refund in seen.refunds:
            _apply_refund(payment, refund)
        for move in seen.moves:
            _apply_move(payment, move)
    elif payment.status == Payment.Status.STARTED:
        _end(payment, seen, at)
    return payment


def book_refund(payment: Payment, reversal: PaymentReversal) -> None:
    """Post a refund once. The wallet and the payment are locked by the caller."""
    cash = account_for(kind="cash", ref=payment.provider, currency=payment.currency)
    prepaid = account_for(tenant=payment.tenant_id, kind="prepaid", currency=payment.currency)
    amount = reversal.amount_nano
    lines = [debit(prepaid.pk, amount), credit(cash.pk, amount)]
    memo = {"reason": reversal.reason, "payment": payment.public_id}
    if not _post(payment, _refund_key(reversal), "refund", lines, reversal.actor, memo):
        return
    _count(payment, refunded=amount)
    PaymentReversal.objects.filter(pk=reversal.pk).update(status=PaymentReversal.Status.DONE)
    _audit(payment, "payment.refunded", amount, actor=reversal.actor, reason=reversal.reason)


def _order_of(provider: str, seen: SeenPayment) -> Payment:
    try:
        uuid = Payment.parse_public_id(seen.order)
    except ValueError as error:
        raise Refused("It names no order of ours.") from error
    payment = Payment.objects.filter(provider=provider, uuid=uuid).first()
    if payment is None:
        raise Refused("It names an order that is not there.")
    return payment


def _check(payment: Payment, seen: SeenPayment) -> None:
    if seen.tenant != payment.tenant.public_id:
        raise Refused("It names another tenant than the order.")
    if (seen.currency, seen.amount_nano) != (payment.currency, payment.amount_nano):
        raise Refused("Amount or currency are not those of the order.")
    if seen.ref and payment.payment_ref not in ("", seen.ref):
        raise Refused("The order was paid by another payment.")


def _take(payment: Payment, seen: SeenPayment, at: datetime) -> None:
    if payment.is_paid:
        return
    left = payment.amount_nano - _pay_invoice(payment, seen, at)
    if left:
        top_up(
            tenant=payment.tenant_id,
            amount=left,
            idempotency_key=f"{payment.provider}:{seen.ref}",
            actor=payment.actor,
            provider=payment.provider,
            reason=payment.public_id,
        )
    payment.status, payment.settled_at, payment.failure = Payment.Status.PAID, at, ""
    payment.save(update_fields=["status", "settled_at", "failure"])
    note_success(payment, card=seen.card)
    emit_payment_received(
        tenant=payment.tenant_id,
        payment=payment.public_id,
        amount=format_amount(payment.amount_nano),
        currency=payment.currency,
        provider=payment.provider,
    )


def _pay_invoice(payment: Payment, seen: SeenPayment, at: datetime) -> int:
    """Settle the invoice that was paid, as far as it still asks; how much that took.

    It may have been paid, credited or voided meanwhile: what it no longer asks for is credit.
    """
    if payment.invoice_id is None:
        return 0
    invoice = lock_invoice(invoice=payment.invoice_id)
    is_open = invoice.status == Invoice.Status.OPEN
    amount = min(payment.amount_nano, invoice.open_nano) if is_open else 0
    if amount > 0:
        pay_invoice(
            invoice=invoice.pk,
            amount=amount,
            idempotency_key=seen.ref,
            at=at,
            actor=payment.actor,
            provider=payment.provider,
        )
    return max(0, amount)


def _end(payment: Payment, seen: SeenPayment, at: datetime) -> None:
    """Note that nobody paid; a person at a checkout page may try again after a failure."""
    if seen.status == Seen.FAILED and not payment.order_ref:
        fail_payment(payment, failure=seen.failure, at=at)
    elif seen.status == Seen.EXPIRED:
        payment.status, payment.settled_at = Payment.Status.EXPIRED, at
        payment.save(update_fields=["status", "settled_at"])
    elif seen.failure:
        Payment.objects.filter(pk=payment.pk).update(failure=seen.failure)


def fail_payment(payment: Payment, *, failure: str, at: datetime) -> None:
    """End an order that was declined without a person there; told or counted once."""
    ended = Payment.objects.filter(pk=payment.pk, status=Payment.Status.STARTED).update(
        status=Payment.Status.FAILED, failure=failure, settled_at=at
    )
    if ended and payment.kind == Payment.Kind.AUTO_RELOAD:
        note_failure(payment, failure=failure)
    elif ended:
        mail_declined(payment, failure=failure)


def _apply_refund(payment: Payment, seen: SeenRefund) -> None:
    reversal = _reversal_of(payment, seen)
    if reversal is None:
        return
    if reversal.amount_nano != seen.amount_nano or reversal.payment_id != payment.pk:
        raise Refused("A refund is not the one that was asked for.")
    if not reversal.provider_ref:
        PaymentReversal.objects.filter(pk=reversal.pk).update(provider_ref=seen.ref)
    if not seen.is_failed:
        book_refund(payment, reversal)
    elif reversal.status != PaymentReversal.Status.FAILED:
        _undo_refund(payment, reversal)


def _reversal_of(payment: Payment, seen: SeenRefund) -> PaymentReversal | None:
    ours = _uuid(seen.ours)
    if ours is not None:
        asked = PaymentReversal.objects.filter(uuid=ours).first()
        if asked is not None:
            return asked
    found = PaymentReversal.objects.filter(payment=payment, provider_ref=seen.ref).first()
    if found is not None or seen.is_failed:
        return found
    # Where it names one of ours that is not here, whoever asked for it never heard the answer.
    return PaymentReversal.objects.create(
        **({} if ours is None else {"uuid": ours}),
        tenant_id=payment.tenant_id,
        payment=payment,
        amount_nano=seen.amount_nano,
        provider_ref=seen.ref,
        idempotency_key=f"{payment.provider}:{seen.ref}",
        actor=SYSTEM,
        reason="made at the payment provider",
    )


def _uuid(public_id: str) -> UUID | None:
    try:
        return PaymentReversal.parse_public_id(public_id)
    except ValueError:
        return None


def _undo_refund(payment: Payment, reversal: PaymentReversal) -> None:
    txn = LedgerTxn.objects.filter(idem_key=_refund_key(reversal)).first()
    if txn is not None and reverse(txn=txn.pk, actor=SYSTEM, reason="the refund failed"):
        _count(payment, refunded=-reversal.amount_nano)
        transaction.on_commit(partial(publish_wallet, tenant=payment.tenant_id))
    PaymentReversal.objects.filter(pk=reversal.pk).update(status=PaymentReversal.Status.FAILED)


def _apply_move(payment: Payment, move: Move) -> None:
    currency = payment.currency
    cash = account_for(kind="cash", ref=payment.provider, currency=currency)
    if move.kind == MoveKind.FEE:
        other = account_for(kind="fees", currency=currency)
        kind, change = "payment_fee", 0
    else:
        other = account_for(tenant=payment.tenant_id, kind="prepaid", currency=currency)
        is_withdrawn = move.kind == MoveKind.WITHDRAWN
        kind = "chargeback" if is_withdrawn else "chargeback_returned"
        change = move.amount_nano if is_withdrawn else -move.amount_nano
    out = [debit(other.pk, move.amount_nano), credit(cash.pk, move.amount_nano)]
    back = [debit(cash.pk, move.amount_nano), credit(other.pk, move.amount_nano)]
    lines = back if change < 0 else out
    memo = {"payment": payment.public_id}
    if (
        not _post(payment, f"{payment.provider}:{move.ref}", kind, lines, SYSTEM, memo)
        or not change
    ):
        return
    _count(payment, disputed=change)
    _audit(payment, f"payment.{kind}", move.amount_nano, actor=SYSTEM)
    if change > 0:
        # Who disputes a payment is not charged again without being asked.
        switch_off(payment.tenant_id, why=DISPUTED)


def _post(
    payment: Payment, key: str, kind: str, lines: list[Line], actor: str, memo: dict[str, str]
) -> bool:
    posted = post(
        key=key, kind=kind, currency=payment.currency, lines=lines, actor=actor, memo=memo
    )
    if posted is not None:
        transaction.on_commit(partial(publish_wallet, tenant=payment.tenant_id))
    return posted is not None


def _count(payment: Payment, *, refunded: int = 0, disputed: int = 0) -> None:
    Payment.objects.filter(pk=payment.pk).update(
        refunded_nano=F("refunded_nano") + refunded, disputed_nano=F("disputed_nano") + disputed
    )


def _refund_key(reversal: PaymentReversal) -> str:
    return f"refund:{reversal.uuid}"


def _audit(payment: Payment, action: str, amount: int, *, actor: str, reason: str = "") -> None:
    record_audit(
        actor=actor,
        tenant=payment.tenant_id,
        action=action,
        target=payment.public_id,
        after={"amount_nano": amount},
        reason=reason,
    )
