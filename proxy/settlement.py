"""Ends requests once: journal first, then Redis, until the event is confirmed as posted.

What is settled stays in the outbox until the record's tombstone shows its rank or a better one.
What is not confirmed in a minute is sent again, and all of it at once when Redis comes back with
other data: the ingest's primary key makes that harmless. Once Redis has an event, memory keeps only
where the journal has it: a backlog takes a quarter of the room then, and what the next requests
are made of stays near the processor.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice
from typing import Any
from uuid import UUID

import msgspec

from proxy.journal import Journal, JournalUnwritable, line_of
from proxy.limiter.limiter import Limiter
from proxy.limiter.limits import Spec
from proxy.limiter.scripts import POSTED
from proxy.metrics import METRICS
from proxy.redis_link import RedisLink
from proxy.redis_pipe import UNKNOWN_SCRIPT, RedisAway, RedisReplyError
from turnpike.kernel import clock, ids, keyspace

logger = logging.getLogger(__name__)

OUTBOX_MAX = 200_000
BATCH = 500
RESENT_AT_ONCE = 50  # each may have to be read from the journal first, which takes 0.1 ms
# The ingest comes by each second: nobody asks before, and what waits for longer is overdue.
POSTING_SECONDS = 1.0
OVERDUE_SECONDS = 5.0

_encode = msgspec.json.Encoder().encode
_read_charges = msgspec.json.Decoder(dict[str, Any]).decode  # the script checks them


class Closing(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a settlement tells Redis of a request."""

    spec: Spec
    event: bytes
    charges: bytes  # by bucket, as JSON


class Ended(msgspec.Struct, kw_only=True, gc=False):
    """A request that ended, and is to be settled until it is known to be posted."""

    rid: str
    tenant: int
    rank: int
    amount_micro: int
    closing: Closing | None  # None: Redis has taken it, and the journal has it at the two places
    admitted_at: int | None = None
    ended_at: int = 0
    on_confirmed: Callable[[str], object] | None = None  # None: this worker's journal has it
    sent_at: float = 0.0
    ask_at: float = 0.0  # when to ask again whether it is posted

    def note_taken(self) -> None:
        """Redis took it: what the journal can tell again need not be kept."""
        if self.admitted_at is not None:
            self.closing = None


class _Admitted(msgspec.Struct):
    """The journal's line of an admission, as far as a settlement needs it."""

    rid: str
    base: msgspec.Raw
    spec: msgspec.Raw


class _Final(msgspec.Struct):
    """The journal's line of an end."""

    rid: str
    event: msgspec.Raw
    charges: dict[str, int]


_read_admitted = msgspec.json.Decoder(_Admitted).decode
_read_final = msgspec.json.Decoder(_Final).decode


class Settlement:
    """Settles ended requests and remembers them until they are posted."""

    def __init__(
        self,
        *,
        limiter: Limiter,
        pipe: RedisLink,
        journal: Journal,
        resend_seconds: float,
        monotonic: Callable[[], float] = clock.monotonic_seconds,
    ) -> None:
        self._limiter = limiter
        self._pipe = pipe
        self._journal = journal
        self._resend_seconds = resend_seconds
        self._monotonic = monotonic
        self._outbox: dict[str, Ended] = {}
        # What nobody waits for, with what it settles.
        self._under_way: dict[asyncio.Future[Any], Ended] = {}

    @property
    def unconfirmed(self) -> int:
        """How many ended requests are not known to be posted."""
        return len(self._outbox)

    def has_room(self) -> bool:
        """Whether more may be admitted: not so while too much is unconfirmed."""
        return len(self._outbox) < OUTBOX_MAX

    @property
    def oldest_started_ms(self) -> int:
        """When the request began that waits longest for its confirmation; 0 where none does."""
        oldest = next(iter(self._outbox), None)
        return 0 if oldest is None else ids.uuid7_ms(UUID(oldest))

    @property
    def is_journal_writable(self) -> bool:
        """Whether the disk under the journal takes what is written."""
        return self._journal.is_writable

    def write_down(
        self,
        spec: Spec,
        *,
        event: bytes,
        rank: int,
        charges: Mapping[str, int],
        amount_micro: int,
        admitted_at: int | None,
    ) -> Ended:
        """Journal the end of a request of this worker: from now on it is certain to be charged.

        `admitted_at`: where the journal has this very spec, if it has.
        """
        ended_at, final = 0, _encode(charges)
        try:
            ended_at = self._journal.append(
                spec.rid,
                line_of("F", spec.rid, b'"event":', event, b',"charges":', final),
            )
        except JournalUnwritable:
            # Redis still takes the event; only a crash before that would lose it.
            logger.exception("journal.unwritable")
            METRICS.journal_errors.inc()
            admitted_at = None
        return Ended(
            rid=spec.rid,
            tenant=spec.plan.tenant,
            rank=rank,
            closing=Closing(spec=spec, event=event, charges=final),
            amount_micro=amount_micro,
            admitted_at=admitted_at,
            ended_at=ended_at,
        )

    def settle(self, ended: Ended) -> Awaitable[bool]:
        """Free the slot, true up and append the event; what fails now is sent again later."""
        return self._send(self._keep(ended))

    def settle_soon(self, ended: Ended) -> None:
        """The same for a caller that is done with the request: nobody waits for Redis.

        A request whose client has its answer would be woken, through all who called each other for
        it, only to hear that nothing is left to do.
        """
        ended = self._keep(ended)
        closing = ended.closing
        if closing is None:
            return  # a better end of it is settled already
        self._note_sent(ended)
        try:
            reply = self._limiter.begin_settle(
                closing.spec,
                closing.charges,
                hold_micro=ended.amount_micro,
                event=closing.event,
                rank=ended.rank,
            )
        except RedisAway as error:
            _note_failure(ended, error)
            return
        if reply is None:
            self._send_later(ended)
        else:
            self._under_way[reply] = ended
            reply.add_done_callback(self._on_reply)

    async def finish(self) -> None:
        """Wait for what `settle_soon` has under way; each has a deadline of its own."""
        while self._under_way:
            await asyncio.wait(self._under_way)
            await asyncio.sleep(0)  # what is done has its callbacks called in the next turn

    def _on_reply(self, reply: asyncio.Future[Any]) -> None:
        ended = self._under_way.pop(reply)
        if reply.cancelled():
            return
        error = reply.exception()
        if isinstance(error, RedisReplyError) and error.code == UNKNOWN_SCRIPT:
            self._send_later(ended)  # the server has forgotten the script, and is told it again
        elif error is not None:
            _note_failure(ended, error)
        else:
            ended.note_taken()

    def _send_later(self, ended: Ended) -> None:
        task = asyncio.ensure_future(self._send(ended))
        self._under_way[task] = ended
        task.add_done_callback(self._under_way.pop)

    def _note_sent(self, ended: Ended) -> None:
        ended.sent_at = now = self._monotonic()
        ended.ask_at = now + POSTING_SECONDS

    def adopt(self, ended: Ended) -> None:
        """Take over what a dead worker ended; the next round asks whether it is posted already."""
        self._keep(ended)

    async def confirm(self, *, is_last: bool = False) -> None:
        """Forget what is posted, and send again what should be by now. May raise RedisAway.

        Nothing is asked for that can hardly be there yet, and what is overdue the less often the
        longer it waits, so that a backlog of thousands does not cost as many questions each round.
        At the last round everything is asked for.
        """
        now = self._monotonic()
        waiting = iter([item for item in self._outbox.values() if is_last or item.ask_at <= now])
        while batch := list(islice(waiting, BATCH)):
            posted = await self._posted_ranks(batch)
            for ended in batch:
                if posted.get(ended.rid, -1) >= ended.rank:
                    self._forget(ended)
                    continue
                waited_seconds = now - ended.sent_at
                if waited_seconds >= self._resend_seconds:
                    METRICS.events_resent.inc()
                    await self._send(ended)
                elif waited_seconds >= OVERDUE_SECONDS:
                    left_seconds = self._resend_seconds - waited_seconds
                    ended.ask_at = now + min(waited_seconds, left_seconds)

    async def resend_all(self) -> None:
        """Redis lost data: everything that is not known to be posted goes out again."""
        waiting = iter(list(self._outbox.values()))
        while batch := list(islice(waiting, RESENT_AT_ONCE)):
            METRICS.events_resent.inc(len(batch))
            if not any(await asyncio.gather(*map(self._send, batch))):
                return  # Redis is away again; its return begins this anew

    def _keep(self, ended: Ended) -> Ended:
        """Put an end into the outbox unless a better one of the request is there; which one is."""
        known = self._outbox.setdefault(ended.rid, ended)
        if known is ended or known.rank >= ended.rank:
            # A reaper knows less than the journal that this worker has adopted.
            return known
        self._outbox[ended.rid] = ended
        return ended

    async def _send(self, ended: Ended) -> bool:
        """Whether Redis took it, or was not asked, since the journal cannot tell what it was."""
        self._note_sent(ended)
        closing = ended.closing or self._recalled(ended)
        if closing is None:
            METRICS.journal_errors.inc()
            logger.error("journal.unreadable", extra={"rid": ended.rid})
            return True  # which says nothing of Redis
        try:
            await self._limiter.settle(
                closing.spec,
                charges=_read_charges(closing.charges),
                hold_micro=ended.amount_micro,
                event=closing.event,
                rank=ended.rank,
            )
        except (RedisAway, RedisReplyError) as error:
            _note_failure(ended, error)
            return False
        ended.note_taken()
        return True

    def _recalled(self, ended: Ended) -> Closing | None:
        """What the journal has of a request; None where it cannot be read."""
        assert ended.admitted_at is not None
        first, last = map(self._journal.line_at, (ended.admitted_at, ended.ended_at))
        if first is None or last is None:
            return None
        try:
            admitted, final = _read_admitted(first), _read_final(last)
            spec = Spec.from_json(bytes(admitted.spec), base=bytes(admitted.base))
        except (ValueError, msgspec.DecodeError):
            return None
        is_this = admitted.rid == final.rid == ended.rid
        closing = Closing(spec=spec, event=bytes(final.event), charges=_encode(final.charges))
        return closing if is_this else None

    async def _posted_ranks(self, batch: Sequence[Ended]) -> dict[str, int]:
        """The ranks that are posted by now, by rid; one question for each shard."""
        places = {
            tenant: (keyspace.shard_of(tenant), keyspace.record(tenant, ""))
            for tenant in {ended.tenant for ended in batch}
        }
        shards: dict[int, list[Ended]] = {}
        for ended in batch:
            shards.setdefault(places[ended.tenant][0], []).append(ended)
        ranks: dict[str, int] = {}
        for members in shards.values():
            records = [places[ended.tenant][1] + ended.rid for ended in members]
            try:
                replies = await self._pipe.run_script(POSTED, records, ())
            except RedisReplyError as error:
                raise RedisAway(str(error)) from error
            for ended, reply in zip(members, replies, strict=True):
                if reply:
                    ranks[ended.rid] = int(reply)
        return ranks

    def _forget(self, ended: Ended) -> None:
        # A better event of the same request may have taken its place meanwhile.
        if self._outbox.get(ended.rid) is ended:
            del self._outbox[ended.rid]
            (ended.on_confirmed or self._journal.confirm)(ended.rid)


def _note_failure(ended: Ended, error: BaseException) -> None:
    METRICS.settle_errors.inc()
    logger.warning("settle.failed", extra={"rid": ended.rid, "error": str(error)})
