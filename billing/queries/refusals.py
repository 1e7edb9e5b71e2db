"""Why a tenant's requests were refused, and how its requests ended, as the data plane counts."""

import json
from datetime import timedelta
from typing import Any

from turnpike.control.redis import redis_client, text_of
from turnpike.kernel import clock, keyspace


def read_refusals(tenant: int, *, limit: int) -> list[dict[str, Any]]:
    """A tenant's newest refusals as the data plane wrote them; what is no object is left out."""
    found = []
    for raw in redis_client().lrange(keyspace.refusals(tenant), 0, limit - 1):
        try:
            row = json.loads(raw)
        except ValueError:
            continue
        if isinstance(row, dict):
            found.append(row)
    return found


def read_outcomes(tenant: int, *, hours: int) -> list[dict[str, Any]]:
    """How a tenant's requests of the last hours ended, by hour, the oldest first."""
    this_hour = clock.utc_now().replace(minute=0, second=0, microsecond=0)
    starts = [this_hour - timedelta(hours=back) for back in reversed(range(hours))]
    pipeline = redis_client().pipeline(transaction=False)
    for at in starts:
        pipeline.hgetall(keyspace.outcome_counts(tenant, at.strftime("%Y-%m-%dT%H")))
    return [
        {
            "starting_at": clock.rfc3339(at),
            "outcomes": {text_of(name): int(count) for name, count in sorted(counts.items())},
        }
        for at, counts in zip(starts, pipeline.execute(), strict=True)
        if counts
    ]
