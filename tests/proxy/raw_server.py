"""A TCP server that does exactly what a test scripts, and how the client's tests ask it."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from proxy.upstreams.client import Target, UpstreamClient, UpstreamResponse

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
WAIT_SECONDS_MAX = 30.0


@dataclass(slots=True)
class Peer:
    """The server's end of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int

    async def request(self) -> tuple[bytes, bytes]:
        """Read one request: its head and its body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return head, await self.reader.readexactly(length)

    async def write(self, *parts: bytes) -> None:
        """Write each part by itself."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    async def closed(self) -> None:
        """Wait until the client has closed its end."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65_536):
                pass

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


@dataclass(slots=True)
class RawServer:
    """Runs the script once for each connection, and closes it afterwards."""

    script: Script
    target: Target = field(init=False)
    connections: int = 0
    errors: list[BaseException] = field(default_factory=list)
    tasks: set["asyncio.Task[None] | None"] = field(default_factory=set)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.tasks.add(asyncio.current_task())
        peer = Peer(reader, writer, self.connections)
        try:
            await asyncio.wait_for(self.script(peer), WAIT_SECONDS_MAX)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except (AssertionError, TimeoutError) as error:
            self.errors.append(error)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def raw_server(
    script: Script, *, tls: ssl.SSLContext | None = None, host_header: bytes = b"upstream.test"
) -> AsyncIterator[RawServer]:
    """Serve on a free port of loopback; fails the test where the script failed."""
    server = RawServer(script)
    listener = await asyncio.start_server(server._serve, "127.0.0.1", 0, ssl=tls)
    port = listener.sockets[0].getsockname()[1]
    server.target = Target("localhost" if tls else "127.0.0.1", port, tls is not None, host_header)
    try:
        yield server
    finally:
        listener.close()
        running = [task for task in server.tasks if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    assert server.errors == []


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until the condition holds."""
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.001)


async def post(
    client: UpstreamClient,
    target: Target,
    body: bytes | list[bytes] = b"{}",
    *,
    seconds: float = 9.0,
    headers: list[tuple[bytes, bytes]] | None = None,
) -> UpstreamResponse:
    return await client.send(
        target,
        b"POST",
        b"/v1/messages",
        [(b"content-type", b"application/json")] if headers is None else headers,
        body,
        connect_timeout_seconds=5,
        headers_timeout_seconds=seconds,
    )


async def ask(client: UpstreamClient, target: Target, **options: Any) -> tuple[int, bytes, bool]:
    response = await post(client, target, **options)
    return response.status, await response.read_all(10_000, 9), response.is_reused
