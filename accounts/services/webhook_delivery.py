"""deliver_webhooks: sends what is due, signed, each try recorded.

A delivery is claimed in a transaction, sent outside of any, and noted in another; who dies in
between is followed by somebody else, so a receiver may see an event twice and knows it by its id.
Several receivers are served at once, one event of each: one that is slow or away holds up itself.
"""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from django.conf import settings
from django.utils.translation import gettext as _
from standardwebhooks import Webhook

from accounts.models import (
    TenantStatus,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)
from accounts.services.audit import record_audit
from accounts.services.mail import Letter
from accounts.services.notices import WEBHOOKS, notify_members
from accounts.services.webhook_sending import Answer, headers_of, send
from accounts.services.webhooks import secrets_of
from turnpike.control.caller import SYSTEM
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, sealing

Send = Callable[..., Answer]

# After the n-th failure; together somewhat more than three days.
PAUSES = tuple(
    timedelta(seconds=seconds)
    for seconds in (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
)
TRIES_MAX = len(PAUSES) + 1
JITTER = 0.2
REST_MAX = timedelta(minutes=10)
# Longer than a try may take.
CLAIM = timedelta(minutes=2)
AT_ONCE = 8
ROUNDS_MAX = 50
LOOKED_AT_MAX = 500
DISABLE_AFTER = timedelta(days=5)
GONE = 410


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claimed:
    """A delivery in somebody's hands, ready to be sent without the database."""

    pk: int
    url: str
    headers: dict[str, str]
    body: bytes
    error: str = ""


def deliver_webhooks(*, at: datetime | None = None, send: Send = send) -> int:
    """Send what is due at an instant (None: now), round by round; how many tries there were."""
    tried, allows = 0, bool(settings.WEBHOOKS_ALLOW_LOOPBACK)
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        for _round in range(ROUNDS_MAX):
            claimed = _claim(at or clock.utc_now())
            if not claimed:
                break
            answers = pool.map(partial(_send, send=send, allows_loopback=allows), claimed)
            for one, answer in zip(claimed, answers, strict=True):
                _note(one.pk, answer, at=at or clock.utc_now())
            tried += len(claimed)
    return tried


def pause_after(tries: int) -> timedelta:
    """How long a delivery waits after its n-th failure, a fifth more or less."""
    pause = PAUSES[min(tries, len(PAUSES)) - 1]
    return pause * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load, no secret


def purge_webhooks(*, before: datetime) -> int:
    """Delete events that are older, with their deliveries; how many rows went."""
    with platform_scope("accounts.purge_webhooks"):
        removed, _each = WebhookEvent.objects.filter(created_at__lt=before).delete()
    return int(removed)


def _claim(now: datetime) -> list[_Claimed]:
    with platform_scope("accounts.deliver_webhooks"):
        due = WebhookDelivery.objects.filter(
            state=WebhookDelivery.State.WAITING, next_try_at__lte=now, endpoint__disabled=""
        )
        due = due.exclude(tenant__status=TenantStatus.CLOSED)
        due = due.exclude(endpoint__rests_until__gt=now)
        one_each = due.order_by("endpoint_id", "next_try_at").distinct("endpoint_id")
        found = sorted(
            one_each.values_list("next_try_at", "pk")[:LOOKED_AT_MAX], key=lambda pair: pair[0]
        )
        rows = due.select_for_update(of=("self",), skip_locked=True)
        rows = rows.select_related("endpoint", "event")
        claimed = list(rows.filter(pk__in=[pk for _at, pk in found[:AT_ONCE]]))
        for row in claimed:
            row.tries += 1
            row.next_try_at = now + CLAIM
            row.save(update_fields=["tries", "next_try_at"])
    return [_prepare(row) for row in claimed]


def _prepare(row: WebhookDelivery) -> _Claimed:
    event, at, error = row.event, clock.utc_now(), ""
    signed = {
        "webhook-id": event.public_id,
        "webhook-timestamp": str(int(at.timestamp())),
    }
    try:
        signed["webhook-signature"] = " ".join(
            Webhook(secret).sign(msg_id=event.public_id, timestamp=at, data=event.body)
            for secret in secrets_of(row.endpoint)
        )
    except sealing.CannotOpen:
        error = "secret"
    return _Claimed(
        pk=row.pk,
        url=row.endpoint.url,
        headers=headers_of(signed),
        body=event.body.encode(),
        error=error,
    )


def _send(one: _Claimed, *, send: Send, allows_loopback: bool) -> Answer:
    if one.error:
        return Answer(status=None, error=one.error, body="", took_ms=0)
    return send(url=one.url, headers=one.headers, body=one.body, allows_loopback=allows_loopback)


def _note(delivery: int, answer: Answer, *, at: datetime) -> None:
    with platform_scope("accounts.deliver_webhooks"):
        row = WebhookDelivery.objects.select_for_update(of=("self",)).filter(pk=delivery).first()
        if row is None:
            return
        endpoint = WebhookEndpoint.objects.select_for_update().get(pk=row.endpoint_id)
        number = WebhookAttempt.objects.filter(delivery=row).count() + 1
        WebhookAttempt.objects.create(
            tenant_id=row.tenant_id,
            delivery=row,
            number=number,
            at=at,
            took_ms=answer.took_ms,
            status=answer.status,
            error=answer.error,
            response=answer.body,
        )
        if answer.is_success:
            _succeed(row, endpoint, at=at)
        else:
            _fail(row, endpoint, answer, at=at)
        row.save(update_fields=["state", "finished_at", "next_try_at"])
        endpoint.save(
            update_fields=["failures", "failing_since", "rests_until", "disabled", "disabled_at"]
        )


def _succeed(row: WebhookDelivery, endpoint: WebhookEndpoint, *, at: datetime) -> None:
    row.state, row.finished_at = WebhookDelivery.State.DELIVERED, at
    endpoint.failures, endpoint.failing_since, endpoint.rests_until = 0, None, None


def _fail(row: WebhookDelivery, endpoint: WebhookEndpoint, answer: Answer, *, at: datetime) -> None:
    if row.tries >= TRIES_MAX:
        row.state, row.finished_at = WebhookDelivery.State.FAILED, at
    else:
        row.next_try_at = at + pause_after(row.tries)
    endpoint.failures += 1
    endpoint.failing_since = endpoint.failing_since or at
    endpoint.rests_until = at + min(REST_MAX, timedelta(seconds=2 ** min(endpoint.failures, 12)))
    if endpoint.disabled:
        return
    if answer.status == GONE:
        _disable(endpoint, WebhookEndpoint.Disabled.GONE, at=at)
    elif at - endpoint.failing_since >= DISABLE_AFTER:
        _disable(endpoint, WebhookEndpoint.Disabled.FAILING, at=at)


def _disable(endpoint: WebhookEndpoint, why: WebhookEndpoint.Disabled, *, at: datetime) -> None:
    endpoint.disabled, endpoint.disabled_at = why, at
    record_audit(
        actor=SYSTEM,
        tenant=endpoint.tenant_id,
        action="webhook.disabled",
        target=endpoint.public_id,
        after={"disabled": str(why), "failures": endpoint.failures},
    )
    notify_members(
        tenant=endpoint.tenant_id,
        notice=WEBHOOKS,
        key=f"webhook:{endpoint.pk}:{int(at.timestamp())}",
        language=settings.LANGUAGE_CODE,
        write=partial(_letter_of, endpoint),
    )


def _letter_of(endpoint: WebhookEndpoint) -> Letter:
    return Letter(
        subject=_("A webhook endpoint was switched off"),
        paragraphs=(
            _("Nothing that we sent to %(url)s was taken for days, or it answered 410 Gone.")
            % {"url": endpoint.url},
            _("Nothing is sent there until somebody switches it on again. What waits is kept."),
        ),
        action=_("Look at the deliveries"),
        address=f"{settings.PUBLIC_BASE_URL}/console/webhooks/{endpoint.public_id}",
    )
