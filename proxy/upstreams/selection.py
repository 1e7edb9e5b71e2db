"""Which upstream to try, which next, and which to leave alone for a while.

The first priority with somebody healthy decides. Within it a conversation has a home, which its
number picks by weight among all that serve the model (rendezvous hashing), so that workers agree
without asking each other. What has no conversation goes where least runs for its weight; so does a
new conversation whose home is busy beyond its share, and it is then remembered where it went.
"""

import math
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from proxy.metrics import METRICS
from proxy.upstreams.conversation import Conversation
from proxy.upstreams.health import HealthBoard
from proxy.upstreams.moves import Moves
from turnpike.contracts.snapshots import Candidate, CredentialSnapshot, UpstreamSnapshot

# A home may run so much more than its share, and so many requests at least, before it is busy.
BUSY_FACTOR = 1.5
BUSY_MIN = 4
_MASK = (1 << 64) - 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One upstream to try, the name it knows the model by, and the credential to use there."""

    upstream: UpstreamSnapshot
    upstream_model: str
    weight: int = 1
    priority: int = 0
    credential: int | None = None
    body: bytes | None = None  # what it is sent, where that is not the client's own body
    ignored: tuple[str, ...] = ()  # what of the client's body it is not sent
    may_be_capped: bool = True  # False: neither the upstream nor any credential of it has a cap
    is_alone: bool = False  # True: there is no other upstream, nor credential, nor is it draining


Tried = Collection[tuple[int, int | None]]


def hops_of(
    upstreams: Mapping[str, UpstreamSnapshot], candidates: Iterable[Candidate]
) -> tuple[Hop, ...]:
    """The candidates as hops, by priority."""
    hops = [
        Hop(
            upstream=(upstream := upstreams[str(candidate.upstream)]),
            upstream_model=candidate.upstream_model,
            weight=max(candidate.weight, 1),
            priority=candidate.priority,
            credential=upstream.credentials[0].credential if upstream.credentials else None,
            may_be_capped=is_capped(upstream) or any(map(is_capped, upstream.credentials)),
        )
        for candidate in candidates
    ]
    if len(hops) == 1 and not _is_choice(hops[0]):
        # The usual case of a small installation, kept cheap.
        return (replace(hops[0], is_alone=True),)
    return tuple(sorted(hops, key=_priority))


def _is_choice(hop: Hop) -> bool:
    return len(hop.upstream.credentials) > 1 or hop.upstream.is_draining


def is_capped(item: UpstreamSnapshot | CredentialSnapshot) -> bool:
    """Whether an upstream or a credential has a cap of its own."""
    return item.requests_per_minute is not None or item.concurrency is not None


def needs_conversation(hops: Sequence[Hop]) -> bool:
    """Whether there is a choice to make that a conversation has a stake in."""
    first = hops[0]
    return not first.is_alone and (len(hops) > 1 or _is_choice(first))


class Chooser:
    """Picks the hop for each attempt."""

    def __init__(self, board: HealthBoard, moves: Moves) -> None:
        self._board = board
        self._moves = moves
        self._turn = 0

    def choose(
        self, hops: Sequence[Hop], conversation: Conversation | None, *, tried: Tried = ()
    ) -> Hop | None:
        """The hop to try now; None while nobody can serve. `tried`: upstream and credential."""
        if not tried and (only := hops[0]).is_alone:
            return only if self._board.is_usable(only.upstream) else None
        start = 0
        while start < len(hops):
            end = start + 1
            while end < len(hops) and hops[end].priority == hops[start].priority:
                end += 1
            found = self._choose_among(hops[start:end], conversation, tried)
            if found is not None:
                return found
            start = end
        return None

    def _choose_among(
        self, group: Sequence[Hop], conversation: Conversation | None, tried: Tried
    ) -> Hop | None:
        usable: dict[int, tuple[int | None, ...]] = {}
        for hop in group:
            credentials = self._board.usable_credentials(hop.upstream, tried)
            if credentials:
                usable[hop.upstream.upstream] = credentials
        ready = [hop for hop in group if hop.upstream.upstream in usable]
        if not ready:
            return None
        if conversation is None:
            picked = self._least_loaded(_open_to_new(ready))
        else:
            picked = self._place(group, ready, conversation, is_first_try=not tried)
        if picked is None:
            return None
        return self._with_credential(picked, usable[picked.upstream.upstream], conversation)

    def _place(
        self,
        group: Sequence[Hop],
        ready: Sequence[Hop],
        conversation: Conversation,
        *,
        is_first_try: bool,
    ) -> Hop | None:
        lives_at = self._moves.find(conversation.number)
        home = _rendezvous(group, conversation.number, _weight)
        expected = home.upstream.upstream if lives_at is None else lives_at
        found: Hop | None = None
        for hop in ready:
            if hop.upstream.upstream == expected:
                found = hop
        is_kept = found is not None
        if found is not None and conversation.is_new and lives_at is None:
            # It has nothing to lose yet.
            found = self._home_of_new(found, ready)
        elif found is None:
            others = _open_to_new(ready)
            found = _rendezvous(others, conversation.number, _weight) if others else None
        if found is None:
            return None
        if found.upstream.upstream != home.upstream.upstream or lives_at is not None:
            self._moves.remember(conversation.number, found.upstream.upstream)
        if is_first_try and not conversation.is_new:
            METRICS.conversation_turns.labels("kept" if is_kept else "moved").inc()
        return found

    def _home_of_new(self, home: Hop, ready: Sequence[Hop]) -> Hop | None:
        if home.upstream.is_draining or self._is_busy(home, ready):
            return self._least_loaded(_open_to_new(ready))
        return home

    def _is_busy(self, home: Hop, ready: Sequence[Hop]) -> bool:
        mine = self._in_flight(home)
        if mine < BUSY_MIN:
            return False
        total = sum(map(self._in_flight, ready))
        weights = sum(hop.weight for hop in ready)
        return (mine + 1) * weights > BUSY_FACTOR * (total + 1) * home.weight

    def _least_loaded(self, hops: Sequence[Hop]) -> Hop | None:
        return min(
            hops,
            key=lambda hop: ((self._in_flight(hop) + 1) / hop.weight, random.random()),  # noqa: S311
            default=None,
        )

    def _in_flight(self, hop: Hop) -> int:
        return self._board.peer(hop.upstream.upstream).in_flight

    def _with_credential(
        self, hop: Hop, usable: Sequence[int | None], conversation: Conversation | None
    ) -> Hop:
        if len(usable) == 1 and usable[0] == hop.credential:
            return hop
        if conversation is None:
            self._turn += 1
            credential = usable[self._turn % len(usable)]
        else:
            credential = _rendezvous(usable, conversation.number, _credential_weight)
        return replace(hop, credential=credential)


def _open_to_new(hops: Sequence[Hop]) -> list[Hop]:
    return [hop for hop in hops if not hop.upstream.is_draining]


def _priority(hop: Hop) -> tuple[int, int]:
    return hop.priority, hop.upstream.upstream


def _weight(hop: Hop) -> tuple[int, int]:
    return hop.upstream.upstream, hop.weight


def _credential_weight(credential: int | None) -> tuple[int, int]:
    return -1 - (credential or 0), 1


def _rendezvous(items: Sequence[T], number: int, identity: Callable[[T], tuple[int, int]]) -> T:
    return min(items, key=lambda item: _distance(number, *identity(item)))


def _distance(number: int, item: int, weight: int) -> float:
    """How far an item is from a number: the nearest of several is each as often as it weighs."""
    mixed = (number ^ (item * 0x9E3779B97F4A7C15)) & _MASK
    # The finalizer of splitmix64: every bit depends on every other.
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    mixed ^= mixed >> 31
    return -math.log((mixed + 0.5) / (_MASK + 1)) / weight
