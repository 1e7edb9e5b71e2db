"""set_plan, switch_off: a tenant's card, its auto-reload and its warnings."""

from datetime import datetime
from typing import Any

from django.db.models import F
from django.utils.translation import gettext as _

from accounts.services.audit import record_audit
from billing.models.ledger import Wallet
from billing.models.payments import CreditPlan, Payment
from billing.services.payments.bounds import check_amount
from billing.services.payments.letters import Words, mail_about_money
from billing.services.payments.provider import Card
from turnpike.control.caller import Caller
from turnpike.control.scope import platform_scope
from turnpike.kernel.errors import InvalidInput

FAILURES_MAX = 3
WARN_DAYS_MAX = 90
FAILED = "failed"


def plan_of(tenant: int) -> CreditPlan:
    """A tenant's plan; one that is off and not stored where it made none."""
    return CreditPlan.objects.filter(tenant_id=tenant).first() or CreditPlan(tenant_id=tenant)


def set_plan(
    *,
    tenant: int,
    is_on: bool,
    threshold: int,
    amount: int,
    monthly_cap: int,
    warn_days: int,
    caller: Caller,
    pays_invoices: bool | None = None,
) -> CreditPlan:
    """Change auto-reload, the warning, and whether the saved card pays invoices (None: as it is).

    Raises InvalidInput for what cannot work.
    """
    if not 0 <= warn_days <= WARN_DAYS_MAX:
        raise InvalidInput(f"Days are 0 to {WARN_DAYS_MAX}.", field="warn_days")
    if threshold < 0 or amount < 0 or monthly_cap < 0:
        raise InvalidInput("Amounts are not below zero.", field="amount")
    with platform_scope("billing.set_plan"):
        plan, _made = CreditPlan.objects.select_for_update().get_or_create(tenant_id=tenant)
        if is_on:
            _check_on(plan, threshold=threshold, amount=amount, monthly_cap=monthly_cap)
        if is_on and not plan.is_on:
            plan.failures = 0
        pays_invoices = plan.pays_invoices if pays_invoices is None else pays_invoices
        if pays_invoices and not plan.method_ref:
            raise InvalidInput("Pay once by card first: that card is charged.", field="is_on")
        values = {
            "is_on": is_on,
            "threshold_nano": threshold,
            "amount_nano": amount,
            "monthly_cap_nano": monthly_cap,
            "warn_days": warn_days,
            "pays_invoices": pays_invoices,
        }
        before = {name: getattr(plan, name) for name in values}
        for name, value in values.items():
            setattr(plan, name, value)
        plan.save()
        record_audit(
            actor=caller,
            tenant=tenant,
            action="credit_plan.changed",
            target=plan.tenant.public_id,
            before=before,
            after=values,
        )
    return plan


def _check_on(plan: CreditPlan, *, threshold: int, amount: int, monthly_cap: int) -> None:
    wallet = Wallet.objects.filter(tenant_id=plan.tenant_id).first() or Wallet()
    check_amount(amount, wallet.currency)
    if not plan.method_ref:
        raise InvalidInput("Pay once by card first: that card is charged.", field="is_on")
    if threshold <= 0:
        raise InvalidInput("The threshold must be above zero.", field="threshold")
    if monthly_cap < amount:
        raise InvalidInput("The monthly cap is at least one reload.", field="monthly_cap")


def note_success(payment: Payment, *, card: Card | None) -> None:
    """A payment arrived: failures are forgotten, the next warning is due, the card is kept."""
    CreditPlan.objects.get_or_create(tenant_id=payment.tenant_id)
    changed: dict[str, Any] = {"warned_at": None}
    if payment.kind == Payment.Kind.AUTO_RELOAD:
        changed["failures"] = 0
    if card is not None:
        changed |= {"provider": payment.provider, "customer_ref": card.customer}
        changed |= {"method_ref": card.method, "method_label": card.label}
    # These alone: its owner may be changing the rest at this moment.
    CreditPlan.objects.filter(tenant_id=payment.tenant_id).update(**changed)


def note_failure(payment: Payment, *, failure: str) -> None:
    """An automatic charge was declined; after three in a row auto-reload goes off."""
    plans = CreditPlan.objects.filter(tenant_id=payment.tenant_id)
    plans.update(failures=F("failures") + 1)
    if plans.filter(failures__gte=FAILURES_MAX).exists():
        switch_off(payment.tenant_id, why=FAILED, detail=failure)


def switch_off(tenant: int, *, why: str, detail: str = "") -> None:
    """Stop auto-reload and say so by mail; nothing where it is off.

    Who disputes a payment has no invoice charged to the card either.
    """
    if why != FAILED:
        CreditPlan.objects.filter(tenant_id=tenant).update(pays_invoices=False)
    if not CreditPlan.objects.filter(tenant_id=tenant, is_on=True).update(is_on=False):
        return
    plan = CreditPlan.objects.select_related("tenant").get(tenant_id=tenant)
    record_audit(
        actor="system",
        tenant=tenant,
        action="credit_plan.switched_off",
        target=plan.tenant.public_id,
        after={"why": why},
        reason=detail,
    )
    mail_about_money(
        tenant=plan.tenant,
        key=f"auto_reload_off:{tenant}:{plan.attempts}",
        kind="auto_reload_off",
        words=lambda: _off_words(plan.tenant.name, why, detail),
    )


def _off_words(name: str, why: str, detail: str) -> Words:
    reason = (
        _("The card was declined three times in a row.")
        if why == FAILED
        else _("The bank took a payment back because it was disputed.")
    )
    return Words(
        subject=_("Auto-reload of %(name)s is off") % {"name": name},
        paragraphs=(
            f"{reason} {detail}".strip(),
            _("Requests are refused once the credit is used up. Top up, or turn it on again."),
        ),
    )


def mail_cap(plan: CreditPlan, *, month: datetime) -> None:
    """Say once a month that auto-reload has reached what its owner set."""
    name = plan.tenant.name
    mail_about_money(
        tenant=plan.tenant,
        key=f"auto_reload_cap:{plan.pk}:{month:%Y-%m}",
        kind="auto_reload_cap",
        words=lambda: Words(
            subject=_("Auto-reload of %(name)s has reached its monthly cap") % {"name": name},
            paragraphs=(
                _("The balance is low, and the cap that you set leaves no room for a reload."),
                _("Raise the cap, or top up by hand."),
            ),
        ),
    )


def mail_declined(payment: Payment, *, failure: str) -> None:
    """Say that the card did not pay an invoice."""
    invoice, tenant = payment.invoice, payment.tenant
    assert invoice is not None
    words = {"number": invoice.number, "name": tenant.name}
    mail_about_money(
        tenant=tenant,
        key=f"invoice_declined:{payment.public_id}",
        kind="invoice_declined",
        words=lambda: Words(
            subject=_("The card did not pay invoice %(number)s of %(name)s") % words,
            paragraphs=(
                failure,
                _("Pay the invoice on the billing page, or pay once with another card."),
            ),
        ),
    )
