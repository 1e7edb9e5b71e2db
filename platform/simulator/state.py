"""What one simulator process remembers."""

import os
from dataclasses import dataclass, field

from simulator.exchange import Exchange
from simulator.prompt import PromptCache
from simulator.record import Record
from simulator.wire import IdSource

PACE_MS_DEFAULT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The bill, the prompt cache and the pace. Nothing of it outlives the process."""

    pace_ms: float
    is_static: bool
    batch_seconds: float = 0.0  # how long a batch takes, at least
    record: Record = field(default_factory=Record)
    cache: PromptCache = field(default_factory=PromptCache)
    ids: IdSource = field(default_factory=IdSource)

    def pace_seconds(self, exchange: Exchange) -> float:
        """How long to wait between two chunks of this answer."""
        own_ms = exchange.faults.pace_ms
        return (own_ms if own_ms >= 0 else self.pace_ms) / 1_000

    def reset(self) -> None:
        """Forget the bill and the cache."""
        self.record.reset()
        self.cache.reset()


def state_from_env() -> State:
    """The state of a new process: SIMULATOR_PACE_MS, SIMULATOR_STATIC, SIMULATOR_BATCH_SECONDS."""
    return State(
        pace_ms=float(os.environ.get("SIMULATOR_PACE_MS", PACE_MS_DEFAULT)),
        is_static=os.environ.get("SIMULATOR_STATIC", "") == "1",
        batch_seconds=float(os.environ.get("SIMULATOR_BATCH_SECONDS", "0")),
    )
