"""keep_differences, close_difference: what comparisons found, item by item, until a person decides.

One item for each cause. It stays open until somebody closes it, whether or not it is still there;
a closed one is opened again when its cause was gone and is back, or has other figures.
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from django.db import connection
from django.db.models import Q

from accounts.services.audit import record_audit
from accounts.services.settings import check_reason
from billing.models.differences import CAUSE_LENGTH_MAX, ReconciliationItem
from billing.services.findings import Difference, Finding
from turnpike.control.caller import SYSTEM, Caller
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock
from turnpike.kernel.errors import Conflict, NotFound

logger = logging.getLogger(__name__)

# So many new items for each check and comparison: a person reads no more, and the count says it.
NEW_MAX = 200
KNOWN_MAX = 5_000
SEPARATOR = " · "
ITEMS_LOCK = 7_104


def keep_differences(findings: Iterable[Finding], *, at: datetime) -> int:
    """Open, renew and mark items by what a comparison found; how many were opened."""
    with platform_scope("keep differences"):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s, 0)", [ITEMS_LOCK])
        return sum(_keep(finding, at) for finding in findings)


def close_difference(*, caller: Caller, item: int, reason: str) -> ReconciliationItem:
    """Close an item with a reason. Raises Conflict where it is closed already."""
    checked = check_reason(reason)
    with platform_scope("close difference"):
        row = ReconciliationItem.objects.select_for_update().filter(pk=item).first()
        if row is None:
            raise NotFound("There is no such difference.")
        if row.state == ReconciliationItem.State.CLOSED:
            raise Conflict("The difference was closed before.")
        row.state = ReconciliationItem.State.CLOSED
        row.closed_at = clock.utc_now()
        row.closed_by = caller.actor
        row.reason = checked
        row.save(update_fields=["state", "closed_at", "closed_by", "reason"])
        _audit(caller, row, action="difference.closed", reason=checked)
    return row


def cause_text(cause: Sequence[str]) -> str:
    """A cause as it is kept: readable, and unique where it had to be cut."""
    text = SEPARATOR.join(cause)
    if len(text) <= CAUSE_LENGTH_MAX:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{text[: CAUSE_LENGTH_MAX - 20]}… {digest}"


def _keep(finding: Finding, at: datetime) -> int:
    found = {cause_text(row.cause): row for row in finding.rows}
    known = _known(finding.check, list(found))
    opened = 0
    for cause, row in found.items():
        item = known.get(cause)
        if item is not None:
            _renew(item, row, at)
        elif opened < NEW_MAX:
            opened += 1
            ReconciliationItem.objects.create(
                kind=finding.check, cause=cause, evidence=_pairs(row), created_at=at, seen_at=at
            )
    for cause, item in known.items():
        is_looked_at = finding.covers(tuple(item.cause.split(SEPARATOR)))
        if cause not in found and item.gone_at is None and is_looked_at:
            item.gone_at = at
            item.save(update_fields=["gone_at"])
    return opened


def _known(kind: str, causes: list[str]) -> Mapping[str, ReconciliationItem]:
    """The items that may change: those of these causes, and those that are open or still there."""
    rows = ReconciliationItem.objects.filter(kind=kind).filter(
        Q(cause__in=causes[:KNOWN_MAX]) | Q(gone_at=None)
    )
    return {row.cause: row for row in rows.order_by("-pk")[: 2 * KNOWN_MAX]}


def _renew(item: ReconciliationItem, row: Difference, at: datetime) -> None:
    pairs = _pairs(row)
    is_back = item.gone_at is not None or item.evidence != pairs
    if item.state == ReconciliationItem.State.CLOSED and is_back:
        item.state = ReconciliationItem.State.OPEN
        item.closed_at = None
        item.times_reopened += 1
        _audit(SYSTEM, item, action="difference.reopened", reason=item.reason)
        logger.warning("difference.reopened", extra={"kind": item.kind, "cause": item.cause})
    item.evidence = pairs
    item.seen_at = at
    item.gone_at = None
    item.times_seen += 1
    item.save()


def _pairs(row: Difference) -> list[list[str]]:
    return [[name, value] for name, value in row.evidence]


def _audit(actor: Caller, item: ReconciliationItem, *, action: str, reason: str) -> None:
    record_audit(
        actor=actor,
        tenant=None,
        action=action,
        target=item.public_id,
        after={"row": item.kind, "cause": item.cause, "evidence": item.evidence},
        reason=reason,
    )
