"""Tells other workers what this one knows of upstreams, and looks after those that nobody uses.

One round trip a second, never on the way of a request; written only when something changed. Checks
are made by one worker at a time: whoever gets the lock, which expires by itself.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from proxy.metrics import METRICS
from proxy.redis_link import RedisLink
from proxy.redis_pipe import Command, RedisAway
from proxy.upstreams.health import HealthBoard
from proxy.upstreams.moves import KEPT_MS, MOVES_MAX, Moves
from turnpike.contracts.snapshots import UpstreamSnapshot
from turnpike.kernel import clock, keyspace

UPSTREAMS_MAX = 500
HEALTH_KEPT_MS = 3_600_000
MOVES_READ_MAX = 1_000
# Clocks of gateways differ; what was written so long before the last round is read again.
OVERLAP_MS = 3_000
CHECK_BROKEN_MS = 1_000
CHECK_IDLE_MS = 30_000
CHECKS_AT_ONCE_MAX = 4

Check = Callable[[UpstreamSnapshot], Awaitable[bool]]


class HealthSync:
    """The rounds beside the requests that keep the workers' views of upstreams together."""

    def __init__(
        self,
        pipe: RedisLink,
        *,
        board: HealthBoard,
        moves: Moves,
        upstreams: Callable[[], Mapping[str, UpstreamSnapshot]],
        check: Check,
        worker: str,
        now_ms: Callable[[], int] = clock.now_ms,
    ) -> None:
        self._pipe = pipe
        self._board = board
        self._moves = moves
        self._upstreams = upstreams
        self._check = check
        self._worker = worker
        self._now_ms = now_ms
        self._read_from_ms = 0
        self._due_ms: dict[int, int] = {}
        self._seen_open: set[int] = set()

    async def sync(self) -> None:
        """Write what changed here and read what changed elsewhere. Raises RedisAway."""
        upstreams = list(self._upstreams().values())[:UPSTREAMS_MAX]
        numbers = [upstream.upstream for upstream in upstreams]
        changes = self._board.take_changes()
        untold = self._moves.take_untold()
        reads = self._reads(numbers)
        try:
            replies = await self._pipe.execute_many([*self._writes(changes, untold), *reads])
        except RedisAway:
            self._board.give_back(changes)
            self._show(upstreams)
            raise
        self._learn(numbers, replies[-len(reads) :])
        self._board.forget_others(numbers)
        self._show(upstreams)

    async def check_due(self) -> None:
        """Look at upstreams that are broken, or that nobody heard of for a while."""
        known = self._upstreams().values()
        due = [item for item in known if item.is_enabled and self._is_due(item)]
        random.shuffle(due)
        await asyncio.gather(*(self._check_one(item) for item in due[:CHECKS_AT_ONCE_MAX]))

    def _writes(
        self, changes: Mapping[int, Mapping[str, str]], untold: Sequence[tuple[str, int]]
    ) -> list[Command]:
        commands: list[Command] = []
        for upstream, fields in changes.items():
            key = keyspace.upstream_health(upstream)
            flat = [part for pair in fields.items() for part in pair]
            commands += [["HSET", key, *flat], ["PEXPIRE", key, HEALTH_KEPT_MS]]
        if untold:
            flat_moves = [part for member, at_ms in untold for part in (at_ms, member)]
            commands += [
                ["ZADD", keyspace.MOVES, *flat_moves],
                ["ZREMRANGEBYRANK", keyspace.MOVES, 0, -MOVES_MAX - 1],
                ["PEXPIRE", keyspace.MOVES, KEPT_MS],
            ]
        return commands

    def _reads(self, numbers: Sequence[int]) -> list[Command]:
        since = ("ZRANGEBYSCORE", keyspace.MOVES, self._read_from_ms, "+inf", "WITHSCORES")
        commands: list[Command] = [("HGETALL", keyspace.upstream_health(n)) for n in numbers]
        return [*commands, (*since, "LIMIT", 0, MOVES_READ_MAX)]

    def _learn(self, numbers: Sequence[int], replies: Sequence[Any]) -> None:
        for number, reply in zip(numbers, replies, strict=False):
            if isinstance(reply, list) and reply:
                words = [part.decode("latin-1") for part in reply]
                self._board.learn(number, dict(zip(words[::2], words[1::2], strict=False)))
        moved = replies[-1]
        if not isinstance(moved, list) or not moved:
            return
        newest_ms = 0
        for member, score in zip(moved[::2], moved[1::2], strict=False):
            newest_ms = int(float(score))
            self._moves.learn(member.decode("latin-1"), newest_ms)
        is_behind = len(moved) == 2 * MOVES_READ_MAX and newest_ms > self._read_from_ms
        self._read_from_ms = newest_ms if is_behind else max(0, newest_ms - OVERLAP_MS)

    def _show(self, upstreams: Sequence[UpstreamSnapshot]) -> None:
        now_ms = self._now_ms()
        for upstream in upstreams:
            peer = self._board.peer(upstream.upstream)
            METRICS.upstream_open.labels(upstream.name).set(int(peer.is_open))
            METRICS.upstream_in_flight.labels(upstream.name).set(peer.in_flight)
            cooling = sum(until > now_ms for until in peer.cooling.values())
            METRICS.upstream_cooling.labels(upstream.name).set(cooling)
            self._note_opened(upstream, is_open=peer.is_open)

    def _note_opened(self, upstream: UpstreamSnapshot, *, is_open: bool) -> None:
        if not is_open:
            self._seen_open.discard(upstream.upstream)
        elif upstream.upstream not in self._seen_open:
            self._seen_open.add(upstream.upstream)
            METRICS.upstream_opens.labels(upstream.name).inc()

    def _is_due(self, upstream: UpstreamSnapshot) -> bool:
        peer = self._board.peer(upstream.upstream)
        now_ms = self._now_ms()
        if not peer.is_open and now_ms - peer.heard_at_ms < CHECK_IDLE_MS:
            return False
        return now_ms >= self._due_ms.get(upstream.upstream, 0)

    async def _check_one(self, upstream: UpstreamSnapshot) -> None:
        number = upstream.upstream
        is_broken = self._board.peer(number).is_open
        period_ms = CHECK_BROKEN_MS if is_broken else CHECK_IDLE_MS
        self._due_ms[number] = self._now_ms() + int(period_ms * random.uniform(0.8, 1.2))  # noqa: S311
        turn = await self._pipe.execute(
            "SET",
            keyspace.upstream_check(number),
            self._worker,
            "NX",
            "PX",
            int(period_ms * 0.8),
        )
        if turn is None:
            return
        is_alive = await self._check(upstream)
        METRICS.upstream_checks.labels(upstream.name, "alive" if is_alive else "dead").inc()
        if is_alive:
            self._board.note_alive(number)
        else:
            self._board.note_dead(number)
