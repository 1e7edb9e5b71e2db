"""rate_sample: requests picked by chance, rated again from what their events keep.

An event names its price set, which never changes, and has the upstream's own usage. So the same
numbers must come out on any day; the sum over a request's revisions is compared with them.
"""

import random
from collections.abc import Iterator, Mapping
from datetime import datetime
from uuid import UUID

from billing.models.differences import ReconciliationItem
from billing.models.usage import NUMBER_COLUMNS, UsageEvent
from billing.services.charging import charge_for
from billing.services.correction import event_of
from billing.services.findings import Difference, Finding, finding_of
from billing.services.prices import load_price_sets
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids

CHECK = "rated_again"
SPOTS = 25
AT_A_SPOT = 8
AGAIN_MAX = 200


def rate_sample(*, until: datetime) -> Finding:
    """Rate some requests from before `until` again, and all that differed when looked at last."""
    with platform_scope("reconcile"):
        requests = {*_by_chance(until), *_differed_last()}
        rows = _differences(requests)
    return finding_of(CHECK, rows, covered=frozenset((str(request),) for request in requests))


def _by_chance(until: datetime) -> Iterator[UUID]:
    """The next requests after some moments between the first event and the last."""
    events = UsageEvent.objects.filter(request_id__lt=ids.uuid7_floor(until))
    first = events.order_by("request_id").values_list("request_id", flat=True).first()
    last = events.order_by("-request_id").values_list("request_id", flat=True).first()
    if first is None or last is None:
        return
    chance = random.SystemRandom()
    for _ in range(SPOTS):
        at_ms = chance.randint(ids.uuid7_ms(first), ids.uuid7_ms(last))
        spot = ids.uuid7_floor(clock.datetime_of_us(at_ms * 1_000))
        found = events.filter(request_id__gte=spot, revision=0).order_by("request_id")
        yield from found.values_list("request_id", flat=True)[:AT_A_SPOT]


def _differed_last() -> list[UUID]:
    items = ReconciliationItem.objects.filter(kind=CHECK, gone_at=None).order_by("-pk")
    return [UUID(cause) for cause in items.values_list("cause", flat=True)[:AGAIN_MAX]]


def _differences(requests: set[UUID]) -> list[Difference]:
    by_request: dict[UUID, list[UsageEvent]] = {}
    rows = UsageEvent.objects.filter(request_id__in=requests).order_by("request_id", "revision")
    for row in rows:
        by_request.setdefault(row.request_id, []).append(row)
    price_sets = load_price_sets(revisions[-1].price_set_id for revisions in by_request.values())
    found = []
    for request, revisions in by_request.items():
        newest = revisions[-1]
        stored = {name: sum(getattr(row, name) for row in revisions) for name in NUMBER_COLUMNS}
        rated = charge_for(event_of(newest), price_set=price_sets[newest.price_set_id]).numbers
        wrong = [name for name in NUMBER_COLUMNS if stored[name] != rated[name]]
        if wrong:
            found.append(_difference(newest, request, wrong, stored=stored, rated=rated))
    return found


def _difference(
    row: UsageEvent,
    request: UUID,
    wrong: list[str],
    *,
    stored: Mapping[str, int],
    rated: Mapping[str, int],
) -> Difference:
    figures = [f"{name} {stored[name]}, rated {rated[name]}" for name in wrong]
    return Difference(
        cause=(str(request),),
        evidence=(
            ("request_id", str(request)),
            ("tenant_id", str(row.tenant_id)),
            ("price_set_id", str(row.price_set_id)),
            *((name, f"{stored[name]}, rated {rated[name]}") for name in wrong),
        ),
        text=f"{request}: {'; '.join(figures)}",
    )
