"""The upstream client over real sockets: reuse, bounds, time, and peers that misbehave."""

import asyncio
import contextlib
import hashlib
import threading
import time
from collections.abc import AsyncIterator

import pytest

from proxy.upstreams import client
from proxy.upstreams.client import (
    BodyTooLarge,
    ConnectFailed,
    ConnectionLost,
    Target,
    UpstreamClient,
)
from tests.proxy.raw_server import OK, STREAM, Peer, RawServer, Script, ask, post, raw_server, until

TRUSTED_SECONDS = 0.1


def answering(*answers: bytes) -> Script:
    async def script(peer: Peer) -> None:
        for answer in answers:
            await peer.request()
            await peer.write(answer)
        await peer.closed()

    return script


async def test_a_request_goes_out_as_it_was_given(upstream_client: UpstreamClient) -> None:
    seen: list[tuple[bytes, bytes]] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.write(OK)

    async with raw_server(script) as server:
        answer = await ask(upstream_client, server.target, body=[b"{", b'"a":1', b"}"])

    assert answer == (200, b"ok", False)
    assert seen == [
        (
            b"POST /v1/messages HTTP/1.1\r\nhost: upstream.test\r\n"
            b"content-type: application/json\r\ncontent-length: 7\r\n\r\n",
            b'{"a":1}',
        )
    ]


async def test_a_connection_serves_one_request_after_another(
    upstream_client: UpstreamClient,
) -> None:
    async with raw_server(answering(OK, OK, OK)) as server:
        answers = [await ask(upstream_client, server.target) for _ in range(3)]
        assert upstream_client.idle_connections == 1
        assert server.connections == 1

    assert answers == [(200, b"ok", False), (200, b"ok", True), (200, b"ok", True)]


async def test_requests_at_once_have_a_connection_each(upstream_client: UpstreamClient) -> None:
    together = asyncio.Barrier(3)

    async def script(peer: Peer) -> None:
        await peer.request()
        await together.wait()
        await peer.write(OK)
        await peer.closed()

    async with raw_server(script) as server:
        answers = await asyncio.gather(*[ask(upstream_client, server.target) for _ in range(3)])
        assert server.connections == 3

    assert answers == [(200, b"ok", False)] * 3


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        OK + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        OK + b"junk",
    ],
)
async def test_a_connection_that_may_not_be_kept_is_not(
    upstream_client: UpstreamClient, answer: bytes
) -> None:
    async with raw_server(answering(answer)) as server:
        first = await ask(upstream_client, server.target)
        second = await ask(upstream_client, server.target)

    assert first == second == (200, b"ok", False)


async def test_a_body_without_a_length_ends_with_the_connection(
    upstream_client: UpstreamClient,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.write(b"HTTP/1.1 200 OK\r\n\r\n", b"o", b"k")

    async with raw_server(script) as server:
        assert await ask(upstream_client, server.target) == (200, b"ok", False)
        assert upstream_client.idle_connections == 0


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_that_has_no_body_is_complete(
    upstream_client: UpstreamClient, status: int
) -> None:
    answer = b"HTTP/1.1 %d X\r\n\r\n" % status

    async with raw_server(answering(answer, answer)) as server:
        assert await ask(upstream_client, server.target) == (status, b"", False)
        assert await ask(upstream_client, server.target) == (status, b"", True)


async def test_a_connection_the_peer_closed_while_idle_is_not_used(
    upstream_client: UpstreamClient,
) -> None:
    async with raw_server(answering_once) as server:
        await ask(upstream_client, server.target)
        await until(lambda: upstream_client.open_connections == 0)

        assert await ask(upstream_client, server.target) == (200, b"ok", False)
        assert server.connections == 2


async def answering_once(peer: Peer) -> None:
    await peer.request()
    await peer.write(OK)


class ThreadedServer:
    """Closes at a moment when the client's loop stands still and cannot have seen it."""

    def __init__(self, *, is_prompt: bool) -> None:
        self.is_prompt = is_prompt
        self.is_asked = threading.Event()
        self.may_close = threading.Event()
        self.has_closed = threading.Event()
        self.is_done = threading.Event()
        self.address: tuple[str, int] = ("", 0)
        self.ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self.thread.start()
        assert self.ready.wait(30)

    async def _serve(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            self.is_asked.set()
            if not self.is_prompt:
                await asyncio.to_thread(self.may_close.wait, 30)
            await peer.write(OK)
            if peer.number == 1:
                await asyncio.to_thread(self.may_close.wait, 30)
                peer.writer.close()
                await peer.writer.wait_closed()
                self.has_closed.set()
            else:
                await peer.closed()
                self.is_done.set()

        async with raw_server(script) as server:
            self.address = (server.target.host, server.target.port)
            self.ready.set()
            await asyncio.to_thread(self.is_done.wait, 30)


@contextlib.asynccontextmanager
async def closing_unseen(
    upstream_client: UpstreamClient, monkeypatch: pytest.MonkeyPatch, *, is_prompt: bool
) -> AsyncIterator[tuple[ThreadedServer, Target]]:
    """The server, while connections are trusted for no longer than TRUSTED_SECONDS here."""
    monkeypatch.setattr(client, "TRUSTED_SECONDS", TRUSTED_SECONDS)
    server = ThreadedServer(is_prompt=is_prompt)
    yield server, Target(*server.address, False, b"x")
    await upstream_client.close()
    await asyncio.to_thread(server.thread.join, 30)


async def test_a_close_that_the_loop_has_not_seen_is_seen_before_use(
    upstream_client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with closing_unseen(upstream_client, monkeypatch, is_prompt=True) as (server, target):
        await ask(upstream_client, target)
        await asyncio.sleep(1.2 * TRUSTED_SECONDS)
        server.may_close.set()
        server.has_closed.wait(30)  # the loop must not turn here

        assert await ask(upstream_client, target) == (200, b"ok", False)


async def test_after_a_standstill_no_connection_is_trusted_for_its_fresh_answer(
    upstream_client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with closing_unseen(upstream_client, monkeypatch, is_prompt=False) as (server, target):

        async def ask_twice() -> list[tuple[int, bytes, bool]]:
            return [await ask(upstream_client, target) for _ in range(2)]

        asking = asyncio.ensure_future(ask_twice())
        await until(server.is_asked.is_set)
        server.may_close.set()
        server.has_closed.wait(30)  # the loop must not turn here, nor while it is still trusted
        time.sleep(1.2 * TRUSTED_SECONDS)  # noqa: ASYNC251

        assert await asking == [(200, b"ok", False), (200, b"ok", False)]


async def test_connections_are_bounded_for_each_target() -> None:
    upstream_client = UpstreamClient(connections_max=2, idle_seconds=60)

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.write(STREAM)
        await peer.closed()

    async with raw_server(script) as server:
        open_ones = [await post(upstream_client, server.target) for _ in range(2)]
        with pytest.raises(ConnectFailed, match="All 2 connections are in use") as caught:
            await post(upstream_client, server.target)
        open_ones[0].close()
        await until(lambda: upstream_client.open_connections == 1)
        await post(upstream_client, server.target)
        await upstream_client.close()
        await until(lambda: upstream_client.open_connections == 0)

    assert caught.value.may_be_processed is False


async def test_idle_connections_are_closed_in_time() -> None:
    upstream_client = UpstreamClient(connections_max=2, idle_seconds=0.05)

    async with raw_server(answering(OK)) as server:
        await ask(upstream_client, server.target)
        assert upstream_client.idle_connections == 1
        await until(lambda: upstream_client.open_connections == 0)

    assert upstream_client.idle_connections == 0
    await upstream_client.close()


async def test_a_stream_is_read_as_it_comes(upstream_client: UpstreamClient) -> None:
    go_on = asyncio.Queue[bytes]()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.write(STREAM)
        while part := await go_on.get():
            await peer.write(b"%x\r\n%b\r\n" % (len(part), part))
        await peer.write(b"0\r\n\r\n")
        await peer.closed()

    async with raw_server(script) as server:
        response = await post(upstream_client, server.target)
        for part in (b"event: ping\n", b"data: {}\n\n"):
            go_on.put_nowait(part)
            assert await response.read_chunk(5) == part
        go_on.put_nowait(b"")
        assert await response.read_chunk(5) == b""
        assert await response.read_chunk(5) == b""
        assert upstream_client.idle_connections == 1


@pytest.mark.parametrize("ending", ["close", "reset", "wait"])
async def test_an_early_refusal_is_heard_while_the_body_is_still_going_out(
    upstream_client: UpstreamClient, ending: str
) -> None:
    heard = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        if ending == "wait":
            await heard.wait()
        elif ending == "reset":
            await heard.wait()
            peer.reset()

    async with raw_server(script) as server:
        response = await post(upstream_client, server.target, b"x" * 50_000_000)
        assert (response.status, await response.read_all(99, 5)) == (413, b"no")
        heard.set()
        await until(lambda: upstream_client.open_connections == 0)
        assert upstream_client.idle_connections == 0


async def test_a_large_body_goes_up_and_a_large_answer_comes_down_whole(
    upstream_client: UpstreamClient,
) -> None:
    up = [bytes([number]) * 700_000 for number in range(10)]
    digests: list[str] = []

    async def script(peer: Peer) -> None:
        _, body = await peer.request()
        digests.append(hashlib.sha256(body).hexdigest())
        await peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 7000000\r\n\r\n", body)
        await peer.closed()

    async with raw_server(script) as server:
        response = await post(upstream_client, server.target, up)
        body = await response.read_all(7_000_000, 9)
        assert upstream_client.idle_connections == 1

    assert body == b"".join(up)
    assert digests == [hashlib.sha256(body).hexdigest()]


async def test_an_answer_above_the_limit_is_dropped(upstream_client: UpstreamClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.write(STREAM)
        while True:
            await peer.write(b"5\r\nxxxxx\r\n" * 100)

    async with raw_server(script) as server:
        response = await post(upstream_client, server.target)
        with pytest.raises(BodyTooLarge):
            await response.read_all(1_000, 5)
        await until(lambda: upstream_client.open_connections == 0)


async def test_who_stops_waiting_leaves_no_connection(upstream_client: UpstreamClient) -> None:
    asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.closed()

    async with raw_server(script) as server:
        waiting = asyncio.create_task(ask(upstream_client, server.target))
        await asked.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until(lambda: upstream_client.open_connections == 0)


async def test_closing_an_unfinished_answer_closes_its_connection(
    upstream_client: UpstreamClient,
) -> None:
    closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.write(STREAM)
        await peer.closed()
        closed.set()

    async with raw_server(script) as server:
        response = await post(upstream_client, server.target)
        response.close()
        async with asyncio.timeout(30):
            await closed.wait()


async def test_nobody_listening_is_a_failed_connection(upstream_client: UpstreamClient) -> None:
    async with raw_server(answering(OK)) as server:
        target = server.target

    with pytest.raises(ConnectFailed) as caught:
        await post(upstream_client, target)

    assert caught.value.may_be_processed is False
    assert upstream_client.open_connections == 0


@pytest.mark.parametrize(
    "headers",
    [[(b"x", b"1\r\nauthorization: Bearer stolen")], [(b"x\r\ny", b"1")], [(b"x", b"1\n")]],
)
async def test_a_line_break_in_a_header_is_refused(
    upstream_client: UpstreamClient, headers: list[tuple[bytes, bytes]]
) -> None:
    with pytest.raises(ValueError, match="line break"):
        await post(upstream_client, Target("127.0.0.1", 9, False, b"x"), headers=headers)


async def test_a_handshake_that_hangs_is_left_in_time(upstream_client: UpstreamClient) -> None:
    async with raw_server(lambda peer: peer.closed()) as server:
        hung = Target(server.target.host, server.target.port, True, b"x")
        with pytest.raises(ConnectFailed, match="TimeoutError"):
            await upstream_client.send(
                hung,
                b"POST",
                b"/",
                [],
                b"",
                connect_timeout_seconds=0.1,
                headers_timeout_seconds=1,
            )
        assert upstream_client.open_connections == 0


def test_the_scripted_server_reports_what_went_wrong_in_it() -> None:
    async def wrong(peer: Peer) -> None:
        await peer.request()
        raise AssertionError("not what was expected")

    async def run() -> RawServer:
        upstream_client = UpstreamClient(connections_max=1, idle_seconds=1)
        async with raw_server(wrong) as server:
            with pytest.raises(ConnectionLost):
                await ask(upstream_client, server.target)
        return server

    with pytest.raises(AssertionError):
        asyncio.run(run())
