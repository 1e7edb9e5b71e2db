"""What a worker knows of its upstreams: who fails, who rests, how much runs where.

A breaker for each upstream: closed, open after failures, and half open when its time is over: then
one request at a time tries whether it is well again. A credential that was told to wait rests until
then. Nothing here does I/O; `health_sync` tells the other workers.
"""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from turnpike.contracts.snapshots import UpstreamSnapshot
from turnpike.kernel import clock

FAILURES_IN_ROW_MAX = 5
WINDOW_MS = 10_000
WINDOW_FAILURES_MIN = 10
OPEN_MS_MIN = 1_000
OPEN_MS_MAX = 10_000  # the longest time until a broken upstream is tried again
OPENS_MAX = 8
# So long after it was found well again, the first failure counts as much as many.
PROBATION_MS = 10_000
JITTER = 0.2
COOLING_MS_MAX = 60_000
BREAKER_FIELD = "breaker"
COOLING_PREFIX = "c:"


@dataclass(slots=True)
class Peer:
    """One upstream as this worker sees it; instants are milliseconds since 1970."""

    in_flight: int = 0
    broken_in_row: int = 0  # streams; whole documents say nothing of them
    bad_documents_in_row: int = 0  # nor streams of these
    failures_in_row: int = 0
    window_at_ms: int = 0
    window_good: int = 0
    window_bad: int = 0
    is_open: bool = False
    open_until_ms: int = 0
    opens: int = 0
    changed_at_ms: int = 0
    closed_at_ms: int = 0  # when it was found well again
    is_dead: bool = False  # by the last check
    trials: int = 0  # requests that are trying it while it is half open
    heard_at_ms: int = 0  # when it last answered or failed
    cooling: dict[int, int] = field(default_factory=dict)

    def admits(self, now_ms: int) -> bool:
        """Whether a request may go there, as far as the breaker is concerned."""
        return not self.is_open or (now_ms >= self.open_until_ms and self.trials == 0)


class HealthBoard:
    """All upstreams as this worker sees them."""

    def __init__(self, *, now_ms: Callable[[], int] = clock.now_ms) -> None:
        self._now_ms = now_ms
        self._peers: dict[int, Peer] = {}
        self._changed: dict[int, set[str]] = {}

    def peer(self, upstream: int) -> Peer:
        """What is known of an upstream."""
        found = self._peers.get(upstream)
        if found is None:
            found = self._peers[upstream] = Peer(heard_at_ms=self._now_ms())
        return found

    def usable_credentials(
        self, upstream: UpstreamSnapshot, tried: Iterable[tuple[int, int | None]] = ()
    ) -> tuple[int | None, ...]:
        """The credentials with which a request may go there now; none: leave it alone."""
        peer = self.peer(upstream.upstream)
        now_ms = self._now_ms()
        if not peer.admits(now_ms):
            return ()
        known: tuple[int | None, ...] = tuple(item.credential for item in upstream.credentials)
        known = known or (None,)
        if not peer.cooling and not tried:
            return known
        return tuple(
            credential
            for credential in known
            if (upstream.upstream, credential) not in tried
            and peer.cooling.get(credential or 0, 0) <= now_ms
        )

    def is_usable(self, upstream: UpstreamSnapshot) -> bool:
        """Whether a request may go there now, with whatever credential."""
        peer = self._peers.get(upstream.upstream)
        if peer is None or not (peer.is_open or peer.cooling):
            return True  # nothing was ever heard against it, or nothing that is not over
        return bool(self.usable_credentials(upstream))

    def wait_seconds(self, upstreams: Iterable[UpstreamSnapshot]) -> int:
        """In how many seconds one of them may serve again; at least one."""
        now_ms = self._now_ms()
        waits = []
        for upstream in upstreams:
            peer = self.peer(upstream.upstream)
            rests = [peer.cooling.get(item.credential, 0) for item in upstream.credentials]
            rest_until = min(rests, default=0)
            waits.append(max(rest_until, peer.open_until_ms if peer.is_open else 0) - now_ms)
        return max(1, -(-min(waits, default=0) // 1_000))

    def begin(self, upstream: int) -> bool:
        """A request goes there; True if it is the one that tries a broken upstream."""
        peer = self._peers.get(upstream) or self.peer(upstream)
        peer.in_flight += 1
        peer.trials += peer.is_open
        return peer.is_open

    def end(
        self, upstream: int, *, is_trial: bool, is_whole: bool = False, is_stream: bool = True
    ) -> None:
        """The request that `begin` counted is over; `is_whole`: its answer came to its end."""
        peer = self._peers.get(upstream) or self.peer(upstream)
        if is_whole and is_stream:
            peer.broken_in_row = 0
        elif is_whole:
            peer.bad_documents_in_row = 0
        if peer.in_flight > 0:
            peer.in_flight -= 1
        if is_trial:
            peer.trials = max(0, peer.trials - 1)

    def note_good(self, upstream: int) -> None:
        """It answered as an upstream should."""
        peer = self._heard(upstream)
        peer.failures_in_row = 0
        peer.window_good += 1
        if peer.is_open:
            peer.is_open, peer.closed_at_ms = False, self._now_ms()
            peer.window_good = peer.window_bad = 0
            self._note_change(upstream, peer)

    def note_failure(self, upstream: int, *, weight: int = 1) -> None:
        """It failed in a way that says something about all its requests."""
        peer = self._heard(upstream)
        peer.failures_in_row += weight
        peer.window_bad += 1
        if peer.is_open:
            if self._now_ms() >= peer.open_until_ms:
                self._open(upstream, peer)
        elif self._is_too_bad(peer):
            self._open(upstream, peer)

    def note_broken_off(self, upstream: int) -> None:
        """A stream that had begun well broke off: many in a row say as much as no answers do."""
        self._heard(upstream).broken_in_row += 1
        self.note_failure(upstream)

    def note_bad_document(self, upstream: int) -> None:
        """A document was asked for and none came: the same of documents, whatever streams do."""
        self._heard(upstream).bad_documents_in_row += 1
        self.note_failure(upstream)

    def note_alive(self, upstream: int) -> None:
        """A check found it alive: if it was found dead before, requests may try it at once.

        Otherwise it fails in ways that checks do not see, and its time runs as it was set.
        """
        peer = self._heard(upstream)
        if peer.is_dead and peer.is_open and peer.open_until_ms > self._now_ms():
            peer.open_until_ms = self._now_ms()
            self._note_change(upstream, peer)
        peer.is_dead = False

    def note_dead(self, upstream: int) -> None:
        """A check found it dead: no request need find out."""
        peer = self.peer(upstream)
        peer.is_dead = True
        if peer.is_open:
            peer.heard_at_ms = self._now_ms()
            self._open(upstream, peer)
        else:
            self.note_failure(upstream, weight=FAILURES_IN_ROW_MAX // 2 + 1)

    def note_cooling(self, upstream: int, credential: int | None, *, seconds: int) -> None:
        """It told this credential to wait."""
        until_ms = self._now_ms() + min(seconds * 1_000, COOLING_MS_MAX)
        peer = self._heard(upstream)
        if until_ms > peer.cooling.get(credential or 0, 0):
            peer.cooling[credential or 0] = until_ms
            self._changed.setdefault(upstream, set()).add(f"{COOLING_PREFIX}{credential or 0}")

    def take_changes(self) -> dict[int, dict[str, str]]:
        """What changed since the last call: the fields of each upstream's hash."""
        changed, self._changed = self._changed, {}
        return {
            upstream: {name: self._field(self.peer(upstream), name) for name in names}
            for upstream, names in changed.items()
        }

    def give_back(self, changes: Mapping[int, Mapping[str, str]]) -> None:
        """The changes could not be told; they are told with the next ones."""
        for upstream, fields in changes.items():
            self._changed.setdefault(upstream, set()).update(fields)

    def learn(self, upstream: int, fields: Mapping[str, str]) -> None:
        """Take over what another worker found out, where it is newer. Nonsense is left out."""
        peer = self.peer(upstream)
        now_ms = self._now_ms()
        for name, value in fields.items():
            numbers = [int(part) for part in value.split(":") if part.isdecimal()]
            if name == BREAKER_FIELD and len(numbers) == 4:
                self._learn_breaker(peer, numbers, now_ms)
            elif name.startswith(COOLING_PREFIX) and len(numbers) == 1:
                credential = name.removeprefix(COOLING_PREFIX)
                until_ms = min(numbers[0], now_ms + COOLING_MS_MAX)
                if credential.isdecimal() and until_ms > now_ms:
                    known = peer.cooling.get(int(credential), 0)
                    peer.cooling[int(credential)] = max(known, until_ms)

    def forget_others(self, upstreams: Iterable[int]) -> None:
        """Drop what is known of upstreams that are no more, and rests that are over."""
        now_ms = self._now_ms()
        kept = set(upstreams)
        for upstream in [number for number in self._peers if number not in kept]:
            if self._peers[upstream].in_flight == 0:
                del self._peers[upstream]
        for peer in self._peers.values():
            peer.cooling = {name: until for name, until in peer.cooling.items() if until > now_ms}

    def _learn_breaker(self, peer: Peer, numbers: list[int], now_ms: int) -> None:
        is_open, until_ms, opens, changed_at_ms = numbers
        if changed_at_ms <= peer.changed_at_ms:
            return
        peer.is_open, peer.opens = bool(is_open), min(opens, OPENS_MAX)
        peer.open_until_ms = min(until_ms, now_ms + OPEN_MS_MAX)
        peer.changed_at_ms = changed_at_ms
        peer.failures_in_row = peer.window_good = peer.window_bad = 0

    def _heard(self, upstream: int) -> Peer:
        peer = self._peers.get(upstream) or self.peer(upstream)
        peer.heard_at_ms = now_ms = self._now_ms()
        if not 0 <= now_ms - peer.window_at_ms < WINDOW_MS:
            peer.window_at_ms, peer.window_good, peer.window_bad = now_ms, 0, 0
        return peer

    def _is_too_bad(self, peer: Peer) -> bool:
        is_on_probation = self._now_ms() - peer.closed_at_ms < PROBATION_MS
        return (
            is_on_probation
            or max(peer.failures_in_row, peer.broken_in_row, peer.bad_documents_in_row)
            >= FAILURES_IN_ROW_MAX
            or (peer.window_bad >= WINDOW_FAILURES_MIN and peer.window_bad >= peer.window_good)
        )

    def _open(self, upstream: int, peer: Peer) -> None:
        if not peer.is_open and self._now_ms() - peer.closed_at_ms >= PROBATION_MS:
            peer.opens = 0
        period_ms = min(OPEN_MS_MIN << peer.opens, OPEN_MS_MAX)
        # Earlier by some, so that the workers of a fleet do not all try in the same instant.
        spread = 1.0 - random.random() * JITTER  # noqa: S311
        peer.is_open = True
        peer.open_until_ms = self._now_ms() + int(period_ms * spread)
        peer.opens = min(peer.opens + 1, OPENS_MAX)
        peer.broken_in_row = peer.bad_documents_in_row = 0
        peer.failures_in_row = peer.window_good = peer.window_bad = 0
        self._note_change(upstream, peer)

    def _note_change(self, upstream: int, peer: Peer) -> None:
        peer.changed_at_ms = max(self._now_ms(), peer.changed_at_ms + 1)
        self._changed.setdefault(upstream, set()).add(BREAKER_FIELD)

    def _field(self, peer: Peer, name: str) -> str:
        if name == BREAKER_FIELD:
            return f"{int(peer.is_open)}:{peer.open_until_ms}:{peer.opens}:{peer.changed_at_ms}"
        return str(peer.cooling.get(int(name.removeprefix(COOLING_PREFIX)), 0))
