"""A client that writes down what it saw, byte for byte as far as money is concerned.

Raw sockets: what a client saw before its connection broke is the lower bound of what it may be
charged, and no library tells that.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from turnpike.kernel import clock

HEADERS_BYTES_MAX = 64 * 1024
READ_BYTES = 64 * 1024


@dataclass(slots=True, kw_only=True)
class Seen:
    """One request as its client saw it."""

    tenant: str
    is_stream: bool
    orders: str = ""
    idle_since_us: int = 0  # when its connection was made, or last served
    started_at_us: int = 0
    head_at_us: int = 0
    ended_at_us: int = 0
    status: int = 0
    request_id: str = ""
    error_type: str = ""
    characters: int = 0
    usage: dict[str, Any] = field(default_factory=dict)
    is_complete: bool = False  # the whole answer with its final usage
    is_left: bool = False  # the client hung up
    broke: str = ""  # how the connection ended, if it should not have

    @property
    def is_answered(self) -> bool:
        """Whether a whole and successful answer arrived."""
        return self.status == 200 and self.is_complete


class Broken(Exception):
    """The connection ended in the middle of something."""


class Connection:
    """One keep-alive connection to the gateway, made anew when it broke."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._used_at_us = 0

    async def ask(
        self,
        seen: Seen,
        *,
        key: str,
        body: dict[str, Any],
        leave_after: int = -1,
        seconds_max: float = 60.0,
    ) -> Seen:
        """Send a message request; `leave_after` so many events of a stream, hang up."""
        seen.started_at_us = clock.now_us()
        try:
            async with asyncio.timeout(seconds_max):
                await self._exchange(seen, key=key, body=body, leave_after=leave_after)
        except (OSError, Broken, asyncio.IncompleteReadError, TimeoutError) as error:
            seen.broke = f"{type(error).__name__}: {error}"
            self.close()
        finally:
            seen.ended_at_us = self._used_at_us = clock.now_us()
        return seen

    @property
    def local_port(self) -> int:
        """Our end of the connection that stands."""
        assert self._writer is not None
        port: int = self._writer.get_extra_info("sockname")[1]
        return port

    def close(self) -> None:
        """Hang up."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None

    async def _exchange(
        self, seen: Seen, *, key: str, body: dict[str, Any], leave_after: int
    ) -> None:
        if self._reader is None or self._reader.at_eof():
            self.close()
            self._used_at_us = clock.now_us()
        seen.idle_since_us = self._used_at_us
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._reader, self._writer
        writer.write(_request_bytes(self._port, key=key, body=body, orders=seen.orders))
        await writer.drain()
        headers = await _read_head(reader, seen)
        events = _read_body(reader, headers)
        if "text/event-stream" in headers.get("content-type", ""):
            await self._watch_stream(events, seen, leave_after=leave_after)
        else:
            _note_document(seen, b"".join([piece async for piece in events]))
        if headers.get("connection", "") == "close":
            self.close()

    async def _watch_stream(
        self, pieces: AsyncIterator[bytes], seen: Seen, *, leave_after: int
    ) -> None:
        rest, count = b"", 0
        async for piece in pieces:
            *events, rest = (rest + piece).split(b"\n\n")
            for event in events:
                count += 1
                _note_event(seen, event)
                if count == leave_after and not seen.is_complete:
                    seen.is_left = True
                    self.close()
                    return


def _request_bytes(port: int, *, key: str, body: dict[str, Any], orders: str) -> bytes:
    content = json.dumps(body).encode()
    lines = [
        "POST /v1/messages HTTP/1.1",
        f"host: 127.0.0.1:{port}",
        f"x-api-key: {key}",
        "anthropic-version: 2023-06-01",
        "content-type: application/json",
        f"content-length: {len(content)}",
    ]
    if orders:
        lines.append(f"x-simulator: {orders}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


async def _read_head(reader: asyncio.StreamReader, seen: Seen) -> dict[str, str]:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    seen.head_at_us = clock.now_us()
    seen.status = int(first.split(" ")[1])
    headers = {
        name.lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines if line)
    }
    seen.request_id = headers.get("request-id", "")
    return headers


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    if "chunked" not in headers.get("transfer-encoding", ""):
        yield await reader.readexactly(int(headers.get("content-length", "0")))
        return
    while True:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        chunk = await reader.readexactly(size + 2)
        if size == 0:
            return
        yield chunk[:-2]


def _note_document(seen: Seen, body: bytes) -> None:
    document = json.loads(body)
    if document["type"] == "error":
        seen.error_type = document["error"]["type"]
        return
    seen.usage, seen.is_complete = document["usage"], True
    seen.characters = sum(len(block.get("text", "")) for block in document["content"])


def _note_event(seen: Seen, event: bytes) -> None:
    data = event.partition(b"data: ")[2]
    document: dict[str, Any] = json.loads(data) if data else {"type": "none"}
    kind = document["type"]
    if kind == "message_start":
        seen.usage = dict(document["message"]["usage"])
    elif kind == "content_block_delta":
        seen.characters += len(document["delta"].get("text", ""))
    elif kind == "message_delta":
        seen.usage.update(document["usage"])
    elif kind == "message_stop":
        seen.is_complete = True
    elif kind == "error":
        seen.error_type = document["error"]["type"]
