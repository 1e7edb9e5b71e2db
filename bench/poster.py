"""Posts what the data plane wrote, as the ingest does in production. python -m bench.poster URL

Without it every event of a run would wait in the gateway's outbox, which asks for each of them
again and again: a backlog that a running platform does not have. Its CPU is not counted.
"""

import json
import sys
import time
from typing import Any

import redis

from bench.plane import TENANT
from bench.processes import ROOT
from turnpike.kernel import keyspace

BATCH = 500
PAUSE_SECONDS = 0.2
SHARD = keyspace.shard_of(TENANT)
PUBLISH = ROOT / "platform" / "turnpike" / "control" / "lua" / "publish.lua"


def post_batch(client: redis.Redis, publish: Any) -> int:
    """Confirm the oldest events and take them from the stream; how many there were."""
    entries: Any = client.xrange(keyspace.usage_stream(SHARD), count=BATCH)
    events = [json.loads(fields[b"e"]) for _, fields in entries]
    if not events:
        return 0
    keys = [
        keyspace.wallet(TENANT),
        keyspace.budgets(TENANT),
        keyspace.unposted(SHARD),
        keyspace.open_requests(SHARD),
        *[keyspace.record(TENANT, event["rid"]) for event in events],
    ]
    # Version 0 is never newer: the wallet keeps what it was given at the start.
    publish(keys=keys, args=[0, 0, 0, TENANT, "{}", *[event["rank"] for event in events]])
    client.xdel(keyspace.usage_stream(SHARD), *[number for number, _ in entries])
    return len(events)


def main() -> None:
    """Post for as long as the run lasts."""
    with redis.Redis.from_url(sys.argv[1]) as client:
        publish = client.register_script(PUBLISH.read_text())
        while True:
            if post_batch(client, publish) < BATCH:
                time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main()
