"""The server's side of HTTP/1.1, over real sockets and with apps that do one thing each."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.asgi import Receive, Scope, Send
from proxy.http_cycle import BODY_IN_SCOPE, UNREAD_BYTES_MAX
from proxy.responses import send_answer
from tests.proxy.http_wire import ECHO_IDLE_SECONDS, TEXT, Serve, Wire, echo, post, serving, until

GET = b"GET /a%20b?c=d HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serves an app and connects to it."""
    async with serving() as start:
        yield start


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


def test_a_process_that_stood_still_reads_before_it_ends_what_was_idle() -> None:
    """What wakes it makes uvloop look at its timers before it looks at its sockets."""
    program = (
        "import uvloop; from tests.proxy.http_wire import serve_echo; uvloop.run(serve_echo())"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            for _ in range(6):
                with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
                    client.sendall(post(b"one"))
                    assert client.recv(4_096).endswith(b"one")
                    server.send_signal(signal.SIGSTOP)
                    client.sendall(post(b"two"))
                    time.sleep(3 * ECHO_IDLE_SECONDS)
                    server.send_signal(signal.SIGCONT)
                    assert client.recv(4_096).endswith(b"two")
        finally:
            server.send_signal(signal.SIGCONT)
            server.kill()


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
        ([(b"x-good", b"a"), (b"x-bad", b"a\rb")], b""),
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
