"""The client's connection, fed byte by byte: any cutting and any damage, without a socket."""

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.upstreams.client import (
    ConnectionLost,
    ProtocolError,
    ReadTimeout,
    SendFailed,
    UpstreamError,
    UpstreamResponse,
)
from proxy.upstreams.connection import UNREAD_BYTES_MAX, WRITE_PIECE_BYTES, Connection

HEADERS = [(b"content-type", b"text/event-stream"), (b"request-id", b"req_1")]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nrequest-id: req_1\r\n"
BODY = b"event: ping\ndata: {}\n\n: \xe2\x82\xac \r\n0\r\n\r\nHTTP/1.1 200 OK\r\n"
CHUNKED = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:9], BODY[9:]))
ANSWERS = {
    "length": HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY,
    "chunked": HEAD + b"transfer-encoding: chunked\r\n\r\n" + CHUNKED + b"0\r\n\r\n",
    "trailers": HEAD + b"transfer-encoding: chunked\r\n\r\n" + CHUNKED + b"0\r\nx-t: 1\r\n\r\n",
    "until close": HEAD + b"\r\n" + BODY,
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    + HEAD
    + b"content-length: %d\r\n\r\n" % len(BODY)
    + BODY,
}


class Wire(asyncio.Transport):
    """Stands in for the socket: keeps what is written, and whether reading is paused."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_paused = False
        self.is_aborted = False
        self.is_asked = asyncio.Event()

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))
        self.is_asked.set()

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.is_aborted

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def abort(self) -> None:
        self.is_aborted = True


class Line:
    """A connection on such a wire, with one request sent."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.idle: list[Connection] = []
        self.connection = Connection(
            asyncio.get_running_loop(), on_idle=self.idle.append, on_gone=lambda _: None
        )
        self.connection.connection_made(self.wire)

    def feed(self, data: bytes) -> None:
        """What comes from the socket, unless the connection was dropped."""
        if not self.wire.is_aborted:
            self.connection.data_received(data)

    def close(self) -> None:
        """The peer closes, or the drop is done."""
        if not self.wire.is_aborted:
            self.connection.eof_received()
        self.connection.connection_lost(None)

    async def asked(self) -> None:
        """Wait until the request is out."""
        await self.wire.is_asked.wait()

    async def response(self, body: list[bytes]) -> UpstreamResponse:
        """Send the request."""
        request = [b"POST / HTTP/1.1\r\n\r\n", *body]
        exchange = self.connection.begin(request, timeout_seconds=9)
        if exchange.rest is not None:
            await self.connection.write_rest(exchange)
        while not exchange.status and exchange.error is None:
            await self.connection.news_of(exchange)
        if exchange.error is not None and not exchange.status:
            raise exchange.error
        return UpstreamResponse(self.connection, exchange)


async def exchange(*pieces: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes, bool]:
    """Status, headers, body and whether the connection may be used again."""
    line = Line()
    sending = asyncio.create_task(line.response([b"{}"]))
    await line.asked()
    for piece in pieces:
        line.feed(piece)
    is_kept = bool(line.idle)
    line.close()
    response = await sending
    return response.status, response.headers, await response.read_all(10_000, 9), is_kept


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


cuts = st.lists(st.integers(min_value=0, max_value=400), max_size=10)


@given(kind=st.sampled_from(sorted(ANSWERS)), places=cuts)
def test_any_cutting_of_an_answer_gives_the_same_answer(kind: str, places: list[int]) -> None:
    status, headers, body, is_kept = asyncio.run(exchange(*cut(ANSWERS[kind], places)))

    assert status == 200
    assert headers[:2] == HEADERS
    assert body == BODY
    assert is_kept is (kind != "until close")


async def read_prefix(answer: bytes) -> tuple[bytes, UpstreamError | None]:
    line = Line()
    sending = asyncio.create_task(line.response([b"{}"]))
    await line.asked()
    line.feed(answer)
    line.close()
    got = b""
    try:
        response = await sending
        while piece := await response.read_chunk(9):
            got += piece
    except UpstreamError as error:
        return got, error
    return got, None


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_cut_at_any_byte_is_an_error_and_never_another_answer(kind: str) -> None:
    answer = ANSWERS[kind]

    async def run() -> None:
        for at in range(len(answer)):
            got, error = await read_prefix(answer[:at])
            assert BODY.startswith(got)
            if kind == "until close" and at >= len(answer) - len(BODY):
                assert error is None
            else:
                assert isinstance(error, ConnectionLost)
                assert error.may_be_processed
                assert error.bytes_received == len(got)
        assert await read_prefix(answer) == (BODY, None)

    asyncio.run(run())


@settings(max_examples=300)
@given(
    kind=st.sampled_from(sorted(ANSWERS)),
    at=st.integers(min_value=0, max_value=250),
    junk=st.binary(min_size=1, max_size=12),
    places=cuts,
)
def test_a_damaged_answer_ends_in_an_error_or_an_answer(
    kind: str, at: int, junk: bytes, places: list[int]
) -> None:
    answer = ANSWERS[kind][:at] + junk + ANSWERS[kind][at:]

    try:
        status, _, body, _ = asyncio.run(exchange(*cut(answer, places)))
    except UpstreamError as error:
        assert isinstance(error, ConnectionLost | ProtocolError)  # noqa: PT017
    else:
        assert 200 <= status <= 999
        assert len(body) <= len(answer)


@given(junk=st.binary(min_size=1, max_size=300))
def test_what_is_not_http_is_an_error(junk: bytes) -> None:
    with pytest.raises((ProtocolError, ConnectionLost)):
        asyncio.run(exchange(junk))


@pytest.mark.parametrize("kind", sorted(set(ANSWERS) - {"until close"}))
@pytest.mark.parametrize("extra", [b"x", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"\0"])
async def test_bytes_after_the_end_make_the_connection_unfit(kind: str, extra: bytes) -> None:
    _, _, body, is_kept = await exchange(ANSWERS[kind] + extra)

    assert body == BODY
    assert not is_kept


async def test_bytes_on_an_idle_connection_close_it() -> None:
    line = Line()
    sending = asyncio.create_task(line.response([b"{}"]))
    await line.asked()
    line.feed(ANSWERS["length"])
    await sending
    assert line.idle

    line.feed(b"HTTP/1.1 408 Request Timeout\r\n\r\n")

    assert line.wire.is_aborted


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"x: y\r\n" * 100 + b"content-length: 0\r\n\r\n",
        HEAD + b"x: " + b"y" * 70_000 + b"\r\ncontent-length: 0\r\n\r\n",
        HEAD + b"x: " + b"y" * 70_000,
        HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * 200,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 11,
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\nnothex\r\n",
        HEAD.replace(b"\r\n", b"\n") + b"\n",
    ],
)
@pytest.mark.parametrize("is_in_pieces", [False, True])
async def test_an_answer_beyond_the_bounds_is_refused(answer: bytes, *, is_in_pieces: bool) -> None:
    step = 7 if is_in_pieces else len(answer)

    with pytest.raises(ProtocolError):
        await exchange(*[answer[at : at + step] for at in range(0, len(answer), step)])


async def test_reading_pauses_while_too_much_is_unread() -> None:
    line = Line()
    sending = asyncio.create_task(line.response([b"{}"]))
    await line.asked()
    line.feed(HEAD + b"content-length: 1000000\r\n\r\n")
    response = await sending
    line.feed(b"x" * UNREAD_BYTES_MAX)
    pauses = [line.wire.is_paused]
    line.feed(b"y")
    pauses.append(line.wire.is_paused)
    chunk = await response.read_chunk(9)
    pauses.append(line.wire.is_paused)

    assert chunk == b"x" * UNREAD_BYTES_MAX + b"y"
    assert pauses == [False, True, False]


async def test_writing_waits_while_the_socket_is_full() -> None:
    line = Line()
    body = b"x" * (3 * WRITE_PIECE_BYTES)
    sending = asyncio.create_task(line.response([body]))
    line.connection.pause_writing()
    await asyncio.sleep(0)
    assert line.wire.written == []

    line.connection.resume_writing()
    await line.asked()
    line.feed(ANSWERS["length"])

    assert (await sending).status == 200
    assert b"".join(line.wire.written) == b"POST / HTTP/1.1\r\n\r\n" + body
    assert max(map(len, line.wire.written)) <= WRITE_PIECE_BYTES


async def test_an_answer_before_the_request_is_out_ends_the_sending() -> None:
    line = Line()
    sending = asyncio.create_task(line.response([b"x" * (3 * WRITE_PIECE_BYTES)]))
    line.connection.pause_writing()
    await asyncio.sleep(0)

    line.feed(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
    response = await sending

    assert (response.status, await response.read_all(9, 9)) == (413, b"no")
    assert line.wire.written == []
    assert not line.idle
    assert line.wire.is_aborted


async def test_a_request_is_not_sent_when_the_connection_is_lost_in_the_same_turn() -> None:
    line = Line()
    sending = asyncio.create_task(line.response([b"{}"]))
    await asyncio.sleep(0)
    line.connection.connection_lost(None)

    with pytest.raises(SendFailed):
        await sending
    await asyncio.sleep(0)
    assert line.wire.written == []


async def test_a_request_that_is_dropped_in_the_same_turn_is_not_sent() -> None:
    line = Line()
    sending = asyncio.create_task(line.response([b"{}"]))
    await asyncio.sleep(0)
    sending.cancel()
    line.connection.abort()

    with pytest.raises(asyncio.CancelledError):
        await sending
    await asyncio.sleep(0)
    assert line.wire.written == []


@given(places=cuts, takes=st.lists(st.booleans(), max_size=12), kind=st.sampled_from(list(ANSWERS)))
@settings(deadline=None, max_examples=60)
def test_what_a_tap_takes_and_what_it_leaves_is_the_whole_body_in_order(
    places: list[int], takes: list[bool], kind: str
) -> None:
    asyncio.run(tapped(cut(ANSWERS[kind], places), takes))


async def tapped(pieces: list[bytes], takes: list[bool]) -> None:
    line, got = Line(), bytearray()
    will_take = itertools.chain(takes, itertools.repeat(True))

    def tap(body: bytes) -> bool:
        if not next(will_take):
            return False
        got.extend(body)
        return True

    async def read() -> None:
        response = await line.response([b"{}"])
        response.set_tap(tap)
        while chunk := await response.read_chunk(9):
            got.extend(chunk)

    reading = asyncio.create_task(read())
    await line.asked()
    for piece in pieces:
        line.feed(piece)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    line.close()
    await reading

    assert bytes(got) == BODY


async def test_bytes_that_a_tap_takes_begin_the_time_anew() -> None:
    line = Line()
    sending = asyncio.create_task(line.response([b"{}"]))
    await line.asked()
    line.feed(HEAD + b"\r\n")
    response = await sending
    response.set_tap(lambda _: True)
    reading = asyncio.ensure_future(response.read_chunk(0.2))

    for _ in range(6):
        await asyncio.sleep(0.1)
        line.feed(b"more")

    assert not reading.done()
    with pytest.raises(ReadTimeout):
        await reading
    line.close()
