"""rate_again: what requests cost under the price that should have been in force, as differences.

Events keep what they were charged. A difference goes to the month of its request while that month
has no final invoice; what a final invoice asked too much for goes to a credit note; the rest goes
to the month that is open now. Each run happens once under its key, tenant by tenant.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import connection
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.db.models import Sum

from billing.locks import lock_invoice, lock_period, lock_wallet
from billing.models.catalog import Price, PriceBook, PriceSet
from billing.models.invoices import Invoice, RatingDifference, RatingRun
from billing.models.ledger import BillingPeriod, Wallet
from billing.models.usage import UsageEvent as EventRow
from billing.services.catalog_file import PriceRow
from billing.services.charging import charge_for
from billing.services.credit_notes import CreditItem, credit_corrections
from billing.services.invoices import redraft_invoice
from billing.services.periods import period_for
from billing.services.prices import load_price_sets
from billing.services.wallet import charge_correction
from turnpike.contracts import snapshots
from turnpike.contracts.usage import UsageEvent
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids, money
from turnpike.kernel.errors import Conflict, InvalidInput, NotFound

REQUESTS_MAX = 2_000_000
READ_AT_ONCE = 2_000
REASON_LENGTH_MAX = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrected:
    """What a run came to: how many requests changed, by how much in each currency."""

    run: UUID
    tenants: int
    requests: int
    nanos: Mapping[str, int]
    credit_notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    request: UUID
    period: int
    before: int
    after: int


def make_corrected_set(*, wrong_set: int, rows: Iterable[PriceRow], name: str) -> PriceSet:
    """The set that should have been in force: the wrong one's span, these rows for their models.

    It stands in a book of its own that nobody buys from. The same name again is the same set, as
    long as it has the same prices.
    """
    new = list(rows)
    names = {row.model for row in new}
    with platform_scope("billing.make_corrected_set"):
        wrong = PriceSet.objects.select_related("book").filter(pk=wrong_set).first()
        if wrong is None:
            raise NotFound(f"There is no price set {wrong_set}.")
        kept: list[Price | PriceRow] = [row for row in wrong.prices.all() if row.model not in names]
        known = PriceSet.objects.filter(book__name=name).first()
        if known is not None:
            if _places(known.prices.all()) != _places([*kept, *new]):
                raise Conflict(f"The price book {name!r} exists, with other prices.")
            return known
        book = PriceBook.objects.create(name=name, currency=wrong.book.currency)
        span = DateTimeTZRange(wrong.effective.lower, wrong.effective.upper)
        made = PriceSet.objects.create(book=book, effective=span)
        Price.objects.bulk_create(
            Price(
                price_set=made,
                model=row.model,
                component=row.component,
                variant=row.variant,
                min_input=row.min_input,
                nano_per_mtok=row.nano_per_mtok,
                nano_per_unit=row.nano_per_unit,
            )
            for row in [*kept, *new]
        )
    return made


def _places(rows: Iterable[Price | PriceRow]) -> set[tuple[object, ...]]:
    return {
        (row.model, row.component, row.variant, row.min_input, row.nano_per_mtok, row.nano_per_unit)
        for row in rows
    }


def rate_again(
    *,
    wrong_set: int,
    right_set: int,
    since: datetime,
    until: datetime,
    reason: str,
    idempotency_key: str,
    actor: str,
    at: datetime,
    tenants: Sequence[int] | None = None,
) -> Corrected:
    """Rate the requests of a span that were charged under one set under another one, and post it.

    The same key again goes on where it stopped, and changes nothing where it had finished.
    """
    run = _get_run(
        wrong_set=wrong_set,
        right_set=right_set,
        since=since,
        until=until,
        reason=reason.strip(),
        idempotency_key=idempotency_key,
        actor=actor,
    )
    if run.finished_at is None:
        for tenant in _tenants_of(run) if tenants is None else tenants:
            with platform_scope("billing.rate_again"):
                _correct_tenant(run, tenant, at=at)
    with platform_scope("billing.rate_again"):
        RatingRun.objects.filter(pk=run.pk, finished_at=None).update(finished_at=at)
        return _result(run)


def charged_now(row: EventRow, *, price_set: snapshots.PriceSet) -> int:
    """What a request's newest event comes to under a price set, at most its hold."""
    return int(charge_for(event_of(row), price_set=price_set).numbers["amount_nano"])


def event_of(row: EventRow) -> UsageEvent:
    """An event as the data plane wrote it, as far as its price depends on it."""
    return UsageEvent(
        rid=str(row.request_id),
        rank=row.rank,
        status=row.status,
        tenant=row.tenant_id,
        workspace=row.workspace_id,
        key=row.api_key_id,
        model=row.model,
        upstream_model=row.upstream_model,
        price_set=row.price_set_id,
        started_at_us=clock.us_of_datetime(row.started_at),
        finished_at_us=clock.us_of_datetime(row.finished_at),
        hold_micro=row.hold_micro,
        usage=row.raw_usage,
        tier="batch" if row.is_batch else row.tier.split("+")[0],
        discount_bp=row.discount_bp,
        stop_reason=row.stop_reason,
    )


def _get_run(
    *,
    wrong_set: int,
    right_set: int,
    since: datetime,
    until: datetime,
    reason: str,
    idempotency_key: str,
    actor: str,
) -> RatingRun:
    if not 0 < len(reason) <= REASON_LENGTH_MAX:
        raise InvalidInput(f"reason must have 1 to {REASON_LENGTH_MAX} characters.", field="reason")
    values = {
        "wrong_set_id": wrong_set,
        "right_set_id": right_set,
        "since": since,
        "until": until,
        "reason": reason,
    }
    with platform_scope("billing.rate_again"):
        sets = load_price_sets([wrong_set, right_set])
        for number in (wrong_set, right_set):
            if number not in sets:
                raise NotFound(f"There is no price set {number}.")
        if sets[wrong_set].currency != sets[right_set].currency:
            raise InvalidInput("Both price sets are in the same currency.", field="right_set")
        run, _ = RatingRun.objects.get_or_create(
            idempotency_key=idempotency_key, defaults={**values, "actor": actor}
        )
    if any(getattr(run, name) != value for name, value in values.items()):
        raise Conflict(f"The key {idempotency_key!r} was used before with other content.")
    return run


def _tenants_of(run: RatingRun) -> list[int]:
    rows = EventRow.objects.filter(
        price_set_id=run.wrong_set_id, started_at__gte=run.since, started_at__lt=run.until
    )
    with platform_scope("billing.rate_again"):
        return list(rows.order_by("tenant_id").values_list("tenant_id", flat=True).distinct())


def _correct_tenant(run: RatingRun, tenant: int, *, at: datetime) -> None:
    wallet = lock_wallet(tenant=tenant)
    if RatingDifference.objects.filter(run=run, tenant=tenant).exists():
        return  # the run was stopped after this tenant
    right = load_price_sets([run.right_set_id])[run.right_set_id]
    by_period: dict[int, list[_Change]] = defaultdict(list)
    for found, change in enumerate(_changes(run, tenant, right), start=1):
        if found > REQUESTS_MAX:
            raise Conflict("These are too many requests for one run: choose a shorter span.")
        by_period[change.period].append(change)
    for period, changes in sorted(by_period.items()):
        _place(run, wallet, lock_period(period=period), changes, at=at)


def _changes(run: RatingRun, tenant: int, right: snapshots.PriceSet) -> Iterator[_Change]:
    earlier = dict(
        RatingDifference.objects.filter(tenant=tenant)
        .order_by("request_id")
        .values("request_id")
        .annotate(nanos=Sum("difference_nano"))
        .values_list("request_id", "nanos")
    )
    rows = EventRow.objects.filter(
        tenant_id=tenant,
        price_set_id=run.wrong_set_id,
        started_at__gte=run.since,
        started_at__lt=run.until,
        request_id__gte=ids.uuid7_floor(run.since),
    )
    numbers = rows.order_by("request_id").values_list("request_id", flat=True).distinct()
    after: UUID | None = None
    while True:
        page = numbers if after is None else numbers.filter(request_id__gt=after)
        requests = list(page[:READ_AT_ONCE])
        if not requests:
            return
        for newest, charged in _best_of(requests):
            before = charged + earlier.get(newest.request_id, 0)
            now = charged_now(newest, price_set=right)
            if now != before:
                yield _Change(
                    request=newest.request_id,
                    period=newest.period_id,
                    before=before,
                    after=now,
                )
        after = requests[-1]


def _best_of(requests: Sequence[UUID]) -> Iterator[tuple[EventRow, int]]:
    """Each request's newest event, and what all its revisions charged."""
    newest: dict[UUID, EventRow] = {}
    charged: dict[UUID, int] = defaultdict(int)
    for row in EventRow.objects.filter(request_id__in=requests).order_by("request_id", "revision"):
        newest[row.request_id] = row
        charged[row.request_id] += row.amount_nano
    for request, row in newest.items():
        yield row, charged[request]


def _place(
    run: RatingRun,
    wallet: Wallet,
    period: BillingPeriod,
    changes: Sequence[_Change],
    *,
    at: datetime,
) -> None:
    nanos = sum(change.after - change.before for change in changes)
    invoice = Invoice.objects.filter(period=period, kind=Invoice.Kind.INVOICE)
    live = invoice.exclude(status=Invoice.Status.VOID).first()
    row = None if live is None else lock_invoice(invoice=live.pk)
    key = f"rating:{run.uuid}:{wallet.tenant_id}:{period.pk}"
    if row is not None and row.status != Invoice.Status.DRAFT and nanos < 0:
        item = CreditItem(
            text=run.reason,
            net=money.round_to_minor(-nanos, row.currency),
            exact=-nanos,
            requests=len(changes),
        )
        note = credit_corrections(row=row, item=item, key=key, at=at, actor=run.actor)
        if note is not None:
            _keep(run, wallet.tenant_id, changes, key=key, credit_note=note)
            return
    is_draft = row is not None and row.status == Invoice.Status.DRAFT
    target = period
    if period.state == BillingPeriod.State.CLOSED and not is_draft:
        target = _open_period(wallet.tenant_id, at)
    charge_correction(
        tenant=wallet.tenant_id,
        amount=nanos,
        key=key,
        currency=wallet.currency,
        actor=run.actor,
        reason=run.reason,
    )
    _keep(run, wallet.tenant_id, changes, key=key, period=target)
    if is_draft:
        assert row is not None
        redraft_invoice(invoice=row.pk)


def _open_period(tenant: int, at: datetime) -> BillingPeriod:
    """The tenant's period that takes usage now, kept from closing."""
    while True:
        period = lock_period(period=period_for(tenant, at).pk)
        if period.state != BillingPeriod.State.CLOSED:
            return period


def _keep(
    run: RatingRun,
    tenant: int,
    changes: Sequence[_Change],
    *,
    key: str,
    period: BillingPeriod | None = None,
    credit_note: Invoice | None = None,
) -> None:
    RatingDifference.objects.bulk_create(
        (
            RatingDifference(
                run=run,
                tenant_id=tenant,
                request_id=change.request,
                period=period,
                credit_note=credit_note,
                posting_key=key,
                before_nano=change.before,
                after_nano=change.after,
                difference_nano=change.after - change.before,
            )
            for change in changes
        ),
        batch_size=READ_AT_ONCE,
    )


def _result(run: RatingRun) -> Corrected:
    with connection.cursor() as cursor:
        cursor.execute(_RESULT, [run.pk])
        rows = cursor.fetchall()
    notes = Invoice.objects.filter(differences__run=run).order_by("pk").distinct()
    return Corrected(
        run=run.uuid,
        tenants=sum(row[1] for row in rows),
        requests=sum(row[2] for row in rows),
        nanos={row[0]: int(row[3]) for row in rows},
        credit_notes=tuple(str(note.number) for note in notes),
    )


_RESULT = """
SELECT wallet.currency, count(DISTINCT item.tenant_id), count(*), sum(item.difference_nano)
FROM billing_rating_difference AS item JOIN billing_wallet AS wallet USING (tenant_id)
WHERE item.run_id = %s GROUP BY wallet.currency ORDER BY wallet.currency
"""
