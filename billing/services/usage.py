"""post_usage: usage events into PostgreSQL in one transaction, each exactly once.

The events' primary key decides; everything that follows from an event (ledger, rollups, counters,
attempts) is written only for rows that the insert returned. Locks are taken in the order of
`billing.locks`: wallets first, so that two batches of one tenant wait here and nowhere else.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from accounts.models import Tenant
from billing.locks import lock_wallet, share_period
from billing.models.ledger import BillingPeriod
from billing.models.usage import NUMBER_COLUMNS
from billing.services.budget_alerts import note_crossings
from billing.services.charging import charge_for
from billing.services.events import (
    Known,
    Placement,
    event_row,
    insert_events,
    read_known,
    revision_row,
    write_attempts,
)
from billing.services.letters import Letter, write_letters
from billing.services.periods import month_of, period_for
from billing.services.prices import load_price_sets
from billing.services.rollups import (
    RollupChange,
    RollupKey,
    Spending,
    add_to_counters,
    add_to_rollups,
    bucket_of,
)
from billing.services.wallet import charge_usage
from turnpike.contracts.snapshots import PriceSet
from turnpike.contracts.usage import UsageEvent
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids

Mark = Callable[[str], None]
PERIOD_TRIES_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """An event as it was read from a stream."""

    event: UsageEvent
    request: UUID
    fingerprint: bytes
    body: bytes
    stream: str = ""
    stream_id: str = ""

    def letter(self, error: str) -> Letter:
        """The dead letter of this event."""
        return Letter(
            stream=self.stream,
            stream_id=self.stream_id,
            body=self.body,
            fingerprint=self.fingerprint,
            request=self.request,
            error=error,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PostedUsage:
    """What a batch came to: the rank that PostgreSQL now has of each request, by tenant."""

    ranks: Mapping[int, Mapping[str, int]]
    inserted: int
    letters: int


@dataclass(slots=True, kw_only=True)
class _Books:
    """One batch while it is posted."""

    posting: UUID
    price_sets: Mapping[int, PriceSet]
    currencies: Mapping[int, str]
    periods: dict[tuple[int, datetime], BillingPeriod] = field(default_factory=dict)
    letters: list[Letter] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    changes: list[RollupChange] = field(default_factory=list)
    spendings: list[Spending] = field(default_factory=list)


def no_mark(_point: str) -> None:
    """Nobody watches where the transaction stands."""


def post_usage(
    *, events: Sequence[Incoming], letters: Sequence[Letter] = (), mark: Mark = no_mark
) -> PostedUsage:
    """Post a batch; what cannot be posted becomes a dead letter in the same transaction.

    Of one request the best rank counts. An event of a higher rank than the stored one revises it by
    the difference, so that the sum is at most the better event's hold. Same or lower: no effect.
    `mark` is told the points at which a crash would hurt most.
    """
    with platform_scope("post usage"):
        books = _Books(
            posting=ids.uuid7(),
            price_sets=load_price_sets(item.event.price_set for item in events),
            currencies=_lock_wallets(events),
            letters=list(letters),
        )
        best = {item.request: item for item in _postable(_best_of(events), books)}
        rows = {request: _row_of(item, books) for request, item in sorted(best.items())}
        new = insert_events(list(rows.values()))
        for request in new:
            _note_first(rows[request], books)
        ranks = {request: item.event.rank for request, item in best.items()}
        revised = _revise(best, rows, best.keys() - new, books=books, ranks=ranks)
        mark("inserted")
        _charge(books)
        write_attempts([(request, best[request].event) for request in sorted(new | revised)])
        add_to_rollups(books.changes)
        add_to_counters(books.spendings)
        _note_crossings(books)
        write_letters(books.letters)
        mark("charged")
    return PostedUsage(
        ranks=_by_tenant(best, ranks), inserted=len(books.rows), letters=len(books.letters)
    )


def _best_of(events: Iterable[Incoming]) -> list[Incoming]:
    best: dict[UUID, Incoming] = {}
    for item in events:
        other = best.get(item.request)
        if other is None or item.event.rank > other.event.rank:
            best[item.request] = item
    return list(best.values())


def _lock_wallets(events: Iterable[Incoming]) -> dict[int, str]:
    """Lock the wallets of all tenants that exist, by rising number; returns their currencies."""
    named = {item.event.tenant for item in events}
    known = Tenant.objects.filter(pk__in=named).order_by("pk").values_list("pk", flat=True)
    return {tenant: lock_wallet(tenant=tenant).currency for tenant in list(known)}


def _postable(events: Iterable[Incoming], books: _Books) -> list[Incoming]:
    fit = []
    for item in events:
        event = item.event
        price_set = books.price_sets.get(event.price_set)
        if event.tenant not in books.currencies:
            books.letters.append(item.letter(f"tenant {event.tenant} does not exist"))
        elif price_set is None:
            books.letters.append(item.letter(f"price set {event.price_set} does not exist"))
        elif price_set.currency != books.currencies[event.tenant]:
            books.letters.append(item.letter(f"the wallet is not kept in {price_set.currency}"))
        else:
            fit.append(item)
    return fit


def _row_of(item: Incoming, books: _Books) -> dict[str, Any]:
    event = item.event
    finished_at = clock.datetime_of_us(event.finished_at_us)
    period = _share_period(event.tenant, finished_at, books)
    return event_row(
        event,
        request=item.request,
        fingerprint=item.fingerprint,
        charge=charge_for(event, price_set=books.price_sets[event.price_set]),
        placement=Placement(
            period=period.pk,
            is_late=period.starts_at != month_of(finished_at),
            posting=books.posting,
        ),
    )


def _share_period(tenant: int, at: datetime, books: _Books) -> BillingPeriod:
    """The period that takes the event, kept from closing until the batch is committed."""
    key = tenant, month_of(at)
    for _ in range(PERIOD_TRIES_MAX):
        if key in books.periods:
            return books.periods[key]
        period = share_period(period=period_for(tenant, at).pk)
        if period.state != BillingPeriod.State.CLOSED:
            books.periods[key] = period
    return books.periods[key]


def _note_first(row: dict[str, Any], books: _Books) -> None:
    books.rows.append(row)
    books.changes.append(RollupChange(key=_rollup_key(row), requests=1, numbers=row))
    books.spendings.append(_spending(row))


def _revise(
    best: dict[UUID, Incoming],
    rows: Mapping[UUID, dict[str, Any]],
    stored: Iterable[UUID],
    *,
    books: _Books,
    ranks: dict[UUID, int],
) -> set[UUID]:
    """Insert what improves on stored events; returns those requests, and notes what ranks stand."""
    revisions = []
    for request, known in sorted(read_known(stored).items()):
        item = best[request]
        if known.tenant != item.event.tenant:
            books.letters.append(item.letter("the request belongs to another tenant"))
            del best[request]
        elif item.event.rank <= known.rank:
            ranks[request] = known.rank
        else:
            row = revision_row(rows[request], known=known)
            revisions.append(row)
            books.changes.extend(_moved(row, rows[request], known))
            books.spendings.append(_spending(row))
    books.rows.extend(revisions)
    return insert_events(revisions)


def _moved(row: Mapping[str, Any], whole: Mapping[str, Any], known: Known) -> list[RollupChange]:
    """What a revision does to the rollups: a difference, or a move to the row of its new words."""
    before = RollupKey(
        tenant_id=known.tenant,
        bucket_at=bucket_of(known.started_at),
        workspace_id=known.workspace,
        api_key_id=known.key,
        model=known.model,
        tier=known.tier,
        context_window=known.context_window,
    )
    after = _rollup_key(row)
    if before == after:
        return [RollupChange(key=after, requests=0, numbers=row)]
    taken = {name: -known.sums[name] for name in NUMBER_COLUMNS}
    return [
        RollupChange(key=before, requests=-1, numbers=taken),
        RollupChange(key=after, requests=1, numbers=whole),
    ]


def _charge(books: _Books) -> None:
    """One ledger transaction for each tenant: the sum of its rows."""
    amounts: dict[int, int] = defaultdict(int)
    for row in books.rows:
        amounts[row["tenant_id"]] += row["amount_nano"]
    for tenant, amount in sorted(amounts.items()):
        if amount != 0:
            charge_usage(
                tenant=tenant,
                amount=amount,
                posting_id=str(books.posting),
                currency=books.currencies[tenant],
            )


def _note_crossings(books: _Books) -> None:
    """What was charged may have brought a budget to one of its thresholds."""
    days = {item.started_at.astimezone(UTC).strftime("%Y-%m-%d") for item in books.spendings}
    note_crossings(
        tenants={item.tenant for item in books.spendings if item.amount},
        periods=days | {day[:7] for day in days},
        at=clock.utc_now(),
    )


def _rollup_key(row: Mapping[str, Any]) -> RollupKey:
    return RollupKey(
        tenant_id=row["tenant_id"],
        bucket_at=bucket_of(datetime.fromisoformat(row["started_at"])),
        workspace_id=row["workspace_id"],
        api_key_id=row["api_key_id"],
        model=row["model"],
        tier=row["tier"],
        context_window=row["context_window"],
    )


def _spending(row: Mapping[str, Any]) -> Spending:
    return Spending(
        tenant=row["tenant_id"],
        workspace=row["workspace_id"],
        key=row["api_key_id"],
        started_at=datetime.fromisoformat(row["started_at"]),
        amount=row["amount_nano"],
    )


def _by_tenant(
    best: Mapping[UUID, Incoming], ranks: Mapping[UUID, int]
) -> dict[int, dict[str, int]]:
    ordered: dict[int, dict[str, int]] = defaultdict(dict)
    for request, item in best.items():
        ordered[item.event.tenant][str(request)] = ranks[request]
    return dict(ordered)
