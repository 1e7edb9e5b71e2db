"""Admits a little while Redis is away: a small share, for a minute, for those who can pay.

Open or closed, by ADR 0005: closed, but for tenants in good standing whose last known balance is
at least twice the cap. Each gets half of its limits divided by the live workers, for at most a
minute an outage, and at most the cap in money that Redis has not heard of. Who has a blocking
budget gets nothing, since nobody knows here what is left of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from proxy.limiter.limits import Spec
from proxy.limiter.plans import MINUTE_US
from turnpike.contracts.snapshots import TenantTerms
from turnpike.kernel import clock

OUTAGE_SECONDS_MAX = 60.0
SHARE_DIVISOR = 2
# A last known balance is worth something only well above what may be given out on it.
FLOOR_CAPS = 2
TENANTS_MAX = 10_000


@dataclass(slots=True)
class _Share:
    """What one tenant was given since `since` by this worker."""

    since: float
    has_redis_answered: bool = False
    used_us: dict[str, int] = field(default_factory=dict)
    running: dict[str, tuple[str, ...]] = field(default_factory=dict)  # rid -> its slots
    undelivered: dict[str, int] = field(
        default_factory=dict
    )  # rid -> micros Redis has not heard of


class LocalLimiter:
    """One worker's own limits. Nothing here is shared, so every share is divided by the workers."""

    def __init__(
        self,
        *,
        cap_micro: int,
        live_workers: Callable[[], int],
        monotonic: Callable[[], float] = clock.monotonic_seconds,
    ) -> None:
        self._cap_micro = cap_micro
        self._live_workers = live_workers
        self._monotonic = monotonic
        self.shares: dict[int, _Share] = {}

    def admit(self, spec: Spec, terms: TenantTerms) -> bool:
        """Whether the request may run without Redis; takes its part of the share if so."""
        if not self._is_eligible(spec, terms):
            return False
        share = self._share_of(spec.tenant)
        if share is None or not self._fits(spec, share):
            return False
        for bucket, cost_us in zip(spec.buckets, spec.costs_us, strict=True):
            share.used_us[bucket.name] = share.used_us.get(bucket.name, 0) + cost_us
        if spec.lease_ms:
            share.running[spec.rid] = tuple(slot.name for slot in spec.slots)
            share.undelivered[spec.rid] = spec.hold_micro
        return True

    def settle(self, spec: Spec, *, amount_micro: int) -> None:
        """A request ended: its slot is free, and its amount counts until Redis has heard of it."""
        share = self.shares.get(spec.tenant)
        if share is not None and share.running.pop(spec.rid, None) is not None:
            share.undelivered[spec.rid] = amount_micro

    def forget(self, spec: Spec) -> None:
        """Redis has heard of the request, and holds its money from now on."""
        share = self.shares.get(spec.tenant)
        if share is not None:
            share.undelivered.pop(spec.rid, None)

    def note_answer(self, tenant: int) -> None:
        """Redis answered for a tenant: its outage, if there was one, is over."""
        share = self.shares.get(tenant)
        if share is None:
            return
        share.has_redis_answered = True
        if self._is_spent(share) and not share.running and not share.undelivered:
            del self.shares[tenant]

    def _is_eligible(self, spec: Spec, terms: TenantTerms) -> bool:
        return (
            terms.is_in_good_standing
            and terms.balance_micro >= FLOOR_CAPS * self._cap_micro
            and not spec.budgets
        )

    def _share_of(self, tenant: int) -> _Share | None:
        """The tenant's share if it is not too old; a new one only after Redis has answered."""
        share = self.shares.get(tenant)
        if share is None:
            if len(self.shares) >= TENANTS_MAX:
                return None
            share = self.shares[tenant] = _Share(since=self._monotonic())
        elif self._is_spent(share):
            if not share.has_redis_answered:
                return None
            share.since, share.used_us = self._monotonic(), {}
        share.has_redis_answered = False
        return share

    def _is_spent(self, share: _Share) -> bool:
        return self._monotonic() - share.since >= OUTAGE_SECONDS_MAX

    def _fits(self, spec: Spec, share: _Share) -> bool:
        divisor = SHARE_DIVISOR * max(1, self._live_workers())
        if sum(share.undelivered.values()) + spec.hold_micro > self._cap_micro:
            return False
        for slot in spec.slots:
            running = sum(slot.name in names for names in share.running.values())
            if running >= slot.limit // divisor:
                return False
        return all(
            share.used_us.get(bucket.name, 0) + cost_us
            <= min(MINUTE_US, bucket.burst_us) // divisor
            for bucket, cost_us in zip(spec.buckets, spec.costs_us, strict=True)
        )
