"""Keeps open requests alive in Redis while they run: leases, true-ups, and what changed meanwhile.

One round for the worker, twice a second, by the gateway: a round that breaks off is logged, and the
next one comes. A request that ends within one round never costs a beat.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from itertools import islice
from typing import Any

from proxy.api_errors import ApiError, overloaded
from proxy.auth import Authenticator, check_standing
from proxy.exchange import Exchange
from proxy.limiter.limiter import Beat, Limiter
from proxy.metrics import METRICS
from proxy.redis_pipe import RedisAway, RedisReplyError
from proxy.snapshots import PlaneCold
from turnpike.contracts.snapshots import SCOPE_MESSAGES
from turnpike.kernel import clock

logger = logging.getLogger(__name__)

ROUND_SECONDS = 0.5
BEATS_AT_ONCE = 500


class Keeper:
    """The worker's open requests, and the beats that keep them."""

    def __init__(
        self,
        *,
        limiter: Limiter,
        authenticator: Authenticator,
        beat_seconds: float,
        drain_seconds: float,
        monotonic: Callable[[], float] = clock.monotonic_seconds,
    ) -> None:
        self._limiter = limiter
        self._authenticator = authenticator
        self._beat_seconds = beat_seconds
        self._drain_seconds = drain_seconds
        self._monotonic = monotonic
        self._open: dict[str, Exchange] = {}
        self._drained_at: float | None = None

    @property
    def open_count(self) -> int:
        """How many requests run in this worker."""
        return len(self._open)

    def is_open(self, rid: str) -> bool:
        """Whether a request runs in this worker, whatever Redis believes."""
        return rid in self._open

    def add(self, exchange: Exchange) -> None:
        """Keep a request from now on."""
        self._open[exchange.rid] = exchange

    def remove(self, exchange: Exchange) -> None:
        """The request ended."""
        self._open.pop(exchange.rid, None)

    def look_after_clients(self) -> None:
        """Pings for those whose streams are silent, an end for what is read for those who left."""
        now = self._monotonic()
        for exchange in list(self._open.values()):
            if exchange.is_client_gone:
                exchange.end_drain(now)
            elif exchange.pulse is not None:
                exchange.pulse.tick(now)

    def begin_drain(self) -> None:
        """The server stops: what streams beyond the drain time ends with an error event."""
        self._drained_at = self._monotonic() + self._drain_seconds

    async def beat_due(self) -> None:
        """One round: ends what has to end, and beats whatever is due."""
        self._end_drained()
        self.look_after_clients()
        now = self._monotonic()
        await self._beat_many([item for item in self._open.values() if self._is_due(item, now)])

    async def beat_all(self) -> None:
        """Redis may have lost data: every open request makes itself known again."""
        await self._beat_many(list(self._open.values()))

    def _is_due(self, exchange: Exchange, now: float) -> bool:
        if exchange.is_ended_elsewhere:
            return False
        if now - exchange.beaten_at >= self._beat_seconds:
            return True
        meter = exchange.meter
        return meter is not None and meter.has_started and not exchange.is_trued_up

    async def _beat_many(self, exchanges: list[Exchange]) -> None:
        waiting = iter(exchanges)
        while batch := list(islice(waiting, BEATS_AT_ONCE)):
            beats: list[Coroutine[Any, Any, None]] = [self._beat(exchange) for exchange in batch]
            await asyncio.gather(*beats)

    async def _beat(self, exchange: Exchange) -> None:
        exchange.beaten_at = self._monotonic()
        is_true_up = exchange.meter is not None and exchange.meter.has_started
        hold = exchange.worst_case_micro() if is_true_up and not exchange.is_trued_up else None
        try:
            beat = await self._limiter.beat(
                exchange.spec,
                charges=exchange.running_charges(),
                hold_micro=hold,
                progress=exchange.progress(),
            )
        except (RedisAway, RedisReplyError) as error:
            METRICS.beat_errors.inc()
            logger.warning("beat.failed", extra={"rid": exchange.rid, "error": str(error)})
            return
        if not beat.is_open:
            # Reaped while this worker was frozen, say. Its own end has the higher rank and revises.
            exchange.is_ended_elsewhere = True
            logger.warning("beat.ended_elsewhere", extra={"rid": exchange.rid, "state": beat.state})
            return
        if self.is_open(exchange.rid):
            exchange.is_trued_up = exchange.is_trued_up or is_true_up
            exchange.set_hold(beat.hold_micro)
            await self._check_policy(exchange, beat)

    async def _check_policy(self, exchange: Exchange, beat: Beat) -> None:
        """The tenant changed: a stream goes on only while its key could begin one."""
        if beat.tenant_version in (None, exchange.view.tenant_version):
            return
        try:
            view = await self._authenticator.read_again(exchange.view)
            check_standing(view, scope=SCOPE_MESSAGES, address="")
        except ApiError:
            exchange.stop(
                ApiError(
                    403,
                    "permission_error",
                    "This API key may not be used any more. The answer ends here.",
                )
            )
        except (RedisAway, PlaneCold):
            return
        else:
            exchange.view = view

    def _end_drained(self) -> None:
        if self._drained_at is None or self._monotonic() < self._drained_at:
            return
        for exchange in list(self._open.values()):
            exchange.stop(overloaded("The server restarts. Try again shortly.", reason="drain"))
