"""run_auto_reloads: charges saved cards where a balance fell below what its owner set.

An attempt is a payment of its own under the tenant's counter. At most one is open for each tenant;
what it brings is credited by webhook like every other payment.
"""

from datetime import datetime

from django.db.models import F, Sum

from billing.locks import lock_wallet
from billing.models.payments import CreditPlan, Payment
from billing.services.payments.effects import fail_payment
from billing.services.payments.orders import find_card, order_of
from billing.services.payments.plans import mail_cap
from billing.services.payments.provider import Declined
from billing.services.payments.registry import STRIPE, has_stripe, provider_named
from turnpike.control.scope import platform_scope
from turnpike.kernel.errors import Unavailable

AT_ONCE_MAX = 100
Status = Payment.Status


def run_auto_reloads(*, at: datetime) -> int:
    """Charge whose balance is low; returns how many charges were made. May run twice at once."""
    if not has_stripe():
        return 0
    with platform_scope("billing.run_auto_reloads"):
        low = CreditPlan.objects.filter(
            is_on=True, provider=STRIPE, tenant__wallet__balance_nano__lt=F("threshold_nano")
        )
        tenants = list(low.order_by("pk").values_list("pk", flat=True)[:AT_ONCE_MAX])
    return sum(_reload(tenant, at) for tenant in tenants)


def _reload(tenant: int, at: datetime) -> bool:
    payment = _order(tenant, at)
    if payment is None:
        return False
    with platform_scope("billing.charge_saved"):
        card, order = find_card(tenant, payment.provider), order_of(payment)
    if card is None:
        return False
    try:
        # Under the order's key: who died here is followed by the next run, and charged once.
        ref = provider_named(payment.provider).charge_saved(order, card=card)
    except Unavailable:
        return False
    except Declined as error:
        with platform_scope("billing.auto_reload_declined"):
            lock_wallet(tenant=tenant)
            fail_payment(payment, failure=str(error), at=at)
        return False
    with platform_scope("billing.auto_reload_charged"):
        Payment.objects.filter(pk=payment.pk, payment_ref="").update(payment_ref=ref)
    return True


def _order(tenant: int, at: datetime) -> Payment | None:
    """The open attempt that was not charged yet, or a new one; None where nothing is to be done."""
    with platform_scope("billing.order_auto_reload"):
        wallet = lock_wallet(tenant=tenant)
        plan = CreditPlan.objects.select_related("tenant").get(tenant_id=tenant)
        attempts = Payment.objects.filter(tenant_id=tenant, kind=Payment.Kind.AUTO_RELOAD)
        begun = attempts.filter(status=Status.STARTED).select_related("tenant").first()
        if begun is not None:
            return None if begun.payment_ref else begun
        if not plan.is_on or wallet.balance_nano >= plan.threshold_nano:
            return None
        month = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        taken = attempts.filter(created_at__gte=month, status=Status.PAID)
        spent = int(taken.aggregate(total=Sum("amount_nano"))["total"] or 0)
        if spent + plan.amount_nano > plan.monthly_cap_nano:
            mail_cap(plan, month=month)
            return None
        plan.attempts += 1
        plan.save(update_fields=["attempts"])
        return Payment.objects.create(
            created_at=at,
            tenant=plan.tenant,
            provider=plan.provider,
            kind=Payment.Kind.AUTO_RELOAD,
            amount_nano=plan.amount_nano,
            currency=wallet.currency,
            idempotency_key=f"auto_reload:{tenant}:{plan.attempts}",
            actor="system",
        )
