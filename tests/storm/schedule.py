"""The seeded schedule of faults: one seed and length give the same faults at the same times."""

import random
from dataclasses import dataclass

KILL_GATEWAY = "kill gateway worker"
FREEZE_GATEWAY = "freeze gateway worker"
KILL_INGEST = "kill ingest"
KILL_VALKEY = "kill valkey"
CUT_VALKEY = "kill valkey and cut its log"
FLUSH_VALKEY = "flush all redis data"
WIPE_VALKEY = "kill valkey and wipe its data"
RESTART_POSTGRES = "restart postgres"

LOSSES = (FLUSH_VALKEY, WIPE_VALKEY)
# Seconds between two of a kind, on average; losses of all data come once in a storm of a minute.
DISTANCES = {
    KILL_GATEWAY: 6.0,
    KILL_INGEST: 9.0,
    KILL_VALKEY: 20.0,
    CUT_VALKEY: 40.0,
    RESTART_POSTGRES: 25.0,
    FREEZE_GATEWAY: 30.0,
}
LOSS_SECONDS = 60.0
# Load without faults at both ends; a loss comes early enough that its fence opens under load.
CALM_SECONDS = 3.0
LOSS_SHARE = (0.3, 0.6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault: when, what, and a number from the seed for whoever carries it out."""

    at_seconds: float
    kind: str
    number: int


def make_schedule(*, seed: int, seconds: float) -> list[Fault]:
    """The faults of a storm, by time."""
    rng = random.Random(f"{seed} faults {seconds}")
    faults = []
    for kind, distance_seconds in DISTANCES.items():
        count = max(1, round(seconds / distance_seconds))
        for place in range(count):
            at = CALM_SECONDS + (place + rng.random()) * (seconds - 2 * CALM_SECONDS) / count
            faults.append(Fault(at_seconds=at, kind=kind, number=rng.getrandbits(32)))
    losses = max(1, round(seconds / LOSS_SECONDS))
    first = rng.randrange(len(LOSSES))
    for place in range(losses):
        at = (place + rng.uniform(*LOSS_SHARE)) * seconds / losses
        kind = LOSSES[(first + place) % len(LOSSES)]
        faults.append(Fault(at_seconds=at, kind=kind, number=rng.getrandbits(32)))
    return sorted(faults, key=lambda fault: fault.at_seconds)
