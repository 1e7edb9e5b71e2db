"""The server's side of HTTP/1.1, over real sockets and with apps that do one thing each."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from proxy.asgi import App, Receive, Scope, Send
from proxy.http_cycle import BODY_IN_SCOPE, UNREAD_BYTES_MAX
from proxy.http_protocol import (
    HEADERS_IN_SCOPE,
    LEARNINGS_MAX,
    MEMO_IN_SCOPE,
    HttpProtocol,
)
from proxy.responses import send_answer

GET = b"GET /a%20b?c=d HTTP/1.1\r\nhost: x\r\n\r\n"
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
        return await asyncio.wait_for(self.reader.read(), 5)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
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
    async with asyncio.timeout(5):
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


async def test_keep_alive_serves_one_request_after_the_other(serve: Serve) -> None:
    wire = await serve(echo)

    bodies = []
    for body in (b"one", b"two", b""):
        wire.send(post(body))
        bodies.append((await wire.answer())[1])

    assert bodies == [b"one", b"two", b""]
    assert wire.state.total_requests == 3


async def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    wire = await serve(echo)

    wire.send(post(b"one") + post(b"two") + post(b"three"))

    assert [(await wire.answer())[1] for _ in range(3)] == [b"one", b"two", b"three"]


async def told(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what it was told of the request, and whether its head was known before."""
    fields = b"|".join(b"%b=%b" % field for field in scope["headers"])
    named = b"|".join(b"%b=%b" % field for field in scope[HEADERS_IN_SCOPE].items())
    assert fields == named
    is_known = b"known" if MEMO_IN_SCOPE in scope else b"new"
    told = (is_known, scope["method"].encode(), scope["raw_path"], fields, scope[BODY_IN_SCOPE])
    await send_answer(send, 200, [TEXT], b" ".join(told))


async def test_head_of_the_last_request_is_known_whatever_the_length(serve: Serve) -> None:
    wire = await serve(told)

    answers = []
    for body in (b"one", b"a" * 1_000, b"", b"three"):
        wire.send(post(body, b"X-One: 1"))
        answers.append((await wire.answer())[1])

    assert answers == [
        b"%b POST / host=x|content-length=%d|x-one=1 %b" % (word, len(body), body)
        for word, body in (
            (b"new", b"one"),
            (b"known", b"a" * 1_000),
            (b"known", b""),
            (b"known", b"three"),
        )
    ]
    assert wire.state.total_requests == 4


@pytest.mark.parametrize(
    "other",
    [
        post(b"two", b"X-One: 2"),
        post(b"two", b"X-One: 1", b"X-Two: 2"),
        post(b"two"),
        post(b"two", b"X-One: 1").replace(b"POST / ", b"POST /b "),
        post(b"two", b"X-One: 1").replace(b"POST ", b"PUT "),
        post(b"two", b"X-One: 1").replace(b"host: x", b"host: y"),
    ],
)
async def test_head_that_differs_anywhere_is_read_anew(serve: Serve, other: bytes) -> None:
    wire = await serve(told)

    answers = []
    for data in (post(b"one", b"X-One: 1"), other, other, post(b"one", b"X-One: 1")):
        wire.send(data)
        answers.append((await wire.answer())[1])

    assert [answer.split()[0] for answer in answers] == [b"new", b"new", b"known", b"new"]
    assert answers[1].split()[1:] == answers[2].split()[1:]


async def test_known_head_says_where_its_request_ends(serve: Serve) -> None:
    wire = await serve(echo)
    wire.send(post(b"first"))
    await wire.answer()

    # A part of the body, two requests at once, and a number that is none.
    whole = post(b"in parts")
    wire.send(whole[:-3])
    await asyncio.sleep(0.01)
    wire.send(whole[-3:] + post(b"two") + post(b"three"))
    answers = [(await wire.answer())[1] for _ in range(3)]
    wire.send(post(b"").replace(b"length: 0", b"length: x"))

    assert answers == [b"in parts", b"two", b"three"]
    assert (await wire.rest()).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "unusual",
    [
        post(b"3\r\none\r\n0\r\n\r\n").replace(
            b"content-length: 13", b"transfer-encoding: chunked"
        ),
        post(b"one", b"x-twice: 1", b"x-twice: 2"),
        post(b"one", b"connection: close"),
    ],
)
async def test_unusual_head_is_never_known(serve: Serve, unusual: bytes) -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await echo(scope, receive, send)

    for _ in range(2):
        wire = await serve(app)
        for data in (post(b"one"), unusual, unusual):
            wire.send(data)
            await wire.answer()
            if b"close" in data:
                break

    assert not any(MEMO_IN_SCOPE in scope for scope in scopes)


async def test_connection_with_another_head_each_time_stops_looking(serve: Serve) -> None:
    wire = await serve(told)

    answers = []
    for number in range(LEARNINGS_MAX + 2):
        wire.send(post(b"x", b"number: %d" % min(number, LEARNINGS_MAX)))
        answers.append((await wire.answer())[1].split()[0])

    assert set(answers) == {b"new"}


async def test_drain_closes_after_a_request_whose_head_is_known(serve: Serve) -> None:
    wire = await serve(echo)
    wire.send(post(b"one"))
    await wire.answer()

    for connection in wire.state.connections:
        assert isinstance(connection, HttpProtocol)
        connection.begin_drain()
    wire.send(post(b"two"))
    head, body = await wire.answer()

    assert (b"connection: close" in head, body) == (True, b"two")
    assert await wire.rest() == b""


async def test_path_and_query_arrive_decoded_and_raw(serve: Serve) -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await send_answer(send, 204, [], b"")

    wire = await serve(app)
    for url in (b"/a%20b?c=d", b"http://x/e?f", b"/g"):
        wire.send(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % url)
        await wire.answer()

    found = [(s["path"], s["raw_path"], s["query_string"]) for s in scopes]
    assert found == [("/a b", b"/a%20b", b"c=d"), ("/e", b"/e", b"f"), ("/g", b"/g", b"")]


async def test_whole_body_is_in_the_scope_only_where_it_came_with_the_head(serve: Serve) -> None:
    found: list[bytes | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(scope.get(BODY_IN_SCOPE))
        await echo(scope, receive, send)

    wire = await serve(app)
    wire.send(post(b"whole"))
    first = (await wire.answer())[1]
    request = post(b"in two parts")
    wire.send(request[:-4])
    await until(lambda: len(found) == 2)
    wire.send(request[-4:])
    second = (await wire.answer())[1]

    assert (first, second) == (b"whole", b"in two parts")
    assert found == [b"whole", None]


async def test_expectation_is_met_when_the_app_asks_for_the_body(serve: Serve) -> None:
    wire = await serve(echo)
    request = post(b"late", b"expect: 100-continue")

    wire.send(request[:-4])
    interim = await wire.reader.readuntil(b"\r\n\r\n")
    wire.send(b"late")

    assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert (await wire.answer())[1] == b"late"


async def test_refused_expectation_gets_no_interim_answer(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send_answer(send, 413, [], b"")

    wire = await serve(app)
    wire.send(post(b"late", b"expect: 100-continue")[:-4])

    assert (await wire.answer())[0].startswith(b"HTTP/1.1 413 ")


async def test_large_body_is_held_back_until_it_is_read(serve: Serve) -> None:
    may_read = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await may_read.wait()
        await echo(scope, receive, send)

    wire = await serve(app)
    body = b"x" * (20 * UNREAD_BYTES_MAX)
    wire.send(post(body))
    await until(lambda: any(item.flow.read_paused for item in _connections(wire)))
    may_read.set()

    assert (await wire.answer())[1] == body


def _connections(wire: Wire) -> list[Any]:
    return [item for item in wire.state.connections if getattr(item, "flow", None) is not None]


async def test_stream_is_chunked_and_its_head_leaves_with_the_first_bytes(serve: Serve) -> None:
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [TEXT]})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"second", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    wire = await serve(app)
    wire.send(GET)
    begun = await wire.reader.readuntil(b"first\r\n")
    go_on.set()
    rest = await wire.reader.readuntil(b"0\r\n\r\n")

    assert begun.endswith(b"transfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
    assert rest == b"6\r\nsecond\r\n0\r\n\r\n"


async def test_head_request_gets_the_length_without_the_body(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send_answer(send, 200, [], b"body")

    wire = await serve(app)
    wire.send(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n" + b"HEAD / HTTP/1.0\r\nhost: x\r\n\r\n")

    answers = await wire.rest()
    assert answers.count(b"content-length: 4\r\n") == 2
    assert b"body" not in answers


@pytest.mark.parametrize("request_head", [b"HTTP/1.0\r\nhost: x", b"HTTP/1.1\r\nconnection: close"])
async def test_connection_closes_where_the_client_wants_it(
    serve: Serve, request_head: bytes
) -> None:
    wire = await serve(echo)

    wire.send(b"GET / " + request_head + b"\r\n\r\n")

    assert b"connection: close\r\n" in await wire.rest()


async def test_connection_closes_where_the_app_wants_it(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"Connection", b"close"), (b"Content-Length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    wire = await serve(app)
    wire.send(GET)

    assert (await wire.rest()).lower().count(b"connection: close\r\n") == 1


async def test_idle_connection_is_closed_after_its_time_and_not_before(serve: Serve) -> None:
    wire = await serve(echo, timeout_keep_alive=0.2)

    for _ in range(4):
        wire.send(post(b"busy"))
        assert (await wire.answer())[1] == b"busy"

    assert await wire.rest() == b""


async def test_client_that_leaves_is_noticed_by_the_app(serve: Serve) -> None:
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        while (message := await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.body", "body": b"to nobody", "more_body": False})
        told.set_result(message["type"])

    wire = await serve(app)
    wire.send(GET)
    await wire.reader.readuntil(b"x\r\n")
    wire.writer.close()

    assert await asyncio.wait_for(told, 5) == "http.disconnect"


async def test_slow_reader_holds_the_app_back(serve: Serve) -> None:
    sent = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(300):
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            sent += 1
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    wire = await serve(app)
    wire.send(GET)
    await until(lambda: any(item.flow.write_paused for item in _connections(wire)))
    held_at = sent
    wire.send(b"GET / HTTP/1.0\r\n\r\n")
    everything = await wire.rest()

    assert held_at < 300
    assert everything.count(b"x" * 65_536) == 2 * 300


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([(b"x-bad", b"a\r\nset-cookie: b")], b""),
        ([(b"x-bad\n", b"a")], b""),
        ([(b"x-bad", b"\x00")], b""),
        ([(b"content-length", b"1")], b"too long"),
        ([(b"content-length", b"9")], b"short"),
    ],
)
async def test_answer_that_would_confuse_becomes_a_500(
    serve: Serve, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    wire = await serve(app)
    wire.send(GET)
    answer = await wire.rest()

    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"set-cookie" not in answer


async def test_whole_answer_with_a_line_break_becomes_a_500(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send_answer(send, 200, [(b"x-bad", b"a\r\nset-cookie: b")], b"ok")

    wire = await serve(app)
    wire.send(GET)

    assert (await wire.rest()).startswith(b"HTTP/1.1 500 ")


async def test_app_that_fails_or_forgets_to_answer_becomes_a_500(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/fails":
            raise ValueError("a mistake of ours")

    wire = await serve(app)
    wire.send(b"GET /fails HTTP/1.1\r\nhost: x\r\n\r\n")

    assert (await wire.rest()).startswith(b"HTTP/1.1 500 ")


async def test_app_that_fails_in_mid_stream_ends_the_connection(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("a mistake of ours")

    wire = await serve(app)
    wire.send(GET)
    answer = await wire.rest()

    assert answer.endswith(b"4\r\nhalf\r\n")


async def test_what_is_not_http_is_refused(serve: Serve) -> None:
    wire = await serve(echo)

    wire.send(b"\x16\x03\x01 not http\r\n\r\n")

    assert (await wire.rest()).startswith(b"HTTP/1.1 400 ")


async def test_shutdown_lets_the_running_answer_end_and_closes(serve: Serve) -> None:
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go_on.wait()
        await send_answer(send, 200, [], b"done")

    wire = await serve(app)
    wire.send(GET)
    await until(lambda: bool(wire.state.tasks))
    for connection in _connections(wire):
        connection.shutdown()
    go_on.set()
    answer = await wire.rest()

    assert b"connection: close\r\n" in answer
    assert answer.endswith(b"done")
