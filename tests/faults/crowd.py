"""One of many client processes: asks until so many answers came, and prints when each one began.

The arguments are the gateway's port, a key, and the number of answers.
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
    begun_at_us: dict[str, int] = {}
    refused = 0
    while len(begun_at_us) < wanted:
        seen = Seen(tenant="", is_stream=True, orders="tokens=40; pace_ms=20")
        await connection.ask(seen, key=key, body=BODY)
        if seen.is_answered:
            begun_at_us[seen.request_id] = seen.head_at_us
        else:
            assert seen.status in (429, 529), seen  # a machine so busy that Redis is late, say
            refused += 1
            await asyncio.sleep(RETRY_SECONDS)
    connection.close()
    sys.stdout.write(json.dumps({"begun_at_us": begun_at_us, "refused": refused}) + "\n")


BODY = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 100,
    "stream": True,
    "messages": [{"role": "user", "content": "Hello"}],
}

if __name__ == "__main__":
    asyncio.run(main())
