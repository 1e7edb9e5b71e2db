"""rehearse: what another price, discount or tier would have done to usage that happened.

Every request of a span is rated again with the change applied to the prices that it had, and (for a
tier) walked through the same buckets as the limiter's. Nothing is written.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from heapq import heappop, heappush
from uuid import UUID

from django.db.models import Exists, OuterRef

from accounts.models import Tenant
from billing.models.tiers import Tier
from billing.models.usage import UsageEvent as EventRow
from billing.services.catalog_file import PriceRow
from billing.services.charging import charge_for
from billing.services.correction import event_of
from billing.services.prices import load_price_sets
from turnpike.contracts.snapshots import Limits, Price, PriceSet
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids
from turnpike.kernel.errors import InvalidInput, NotFound
from turnpike.kernel.money import ceil_div

REQUESTS_MAX = 2_000_000
READ_AT_ONCE = 2_000
MINUTE_US = 60_000_000
DEFAULT_BURST_SECONDS = 60
DISCOUNT_BP_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What is proposed: prices that replace those of the same place, a discount, a tier."""

    rows: Sequence[PriceRow] = ()
    discount_bp: int | None = None
    tier: str = ""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """One tenant's span: what it was charged, what it would have been, and what was refused."""

    tenant: str
    name: str
    currency: str
    requests: int = 0
    before_nano: int = 0
    after_nano: int = 0
    refused: int = 0
    by_model: dict[str, tuple[int, int]] = field(default_factory=dict)


def rehearse(
    *, since: datetime, until: datetime, proposal: Proposal, tenant: int | None = None
) -> list[Outcome]:
    """The outcome for every tenant with usage in the span, the largest change first."""
    if not since < until:
        raise InvalidInput("The span ends after it begins.", field="until")
    if proposal.discount_bp is not None and not 0 <= proposal.discount_bp <= DISCOUNT_BP_MAX:
        raise InvalidInput("A discount is 0 to 10000 basis points.", field="discount_bp")
    with platform_scope("billing.rehearse"):
        limits = _limits(proposal.tier)
        outcomes: dict[tuple[int, str], Outcome] = {}
        walks: dict[int, _Walk] = defaultdict(lambda: _Walk(limits))
        changed: dict[int, PriceSet] = {}
        names = {row.pk: row for row in Tenant.objects.all()} if tenant is None else {}
        for row, charged in _requests(since, until, tenant):
            owner = names.get(row.tenant_id) or Tenant.objects.get(pk=row.tenant_id)
            names[row.tenant_id] = owner
            outcome = outcomes.setdefault(
                (row.tenant_id, row.currency),
                Outcome(tenant=owner.public_id, name=owner.name, currency=row.currency),
            )
            after = _after(row, charged, proposal, changed)
            _add(outcome, row.model, charged, after)
            if limits is not None and not walks[row.tenant_id].admits(row):
                outcome.refused += 1
    found = outcomes.values()
    return sorted(found, key=lambda item: -abs(item.after_nano - item.before_nano))


def _add(outcome: Outcome, model: str, before: int, after: int) -> None:
    outcome.requests += 1
    outcome.before_nano += before
    outcome.after_nano += after
    known = outcome.by_model.get(model, (0, 0))
    outcome.by_model[model] = known[0] + before, known[1] + after


def _after(row: EventRow, charged: int, proposal: Proposal, changed: dict[int, PriceSet]) -> int:
    if not proposal.rows and proposal.discount_bp is None:
        return charged
    if row.price_set_id not in changed:
        known = load_price_sets([row.price_set_id])[row.price_set_id]
        changed[row.price_set_id] = with_prices(known, proposal.rows)
    event = event_of(row)
    if proposal.discount_bp is not None:
        event.discount_bp = proposal.discount_bp
    # Not capped by the hold that was in force: under other prices another one would have been.
    event.hold_micro = 2**53
    numbers = charge_for(event, price_set=changed[row.price_set_id]).numbers
    return int(numbers["amount_nano"])


def with_prices(known: PriceSet, rows: Sequence[PriceRow]) -> PriceSet:
    """A price set with some rows replaced or added, for calculations alone."""
    prices: dict[str, tuple[Price, ...]] = dict(known.prices)
    for row in rows:
        place = row.component, row.variant, row.min_input
        kept = [
            item
            for item in prices.get(row.model, ())
            if (item.component, item.variant, item.min_input) != place
        ]
        made = Price(
            component=row.component,
            variant=row.variant,
            min_input=row.min_input,
            nano_per_mtok=row.nano_per_mtok,
            nano_per_unit=row.nano_per_unit,
        )
        prices[row.model] = (*kept, made)
    return replace(known, price_set=-known.price_set, prices=prices)


def _limits(tier: str) -> Limits | None:
    if not tier:
        return None
    row = Tier.objects.filter(code=tier).first()
    if row is None:
        raise NotFound(f"There is no tier {tier!r}.")
    limits: Limits = row.limits
    return limits


def _requests(
    since: datetime, until: datetime, tenant: int | None
) -> Iterator[tuple[EventRow, int]]:
    """The newest revision of each request in the order of their ids, and what all charged."""
    newer = EventRow.objects.filter(
        request_id=OuterRef("request_id"), revision__gt=OuterRef("revision")
    )
    heads = EventRow.objects.filter(
        ~Exists(newer),
        request_id__gte=ids.uuid7_floor(since),
        request_id__lt=ids.uuid7_floor(until),
    ).defer("components")
    if tenant is not None:
        heads = heads.filter(tenant_id=tenant)
    after, seen = None, 0
    while True:
        page = heads if after is None else heads.filter(request_id__gt=after)
        rows = list(page.order_by("request_id")[:READ_AT_ONCE])
        seen += len(rows)
        if seen > REQUESTS_MAX:
            raise InvalidInput("These are too many requests: choose a shorter span.", field="since")
        sums = _charged([row.request_id for row in rows if row.revision])
        for row in rows:
            yield row, sums.get(row.request_id, row.amount_nano)
        if len(rows) < READ_AT_ONCE:
            return
        after = rows[-1].request_id


def _charged(requests: Sequence[UUID]) -> Mapping[UUID, int]:
    sums: dict[UUID, int] = defaultdict(int)
    rows = EventRow.objects.filter(request_id__in=requests)
    for request, amount in rows.values_list("request_id", "amount_nano"):
        sums[request] += amount
    return sums


class _Walk:
    """One tenant's requests through a tier's buckets and slots, as the limiter would have."""

    def __init__(self, limits: Limits | None) -> None:
        self._limits = limits or Limits()
        self._full_at = {"requests": 0, "tokens": 0}
        self._running: list[int] = []

    def admits(self, row: EventRow) -> bool:
        """Whether the request would have been let in; if so it takes its share."""
        now = clock.us_of_datetime(row.started_at)
        while self._running and self._running[0] <= now:
            heappop(self._running)
        slots = self._limits.concurrency
        if slots is not None and len(self._running) >= slots:
            return False
        tokens = row.input_tokens + row.output_tokens
        tokens += row.cache_write_5m_tokens + row.cache_write_1h_tokens
        wanted = (
            ("requests", 1, self._limits.requests_per_minute),
            ("tokens", tokens, self._limits.tokens_per_minute),
        )
        burst = (self._limits.burst_seconds or DEFAULT_BURST_SECONDS) * 1_000_000
        filled = {}
        for name, count, limit in wanted:
            if limit is not None:
                cost = ceil_div(count * MINUTE_US, limit)
                filled[name] = max(self._full_at[name], now) + cost
                if filled[name] > now + burst:
                    return False
        self._full_at.update(filled)
        heappush(self._running, clock.us_of_datetime(row.finished_at))
        return True
