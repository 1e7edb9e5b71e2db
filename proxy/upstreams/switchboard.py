"""What a worker chooses upstreams with, in one place: health, moved conversations, caps."""

from collections.abc import Sequence

from proxy.body import MessagesBody
from proxy.upstreams.conversation import conversation_of
from proxy.upstreams.health import HealthBoard
from proxy.upstreams.moves import Moves
from proxy.upstreams.selection import Chooser, Hop, needs_conversation
from proxy.upstreams.tries import Caps, Tries
from turnpike.kernel import clock


class Switchboard:
    """Begins the attempts of requests."""

    def __init__(self, *, board: HealthBoard, moves: Moves, caps: Caps) -> None:
        self.board = board
        self._caps = caps
        self._chooser = Chooser(board, moves)

    def tries(
        self,
        hops: Sequence[Hop],
        body: MessagesBody | None = None,
        *,
        key: int = 0,
        model: str = "",
        begun_at: float | None = None,
    ) -> Tries:
        """The attempts of one request; without a body it belongs to no conversation."""
        conversation = None
        if body is not None and needs_conversation(hops):
            conversation = conversation_of(body, key=key, model=model)
        return Tries(
            hops[0],
            hops,
            conversation,
            self._chooser,
            self.board,
            self._caps,
            clock.monotonic_seconds() if begun_at is None else begun_at,
            body is not None and body.is_stream,
        )
