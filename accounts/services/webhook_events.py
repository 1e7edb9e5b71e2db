"""emit_event: what happened to a tenant, for the endpoints that want to know.

Called in the transaction of the change itself, so that there is an event exactly if there was a
change; what the worker cannot be told now it finds by itself.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any

from django.db.models import F, Q

from accounts.models import WebhookDelivery, WebhookEndpoint, WebhookEvent
from turnpike.control.tasks import enqueue_on_commit
from turnpike.kernel import clock, ids

logger = logging.getLogger(__name__)

KEY_CREATED = "key.created"
KEY_ROTATED = "key.rotated"
KEY_REVOKED = "key.revoked"
MEMBER_JOINED = "member.joined"
MEMBER_REMOVED = "member.removed"
BALANCE_LOW = "balance.low"
BUDGET_THRESHOLD_REACHED = "budget.threshold_reached"
INVOICE_FINALIZED = "invoice.finalized"
INVOICE_OVERDUE = "invoice.overdue"
PAYMENT_RECEIVED = "payment.received"
BATCH_ENDED = "batch.ended"
EVENT_TYPES = (
    *(KEY_CREATED, KEY_ROTATED, KEY_REVOKED, MEMBER_JOINED, MEMBER_REMOVED),
    *(BUDGET_THRESHOLD_REACHED, BALANCE_LOW, PAYMENT_RECEIVED, BATCH_ENDED),
    *(INVOICE_FINALIZED, INVOICE_OVERDUE),
)
# Sent by hand, to one endpoint, whatever it chose.
TEST = "webhook.test"

WAITING_MAX = 10_000
DELIVER = "accounts.tasks.deliver_webhooks"


def emit_event(*, tenant: int, kind: str, data: Mapping[str, Any], key: str = "") -> bool:
    """Write an event for every endpoint that wants its kind; False where none does, or again.

    `key` names the cause: what is emitted twice with one key is one event. `data` holds ids, names
    and amounts, and never a secret.
    """
    assert kind in EVENT_TYPES, kind
    rows = WebhookEndpoint.objects.filter(tenant_id=tenant, disabled="")
    rows = rows.filter(Q(event_types__len=0) | Q(event_types__contains=[kind]))
    endpoints = [endpoint for endpoint in rows.order_by("pk") if _has_room(endpoint)]
    if not endpoints:
        return False
    return write_event(tenant=tenant, kind=kind, data=data, key=key, endpoints=endpoints)


def write_event(
    *,
    tenant: int,
    kind: str,
    data: Mapping[str, Any],
    endpoints: list[WebhookEndpoint],
    key: str = "",
) -> bool:
    """Write an event and its deliveries; False where its key was there before."""
    now, uuid = clock.utc_now(), ids.uuid7()
    body = {"type": kind, "timestamp": clock.rfc3339(now), "data": dict(data)}
    event, is_new = WebhookEvent.objects.get_or_create(
        tenant_id=tenant,
        key=key or str(uuid),
        defaults={
            "uuid": uuid,
            "type": kind,
            "body": json.dumps(body, separators=(",", ":"), ensure_ascii=False),
            "created_at": now,
        },
    )
    if is_new:
        WebhookDelivery.objects.bulk_create(
            WebhookDelivery(tenant_id=tenant, endpoint=endpoint, event=event, next_try_at=now)
            for endpoint in endpoints
        )
        enqueue_on_commit(DELIVER)
    return is_new


def emit_payment_received(
    *, tenant: int, payment: str, amount: str, currency: str, provider: str
) -> bool:
    """Tell that money came in; `payment` is our id of it, so a repeat is no event."""
    return emit_event(
        tenant=tenant,
        kind=PAYMENT_RECEIVED,
        data={"payment": payment, "amount": amount, "currency": currency, "provider": provider},
        key=f"payment:{provider}:{payment}",
    )


def _has_room(endpoint: WebhookEndpoint) -> bool:
    """Whether an endpoint's queue takes one more; what it does not take is counted."""
    waiting = WebhookDelivery.objects.filter(endpoint=endpoint, state="waiting")
    if waiting[:WAITING_MAX].count() < WAITING_MAX:
        return True
    WebhookEndpoint.objects.filter(pk=endpoint.pk).update(dropped=F("dropped") + 1)
    logger.warning("webhooks.queue_full", extra={"endpoint": endpoint.pk})
    return False
