"""Conversations that live elsewhere than their number says, because their home could not take them.

Few do, so few are remembered: the rest is computed. What one worker learns reaches the others with
the round of `health_sync`, a second later.
"""

from collections import OrderedDict
from collections.abc import Callable

from turnpike.kernel import clock

MOVES_MAX = 20_000
KEPT_MS = 3_600_000  # as long as the longest cache
TOLD_AT_ONCE_MAX = 1_000


class Moves:
    """Conversation -> upstream, the last ones used."""

    def __init__(self, *, now_ms: Callable[[], int] = clock.now_ms) -> None:
        self._now_ms = now_ms
        self._known: OrderedDict[int, tuple[int, int]] = OrderedDict()
        self._untold: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, conversation: int) -> int | None:
        """Where a conversation lives, if that is not where its number says."""
        found = self._known.get(conversation)
        if found is None:
            return None
        if self._now_ms() - found[1] > KEPT_MS:
            del self._known[conversation]
            return None
        return found[0]

    def remember(self, conversation: int, upstream: int) -> None:
        """A conversation lives here from now on."""
        known = self._known.get(conversation)
        now_ms = self._now_ms()
        if known is None or known[0] != upstream:
            self._untold[conversation] = (upstream, now_ms)
        self._keep(conversation, upstream, now_ms)

    def take_untold(self) -> list[tuple[str, int]]:
        """Members and scores for Redis: what the other workers do not know, bounded."""
        told = list(self._untold.items())[:TOLD_AT_ONCE_MAX]
        for conversation, _ in told:
            del self._untold[conversation]
        return [
            (f"{conversation:016x}:{upstream}", at_ms) for conversation, (upstream, at_ms) in told
        ]

    def learn(self, member: str, at_ms: int) -> None:
        """Take over a member that another worker wrote, where it is newer."""
        conversation, _, upstream = member.partition(":")
        try:
            number = int(conversation, 16)
        except ValueError:
            return
        known = self._known.get(number)
        if upstream.isdecimal() and (known is None or at_ms > known[1]):
            self._keep(number, int(upstream), at_ms)

    def _keep(self, conversation: int, upstream: int, at_ms: int) -> None:
        self._known[conversation] = (upstream, at_ms)
        self._known.move_to_end(conversation)
        while len(self._known) > MOVES_MAX:
            self._untold.pop(self._known.popitem(last=False)[0], None)
