"""Requests, sums and attempts over all tenants, for operators; every look has a bound of time."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Exists, OuterRef, Sum

from billing.models.usage import UsageEvent, UsageRollup
from billing.queries.requests import NUMBERS, WORDS
from turnpike.kernel import ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Waived:
    """What was charged in a span, and what was not although an upstream counted it."""

    charged_nano: int
    waived_nano: int

    @property
    def share(self) -> float:
        """The part of the whole that was waived."""
        whole = self.charged_nano + self.waived_nano
        return self.waived_nano / whole if whole else 0.0


def list_all_requests(
    *,
    since: datetime,
    limit: int,
    after: UUID | None = None,
    chosen: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Requests of all tenants that began since a time, newest first, those before `after`.

    The rows are those of the newest revision; ids are ordered by time, and the index is on them.
    """
    newer = UsageEvent.objects.filter(
        request_id=OuterRef("request_id"), revision__gt=OuterRef("revision")
    )
    rows = UsageEvent.objects.filter(~Exists(newer), request_id__gte=ids.uuid7_floor(since))
    if after is not None:
        rows = rows.filter(request_id__lt=after)
    rows = rows.filter(**(chosen or {}))
    found = rows.order_by("-request_id").values("tenant_id", *WORDS, *NUMBERS)
    return list(found[:limit])


def find_tenant_of(request: UUID) -> int | None:
    """Whose request it was; None where nobody's."""
    rows = UsageEvent.objects.filter(request_id=request).values_list("tenant_id", flat=True)
    return rows.first()


def sum_waived(*, since: datetime) -> Waived:
    """What all tenants were charged since a time, and what was waived."""
    sums = UsageRollup.objects.filter(bucket_at__gte=since).aggregate(
        charged=Sum("amount_nano"), waived=Sum("waived_nano")
    )
    return Waived(charged_nano=int(sums["charged"] or 0), waived_nano=int(sums["waived"] or 0))
