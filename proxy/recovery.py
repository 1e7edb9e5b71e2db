"""Settles what dead workers left: their journals, ended leases, a lost Redis.

Every worker runs these rounds; doing the same work twice has no effect, since every end of a
request is settled under its id and rank.
"""

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from proxy.config import ProxyConfig
from proxy.estimator import Estimator
from proxy.events import (
    TOKENS_PER_CHARACTER,
    Outcome,
    build_event,
    observed_usage_of,
    rank_of_remains,
)
from proxy.journal import DeadJournal, Remains
from proxy.keeper import Keeper
from proxy.limiter.limits import Spec
from proxy.metrics import METRICS
from proxy.pricing import rated_micro
from proxy.redis_link import RedisLink
from proxy.redis_pipe import RedisAway
from proxy.settlement import Closing, Ended, Settlement
from proxy.snapshots import PlaneCold, SnapshotStore
from turnpike.contracts import usage as words
from turnpike.contracts.usage import Attempt, EventBase, UsageEvent
from turnpike.kernel import clock, keyspace

logger = logging.getLogger(__name__)

REAP_BATCH = 100
GATEWAY_KEPT_MS = 15_000
FACTS_KEPT_MS = 20_000

_encode = msgspec.json.encode


class Recovery:
    """One worker's share of cleaning up after others."""

    def __init__(
        self,
        *,
        config: ProxyConfig,
        pipe: RedisLink,
        store: SnapshotStore,
        settlement: Settlement,
        keeper: Keeper,
        estimator: Estimator,
    ) -> None:
        self._estimator = estimator
        self._config = config
        self._pipe = pipe
        self._store = store
        self._settlement = settlement
        self._keeper = keeper
        self._dead: dict[Path, tuple[DeadJournal, set[str]]] = {}
        self._epochs: tuple[bytes | None, ...] = ()
        self.live_workers = 1

    async def beat_gateway(self) -> None:
        """Say that this worker lives, and count who else does."""
        now_ms, facts_key = clock.now_ms(), keyspace.gateway_facts(self._config.worker)
        replies = await self._pipe.execute_many(
            [
                ("ZADD", keyspace.GATEWAYS, now_ms, self._config.worker),
                ("ZREMRANGEBYSCORE", keyspace.GATEWAYS, "-inf", now_ms - GATEWAY_KEPT_MS),
                ("ZCARD", keyspace.GATEWAYS),
                ("HSET", facts_key, *self._facts(now_ms)),
                ("PEXPIRE", facts_key, FACTS_KEPT_MS),
            ]
        )
        if isinstance(replies[2], int):
            self.live_workers = max(1, replies[2])

    def _facts(self, now_ms: int) -> list[str | int]:
        """What operators want to know of this worker, as the fields of a hash."""
        facts = {
            "at_ms": now_ms,
            "pid": os.getpid(),
            "open": self._keeper.open_count,
            "unconfirmed": self._settlement.unconfirmed,
            "oldest_started_ms": self._settlement.oldest_started_ms,
            "is_writable": int(self._settlement.is_journal_writable),
            "journal_bytes": int(METRICS.journal_bytes.value),
            "fallback_admitted": int(METRICS.fallback_admissions.values.get(("admitted",), [0])[0]),
            "redis_connects": int(METRICS.redis_connects.value),
            "round_errors": int(METRICS.round_errors.value),
        }
        return [part for pair in facts.items() for part in pair]

    async def leave(self) -> None:
        """This worker stops: others need not count it any more."""
        await self._pipe.execute("ZREM", keyspace.GATEWAYS, self._config.worker)

    async def watch_epochs(self) -> bool:
        """Whether a shard has another epoch than a moment ago: it lost its data."""
        replies = await self._pipe.execute_many(
            [("HGET", keyspace.policy(shard), "epoch") for shard in range(keyspace.SHARDS)]
        )
        epochs = tuple(reply if isinstance(reply, bytes) else None for reply in replies)
        has_changed = self._epochs not in ((), epochs)
        self._epochs = epochs
        return has_changed

    async def bring_back(self) -> None:
        """Redis may have lost data: open requests and unconfirmed events make themselves known."""
        await self._keeper.beat_all()
        await self._settlement.resend_all()

    async def reap(self) -> None:
        """Settle requests whose lease ended and whose worker and journal are not to be seen."""
        seconds, _micros = await self._pipe.execute("TIME")
        before_ms = int(seconds) * 1_000 - self._config.reap_grace_ms
        for shard in range(keyspace.SHARDS):
            members = await self._pipe.execute(
                "ZRANGEBYSCORE",
                keyspace.open_requests(shard),
                "-inf",
                before_ms,
                "LIMIT",
                0,
                REAP_BATCH,
            )
            for member in members:
                tenant, _, rid = member.decode().partition("|")
                if not self._keeper.is_open(rid):
                    await self._reap_one(shard, tenant, rid)

    async def adopt_journals(self) -> None:
        """Take over the journals of dead workers, and delete those that are confirmed whole."""
        for folder, (journal, waiting) in list(self._dead.items()):
            if not waiting:
                journal.remove()
                del self._dead[folder]
        for folder in sorted(self._config.journal_dir.glob("*/")):
            if folder in self._dead or folder.name == self._config.worker:
                continue
            found = DeadJournal.take(folder)
            if found is not None:
                await self._adopt(folder, found)

    def release(self) -> None:
        """Unlock adopted journals, so that another worker goes on with them."""
        for journal, _ in self._dead.values():
            journal.release()
        self._dead.clear()

    async def _adopt(self, folder: Path, journal: DeadJournal) -> None:
        try:
            await self._store.read_plane()
            # Outside the loop: a dead worker may have left much, and the living one has streams.
            remains = await asyncio.to_thread(journal.read)
        except (RedisAway, PlaneCold, OSError):
            # Nothing can be rated or sent now; the next round tries again.
            journal.release()
            return
        waiting: set[str] = set()
        for item in remains.values():
            ended = self._end_remains(item, waiting)
            if ended is not None:
                waiting.add(item.rid)
                self._settlement.adopt(ended)
        self._dead[folder] = (journal, waiting)
        METRICS.adopted_journals.inc()
        logger.warning("journal.adopted", extra={"folder": folder.name, "requests": len(waiting)})

    def _end_remains(self, item: Remains, waiting: set[str]) -> Ended | None:
        if item.spec is None:
            return None  # the line of its admission is torn: it was never sent
        try:
            base = msgspec.convert(item.base, EventBase)
            spec = Spec.from_json(_encode(item.spec), base=_encode(item.base))
            event = (
                msgspec.convert(item.event, UsageEvent)
                if item.event is not None
                else event_of_remains(
                    item,
                    base=base,
                    hold_micro=item.hold_micro or spec.hold_micro,
                    ratio=self._estimator.output_ratio(base.model),
                )
            )
        except (ValueError, msgspec.ValidationError):
            logger.exception("journal.unreadable", extra={"rid": item.rid})
            METRICS.journal_errors.inc()
            return None
        return Ended(
            rid=event.rid,
            tenant=event.tenant,
            rank=event.rank,
            # Whoever wrote the end knew the charges; without it, the buckets are left as they are.
            closing=Closing(spec=spec, event=_encode(event), charges=_encode(item.charges)),
            amount_micro=self._amount_micro(event),
            on_confirmed=waiting.discard,
            sent_at=float("-inf"),
        )

    async def _reap_one(self, shard: int, tenant: str, rid: str) -> None:
        record = await self._pipe.execute("HGETALL", keyspace.record(tenant, rid))
        fields = _fields(record)
        if fields.get("st") != b"open" or "base" not in fields or "spec" not in fields:
            await self._pipe.execute("ZREM", keyspace.open_requests(shard), f"{tenant}|{rid}")
            return
        base = msgspec.json.decode(fields["base"], type=EventBase)
        progress = msgspec.json.decode(fields["progress"]) if fields.get("progress") else {}
        event = event_of_progress(
            progress,
            base=base,
            hold_micro=int(fields["hold"]),
            ratio=self._estimator.output_ratio(base.model),
        )
        METRICS.reaped.inc()
        await self._settlement.settle(
            Ended(
                rid=rid,
                tenant=int(tenant),
                rank=event.rank,
                closing=Closing(
                    spec=Spec.from_json(fields["spec"], base=fields["base"]),
                    event=_encode(event),
                    charges=b"{}",
                ),
                amount_micro=self._amount_micro(event),
                on_confirmed=lambda _rid: None,
            )
        )

    def _amount_micro(self, event: UsageEvent) -> int:
        """What an event is worth, at most its hold; the whole hold while its prices are unknown."""
        plane = self._store.plane
        price_set = plane.sets_by_number.get(event.price_set) if plane is not None else None
        if price_set is None:
            return event.hold_micro
        worth = rated_micro(
            event.usage,
            price_set=price_set,
            model=event.model,
            discount_bp=event.discount_bp,
            stop_reason=event.stop_reason,
        )
        return min(worth, event.hold_micro)


def event_of_remains(
    item: Remains, *, base: EventBase, hold_micro: int, ratio: float = TOKENS_PER_CHARACTER
) -> UsageEvent:
    """The event of a request that a killed worker left without its last line."""
    usage = observed_usage_of(
        item.usage,
        output_chars=item.output_chars,
        is_final=item.is_final,
        max_tokens=base.max_tokens,
        ratio=ratio,
    )
    attempts = [
        Attempt(n=attempt["n"], upstream=attempt["upstream"], outcome=words.OUTCOME_UNKNOWN)
        for attempt in item.attempts
    ]
    if attempts and usage:
        last = attempts[-1]
        attempts[-1] = Attempt(
            n=last.n, upstream=last.upstream, outcome=words.OUTCOME_CUT, usage=usage
        )
    outcome = Outcome(
        rank=rank_of_remains(has_attempt=bool(attempts)),
        usage=usage,
        output_chars=item.output_chars,
        error_type="gateway_lost",
    )
    return build_event(
        base, outcome, attempts=attempts, hold_micro=hold_micro, finished_at_us=clock.now_us()
    )


def event_of_progress(
    progress: Mapping[str, Any],
    *,
    base: EventBase,
    hold_micro: int,
    ratio: float = TOKENS_PER_CHARACTER,
) -> UsageEvent:
    """The event of a request whose worker and journal are gone, from its last beat."""
    chars = progress.get("output_chars", 0)
    usage = observed_usage_of(
        progress.get("usage"),
        output_chars=chars,
        is_final=progress.get("is_final", False),
        max_tokens=base.max_tokens,
        ratio=ratio,
    )
    attempt = Attempt(
        n=1,
        upstream=0,
        outcome=words.OUTCOME_CUT if usage else words.OUTCOME_UNKNOWN,
        usage=usage or None,
    )
    outcome = Outcome(
        rank=words.RANK_ESTIMATED, usage=usage, output_chars=chars, error_type="gateway_lost"
    )
    return build_event(
        base, outcome, attempts=[attempt], hold_micro=hold_micro, finished_at_us=clock.now_us()
    )


def _fields(reply: Any) -> dict[str, bytes]:
    """A reply of HGETALL, which is a list in one protocol and a mapping in the other."""
    if isinstance(reply, dict):
        return {key.decode(): value for key, value in reply.items()}
    pairs = zip(reply[::2], reply[1::2], strict=True)
    return {key.decode(): value for key, value in pairs}
