"""Which upstream to try, which next, and which to leave alone for a while."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from turnpike.contracts.snapshots import Candidate, UpstreamSnapshot

ATTEMPTS_MAX = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One upstream to try, and the name it knows the model by."""

    upstream: UpstreamSnapshot
    upstream_model: str
    body: bytes | None = None  # what it is sent, where that is not the client's own body
    ignored: tuple[str, ...] = ()  # what of the client's body it is not sent


def in_order(
    upstreams: Mapping[str, UpstreamSnapshot], candidates: Iterable[Candidate]
) -> tuple[Hop, ...]:
    """The candidates by priority, and within one priority drawn by weight."""
    drawn = sorted(
        candidates,
        # The Efraimidis-Spirakis key: sorting by it draws without replacement by weight.
        key=lambda item: (item.priority, -(random.random() ** (1.0 / max(item.weight, 1)))),  # noqa: S311
    )
    return tuple(
        Hop(upstream=upstreams[str(candidate.upstream)], upstream_model=candidate.upstream_model)
        for candidate in drawn[:ATTEMPTS_MAX]
    )
