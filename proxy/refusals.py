"""Tells tenants what was dropped and why: hourly counts, and the last refusals with their numbers.

Kept in memory and written to Redis a few times a second in one go, so that a refused flood costs
Redis next to nothing. Bounded in every direction; never a row in a database.
"""

import json
from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from proxy.redis_link import RedisLink
from proxy.redis_pipe import Argument, RedisAway
from turnpike.kernel import clock, keyspace

REFUSALS_MAX = 1_000
REFUSALS_KEPT_SECONDS = 40 * 86_400
OUTCOMES_KEPT_SECONDS = 40 * 86_400
WAITING_MAX = 5_000
COUNTERS_MAX = 50_000
HOUR_US = 3_600_000_000

ACCEPTED = "accepted"
OUTCOME_OF_STATUS: Mapping[int, str] = {
    400: "invalid",
    401: "unauthorized",
    402: "no_credit",
    403: "forbidden",
    404: "not_found",
    413: "invalid",
    429: "rate_limited",
    529: "overloaded",
}


class RefusalLog:
    """Collects outcomes of one worker and flushes them."""

    def __init__(self, pipe: RedisLink) -> None:
        self._pipe = pipe
        self._counts: dict[tuple[int, int, str], int] = {}  # by tenant, hour, outcome
        self._waiting: deque[tuple[int, bytes]] = deque(maxlen=WAITING_MAX)

    def count(self, tenant: int, outcome: str, at_us: int | None = None) -> None:
        """One more request of a tenant ended so in this hour."""
        if len(self._counts) < COUNTERS_MAX:
            hour = (clock.now_us() if at_us is None else at_us) // HOUR_US
            name = tenant, hour, outcome
            self._counts[name] = self._counts.get(name, 0) + 1

    def refuse(self, tenant: int, row: Mapping[str, Any]) -> None:
        """Note a refusal: `status` names its outcome, the row is what the tenant will read."""
        self.count(tenant, OUTCOME_OF_STATUS.get(int(row["status"]), "failed"))
        text = json.dumps(row, separators=(",", ":"), ensure_ascii=False)
        self._waiting.append((tenant, text.encode()))

    async def flush(self) -> None:
        """Write what was collected. What Redis does not take now is dropped: it is no money."""
        counts, self._counts = self._counts, {}
        rows = list(self._waiting)
        self._waiting.clear()
        commands: list[list[Argument]] = []
        for (tenant, hour, outcome), number in counts.items():
            key = keyspace.outcome_counts(tenant, _name_of_hour(hour))
            commands.append(["HINCRBY", key, outcome, number])
            commands.append(["EXPIRE", key, OUTCOMES_KEPT_SECONDS])
        for tenant in {tenant for tenant, _ in rows}:
            key = keyspace.refusals(tenant)
            texts = [text for owner, text in rows if owner == tenant]
            commands.append(["LPUSH", key, *texts])
            commands.append(["LTRIM", key, 0, REFUSALS_MAX - 1])
            commands.append(["EXPIRE", key, REFUSALS_KEPT_SECONDS])
        if not commands:
            return
        try:
            await self._pipe.execute_many(commands)
        except RedisAway:
            return


@lru_cache(maxsize=4)
def _name_of_hour(hour: int) -> str:
    return clock.datetime_of_us(hour * HOUR_US).strftime("%Y-%m-%dT%H")
