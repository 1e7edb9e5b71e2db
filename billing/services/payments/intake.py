"""take_webhook, handle_waiting: a provider's messages, kept first and then acted upon, each once.

A message only says where to look: what is applied is read from the provider. One that cannot be
applied now waits and is tried again.
"""

import logging
from datetime import datetime, timedelta

from billing.models.payments import PaymentEvent
from billing.services.payments.effects import apply_seen
from billing.services.payments.provider import Provider
from billing.services.payments.registry import provider_named
from turnpike.control.scope import platform_scope
from turnpike.kernel.errors import Conflict, Unavailable

logger = logging.getLogger(__name__)

Outcome = PaymentEvent.Outcome
AT_ONCE_MAX = 50
# Whoever took an event a moment ago is still at it.
PATIENCE = timedelta(seconds=30)
TRIES_MAX = 200
KIND_LENGTH_MAX = 100


def take_webhook(*, provider: str, body: bytes, signature: str, at: datetime) -> PaymentEvent:
    """Keep a message and act upon it; the same message again changes nothing. Raises Forged."""
    source = provider_named(provider)
    said = source.parse_webhook(body, signature=signature, at=at)
    row = PaymentEvent(
        provider=source.name,
        event_id=said.event_id,
        kind=said.kind[:KIND_LENGTH_MAX],
        subject=said.subject,
        body=dict(said.body),
        received_at=at,
    )
    with platform_scope("billing.take_webhook"):
        PaymentEvent.objects.bulk_create([row], ignore_conflicts=True)
        kept = PaymentEvent.objects.get(provider=source.name, event_id=said.event_id)
    return _handle(source, kept, at)


def handle_waiting(*, at: datetime) -> int:
    """Act upon what could not be acted upon before; returns how many are done now."""
    with platform_scope("billing.handle_waiting"):
        due = PaymentEvent.objects.filter(
            outcome=Outcome.WAITING, received_at__lt=at - PATIENCE, tries__lt=TRIES_MAX
        )
        rows = list(due.order_by("tries", "pk")[:AT_ONCE_MAX])
    done = 0
    for row in rows:
        handled = _handle(provider_named(row.provider), row, at)
        done += handled.outcome != Outcome.WAITING
    return done


def _handle(source: Provider, row: PaymentEvent, at: datetime) -> PaymentEvent:
    if row.outcome != Outcome.WAITING:
        return row
    if not row.subject:
        return _end(row, Outcome.IGNORED, at)
    try:
        # Read before anything is locked: it may take seconds.
        seen = source.read_payment(row.subject)
    except Unavailable as error:
        return _end(row, Outcome.WAITING, at, error=error.message)
    if seen is None:
        return _end(row, Outcome.REFUSED, at, error="The provider knows no such payment.")
    if not seen.order:
        # The account may sell other things as well.
        return _end(row, Outcome.IGNORED, at)
    try:
        with platform_scope("billing.apply_payment"):
            payment = apply_seen(provider=source.name, seen=seen, at=at)
            row.payment, row.tenant = payment, payment.tenant
            return _end(row, Outcome.APPLIED, at)
    except Conflict as error:
        row.payment = row.tenant = None
        logger.warning("payment.refused", extra={"event": row.event_id, "why": error.message})
        return _end(row, Outcome.REFUSED, at, error=error.message)


def _end(
    row: PaymentEvent, outcome: PaymentEvent.Outcome, at: datetime, *, error: str = ""
) -> PaymentEvent:
    row.outcome, row.error, row.tries = outcome, error[:500], row.tries + 1
    row.handled_at = None if outcome == Outcome.WAITING else at
    with platform_scope("billing.end_event"):
        # Whoever was here first has the last word.
        PaymentEvent.objects.filter(pk=row.pk, outcome=Outcome.WAITING).update(
            outcome=outcome,
            error=row.error,
            tries=row.tries,
            handled_at=row.handled_at,
            payment=row.payment,
            tenant=row.tenant,
        )
    return row
