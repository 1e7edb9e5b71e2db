"""dun_invoices: says that an invoice is there, reminds of it, and charges the card that pays it.

Each step of an invoice is taken once, however often the job runs; a step that was missed is not
made up for. The last one suspends its tenant, where an operator has set after how many days.
"""

import logging
from datetime import datetime, timedelta

from django.db.models import Max, Q
from django.utils.translation import gettext as _

from accounts.models import TenantStatus
from accounts.services.webhook_events import INVOICE_OVERDUE, emit_event
from billing.locks import lock_invoice, lock_wallet
from billing.models.invoices import Invoice, InvoiceReminder
from billing.models.payments import CreditPlan, Payment
from billing.services.payments.effects import fail_payment
from billing.services.payments.letters import Words, mail_about_money
from billing.services.payments.orders import find_card, order_of
from billing.services.payments.provider import Declined
from billing.services.payments.registry import STRIPE, has_stripe, provider_named
from billing.services.suspension import lift_suspension, overdue_since, suspend_debtor
from turnpike.control import formats
from turnpike.control.scope import platform_scope
from turnpike.kernel.errors import Unavailable
from turnpike.kernel.money import format_amount

logger = logging.getLogger(__name__)

# Days after the date by which an invoice is due; before the first of them it is only announced.
STEPS_DAYS = (1, 7, 14)
ISSUED, LAST, SUSPENDED = 0, len(STEPS_DAYS), InvoiceReminder.SUSPENDED
AT_ONCE_MAX = 500
Status = Payment.Status


def dun_invoices(*, at: datetime) -> int:
    """Take the steps that are due and charge what they ordered; how many steps were taken."""
    with platform_scope("billing.dun_invoices"):
        due: list[tuple[int, int | None]] = [(number, None) for number in _due(at)]
        due += [(number, SUSPENDED) for number in _due_to_suspend(at)]
    taken = 0
    for number, step in due:
        try:
            taken += _take_step(number, at, step)
        except Exception:
            # One invoice's trouble is not the others': it is tried again by the next run.
            logger.exception("invoice.not_dunned", extra={"invoice": number})
    if has_stripe():
        for payment in _ordered():
            _charge(payment, at)
    _lift_suspensions(at)
    return taken


def step_at(invoice: Invoice, at: datetime) -> int:
    """The step that an open invoice has come to: 0 before it is overdue."""
    assert invoice.due_at is not None
    return sum(1 for days in STEPS_DAYS if invoice.due_at + timedelta(days=days) <= at)


def _due(at: datetime) -> list[int]:
    """Open invoices whose last step is not the one that they have come to."""
    rows = Invoice.objects.filter(kind=Invoice.Kind.INVOICE, status=Invoice.Status.OPEN)
    rows = rows.annotate(taken=Max("reminders__step"))
    wanted = Q(taken=None)
    for step, days in enumerate(STEPS_DAYS, start=1):
        wanted |= Q(taken__lt=step, due_at__lte=at - timedelta(days=days))
    return list(rows.filter(wanted).order_by("pk").values_list("pk", flat=True)[:AT_ONCE_MAX])


def _due_to_suspend(at: datetime) -> list[int]:
    """Open invoices that are overdue for too long, a day after somebody was reminded of them."""
    since = overdue_since(at)
    if since is None:
        return []
    rows = Invoice.objects.filter(kind=Invoice.Kind.INVOICE, status=Invoice.Status.OPEN)
    rows = rows.filter(due_at__lte=since, tenant__status=TenantStatus.ACTIVE)
    rows = rows.annotate(taken=Max("reminders__step"), told_at=Max("reminders__created_at"))
    rows = rows.filter(taken__gt=ISSUED, taken__lt=SUSPENDED, told_at__lte=at - timedelta(days=1))
    return list(rows.order_by("pk").values_list("pk", flat=True)[:AT_ONCE_MAX])


def _lift_suspensions(at: datetime) -> None:
    """Who was suspended for an invoice that is no more, credited say, is served again."""
    with platform_scope("billing.suspended_debtors"):
        rows = InvoiceReminder.objects.filter(step=SUSPENDED, tenant__status=TenantStatus.SUSPENDED)
        found = set(rows.values_list("tenant_id", flat=True))
    for tenant in sorted(found):
        with platform_scope("billing.lift_suspension"):
            lift_suspension(tenant=tenant, at=at)


def _take_step(number: int, at: datetime, step: int | None = None) -> bool:
    with platform_scope("billing.take_step"):
        lock_wallet(tenant=Invoice.objects.values_list("tenant_id", flat=True).get(pk=number))
        invoice = lock_invoice(invoice=number)
        if invoice.status != Invoice.Status.OPEN or invoice.open_nano <= 0:
            return False
        step = step_at(invoice, at) if step is None else step
        row, is_new = InvoiceReminder.objects.get_or_create(
            tenant_id=invoice.tenant_id, invoice=invoice, step=step, defaults={"created_at": at}
        )
        if not is_new:
            return False
        if step == SUSPENDED and not suspend_debtor(invoice):
            row.delete()
            return False
        card = _order(invoice, step, at)
        mail_about_money(
            tenant=invoice.tenant,
            key=f"invoice:{invoice.uuid}:{step}",
            kind="invoice",
            words=lambda: _words(invoice, step, card),
        )
        if step != ISSUED:
            _emit(invoice, step)
    return True


def _order(invoice: Invoice, step: int, at: datetime) -> str:
    """Order the charge of the card that pays invoices; its label, empty where there is none."""
    plan = CreditPlan.objects.filter(tenant_id=invoice.tenant_id, pays_invoices=True).first()
    if plan is None or not plan.method_ref or not has_stripe():
        return ""
    under_way = Payment.objects.filter(invoice=invoice, status=Status.STARTED, order_ref="")
    if not under_way.exists():
        Payment.objects.create(
            created_at=at,
            tenant_id=invoice.tenant_id,
            provider=STRIPE,
            kind=Payment.Kind.INVOICE,
            invoice=invoice,
            amount_nano=invoice.open_nano,
            currency=invoice.currency,
            idempotency_key=f"dunning:{invoice.uuid}:{step}",
            actor="system",
        )
    return plan.method_label


def _ordered() -> list[Payment]:
    """Charges that were ordered and not made: who died in between is followed by the next run."""
    with platform_scope("billing.ordered_charges"):
        rows = Payment.objects.filter(
            kind=Payment.Kind.INVOICE, status=Status.STARTED, payment_ref="", order_ref=""
        )
        return list(rows.select_related("tenant", "invoice").order_by("pk")[:AT_ONCE_MAX])


def _charge(payment: Payment, at: datetime) -> None:
    with platform_scope("billing.charge_invoice"):
        invoice = payment.invoice
        assert invoice is not None
        invoice.refresh_from_db()
        card, order = find_card(payment.tenant_id, payment.provider), order_of(payment)
        if card is None or invoice.open_nano != payment.amount_nano:
            # Paid by other means meanwhile, say: the next step orders what is right then.
            rows = Payment.objects.filter(pk=payment.pk, status=Status.STARTED)
            rows.update(status=Status.EXPIRED, settled_at=at)
            return
    try:
        # Under the order's key, so that it is charged once however often it is asked for.
        ref = provider_named(payment.provider).charge_saved(order, card=card)
    except Unavailable:
        return
    except Declined as error:
        with platform_scope("billing.invoice_declined"):
            lock_wallet(tenant=payment.tenant_id)
            fail_payment(payment, failure=str(error), at=at)
        return
    with platform_scope("billing.invoice_charged"):
        Payment.objects.filter(pk=payment.pk, payment_ref="").update(payment_ref=ref)


def _emit(invoice: Invoice, step: int) -> None:
    assert invoice.due_at is not None
    emit_event(
        tenant=invoice.tenant_id,
        kind=INVOICE_OVERDUE,
        data={
            "invoice": invoice.public_id,
            "number": invoice.number,
            "open": format_amount(invoice.open_nano),
            "currency": invoice.currency,
            "due_at": invoice.due_at.isoformat(),
            "reminder": step,
        },
        key=f"overdue:{invoice.uuid}:{step}",
    )


def _words(invoice: Invoice, step: int, card: str) -> Words:
    assert invoice.due_at is not None
    words = {
        "number": invoice.number,
        "name": invoice.tenant.name,
        "amount": formats.paid_money(invoice.open_nano, invoice.currency),
        "day": invoice.due_at.strftime("%Y-%m-%d"),
        "card": card,
    }
    if step == ISSUED:
        subject = _("Invoice %(number)s of %(name)s: %(amount)s")
        asked = _("Please pay %(amount)s by %(day)s.")
    elif step < LAST:
        subject = _("Invoice %(number)s of %(name)s is overdue")
        asked = _("%(amount)s was due on %(day)s and has not arrived.")
    elif step == LAST:
        subject = _("Last reminder: invoice %(number)s of %(name)s")
        asked = _("%(amount)s was due on %(day)s. Without payment, access may be ended.")
    else:
        subject = _("%(name)s is suspended: invoice %(number)s is overdue")
        asked = _(
            "%(amount)s was due on %(day)s. Requests are refused until it has arrived, "
            "and are served again by themselves then."
        )
    if card:
        how = _("The card %(card)s is charged now; there is nothing to do.")
    else:
        how = _("How to pay it stands on the invoice, which you find on the billing page.")
    return Words(subject=subject % words, paragraphs=(asked % words, how % words))
