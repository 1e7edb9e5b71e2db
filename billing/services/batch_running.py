"""run_parts: workers take parts of batches that are due, one worker a part, and carry them on.

A part is leased and the lease is renewed while its worker lives, so that a killed worker's part is
taken over within seconds. Two workers at one part would do no harm: an item ends once.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connection

from billing.models.batches import BatchItem, BatchPart, MessageBatch
from billing.services.batch_forwarding import forward
from billing.services.batch_results import close_items, finish_if_done
from billing.services.batch_singles import send_singles
from billing.services.usage import Mark, no_mark
from turnpike.control.scope import platform_scope
from turnpike.env import env
from turnpike.kernel import clock, ids

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=15)
RENEW_SECONDS = 4.0
FAILED_AGAIN_AFTER = timedelta(seconds=30)


def run_parts(*, until_seconds: float, mark: Mark = no_mark) -> int:
    """Carry on what is due until nothing is, or the time (monotonic) has come; how many turns."""
    turns = 0
    while clock.monotonic_seconds() < until_seconds:
        part = claim_part(now=clock.utc_now())
        if part is None:
            break
        mark("claimed")
        turns += 1
        with _kept(part):
            _take_turn(part, mark)
    return turns


def claim_part(*, now: datetime) -> BatchPart | None:
    """Lease the part that is due the longest; None where none is, or enough are under way."""
    lease = ids.uuid7()
    with platform_scope("claim batch part"), connection.cursor() as cursor:
        cursor.execute(
            _CLAIM,
            {"now": now, "until": now + LEASE, "lease": lease, "most": env().batch_parts_max},
        )
        row = cursor.fetchone()
        return None if row is None else BatchPart.objects.get(pk=row[0])


def _take_turn(part: BatchPart, mark: Mark) -> None:
    try:
        with platform_scope("read batch"):
            batch = MessageBatch.objects.get(pk=part.batch_id)
        now = clock.utc_now()
        stop = _stop_of(batch, now=now)
        if stop and part.state == BatchPart.State.WAITING:
            close_items(batch=batch.id, part=part.number, state=stop)
            next_at = None
        elif part.upstream_id is not None:
            next_at = forward(part, batch, stop=stop, now=now, mark=mark)
        else:
            next_at = send_singles(part, batch, now=now, mark=mark)
    except Exception:  # one part's trouble is not its neighbours'
        logger.exception("batch.part_failed", extra={"batch": str(part.batch_id)})
        next_at = clock.utc_now() + FAILED_AGAIN_AFTER
    _give_back(part, next_at=next_at)


def _stop_of(batch: MessageBatch, *, now: datetime) -> str:
    """How items end that nobody has begun; empty while the batch goes on."""
    if batch.state == MessageBatch.State.CANCELING:
        return str(BatchItem.State.CANCELED)
    return str(BatchItem.State.EXPIRED) if now >= batch.expires_at else ""


def _give_back(part: BatchPart, *, next_at: datetime | None) -> None:
    """End the lease; a part without a next time is done, and perhaps its batch is."""
    changes = {"leased_until": None, "lease": None}
    with platform_scope("give back batch part"):
        mine = BatchPart.objects.filter(pk=part.pk, lease=part.lease)
        if next_at is None:
            mine.update(state=BatchPart.State.DONE, **changes)
        else:
            mine.update(due_at=next_at, **changes)
    if next_at is None:
        finish_if_done(batch=part.batch_id)


@contextmanager
def _kept(part: BatchPart) -> Iterator[None]:
    """Renew a part's lease beside the work, whatever it waits for."""
    over = threading.Event()
    assert part.lease is not None
    keeper = threading.Thread(target=_renew, args=(part.pk, part.lease, over), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()


def _renew(part: int, lease: UUID, over: threading.Event) -> None:
    try:
        while not over.wait(RENEW_SECONDS):
            with platform_scope("renew batch lease"):
                BatchPart.objects.filter(pk=part, lease=lease).update(
                    leased_until=clock.utc_now() + LEASE
                )
    except Exception:  # the lease ends, and somebody else goes on
        logger.exception("batch.lease_not_renewed")
    finally:
        connection.close()


# The lock makes the count and the claim one step; it ends with the transaction.
_CLAIM = """
WITH taken AS MATERIALIZED (
  SELECT pg_advisory_xact_lock(7103, 0)
), running AS MATERIALIZED (
  SELECT count(*) AS parts FROM billing_batch_part, taken
  WHERE state <> 'done' AND leased_until > %(now)s
)
UPDATE billing_batch_part SET lease = %(lease)s, leased_until = %(until)s
WHERE id = (
  SELECT part.id FROM billing_batch_part AS part, running
  WHERE part.state <> 'done' AND part.due_at <= %(now)s AND running.parts < %(most)s
    AND (part.leased_until IS NULL OR part.leased_until <= %(now)s)
  ORDER BY part.due_at, part.id LIMIT 1 FOR UPDATE OF part SKIP LOCKED
) RETURNING id
"""
