"""Writes and checks the audit log: who did what to what, chained row by row with an HMAC."""

import hmac
import json
import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import QuerySet

from accounts.models import REASON_LENGTH_MAX, AuditAnchor, AuditEvent, Tenant
from accounts.services.policy import lock_tenant
from turnpike.control.caller import Caller
from turnpike.control.scope import platform_scope
from turnpike.env import env
from turnpike.kernel import clock
from turnpike.kernel.logs import mask_secrets

logger = logging.getLogger(__name__)

PLATFORM_CHAIN_LOCK = 7_103
_PURPOSE = b"turnpike.audit.chain"
_CHECKED_AT_ONCE = 1_000
_CUT_AT_ONCE = 5_000


def record_audit(
    *,
    actor: Caller | str,
    tenant: int | None,
    action: str,
    target: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    reason: str = "",
    at: datetime | None = None,
) -> AuditEvent:
    """Add a row in the transaction of the change itself; None as tenant: the platform's own log.

    The actor is the caller, or a name (``system``) where nobody called. `before` and `after` hold
    named fields and never a secret; what looks like a key is masked.
    """
    caller = actor if isinstance(actor, Caller) else Caller(actor=actor)
    _lock_chain(tenant)
    last = _chain_of(tenant).order_by("-pk").first()
    pepper_id, pepper = next(iter(env().peppers.items()))
    event = AuditEvent(
        tenant_id=tenant,
        created_at=at or clock.utc_now(),
        actor=caller.actor,
        action=action,
        target=target,
        before=_plain(before),
        after=_plain(after),
        address=caller.address,
        request_id=caller.request_id,
        reason=mask_secrets(reason)[:REASON_LENGTH_MAX],
        previous_digest=_anchor_of(tenant) if last is None else last.digest,
        pepper_id=pepper_id,
    )
    event.digest = _digest(event, pepper)
    event.save(force_insert=True)
    return event


def find_broken_event(*, tenant: int | None) -> AuditEvent | None:
    """The first row of a tenant's log that does not follow from the row before it, or None."""
    peppers, previous = env().peppers, _anchor_of(tenant)
    rows = _chain_of(tenant).order_by("pk")
    for event in rows.iterator(chunk_size=_CHECKED_AT_ONCE):
        pepper = peppers.get(event.pepper_id)
        if (
            pepper is None
            or event.previous_digest != previous
            or not hmac.compare_digest(_digest(event, pepper), event.digest)
        ):
            return event
        previous = event.digest
    return None


def check_chains() -> int:
    """Follow every tenant's log and the platform's own; how many are broken (each is logged)."""
    with platform_scope("accounts.check_chains"):
        tenants: list[int | None] = [None, *Tenant.objects.values_list("pk", flat=True)]
    broken = 0
    for tenant in tenants:
        with platform_scope("accounts.check_chains"):
            event = find_broken_event(tenant=tenant)
        if event is not None:
            logger.error("audit.chain_broken", extra={"tenant": tenant, "event": event.pk})
            broken += 1
    return broken


def cut_audit(*, tenant: int | None, before: datetime) -> int:
    """Remove the old end of a log; the chain goes on from its anchor. Returns how many rows went.

    The database refuses to cut what is younger than a week.
    """
    removed = 0
    while True:
        with platform_scope("accounts.cut_audit"), connection.cursor() as cursor:
            _lock_chain(tenant)
            cursor.execute("SELECT accounts_cut_audit(%s, %s, %s)", [tenant, before, _CUT_AT_ONCE])
            gone = int(cursor.fetchone()[0])
        removed += gone
        if gone < _CUT_AT_ONCE:
            return removed


def _anchor_of(tenant: int | None) -> str:
    anchors = AuditAnchor.objects.all()
    if tenant is None:
        anchors = anchors.filter(tenant__isnull=True)
    else:
        anchors = anchors.filter(tenant_id=tenant)
    return anchors.values_list("digest", flat=True).first() or ""


def _chain_of(tenant: int | None) -> QuerySet[AuditEvent]:
    if tenant is None:
        return AuditEvent.objects.filter(tenant__isnull=True)
    return AuditEvent.objects.filter(tenant_id=tenant)


def _lock_chain(tenant: int | None) -> None:
    if tenant is not None:
        lock_tenant(tenant)
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, 0)", [PLATFORM_CHAIN_LOCK])


def _plain(values: Mapping[str, Any] | None) -> dict[str, Any]:
    text = json.dumps(dict(values or {}), default=str, sort_keys=True)
    plain: dict[str, Any] = json.loads(mask_secrets(text))
    return plain


def _digest(event: AuditEvent, pepper: bytes) -> str:
    key = hmac.digest(pepper, _PURPOSE, "sha256")
    content = [
        event.previous_digest,
        event.tenant_id,
        clock.rfc3339(event.created_at),
        event.actor,
        event.action,
        event.target,
        event.before,
        event.after,
        event.address,
        event.request_id,
        event.reason,
        event.pepper_id,
    ]
    message = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hmac.digest(key, message.encode(), "sha256").hex()
