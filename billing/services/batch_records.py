"""cancel_batch, delete_batch, archive_batches: what happens to a batch besides its work."""

from datetime import datetime, timedelta

from billing.locks import lock_wallet
from billing.models.batches import BatchItem, BatchPart, MessageBatch
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock
from turnpike.kernel.errors import InvalidInput

KEPT_FOR = timedelta(days=29)
ARCHIVED_AT_ONCE_MAX = 100


def cancel_batch(batch: MessageBatch) -> MessageBatch:
    """Begin nothing more of a batch; what has ended stays as it is. Again: no effect."""
    # Every change of a batch's state happens under the wallet's lock.
    lock_wallet(tenant=batch.tenant_id)
    now = clock.utc_now()
    changed = MessageBatch.objects.filter(pk=batch.pk, state=MessageBatch.State.IN_PROGRESS).update(
        state=MessageBatch.State.CANCELING, cancel_initiated_at=now
    )
    if changed:
        parts = BatchPart.objects.filter(batch=batch).exclude(state=BatchPart.State.DONE)
        parts.update(due_at=now)
    batch.refresh_from_db()
    return batch


def delete_batch(batch: MessageBatch) -> None:
    """Forget a batch that has ended, its results and the key to them; its charges stay.

    Raises InvalidInput while it runs.
    """
    lock_wallet(tenant=batch.tenant_id)
    batch.refresh_from_db()
    if batch.state != MessageBatch.State.ENDED:
        raise InvalidInput(
            f"Batch {batch.public_id} has not ended. Cancel it first, or wait until it has."
        )
    BatchItem.objects.filter(batch=batch).delete()
    BatchPart.objects.filter(batch=batch).delete()
    MessageBatch.objects.filter(pk=batch.pk).delete()


def archive_batches(*, now: datetime) -> int:
    """Throw away the results of batches that are 29 days old; how many there were."""
    with platform_scope("list batches to archive"):
        due = MessageBatch.objects.filter(
            archived_at=None, state=MessageBatch.State.ENDED, created_at__lte=now - KEPT_FOR
        )
        found = list(due.order_by("created_at").values_list("pk", flat=True)[:ARCHIVED_AT_ONCE_MAX])
    for batch in found:
        with platform_scope("archive batch"):
            BatchItem.objects.filter(batch_id=batch).update(params=None, result=None)
            MessageBatch.objects.filter(pk=batch).update(archived_at=now, sealed_key="")
    return len(found)
