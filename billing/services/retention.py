"""apply_retention: each kind of data goes when its time is over; what went is reported.

Each kind goes by itself, so that one which fails holds up no other. Ledger, invoices and rollups
have no end: they are sums and numbers, and say nothing about people.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import Error, connection
from django.db.models import Q

from accounts.models import Invite, Mail, RetentionRun, Tenant
from accounts.services.audit import cut_audit
from accounts.services.closing import ERASED_DOMAIN, erase_due
from accounts.services.exports import expire_exports
from accounts.services.platform_settings import (
    FOREVER,
    KEEP_AUDIT_DAYS,
    KEEP_EVENTS_DAYS,
    KEEP_INVITES_DAYS,
    KEEP_MAIL_DAYS,
    read_settings,
)
from accounts.services.webhook_delivery import purge_webhooks
from billing.models.upkeep import ComponentDay, ReconciliationRun
from billing.models.usage import DeadLetter
from billing.services.periods import month_of
from turnpike.control.idempotency import purge_answers
from turnpike.control.mail_backend import FOLDER_BACKEND, purge_messages
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids

logger = logging.getLogger(__name__)

HEALTH_KEPT = timedelta(days=400)
WEBHOOKS_KEPT = timedelta(days=30)
LETTERS_KEPT = timedelta(days=90)
RUNS_KEPT = timedelta(days=400)
PARTITION_PREFIX = "billing_usage_event_"
MONTHS_AT_ONCE_MAX = 12


def apply_retention(*, at: datetime) -> RetentionRun:
    """Remove what is over at `at`, kind by kind; the report is kept and shown to operators."""
    began_us = clock.now_us()
    with platform_scope("billing.apply_retention"):
        days = read_settings()
    removed: dict[str, int] = {}
    failed: list[str] = []
    for kind, remove in _KINDS.items():
        try:
            removed[kind] = remove(at, days)
        except Error:
            logger.exception("retention.failed", extra={"kind": kind})
            failed.append(kind)
    return RetentionRun.objects.create(
        removed=removed, failed=failed, took_ms=(clock.now_us() - began_us) // 1_000
    )


def _forget_events(at: datetime, days: Mapping[str, Any]) -> int:
    kept = days[KEEP_EVENTS_DAYS]
    if kept == FOREVER:
        return 0
    last = month_of(at - timedelta(days=kept)).date()
    dropped = 0
    for month in _months_with_events():
        # The whole month has to be over.
        if month < last:
            with platform_scope("billing.forget_month"), connection.cursor() as cursor:
                cursor.execute("SELECT billing_forget_month(%s)", [month])
                dropped += int(cursor.fetchone()[0])
    return dropped


def _months_with_events() -> list[date]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits"
            " WHERE inhparent = 'billing_usage_event'::regclass"
        )
        names = [str(name).removeprefix(PARTITION_PREFIX) for (name,) in cursor.fetchall()]
    months = [date(int(name[:4]), int(name[4:]), 1) for name in names if name.isdigit()]
    return sorted(months)[:MONTHS_AT_ONCE_MAX]


def _cut_audit(at: datetime, days: Mapping[str, Any]) -> int:
    kept = days[KEEP_AUDIT_DAYS]
    if kept == FOREVER:
        return 0
    before = at - timedelta(days=kept)
    with platform_scope("billing.apply_retention"):
        tenants: list[int | None] = [None, *Tenant.objects.values_list("pk", flat=True)]
    return sum(cut_audit(tenant=tenant, before=before) for tenant in tenants)


def _purge_mail(at: datetime, days: Mapping[str, Any]) -> int:
    before = at - timedelta(days=days[KEEP_MAIL_DAYS])
    with platform_scope("billing.apply_retention"):
        ended = Mail.objects.filter(created_at__lt=before).exclude(state=Mail.State.WAITING)
        removed, _each = ended.delete()
    if settings.EMAIL_BACKEND == FOLDER_BACKEND:
        purge_messages(Path(settings.EMAIL_FILE_PATH), before=before)
    return removed


def _blank_invites(at: datetime, days: Mapping[str, Any]) -> int:
    """An invitation that came to nothing keeps its row and loses its address."""
    before = at - timedelta(days=days[KEEP_INVITES_DAYS])
    ended = Q(revoked_at__lt=before) | Q(accepted_at=None, expires_at__lt=before)
    with platform_scope("billing.apply_retention"):
        rows = Invite.objects.filter(ended).exclude(email__endswith=f"@{ERASED_DOMAIN}")
        for invite in rows:
            invite.email = f"{ids.public_id(ids.INVITE, invite.uuid).lower()}@{ERASED_DOMAIN}"
            invite.revoked_at = invite.revoked_at or at
            invite.save(update_fields=["email", "revoked_at"])
    return len(rows)


def _purge_sessions(at: datetime, _days: Mapping[str, Any]) -> int:
    removed, _each = Session.objects.filter(expire_date__lt=at).delete()
    return removed


def _purge_answers(_at: datetime, _days: Mapping[str, Any]) -> int:
    with platform_scope("billing.apply_retention"):
        return purge_answers()


def _purge_letters(at: datetime, _days: Mapping[str, Any]) -> int:
    with platform_scope("billing.apply_retention"):
        closed = DeadLetter.objects.filter(resolved_at__lt=at - LETTERS_KEPT)
        removed, _each = closed.delete()
    return removed


def _purge_own_records(at: datetime, _days: Mapping[str, Any]) -> int:
    days, _each = ComponentDay.objects.filter(day__lt=(at - HEALTH_KEPT).date()).delete()
    runs, _each = ReconciliationRun.objects.filter(created_at__lt=at - RUNS_KEPT).delete()
    reports, _each = RetentionRun.objects.filter(created_at__lt=at - RUNS_KEPT).delete()
    return days + runs + reports


_KINDS: Mapping[str, Callable[[datetime, Mapping[str, Any]], int]] = {
    "events": _forget_events,
    "audit": _cut_audit,
    "mail": _purge_mail,
    "webhooks": lambda at, _days: purge_webhooks(before=at - WEBHOOKS_KEPT),
    "invitations": _blank_invites,
    "exports": lambda _at, _days: expire_exports(),
    "sessions": _purge_sessions,
    "answers": _purge_answers,
    "dead_letters": _purge_letters,
    "accounts": lambda _at, _days: erase_due(),
    "own_records": _purge_own_records,
}
