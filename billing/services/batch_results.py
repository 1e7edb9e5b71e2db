"""settle_items, close_items, finish_if_done: how items end, each exactly once.

An item ends in one transaction: its usage event, the charge, its result, and the part of the hold
that was kept for it. The event's key is the item's, so whatever is repeated after a crash is found
to be there. All of it happens under the wallet's lock, which orders the workers of one tenant.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Count, Sum

from accounts.services.webhook_events import BATCH_ENDED, emit_event
from billing.locks import lock_wallet
from billing.models.batches import BatchItem, BatchPart, MessageBatch
from billing.models.usage import UsageEvent as EventRow
from billing.services.batch_content import open_batch_key, place_of
from billing.services.holds import end_hold, shrink_hold
from billing.services.partitions import ensure_partitions
from billing.services.posting import publish_wallet
from billing.services.usage import Incoming, Mark, no_mark, post_usage
from turnpike.contracts.usage import RANK_REPORTED, STATUS_OF_RANK, Attempt, UsageEvent
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock
from turnpike.kernel.codec import to_json
from turnpike.kernel.money import nanos_of_micros

BATCH_TIER = "batch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one item ended: its result as the API writes it, and what it used if it succeeded."""

    number: int
    state: str
    result: bytes
    usage: Mapping[str, Any] = field(default_factory=dict)
    stop_reason: str | None = None
    attempts: tuple[Attempt, ...] = ()


def settle_items(*, batch: UUID, outcomes: Sequence[Outcome], mark: Mark = no_mark) -> int:
    """End items with their outcomes and charge those that succeeded; how many ended now.

    The charge is the price of what was used at the batch's prices, at most the item's hold. Items
    that have ended before are left as they are.
    """
    with platform_scope("settle batch items"):
        row = _lock_batch(batch)
        if row is None:
            return 0
        given = {outcome.number: outcome for outcome in outcomes}
        items = list(
            BatchItem.objects.filter(
                batch_id=batch, number__in=list(given), state=BatchItem.State.WAITING
            )
            .defer("params", "result")
            .order_by("number")
        )
        if not items:
            return 0
        posted = _post(row, items, given, mark)
        _write(row, items, given)
        released = sum(nanos_of_micros(item.hold_micro) for item in items)
        shrink_hold(hold=batch, released_nano=released, posted_nano=posted)
        transaction.on_commit(partial(publish_wallet, tenant=row.tenant_id))
        mark("settled")
    mark("committed")
    return len(items)


def close_items(*, batch: UUID, part: int, state: str) -> int:
    """End what a part has not begun or got no answer for, free of charge; how many items."""
    with platform_scope("close batch items"):
        row = _lock_batch(batch)
        if row is None:
            return 0
        waiting = BatchItem.objects.filter(batch_id=batch, part=part, state=BatchItem.State.WAITING)
        released = waiting.aggregate(total=Sum("hold_micro"))["total"] or 0
        count = waiting.update(state=state, params=None)
        shrink_hold(hold=batch, released_nano=nanos_of_micros(released), posted_nano=0)
        transaction.on_commit(partial(publish_wallet, tenant=row.tenant_id))
    return count


def finish_if_done(*, batch: UUID) -> bool:
    """End a batch whose parts are all done, and its hold with it; whether it has ended now."""
    with platform_scope("finish batch"):
        row = _lock_batch(batch)
        if row is None or row.state == MessageBatch.State.ENDED:
            return False
        if BatchPart.objects.filter(batch=row).exclude(state=BatchPart.State.DONE).exists():
            return False
        states = BatchItem.objects.filter(batch=row).values_list("state")
        counts = dict(states.annotate(count=Count("number")))
        assert BatchItem.State.WAITING not in counts
        now = clock.utc_now()
        MessageBatch.objects.filter(pk=batch).update(
            state=MessageBatch.State.ENDED,
            ended_at=now,
            **{name: counts.get(name, 0) for name in ENDS},
        )
        emit_event(
            tenant=row.tenant_id,
            kind=BATCH_ENDED,
            data={"batch": row.public_id, **{name: counts.get(name, 0) for name in ENDS}},
            key=f"batch:{batch}",
        )
        end_hold(hold=batch, at=now)
        transaction.on_commit(partial(publish_wallet, tenant=row.tenant_id))
    return True


ENDS = ("succeeded", "errored", "canceled", "expired")


def _lock_batch(batch: UUID) -> MessageBatch | None:
    """The batch, with its tenant's wallet locked; None where it was deleted."""
    tenant = MessageBatch.objects.filter(pk=batch).values_list("tenant_id", flat=True).first()
    if tenant is None:
        return None
    lock_wallet(tenant=tenant)
    return MessageBatch.objects.filter(pk=batch).first()


def _post(
    batch: MessageBatch, items: Sequence[BatchItem], given: Mapping[int, Outcome], mark: Mark
) -> int:
    """Post the events of what succeeded; what they were charged together."""
    now_us = clock.now_us()
    events = [
        _incoming(batch, item, given[item.number], now_us=now_us)
        for item in items
        if given[item.number].state == BatchItem.State.SUCCEEDED
    ]
    if not events:
        return 0
    requests = [event.request for event in events]
    ensure_partitions(requests)
    post_usage(events=events, mark=mark)
    charged = EventRow.objects.filter(request_id__in=requests)
    return int(charged.aggregate(total=Sum("amount_nano"))["total"] or 0)


def _incoming(batch: MessageBatch, item: BatchItem, outcome: Outcome, *, now_us: int) -> Incoming:
    event = UsageEvent(
        rid=str(item.request_id),
        rank=RANK_REPORTED,
        status=STATUS_OF_RANK[RANK_REPORTED],
        tenant=batch.tenant_id,
        workspace=batch.workspace_id,
        key=batch.api_key_id,
        member=batch.member or None,
        model=item.model,
        upstream_model=item.upstream_model,
        requested_model=item.requested_model,
        price_set=batch.price_set_id,
        discount_bp=batch.discount_bp,
        tier=BATCH_TIER,
        # Prices and budgets are those of the moment in which the batch was admitted.
        started_at_us=clock.us_of_datetime(batch.created_at),
        finished_at_us=now_us,
        hold_micro=item.hold_micro,
        usage=dict(outcome.usage),
        http_status=200,
        stop_reason=outcome.stop_reason,
        attempts=outcome.attempts,
    )
    body = to_json(event).encode()
    return Incoming(
        event=event, request=item.request_id, fingerprint=hashlib.sha256(body).digest(), body=body
    )


def _write(batch: MessageBatch, items: Sequence[BatchItem], given: Mapping[int, Outcome]) -> None:
    data_key = open_batch_key(batch)
    numbers = [item.number for item in items]
    sealed = [
        data_key.seal(given[number].result, place=place_of(number, "result")) for number in numbers
    ]
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE billing_batch_item AS item"
            " SET state = given.state, result = given.result, params = NULL"
            " FROM unnest(%s::integer[], %s::text[], %s::bytea[])"
            " AS given (number, state, result)"
            " WHERE item.batch_id = %s AND item.number = given.number",
            [numbers, [given[number].state for number in numbers], sealed, batch.id],
        )
