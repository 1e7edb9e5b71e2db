"""Caps of upstreams and their credentials: a second script, only where caps are configured.

It counts what goes out over all tenants and gateways. A refusal is the operator's, never the
tenant's: the next upstream is tried, and where there is none the request is given back. Without
Redis nothing is capped here; the upstream's own limits still are.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import msgspec

from proxy.limiter.plans import MINUTE_US
from proxy.limiter.scripts import load_script
from proxy.redis_link import RedisLink
from proxy.redis_pipe import RedisAway, RedisReplyError
from proxy.upstreams.selection import Hop, is_capped
from turnpike.contracts.snapshots import CredentialSnapshot, UpstreamSnapshot
from turnpike.kernel import keyspace

CAPS = load_script("caps")
LEASE_MS = 60_000
BURST_US = 10_000_000  # ten seconds' worth at once: an upstream's own limits bear no full minute
UPSTREAM_SCOPE = "u"

_encode = msgspec.json.encode


class CapLease:
    """A place under the caps of one upstream, kept until it is released."""

    def __init__(self, owner: "UpstreamCaps", attempt: str, keys: tuple[str, ...]) -> None:
        self._owner = owner
        self.attempt = attempt
        self.keys = keys

    def release(self) -> None:
        """Give the place back. The rate is spent: the attempt went out."""
        self._owner.drop(self)


class UpstreamCaps:
    """Counts one worker's attempts against the caps that all workers share."""

    def __init__(
        self,
        pipe: RedisLink,
        *,
        worker: str,
        timeout_seconds: float = 0.05,
        now_us: Callable[[], str] = str,
    ) -> None:
        self._pipe = pipe
        self._worker = worker
        self._timeout_seconds = timeout_seconds
        self._now_us = now_us
        self._numbers = count(1)
        self._running: dict[str, CapLease] = {}

    def has_caps(self, hop: Hop) -> bool:
        """Whether anything is capped at this hop; if not, Redis is not asked."""
        return hop.may_be_capped and any(is_capped(item) for _, item in _scopes(hop))

    async def take(self, hop: Hop) -> CapLease | None:
        """A place for one attempt, or None where the caps leave none."""
        number = hop.upstream.upstream
        rates, slots, keys = [], [], []
        for scope, item in _scopes(hop):
            if item.requests_per_minute is not None:
                rates.append(_rate(scope, item.requests_per_minute))
            if item.concurrency is not None:
                slots.append(item.concurrency)
                keys.append(keyspace.upstream_slots(number, scope))
        lease = CapLease(self, f"{self._worker}-{next(self._numbers)}", tuple(keys))
        caps = _encode({"rates": rates, "slots": slots})
        try:
            reply = await self._pipe.run_script(
                CAPS,
                (keyspace.upstream_rates(number), *keys),
                (self._now_us(), lease.attempt, str(LEASE_MS), caps),
                timeout_seconds=self._timeout_seconds,
            )
        except (RedisAway, RedisReplyError):
            return lease
        if reply[0] != 1:
            return None
        if keys:
            self._running[lease.attempt] = lease
        return lease

    async def renew(self) -> None:
        """Prolong the leases of what runs. Raises RedisAway."""
        seconds, _micros = await self._pipe.execute("TIME") if self._running else (0, 0)
        ends_ms = int(seconds) * 1_000 + LEASE_MS
        commands = [
            ("ZADD", key, "XX", ends_ms, lease.attempt)
            for lease in list(self._running.values())
            for key in lease.keys
        ]
        if commands:
            await self._pipe.execute_many(commands)

    def drop(self, lease: CapLease) -> None:
        """Free the slots of an attempt; what Redis does not take now ends with its lease."""
        if self._running.pop(lease.attempt, None) is None:
            return
        with suppress(RedisAway):
            for key in lease.keys:
                self._pipe.execute("ZREM", key, lease.attempt).add_done_callback(_look_at)


def _scopes(hop: Hop) -> Iterator[tuple[str, UpstreamSnapshot | CredentialSnapshot]]:
    yield UPSTREAM_SCOPE, hop.upstream
    for item in hop.upstream.credentials:
        if item.credential == hop.credential:
            yield f"c{item.credential}", item


def _look_at(freed: asyncio.Future[Any]) -> None:
    # Looked at, so that a reply nobody waits for is not reported as forgotten.
    freed.cancelled() or freed.exception()


def _rate(scope: str, requests_per_minute: int) -> dict[str, object]:
    cost_us = -(-MINUTE_US // requests_per_minute) if requests_per_minute else BURST_US + 1
    # One request always fits, however slow the rate.
    burst_us = max(BURST_US, cost_us) if requests_per_minute else BURST_US
    return {"f": scope, "cost": cost_us, "burst": burst_us}
