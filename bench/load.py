"""A load of known size over kept connections. python -m bench.load < JSON order

Reads one order from standard input (`port`, `requests`, `connections`, `body`, `headers`,
`seconds_max`), carries it out, and prints one JSON line: how long it took, how many answers there
were of each status, and one answer that was not 200.
"""

import asyncio
import json
import re
import sys
import time
from collections import Counter
from typing import Any, cast

import uvloop

_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
_END_OF_CHUNKS = b"0\r\n\r\n"


class Sender(asyncio.Protocol):
    """One connection: the next request goes out when the answer to the last one is complete."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._buffer = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an instance of it: uvloop has transports of its own.
        self._transport = cast(asyncio.Transport, transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        length = _LENGTH.search(self._buffer, 0, head_end)
        if length is not None:
            is_complete = len(self._buffer) >= head_end + 4 + int(length[1])
        else:
            is_complete = self._buffer.endswith(_END_OF_CHUNKS)
        if is_complete:
            self._load.answered(bytes(self._buffer))
            self._buffer.clear()
            self._next()

    def connection_lost(self, _error: Exception | None) -> None:
        self._load.lost()

    def _next(self) -> None:
        if self._load.take():
            self._transport.write(self._load.request)
        else:
            self._transport.close()


class Load:
    """The order and how far it is carried out."""

    def __init__(self, order: dict[str, Any]) -> None:
        body = order["body"].encode()
        head = "".join(f"{name}: {value}\r\n" for name, value in order["headers"].items())
        self.request = (
            f"POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\n{head}"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode() + body
        self._left: int = order["requests"]
        self._open: int = order["connections"]
        self._statuses: Counter[str] = Counter()
        self._order = order
        self._oddity = ""
        self._done = asyncio.get_running_loop().create_future()

    def take(self) -> bool:
        """Is there another request to send?"""
        self._left -= 1
        return self._left >= 0

    def answered(self, answer: bytes) -> None:
        """Count one complete answer."""
        status = answer[9:12].decode()
        self._statuses[status] += 1
        if status != "200":
            self._oddity = answer[-500:].decode("utf-8", "replace")

    def lost(self) -> None:
        """Count one closed connection; the last one ends the load."""
        self._open -= 1
        if self._open == 0 and not self._done.done():
            self._done.set_result(None)

    async def run(self) -> dict[str, Any]:
        """Carry the order out."""
        loop = asyncio.get_running_loop()
        begun = time.monotonic()
        for _ in range(self._order["connections"]):
            await loop.create_connection(lambda: Sender(self), "127.0.0.1", self._order["port"])
        async with asyncio.timeout(self._order["seconds_max"]):
            await self._done
        return {
            "seconds": time.monotonic() - begun,
            "statuses": dict(self._statuses),
            "oddity": self._oddity,
        }


async def _main() -> None:
    order = json.loads(sys.stdin.readline())
    sys.stdout.write(json.dumps(await Load(order).run()) + "\n")


if __name__ == "__main__":
    uvloop.run(_main())
