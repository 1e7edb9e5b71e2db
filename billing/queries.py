"""Reads of usage: what tenants and commands ask for."""

from datetime import datetime

from billing.models.usage import UsageEvent
from turnpike.control.scope import platform_scope


def find_first_event_at() -> datetime | None:
    """When the oldest request started; None before the first."""
    with platform_scope("find first event"):
        oldest = UsageEvent.objects.order_by("request_id").values_list("started_at", flat=True)
        return oldest.first()
