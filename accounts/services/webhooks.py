"""create_webhook, update_webhook, rotate_webhook, delete_webhook, send_test, replay_delivery.

A secret is returned once and kept sealed, since it signs. Rotation lets the old one sign beside the
new one for a while, so that a receiver can change over without losing an event.
"""

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings

from accounts.models import (
    NAME_LENGTH_MAX,
    Tenant,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
)
from accounts.services.audit import record_audit
from accounts.services.policy import lock_tenant
from accounts.services.settings import apply_changes
from accounts.services.webhook_events import DELIVER, EVENT_TYPES, TEST, write_event
from accounts.services.webhook_sending import check_url
from turnpike.control.caller import Caller
from turnpike.control.tasks import enqueue_on_commit
from turnpike.env import env
from turnpike.kernel import clock, ids, sealing
from turnpike.kernel.errors import Conflict, InvalidInput, NotFound

ENDPOINTS_MAX = 20
OVERLAP_MAX = timedelta(days=7)
OVERLAP_DEFAULT = timedelta(days=1)
ATTEMPTS_MAX = 200
TESTS_WAITING_MAX = 10
SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with
SECRET_BYTES = 32
CHANGEABLE = frozenset({"url", "description", "event_types", "is_enabled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedWebhook:
    """An endpoint and its new secret, which nobody can read again."""

    endpoint: WebhookEndpoint
    secret: str

    def __repr__(self) -> str:
        return f"IssuedWebhook({self.endpoint.public_id})"


def create_webhook(
    *, caller: Caller, tenant: Tenant, url: str, event_types: Sequence[str] = (), description: str
) -> IssuedWebhook:
    """Add an endpoint; no event types: all. Its secret is on the answer and nowhere else."""
    values = _check({"url": url, "event_types": event_types, "description": description})
    lock_tenant(tenant.pk)
    if WebhookEndpoint.objects.filter(tenant=tenant).count() >= ENDPOINTS_MAX:
        raise Conflict(f"A tenant has at most {ENDPOINTS_MAX} webhook endpoints.")
    endpoint = WebhookEndpoint(tenant=tenant, **values)
    secret = new_secret()
    endpoint.sealed = _seal(endpoint, secret)
    endpoint.save()
    _record(caller, endpoint, "webhook.created", after=values)
    return IssuedWebhook(endpoint=endpoint, secret=secret)


def update_webhook(
    *, caller: Caller, endpoint: WebhookEndpoint, changes: Mapping[str, Any]
) -> WebhookEndpoint:
    """Change an endpoint; `is_enabled` switches it off, or on again with what waited."""
    values, row = _check(changes), _lock(endpoint)
    if "is_enabled" in values:
        is_enabled = values.pop("is_enabled")
        if is_enabled and row.disabled:
            values |= {"disabled": "", "disabled_at": None, "failures": 0}
            values |= {"failing_since": None, "rests_until": None}
        elif not is_enabled and not row.disabled:
            values |= {"disabled": "by_hand", "disabled_at": clock.utc_now()}
    if "url" in values:
        values |= {"rests_until": None}
    before, after = apply_changes(row, values)
    _record(caller, row, "webhook.updated", before=before, after=after)
    enqueue_on_commit(DELIVER)
    return row


def rotate_webhook(
    *, caller: Caller, endpoint: WebhookEndpoint, overlap: timedelta = OVERLAP_DEFAULT
) -> IssuedWebhook:
    """Give an endpoint a new secret; the old one signs beside it until the overlap ends."""
    if not timedelta(0) <= overlap <= OVERLAP_MAX:
        raise InvalidInput(
            f"overlap_seconds must be from 0 to {int(OVERLAP_MAX.total_seconds())}.",
            field="overlap_seconds",
        )
    row, secret = _lock(endpoint), new_secret()
    row.previous_sealed = _seal(row, _open(row, row.sealed)) if overlap else ""
    row.previous_ends_at = clock.utc_now() + overlap if overlap else None
    row.sealed = _seal(row, secret)
    row.save(update_fields=["sealed", "previous_sealed", "previous_ends_at"])
    ends = row.previous_ends_at
    after = {"previous_ends_at": None if ends is None else clock.rfc3339(ends)}
    _record(caller, row, "webhook.rotated", after=after)
    return IssuedWebhook(endpoint=row, secret=secret)


def delete_webhook(*, caller: Caller, endpoint: WebhookEndpoint) -> None:
    """Remove an endpoint with its deliveries."""
    row = _lock(endpoint)
    _record(caller, row, "webhook.deleted", before={"url": row.url})
    row.delete()


def send_test(*, caller: Caller, endpoint: WebhookEndpoint) -> WebhookDelivery:
    """Send a test event to one endpoint, now."""
    row = _lock(endpoint)
    if row.disabled:
        raise Conflict("The endpoint is disabled; enable it first.")
    waiting = WebhookDelivery.objects.filter(endpoint=row, state="waiting", event__type=TEST)
    if waiting.count() >= TESTS_WAITING_MAX:
        raise Conflict("Test events are waiting already.")
    key = f"test:{ids.uuid7()}"
    data = {"webhook": row.public_id, "sent_by": caller.actor}
    write_event(tenant=row.tenant_id, kind=TEST, data=data, endpoints=[row], key=key)
    row.rests_until = None
    row.save(update_fields=["rests_until"])
    return WebhookDelivery.objects.select_related("event").get(endpoint=row, event__key=key)


def replay_delivery(*, caller: Caller, delivery: WebhookDelivery) -> WebhookDelivery:
    """Send an event again, with the same id and body; what waits is sent now."""
    row = WebhookDelivery.objects.select_for_update(of=("self",)).select_related("endpoint")
    row = row.filter(pk=delivery.pk)
    found = row.first()
    if found is None:
        raise NotFound("There is no such delivery.")
    if found.endpoint.disabled:
        raise Conflict("The endpoint is disabled; enable it first.")
    if WebhookAttempt.objects.filter(delivery=found).count() >= ATTEMPTS_MAX:
        raise Conflict(f"A delivery is tried at most {ATTEMPTS_MAX} times.")
    found.state, found.finished_at = WebhookDelivery.State.WAITING, None
    found.tries, found.next_try_at = 0, clock.utc_now()
    found.save(update_fields=["state", "finished_at", "tries", "next_try_at"])
    WebhookEndpoint.objects.filter(pk=found.endpoint_id).update(rests_until=None)
    _record(caller, found.endpoint, "webhook.replayed", after={"delivery": found.public_id})
    enqueue_on_commit(DELIVER)
    return found


def secrets_of(endpoint: WebhookEndpoint) -> tuple[str, ...]:
    """What signs now, the newest first. Raises CannotOpen."""
    secrets = [_open(endpoint, endpoint.sealed)]
    ends = endpoint.previous_ends_at
    if endpoint.previous_sealed and ends is not None and clock.utc_now() < ends:
        secrets.append(_open(endpoint, endpoint.previous_sealed))
    return tuple(secrets)


def reseal_webhooks(*, is_dry_run: bool = False) -> tuple[int, tuple[str, ...]]:
    """Bring every secret under the first master key: how many, and which nothing opens.

    Run where all tenants' rows are seen.
    """
    current, resealed, unopened = f"v1:{next(iter(env().sealing_keys))}:", 0, []
    for row in WebhookEndpoint.objects.select_for_update().order_by("pk"):
        fields = [name for name in ("sealed", "previous_sealed") if getattr(row, name)]
        old = [name for name in fields if not getattr(row, name).startswith(current)]
        try:
            for name in old:
                setattr(row, name, _seal(row, _open(row, getattr(row, name))))
        except sealing.CannotOpen:
            unopened.append(row.public_id)
            continue
        resealed += len(old)
        if old and not is_dry_run:
            row.save(update_fields=old)
    return resealed, tuple(unopened)


def new_secret() -> str:
    """A secret as Standard Webhooks writes it."""
    return SECRET_PREFIX + base64.b64encode(os.urandom(SECRET_BYTES)).decode()


def _check(values: Mapping[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(values) - CHANGEABLE)
    if unknown:
        raise InvalidInput(f"{unknown[0]} cannot be changed.", field=unknown[0])
    checked = dict(values)
    if "url" in checked:
        checked["url"] = checked["url"].strip()
        check_url(checked["url"], allows_loopback=settings.WEBHOOKS_ALLOW_LOOPBACK)
    if "description" in checked:
        text = checked["description"].strip()
        if len(text) > NAME_LENGTH_MAX or not text.isprintable():
            raise InvalidInput(
                f"description must have at most {NAME_LENGTH_MAX} printable characters.",
                field="description",
            )
        checked["description"] = text
    if "event_types" in checked:
        chosen = set(checked["event_types"])
        if chosen - set(EVENT_TYPES):
            raise InvalidInput(
                f"event_types must be some of: {', '.join(EVENT_TYPES)}.", field="event_types"
            )
        checked["event_types"] = [name for name in EVENT_TYPES if name in chosen]
    return checked


def _lock(endpoint: WebhookEndpoint) -> WebhookEndpoint:
    lock_tenant(endpoint.tenant_id)
    row = WebhookEndpoint.objects.select_for_update().filter(pk=endpoint.pk).first()
    if row is None:
        raise NotFound("There is no such webhook endpoint.")
    return row


def _record(
    caller: Caller,
    endpoint: WebhookEndpoint,
    action: str,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    record_audit(
        actor=caller,
        tenant=endpoint.tenant_id,
        action=action,
        target=endpoint.public_id,
        before=before,
        after=after,
    )


def _place(endpoint: WebhookEndpoint) -> str:
    return f"accounts_webhookendpoint.{endpoint.uuid}.sealed"


def _seal(endpoint: WebhookEndpoint, secret: str) -> str:
    return sealing.seal(secret, place=_place(endpoint), master_keys=env().sealing_keys)


def _open(endpoint: WebhookEndpoint, blob: str) -> str:
    return sealing.unseal(blob, place=_place(endpoint), master_keys=env().sealing_keys)
