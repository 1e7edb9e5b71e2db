"""create_batch: a batch is admitted whole, like one request, or it leaves nothing behind."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from django.db.models import Sum

from billing.locks import lock_wallet
from billing.models.batches import BatchItem, BatchPart, MessageBatch
from billing.services.batch_content import error_result, make_batch_key, place_of
from billing.services.batch_items import Draft, read_items, with_model
from billing.services.batch_results import finish_if_done
from billing.services.batch_terms import BatchTerms, Way, read_terms
from billing.services.holds import Holder, take_hold
from turnpike.contracts.snapshots import Budget, KeySnapshot, TenantWho
from turnpike.kernel import clock, ids
from turnpike.kernel.errors import InvalidInput, LimitReached, NotFound, TurnpikeError
from turnpike.kernel.sealing import DataKey

LASTS = timedelta(hours=24)
ROWS_AT_ONCE = 1_000
# What one upstream is sent at once, and what one worker has in memory.
PART_ITEMS_MAX = 10_000
PART_BYTES_MAX = 48 * 1024 * 1024
SINGLE_PART_ITEMS_MAX = 500
# Unfinished items of one tenant.
QUEUED_MAX = 200_000


@dataclass(slots=True, kw_only=True)
class _Plan:
    """Which part each item goes with; a part is closed when it is full."""

    parts: list[BatchPart] = field(default_factory=list)
    open: dict[tuple[int | None, int | None], int] = field(default_factory=dict)
    items: dict[int, int] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)

    def part_for(self, way: Way, *, size: int, batch: MessageBatch) -> int:
        """The number of the part that an item of this size joins."""
        key = way.upstream, way.credential
        number = self.open.get(key)
        items_max = SINGLE_PART_ITEMS_MAX if way.upstream is None else PART_ITEMS_MAX
        if (
            number is None
            or self.items[number] >= items_max
            or self.sizes[number] + size > PART_BYTES_MAX
        ):
            number = self._begin(way, batch)
        self.items[number] += 1
        self.sizes[number] += size
        return number

    def _begin(self, way: Way, batch: MessageBatch) -> int:
        number = len(self.parts)
        self.parts.append(
            BatchPart(
                tenant_id=batch.tenant_id,
                batch=batch,
                number=number,
                upstream_id=way.upstream,
                credential_id=way.credential,
                due_at=batch.created_at,
            )
        )
        self.open[way.upstream, way.credential] = number
        self.items[number] = self.sizes[number] = 0
        return number


def create_batch(
    *, key: KeySnapshot, who: TenantWho, body: bytes, api_version: str, betas: str
) -> MessageBatch:
    """Admit a batch in the caller's transaction, with the sum of its items' worst cases held.

    Raises InvalidInput for what is wrong with it as a whole, NotFound or PermissionDenied for a
    model that nobody may have, InsufficientCredit, LimitReached, Unavailable.
    """
    at = clock.utc_now()
    terms = read_terms(key, at=at)
    _refuse_denied_betas(betas, terms)
    batch_id = ids.uuid7()
    data_key, sealed_key = make_batch_key(batch_id)
    batch = MessageBatch.objects.create(
        id=batch_id,
        tenant_id=key.tenant,
        workspace_id=key.workspace,
        api_key_id=key.key,
        member=key.member or "",
        created_at=at,
        expires_at=at + LASTS,
        api_version=api_version[:40],
        betas=betas,
        price_set_id=terms.price_set.price_set,
        discount_bp=terms.discount_bp,
        sealed_key=sealed_key,
        item_count=0,
    )
    plan = _Plan()
    count = hold_micro = 0
    rows: list[BatchItem] = []
    for row in _rows_of(read_items(body), batch, terms, plan, data_key):
        rows.append(row)
        count, hold_micro = count + 1, hold_micro + row.hold_micro
        if len(rows) >= ROWS_AT_ONCE:
            BatchItem.objects.bulk_create(rows)
            rows.clear()
    BatchItem.objects.bulk_create(rows)
    BatchPart.objects.bulk_create(plan.parts)
    MessageBatch.objects.filter(pk=batch_id).update(item_count=count)
    batch.item_count = count
    _hold(batch, key, who, hold_micro=hold_micro)
    if not plan.parts:
        finish_if_done(batch=batch_id)
        batch.refresh_from_db()
    return batch


def _hold(batch: MessageBatch, key: KeySnapshot, who: TenantWho, *, hold_micro: int) -> None:
    """The last step: from here to the commit nobody else moves this tenant's money."""
    lock_wallet(tenant=batch.tenant_id)
    unfinished = MessageBatch.objects.filter(tenant_id=batch.tenant_id, ended_at=None)
    queued = unfinished.aggregate(total=Sum("item_count"))["total"] or 0
    if queued > QUEUED_MAX:
        raise LimitReached(
            f"This batch would exceed the limit of {QUEUED_MAX:,} requests in the batches of your"
            " account that have not ended."
        )
    workspace = who.workspaces.get(str(key.workspace))
    budgets: list[tuple[str, Budget]] = [("t", budget) for budget in who.budgets]
    if workspace is not None:
        budgets += [(f"w{key.workspace}", budget) for budget in workspace.budgets]
    budgets += [(f"k{key.key}", budget) for budget in key.budgets]
    take_hold(
        holder=Holder(
            tenant=key.tenant, workspace=key.workspace, key=key.key, budgets=tuple(budgets)
        ),
        hold=batch.id,
        ref=f"batch:{batch.id}",
        amount_micro=hold_micro,
        at=batch.created_at,
        expires_at=batch.expires_at,
    )


def _rows_of(
    drafts: Iterator[Draft],
    batch: MessageBatch,
    terms: BatchTerms,
    plan: _Plan,
    data_key: DataKey,
) -> Iterator[BatchItem]:
    ways: dict[str, Way] = {}
    for draft in drafts:
        request_id = ids.derived_uuid7(batch.id, draft.number)
        row = BatchItem(
            batch=batch,
            number=draft.number,
            tenant_id=batch.tenant_id,
            part=-1,
            request_id=request_id,
            custom_id=draft.custom_id,
        )
        if draft.demand is None:
            row.state = BatchItem.State.ERRORED
            error = error_result("invalid_request_error", draft.problem, request_id=request_id)
            row.result = data_key.seal(error, place=place_of(draft.number, "result"))
            yield row
            continue
        try:
            way = ways.get(draft.model) or terms.way_of(draft.model)
            row.hold_micro = terms.hold_of(draft.demand, model=way.model)
        except TurnpikeError as error:
            raise _at_item(error, draft) from error
        ways[draft.model] = way
        row.model, row.requested_model = way.model, draft.model
        row.upstream_model = way.upstream_model
        params = with_model(draft.params, way.upstream_model)
        row.params = data_key.seal(params, place=place_of(draft.number, "params"))
        row.part = plan.part_for(way, size=len(params), batch=batch)
        yield row


def _at_item(error: TurnpikeError, draft: Draft) -> TurnpikeError:
    """The same refusal, which says whose item caused it."""
    if isinstance(error, NotFound | InvalidInput):
        return type(error)(f"requests.{draft.number}.params.{error.message}")
    return error


def _refuse_denied_betas(betas: str, terms: BatchTerms) -> None:
    sent = [value.strip() for value in betas.split(",")]
    refused = ", ".join(f"`{value}`" for value in sent if value in terms.denied_betas)
    if refused:
        raise InvalidInput(f"Unexpected value(s) {refused} for the `anthropic-beta` header")
