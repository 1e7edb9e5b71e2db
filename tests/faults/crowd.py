"""One of many client processes: asks until so many answers came, and prints when each one ran.

The arguments are the gateway's port, a key, and the number of answers. A span begins when the
headers are there, which is after admission, and ends with the last byte, which is before the slot
is free again.
"""

import asyncio
import json
import sys

from tests.storm.client import Connection, Seen

RETRY_SECONDS = 0.05


async def main() -> None:
    """Ask, note, print."""
    port, key, wanted = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    connection = Connection(port)
    spans: list[tuple[int, int]] = []
    refused = 0
    while len(spans) < wanted:
        seen = Seen(tenant="", is_stream=True, orders="tokens=40; pace_ms=20")
        await connection.ask(seen, key=key, body=BODY)
        if seen.is_answered:
            spans.append((seen.head_at_us, seen.ended_at_us))
        else:
            assert seen.status == 429, seen
            refused += 1
            await asyncio.sleep(RETRY_SECONDS)
    connection.close()
    sys.stdout.write(json.dumps({"spans": spans, "refused": refused}) + "\n")


BODY = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 100,
    "stream": True,
    "messages": [{"role": "user", "content": "Hello"}],
}

if __name__ == "__main__":
    asyncio.run(main())
