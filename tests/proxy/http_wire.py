"""A client's end of a connection to the server's side of HTTP/1.1, byte by byte."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from proxy.asgi import App, Receive, Scope, Send
from proxy.http_protocol import HttpProtocol
from proxy.responses import send_answer

# How long a connection of `serve_echo` may be idle.
ECHO_IDLE_SECONDS = 0.1
TEXT = (b"content-type", b"text/plain")
Serve = Callable[..., Awaitable["Wire"]]


class Wire:
    """A client's end of one connection, and the server's state behind it."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: ServerState
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.state = state

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)

    async def answer(self) -> tuple[bytes, bytes]:
        """The next answer with a length: its head and its body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        return head, await self.reader.readexactly(int(fields.get(b"content-length", b"0")))

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        return await asyncio.wait_for(self.reader.read(), 30)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Serve]:
    """Serves an app and connects to it."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(app: App, **settings: Any) -> Wire:
            config = Config(
                app, ws="none", lifespan="off", log_config=None, proxy_headers=False, **settings
            )
            config.load()
            state = ServerState()
            server = await asyncio.get_running_loop().create_server(
                lambda: HttpProtocol(config=config, server_state=state, app_state={}),
                "127.0.0.1",
                0,
            )
            stack.callback(server.close)
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.push_async_callback(_close, writer, state)
            return Wire(reader, writer, state)

        yield start


async def _close(writer: asyncio.StreamWriter, state: ServerState) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    await until(lambda: not (state.connections or state.tasks))


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so; fails after some seconds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the loop's turns
            await asyncio.sleep(0)


def post(body: bytes, *more: bytes) -> bytes:
    """A request with a body."""
    lines = [b"POST / HTTP/1.1", b"host: x", b"content-length: %d" % len(body), *more]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what it was sent."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send_answer(send, 200, [TEXT], body)


async def serve_echo() -> None:
    """Serve `echo` until the process ends, and print the port."""
    config = Config(
        echo,
        ws="none",
        lifespan="off",
        log_config=None,
        proxy_headers=False,
        timeout_keep_alive=ECHO_IDLE_SECONDS,  # type: ignore[arg-type]  # any number will do
    )
    config.load()
    server = await asyncio.get_running_loop().create_server(
        lambda: HttpProtocol(config=config, server_state=ServerState(), app_state={}),
        "127.0.0.1",
        0,
    )
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()
