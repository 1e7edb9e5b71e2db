"""start_top_up, start_invoice_payment, record_transfer: how money is ordered, or told of.

An order moves nothing. What is paid by a provider is credited when its webhook says so; what was
transferred, when an operator records it.
"""

from dataclasses import dataclass
from datetime import datetime

from accounts.services.audit import record_audit
from billing.locks import lock_wallet
from billing.models.invoices import Invoice
from billing.models.ledger import Wallet
from billing.models.payments import CreditPlan, Payment
from billing.services.payments.bounds import check_amount
from billing.services.payments.manual import MANUAL
from billing.services.payments.provider import Card, Declined, Order
from billing.services.payments.registry import checkout_provider
from billing.services.wallet import top_up
from turnpike.control.caller import Caller
from turnpike.control.scope import platform_scope
from turnpike.kernel.errors import Conflict, InvalidInput, LimitReached
from turnpike.kernel.money import NANOS_PER_UNIT

TRANSFER_MAX = 10_000_000 * NANOS_PER_UNIT
# Orders that nobody paid do no harm, but nobody needs hundreds of them.
STARTED_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """An order, and where it is paid."""

    payment: Payment
    url: str


def start_top_up(
    *, tenant: int, amount: int, key: str, caller: Caller, return_url: str, at: datetime
) -> Started:
    """Order a top-up. Raises InvalidInput for amounts that are not taken, Conflict for a used key.

    The credit comes when the provider's webhook says that it was paid, never from here.
    """
    with platform_scope("billing.start_top_up"):
        wallet = Wallet.objects.filter(tenant_id=tenant).first() or Wallet(tenant_id=tenant)
        check_amount(amount, wallet.currency)
        order = Payment(
            tenant_id=tenant,
            kind=Payment.Kind.CHECKOUT,
            amount_nano=amount,
            currency=wallet.currency,
            actor=caller.actor,
        )
        return _start(order, key=key, caller=caller, return_url=return_url, at=at)


def start_invoice_payment(
    *, invoice: Invoice, key: str, caller: Caller, return_url: str, at: datetime
) -> Started:
    """Order what is still to pay on an invoice; it is settled when the provider's webhook says so.

    Raises Conflict where there is nothing to pay, or cards are not taken here.
    """
    with platform_scope("billing.start_invoice_payment"):
        row = Invoice.objects.get(pk=invoice.pk)
        if row.kind != Invoice.Kind.INVOICE or row.status != Invoice.Status.OPEN:
            raise Conflict("There is nothing to pay on this document.")
        if row.open_nano <= 0:
            raise Conflict("There is nothing left to pay on this invoice.")
        order = Payment(
            tenant_id=row.tenant_id,
            kind=Payment.Kind.INVOICE,
            invoice=row,
            amount_nano=row.open_nano,
            currency=row.currency,
            actor=caller.actor,
        )
        return _start(order, key=key, caller=caller, return_url=return_url, at=at)


def _start(payment: Payment, *, key: str, caller: Caller, return_url: str, at: datetime) -> Started:
    """Keep an order and tell the provider of it; runs in the caller's scope."""
    provider, tenant = checkout_provider(), payment.tenant_id
    payment.provider = provider.name
    payment.idempotency_key = f"{provider.name}:{tenant}:{key}"
    if Payment.objects.filter(idempotency_key=payment.idempotency_key).exists():
        raise Conflict("This top-up was started before. Start another one.")
    since = at.replace(hour=0, minute=0, second=0, microsecond=0)
    orders = Payment.objects.filter(tenant_id=tenant, created_at__gte=since)
    if orders.filter(status=Payment.Status.STARTED).count() >= STARTED_MAX:
        raise LimitReached("Too many top-ups were started today and not paid.")
    payment.save(force_insert=True)
    try:
        checkout = provider.start_checkout(
            order_of(payment), card=find_card(tenant, provider.name), return_url=return_url
        )
    except Declined as error:
        raise Conflict(f"The payment provider refused: {error}") from error
    payment.order_ref = checkout.ref
    payment.save(update_fields=["order_ref"])
    _audit(payment, "payment.started", caller)
    return Started(payment=payment, url=checkout.url)


def record_transfer(
    *,
    tenant: int,
    amount: int,
    reference: str,
    reason: str,
    key: str,
    caller: Caller,
    at: datetime,
) -> Payment:
    """Credit a bank transfer that an operator has seen; the same key again is the same transfer."""
    if not 0 < amount <= TRANSFER_MAX:
        raise InvalidInput("The amount must be above zero and below ten million.", field="amount")
    with platform_scope("billing.record_transfer"):
        wallet = lock_wallet(tenant=tenant)
        full_key = f"transfer:{tenant}:{key}"
        found = Payment.objects.filter(idempotency_key=full_key).first()
        if found is not None:
            if (found.amount_nano, found.payment_ref) != (amount, reference):
                raise Conflict("This key was used before with other content.")
            return found
        payment = Payment.objects.create(
            tenant_id=tenant,
            provider=MANUAL,
            kind=Payment.Kind.TRANSFER,
            status=Payment.Status.PAID,
            amount_nano=amount,
            currency=wallet.currency,
            payment_ref=reference,
            idempotency_key=full_key,
            actor=caller.actor,
            reason=reason,
            settled_at=at,
        )
        top_up(
            tenant=tenant,
            amount=amount,
            idempotency_key=f"{MANUAL}:{payment.uuid}",
            actor=caller,
            provider=MANUAL,
            reason=reason,
        )
        _audit(payment, "payment.recorded", caller, reason=reason)
    return payment


def order_of(payment: Payment) -> Order:
    """What a provider is asked for."""
    return Order(
        payment=payment.public_id,
        tenant=payment.tenant.public_id,
        currency=payment.currency,
        title="API credit" if payment.invoice is None else f"Invoice {payment.invoice.number}",
        keeps_card=payment.invoice is None,
        amount_nano=payment.amount_nano,
    )


def find_card(tenant: int, provider: str) -> Card | None:
    """The card that a tenant let us keep, if there is one."""
    plan = CreditPlan.objects.filter(tenant_id=tenant, provider=provider).first()
    if plan is None or not plan.method_ref:
        return None
    return Card(customer=plan.customer_ref, method=plan.method_ref, label=plan.method_label)


def _audit(payment: Payment, action: str, caller: Caller, *, reason: str = "") -> None:
    record_audit(
        actor=caller,
        tenant=payment.tenant_id,
        action=action,
        target=payment.public_id,
        after={"amount_nano": payment.amount_nano, "provider": payment.provider},
        reason=reason,
    )
