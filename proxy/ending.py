"""Turns a finished exchange into its event: amount, hold in force, the journal's last line."""

from proxy.estimator import Estimator
from proxy.events import event_json
from proxy.exchange import Exchange
from proxy.limiter.limiter import Limiter
from proxy.metrics import METRICS
from proxy.plain_usage import UsageText
from proxy.redis_pipe import RedisAway, RedisReplyError
from proxy.settlement import Ended, Settlement
from turnpike.contracts import usage as words
from turnpike.contracts.features import NOTHING
from turnpike.kernel import clock


class Ending:
    """Ends exchanges of this worker."""

    def __init__(self, *, limiter: Limiter, settlement: Settlement, estimator: Estimator) -> None:
        self._estimator = estimator
        self._limiter = limiter
        self._settlement = settlement

    async def end(self, exchange: Exchange) -> None:
        """Write the end down and settle it."""
        await self._settlement.settle(await self.write_down(exchange))

    async def write_down(self, exchange: Exchange) -> Ended:
        """Journal the end. After this the request is charged, whatever dies."""
        return self.write_now(exchange) or await self.hold_more(exchange)

    def write_now(self, exchange: Exchange) -> Ended | None:
        """The same where nobody need be asked; None: `hold_more` comes first."""
        outcome, tenant = exchange.outcome, exchange.spec.plan.tenant
        if type(outcome.usage) is not UsageText and "iterations" in outcome.usage:
            outcome.usage = exchange.name_models(outcome.usage)
        if (
            outcome.rank == words.RANK_REPORTED
            and exchange.wants is NOTHING
            and self._estimator.is_curious(tenant, exchange.model)
        ):
            self._estimator.learn(
                tenant=tenant,
                model=exchange.model,
                size=exchange.measure,
                estimate=exchange.spec.input_estimate,
                usage=outcome.usage,
                output_chars=outcome.output_chars,
            )
        worth = exchange.worth_micro()
        return self._write(exchange, worth) if worth <= exchange.hold_micro else None

    async def hold_more(self, exchange: Exchange) -> Ended:
        """Hold what an answer is worth, as far as that can be had, and journal the end."""
        worth = exchange.worth_micro()
        await self._raise_hold(exchange, worth)
        return self._write(exchange, worth)

    def _write(self, exchange: Exchange, worth: int) -> Ended:
        outcome, amount = exchange.outcome, worth
        if worth > exchange.hold_micro:
            amount = exchange.hold_micro
            METRICS.waived_micro.inc(worth - amount)
        finished_at_us, started_at_us = clock.now_us(), exchange.started_at_us
        event = event_json(
            exchange.members,
            outcome,
            upstream_model=exchange.route.hops[0].upstream_model,
            attempts=exchange.attempts,
            hold_micro=exchange.hold_micro,
            finished_at_us=finished_at_us if finished_at_us > started_at_us else started_at_us,
        )
        METRICS.note_end(outcome.rank, exchange.model, outcome.usage)
        return self._settlement.write_down(
            exchange.spec,
            event=event,
            rank=outcome.rank,
            charges=exchange.final_charges(),
            amount_micro=amount,
            admitted_at=exchange.admitted_at,
        )

    async def _raise_hold(self, exchange: Exchange, worth_micro: int) -> None:
        """The answer is worth more than was held: hold more, as far as credit and budgets reach."""
        try:
            beat = await self._limiter.beat(
                exchange.spec,
                charges=exchange.running_charges(),
                hold_micro=worth_micro,
                progress=exchange.progress(),
            )
        except (RedisAway, RedisReplyError):
            return
        if beat.is_open:
            exchange.set_hold(beat.hold_micro)
