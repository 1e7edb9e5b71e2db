"""The head of a connection's last request: known again byte by byte, or read anew."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy.asgi import Receive, Scope, Send
from proxy.http_cycle import BODY_IN_SCOPE
from proxy.http_protocol import (
    HEADERS_IN_SCOPE,
    LEARNINGS_MAX,
    MEMO_IN_SCOPE,
    HttpProtocol,
)
from proxy.responses import send_answer
from tests.proxy.http_wire import TEXT, Serve, echo, post, serving


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serves an app and connects to it."""
    async with serving() as start:
        yield start


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
        post(b"one", b"content-encoding: identity"),
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
