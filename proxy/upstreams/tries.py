"""The attempts of one request: which hop comes next, how often, and until when.

Nothing is tried twice that may have been billed, and nothing is begun anew once so much time is
gone that the client is better served by an answer.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

import msgspec

from proxy.api_errors import ApiError, overloaded
from proxy.metrics import METRICS
from proxy.upstreams.client import UpstreamError
from proxy.upstreams.conversation import Conversation
from proxy.upstreams.forward import AttemptFailed, Blame, failure_of
from proxy.upstreams.health import HealthBoard
from proxy.upstreams.selection import Chooser, Hop
from turnpike.kernel import clock

ATTEMPTS_MAX = 3
# No attempt begins later than this after the first one.
RETRY_SECONDS_MAX = 20.0
SAME_HOP_TRIES_MAX = 2
# A credential that was refused and not told for how long rests this long, where there are others.
REFUSED_REST_SECONDS = 5


Answer = TypeVar("Answer")
Tried = frozenset[tuple[int, int | None]]
_NONE: Tried = frozenset()


class Lease(Protocol):
    """A place under an upstream's caps."""

    def release(self) -> None:
        """Give the place back."""


class Caps(Protocol):
    """Who counts against the caps of upstreams and their credentials."""

    def has_caps(self, hop: Hop) -> bool:
        """Whether anything is capped there."""

    async def take(self, hop: Hop) -> Lease | None:
        """A place for one attempt, or None where all are taken."""


class Tries(msgspec.Struct, eq=False):
    """One request's way through its upstreams. `hop` is the one that is being tried."""

    hop: Hop
    _hops: Sequence[Hop]
    _conversation: Conversation | None
    _chooser: Chooser
    _board: HealthBoard
    _caps: Caps
    _begun_at: float
    _is_stream: bool
    _tried: Tried = _NONE
    _capped: Tried = _NONE
    _count: int = 0
    _is_trial: bool = False
    _is_running: bool = False
    _is_served: bool = False
    _is_streamed: bool = False
    _lease: Lease | None = None
    _again: Hop | None = None

    def begin_now(self) -> Hop | None:
        """Begin the first attempt, where nobody need be asked; None: `begin` says what to do."""
        hop = self._chooser.choose(self._hops, self._conversation)
        return None if hop is None or hop.may_be_capped else self._start(hop)

    async def begin(self, failure: AttemptFailed | None = None) -> Hop:
        """Begin the next attempt. Raises ApiError when there is nobody left: the failure's own."""
        while True:
            hop = self._next()
            if hop is None:
                raise self._nobody(failure)
            if not self._caps.has_caps(hop) or await self._take_lease(hop):
                break
            self._capped |= {(hop.upstream.upstream, hop.credential)}
            self._again = None
        return self._start(hop)

    def _start(self, hop: Hop) -> Hop:
        # What is so already is not set again: a struct's field is dear to set.
        if hop is not self.hop:
            self.hop = hop
        if self._count:
            self._again, self._is_served, self._is_streamed = None, False, False
        self._count += 1
        is_trial = self._board.begin(hop.upstream.upstream)
        if is_trial is not self._is_trial:
            self._is_trial = is_trial
        self._is_running = True
        return hop

    async def first_answer(self, ask: Callable[[Hop], Awaitable[Answer]]) -> Answer:
        """What the first hop says that answers. Raises the last ApiError if nobody does."""
        hop = await self.begin()
        while True:
            try:
                answer = await ask(hop)
            except (AttemptFailed, UpstreamError) as error:
                failure = error if isinstance(error, AttemptFailed) else failure_of(error)
                if not self.may_go_on(failure):
                    raise failure.error from error
            else:
                self.note_served()
                return answer
            finally:
                self.end()
            hop = await self.begin(failure)

    def note_served(self) -> None:
        """The attempt brought an answer: from here on it is the upstream's."""
        if not self._is_served:
            self._is_served = True
            self._board.note_good(self.hop.upstream.upstream)

    def note_broken(self) -> None:
        """The stream began and broke off."""
        self._board.note_broken_off(self.hop.upstream.upstream)

    def note_streamed(self) -> None:
        """The stream came to its end. Whole documents say nothing of how streams end."""
        self._is_streamed = True

    def may_go_on(self, failure: AttemptFailed) -> bool:
        """The attempt failed: learn from it, and say whether another may be begun."""
        hop = self.hop
        self._learn(hop, failure)
        if not failure.may_try_next or self._count >= ATTEMPTS_MAX:
            return False
        if clock.monotonic_seconds() - self._begun_at > RETRY_SECONDS_MAX:
            return False
        if failure.blame is Blame.CREDENTIAL:
            self._tried |= {(hop.upstream.upstream, hop.credential)}
        else:
            credentials = (hop.credential, *[item.credential for item in hop.upstream.credentials])
            self._tried |= {(hop.upstream.upstream, credential) for credential in credentials}
        is_again = failure.is_repeatable and self._count < SAME_HOP_TRIES_MAX
        self._again = hop if is_again else None
        return True

    def end(self) -> None:
        """The attempt that runs is over, however it ended."""
        if self._is_running:
            self._is_running = False
            upstream = self.hop.upstream.upstream
            is_whole = self._is_streamed if self._is_stream else self._is_served
            self._board.end(
                upstream,
                is_trial=self._is_trial,
                is_whole=is_whole,
                is_stream=self._is_stream,
            )
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def _next(self) -> Hop | None:
        tried = self._tried | self._capped if self._count or self._capped else _NONE
        found = self._chooser.choose(self._hops, self._conversation, tried=tried)
        if found is not None or self._again is None:
            return found
        again = self._again
        # Once more at the same one, unless it is known by now to be broken.
        return again if self._board.usable_credentials(again.upstream) else None

    async def _take_lease(self, hop: Hop) -> bool:
        self._lease = await self._caps.take(hop)
        if self._lease is None:
            METRICS.upstream_capped.labels(hop.upstream.name).inc()
        return self._lease is not None

    def _learn(self, hop: Hop, failure: AttemptFailed) -> None:
        upstream = hop.upstream.upstream
        is_refused = failure.blame is Blame.CREDENTIAL
        rest = failure.cooling_seconds
        if not rest and is_refused and len(hop.upstream.credentials) > 1:
            rest = REFUSED_REST_SECONDS
        if rest:
            self._board.note_cooling(upstream, hop.credential, seconds=rest)
        if failure.blame is Blame.UPSTREAM or (is_refused and not rest):
            # What began to answer and did not get through with it began well each time.
            if self._is_served:
                self._board.note_broken_off(upstream)
            elif self._is_stream:
                self._board.note_failure(upstream)
            else:
                self._board.note_bad_document(upstream)

    def _nobody(self, failure: AttemptFailed | None) -> ApiError:
        if failure is not None:
            return failure.error
        wait = self._board.wait_seconds(hop.upstream for hop in self._hops)
        return overloaded(
            "No upstream can serve this model at the moment. Nothing was charged; "
            "try again shortly.",
            reason="upstream",
            retry_after_seconds=wait,
        )
