"""One gateway process of a crowd: asks as fast as it can and reports what it got.

    python -m tests.proxy.limiter_crowd REDIS_URL

Prints one JSON object. It pushes to the list `ready` and starts when something is pushed to the
list `go`, so that all processes of a crowd begin together.
"""

import asyncio
import json
import sys

from proxy.limiter.limiter import Limiter
from proxy.redis_cluster import make_link
from proxy.redis_link import RedisLink
from tests.proxy.limiter_world import Asked, World
from tests.support.redis_clients import connect
from turnpike.contracts.snapshots import Limits
from turnpike.kernel import ids

SLOTS = 7
HOLD_MICRO = 1_000
REQUESTS_PER_MINUTE = 300
TRIES = 40
TASKS = 2
WAITS_MAX = 20_000
SLOTTED = Asked(tenant=Limits(concurrency=SLOTS))
RATED = Asked(tenant=Limits(requests_per_minute=REQUESTS_PER_MINUTE))


async def main(url: str) -> None:
    """Two rounds: one against slots and credit, one against a rate."""
    pipe = make_link(url, timeout_seconds=20.0)
    await pipe.start()
    limiter = Limiter(pipe, timeout_seconds=20.0, write_timeout_seconds=20.0)
    world = World(client=connect(url))
    await pipe.execute("RPUSH", "ready", 1)
    await pipe.execute("BLPOP", "go", 30, timeout_seconds=40.0)
    slotted = await asyncio.gather(*(run_slotted(pipe, limiter, world) for _ in range(TASKS)))
    rated = [
        (await limiter.admit(world.spec(rid=new_rid(), asked=RATED, hold_micro=0))).is_granted
        for _ in range(TRIES)
    ]
    await pipe.stop()
    report = {
        "granted": sum(granted for granted, _ in slotted),
        "overlap": max(overlap for _, overlap in slotted),
        "rated": sum(rated),
    }
    sys.stdout.write(json.dumps(report))


async def run_slotted(pipe: RedisLink, limiter: Limiter, world: World) -> tuple[int, int]:
    """Ask until the credit is gone; count the requests that run at the same time, everywhere."""
    granted = overlap = 0
    while True:
        spec = world.spec(rid=new_rid(), asked=SLOTTED, hold_micro=HOLD_MICRO)
        admission = await limiter.admit(spec)
        if admission.reason == "credit":
            return granted, overlap
        if not admission.is_granted:
            continue
        granted += 1
        overlap = max(overlap, await pipe.execute("INCR", "running"))
        await until_all_slots_were_taken(pipe, overlap)
        await pipe.execute("DECR", "running")
        await limiter.settle(spec, charges={}, hold_micro=HOLD_MICRO, event=b"{}", rank=3)


async def until_all_slots_were_taken(pipe: RedisLink, overlap: int) -> None:
    """The first ones wait for one another, so that the limit is really reached."""
    if overlap >= SLOTS:
        await pipe.execute("SET", "full", 1)
    for _ in range(WAITS_MAX):
        if await pipe.execute("GET", "full"):
            return


def new_rid() -> str:
    """A request id that no other process makes."""
    return str(ids.uuid7())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
