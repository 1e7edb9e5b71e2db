"""Usage in doubt: attempts whose answer nobody read, and what holds did not cover.

With each stands what the upstream's usage report of its day says beyond what our attempts say.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Exists, OuterRef

from billing.models.differences import UpstreamReportDay, UsageReview
from billing.models.usage import UpstreamAttempt, UsageEvent
from turnpike.contracts.usage import OUTCOME_CUT, OUTCOME_UNKNOWN, RANK_REPORTED
from turnpike.kernel import ids

WHOLE_REQUEST = 0
CANDIDATES_MAX = 50
ID_SLACK = timedelta(minutes=20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """One attempt, or a whole request (attempt 0), that a person decides about."""

    request: UUID
    attempt: int
    tenant: int
    upstream: int | None
    credential: int | None
    outcome: str
    model: str
    upstream_model: str
    started_at: datetime
    rank: int
    hold_micro: int
    charged_nano: int
    waived_nano: int
    currency: str

    @property
    def public_id(self) -> str:
        """The request's id."""
        return ids.public_id(ids.REQUEST, self.request)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What an upstream's report of a day says of a model; `others` share what is missing."""

    day: date
    read_at: datetime
    figures: Mapping[str, tuple[int, int]]
    others: int

    @property
    def missing(self) -> dict[str, int]:
        """What the upstream counted and we did not, by kind of token."""
        return {kind: there - here for kind, (here, there) in self.figures.items() if there > here}

    @property
    def is_its_own(self) -> bool:
        """Whether nothing else of that day and model is in doubt."""
        return self.others == 0


def list_unknown(*, limit: int, after: UUID | None = None) -> list[Doubt]:
    """Attempts whose answer nobody read and nobody decided about, newest first."""
    rows = _undecided().filter(outcome=OUTCOME_UNKNOWN)
    if after is not None:
        rows = rows.filter(request_id__lt=after)
    return _with_events(rows.order_by("-request_id", "attempt")[:limit])


def list_waived(*, limit: int, after: UUID | None = None) -> list[Doubt]:
    """Requests that were worth more than their hold, undecided, newest first."""
    reviews = UsageReview.objects.filter(request_id=OuterRef("request_id"), attempt=WHOLE_REQUEST)
    rows = UsageEvent.objects.filter(~Exists(reviews), waived_nano__gt=0)
    if after is not None:
        rows = rows.filter(request_id__lt=after)
    requests = rows.order_by("-request_id").values_list("request_id", flat=True)
    found = (_doubt(events, None) for events in _events(requests[:limit]).values())
    return [doubt for doubt in found if doubt.waived_nano > 0]


def find_doubt(*, request: UUID, attempt: int) -> Doubt | None:
    """One attempt of a request, or the request as a whole, whether in doubt or not."""
    events = _events([request]).get(request)
    if events is None:
        return None
    if attempt == WHOLE_REQUEST:
        return _doubt(events, None)
    row = UpstreamAttempt.objects.filter(request_id=request, attempt=attempt).first()
    return None if row is None else _doubt(events, row)


def list_reviews(request: UUID) -> list[UsageReview]:
    """What was decided about a request."""
    return list(UsageReview.objects.filter(request_id=request).order_by("attempt"))


def read_evidence(doubt: Doubt) -> Evidence | None:
    """What the upstream's report of that day says of the model; None where it was not read."""
    if doubt.upstream is None:
        return None
    day = doubt.started_at.astimezone(UTC).date()
    row = UpstreamReportDay.objects.filter(upstream_id=doubt.upstream, day=day).first()
    if row is None:
        return None
    figures: Mapping[str, Sequence[int]] = row.figures.get(doubt.upstream_model, {})
    same = list_candidates(upstream=doubt.upstream, day=day, model=doubt.upstream_model)
    others = [item for item in same if (item.request, item.attempt) != _place(doubt)]
    return Evidence(
        day=day,
        read_at=row.read_at,
        figures={kind: (int(pair[0]), int(pair[1])) for kind, pair in figures.items()},
        others=len(others),
    )


def list_candidates(*, upstream: int, day: date, model: str) -> list[Doubt]:
    """Attempts of a day and model that may explain why a report says something else."""
    starts = datetime(day.year, day.month, day.day, tzinfo=UTC)
    ends = starts + timedelta(days=1)
    rows = _undecided().filter(
        upstream_id=upstream,
        outcome__in=[OUTCOME_UNKNOWN, OUTCOME_CUT],
        started_at__gte=starts,
        started_at__lt=ends,
        request_id__gte=ids.uuid7_floor(starts - ID_SLACK),
        request_id__lt=ids.uuid7_floor(ends + ID_SLACK),
    )
    found = _with_events(rows.order_by("-request_id", "attempt")[: 10 * CANDIDATES_MAX])
    return [
        doubt
        for doubt in found
        if doubt.upstream_model == model
        and (doubt.outcome == OUTCOME_UNKNOWN or doubt.rank < RANK_REPORTED)
    ][:CANDIDATES_MAX]


def _undecided() -> Any:
    reviews = UsageReview.objects.filter(
        request_id=OuterRef("request_id"), attempt=OuterRef("attempt")
    )
    return UpstreamAttempt.objects.filter(~Exists(reviews))


def _place(doubt: Doubt) -> tuple[UUID, int]:
    return doubt.request, doubt.attempt


def _events(requests: Iterable[UUID]) -> dict[UUID, list[UsageEvent]]:
    found: dict[UUID, list[UsageEvent]] = defaultdict(list)
    rows = UsageEvent.objects.filter(request_id__in=list(requests))
    for row in rows.defer("components").order_by("-request_id", "revision"):
        found[row.request_id].append(row)
    return dict(found)


def _with_events(rows: Iterable[UpstreamAttempt]) -> list[Doubt]:
    attempts = list(rows)
    events = _events({row.request_id for row in attempts})
    return [_doubt(events[row.request_id], row) for row in attempts if row.request_id in events]


def _doubt(events: Sequence[UsageEvent], row: UpstreamAttempt | None) -> Doubt:
    newest = events[-1]
    return Doubt(
        request=newest.request_id,
        attempt=WHOLE_REQUEST if row is None else row.attempt,
        tenant=newest.tenant_id,
        upstream=None if row is None else row.upstream_id,
        credential=None if row is None else row.credential_id,
        outcome="" if row is None else row.outcome,
        model=newest.model,
        upstream_model=newest.upstream_model,
        started_at=newest.started_at,
        rank=newest.rank,
        hold_micro=newest.hold_micro,
        charged_nano=sum(item.amount_nano for item in events),
        waived_nano=sum(item.waived_nano for item in events),
        currency=newest.currency,
    )
