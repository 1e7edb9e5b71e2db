"""Message batches of one workspace, and the items of one batch in bounded pieces."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db.models import QuerySet

from billing.models.batches import BatchItem, MessageBatch

ITEMS_AT_ONCE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPage:
    """A page of batches, the newest first."""

    batches: Sequence[MessageBatch]
    has_more: bool


def find_batch(*, tenant: int, workspace: int, batch: UUID) -> MessageBatch | None:
    """A batch of this workspace; another's is not found."""
    return _batches(tenant, workspace).filter(pk=batch).first()


def list_batches(
    *, tenant: int, workspace: int, limit: int, after: UUID | None, before: UUID | None
) -> BatchPage:
    """Batches after (older than) or before (newer than) one of them."""
    rows = _batches(tenant, workspace)
    if before is not None:
        nearest = list(rows.filter(pk__gt=before).order_by("pk")[: limit + 1])
        return BatchPage(batches=nearest[:limit][::-1], has_more=len(nearest) > limit)
    if after is not None:
        rows = rows.filter(pk__lt=after)
    found = list(rows.order_by("-pk")[: limit + 1])
    return BatchPage(batches=found[:limit], has_more=len(found) > limit)


def list_results(*, batch: UUID, after: int) -> list[BatchItem]:
    """The next ended items after a number (-1: from the first)."""
    rows = BatchItem.objects.filter(batch_id=batch, number__gt=after).defer("params")
    return list(rows.order_by("number")[:ITEMS_AT_ONCE])


def _batches(tenant: int, workspace: int) -> QuerySet[MessageBatch]:
    return MessageBatch.objects.filter(tenant_id=tenant, workspace_id=workspace)
