"""refund_payment, left_of: gives back money that was paid and not used, by the way it came."""

import hashlib
from uuid import UUID

from django.db.models import Q, Sum

from billing.locks import lock_refunds, lock_wallet
from billing.models.ledger import LedgerAccount
from billing.models.payments import Payment, PaymentReversal
from billing.services.payments.effects import book_refund
from billing.services.payments.provider import Declined
from billing.services.payments.registry import provider_named
from turnpike.control.caller import Caller
from turnpike.control.scope import platform_scope
from turnpike.kernel import ids
from turnpike.kernel.errors import Conflict, InsufficientCredit, InvalidInput
from turnpike.kernel.money import minor_unit

Status = PaymentReversal.Status


def refund_payment(
    *, payment: int, amount: int | None, key: str, reason: str, caller: Caller
) -> PaymentReversal:
    """Give back so much, or all that is left; the same key again is the same refund.

    Raises Conflict for more than is left of the payment or where the provider refuses,
    InsufficientCredit where the money was used. The provider is asked before the ledger is locked:
    credit that is used in between goes below zero.
    """
    with platform_scope("billing.refund_payment"):
        lock_refunds(tenant=Payment.objects.values_list("tenant_id", flat=True).get(pk=payment))
        row = Payment.objects.select_related("tenant").get(pk=payment)
        full_key = f"operator:{row.pk}:{key}"
        uuid = _uuid_of(row, full_key)
        known = Q(uuid=uuid) | Q(idempotency_key=full_key)
        found = PaymentReversal.objects.filter(known, payment=row).first()
        if found is not None:
            if amount not in (None, found.amount_nano):
                raise Conflict("This key was used before with other content.")
            return found
        amount = left_of(row) if amount is None else amount
        if amount <= 0 or amount % minor_unit(row.currency):
            raise InvalidInput("The amount must be above zero, in whole cents.", field="amount")
        _check(row, amount)
        reversal = PaymentReversal.objects.create(
            uuid=uuid,
            tenant_id=row.tenant_id,
            payment=row,
            amount_nano=amount,
            idempotency_key=full_key,
            actor=caller.actor,
            reason=reason,
        )
        return _give_back(row, reversal)


def _uuid_of(payment: Payment, key: str) -> UUID:
    """The same for the same key, so that who comes back after a crash asks for the same refund."""
    digest = hashlib.sha256(key.encode()).digest()
    return ids.derived_uuid7(payment.uuid, int.from_bytes(digest[:8], "big"))


def _give_back(payment: Payment, reversal: PaymentReversal) -> PaymentReversal:
    try:
        ref = provider_named(payment.provider).refund(
            payment_ref=payment.payment_ref,
            refund=reversal.public_id,
            currency=payment.currency,
            amount_nano=reversal.amount_nano,
        )
    except Declined as error:
        raise Conflict(f"The payment provider refused: {error}") from error
    PaymentReversal.objects.filter(pk=reversal.pk).update(provider_ref=ref)
    lock_wallet(tenant=payment.tenant_id)
    book_refund(Payment.objects.select_for_update().get(pk=payment.pk), reversal)
    reversal.refresh_from_db()
    return reversal


def left_of(payment: Payment) -> int:
    """What of a payment could still be given back; refunds that are on their way count."""
    asked = payment.reversals.filter(status=Status.ASKED).aggregate(total=Sum("amount_nano"))
    return payment.refundable_nano - int(asked["total"] or 0)


def _check(payment: Payment, amount: int) -> None:
    if amount > left_of(payment):
        raise Conflict("Less than that is left of this payment.")
    prepaid = LedgerAccount.objects.filter(
        tenant_id=payment.tenant_id, kind="prepaid", currency=payment.currency
    ).first()
    if prepaid is None or prepaid.balance_nano < amount:
        raise InsufficientCredit("The tenant has used that money: less is left of what it paid.")
