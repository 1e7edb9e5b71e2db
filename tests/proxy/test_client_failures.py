"""The upstream client and peers that break off, say nothing, or say something else."""

import asyncio
from typing import Any

import pytest

from proxy.upstreams.client import (
    ConnectionLost,
    HeadersTimeout,
    ProtocolError,
    ReadTimeout,
    SendFailed,
    UpstreamClient,
    UpstreamError,
)
from tests.proxy.raw_server import STREAM, Peer, Script, ask, post, raw_server, until


async def fail_after(
    upstream_client: UpstreamClient, script: Script, **options: Any
) -> UpstreamError:
    """The error of an exchange with that peer."""
    async with raw_server(script) as server:
        with pytest.raises(UpstreamError) as caught:
            await ask(upstream_client, server.target, **options)
        await until(lambda: upstream_client.open_connections == 0)
    return caught.value


async def resetting(peer: Peer) -> None:
    await peer.request()
    peer.reset()


async def resetting_in_the_body(peer: Peer) -> None:
    await peer.request()
    await peer.write(STREAM + b"3\r\nabc\r\n")
    peer.reset()


async def hanging(peer: Peer) -> None:
    await peer.request()
    await peer.closed()


async def closing(peer: Peer) -> None:
    await peer.request()


async def speaking_something_else(peer: Peer) -> None:
    await peer.request()
    await peer.write(b"220 smtp.example.org ESMTP\r\n")
    await peer.closed()


async def closing_unread(peer: Peer) -> None:
    await peer.reader.readexactly(10)
    peer.reset()


@pytest.mark.parametrize(
    ("script", "kind", "may_be_processed"),
    [
        (resetting, ConnectionLost, True),
        (resetting_in_the_body, ConnectionLost, True),
        (closing, ConnectionLost, True),
        (speaking_something_else, ProtocolError, True),
    ],
)
async def test_a_broken_exchange_says_what_broke(
    upstream_client: UpstreamClient,
    script: Script,
    kind: type[UpstreamError],
    *,
    may_be_processed: bool,
) -> None:
    error = await fail_after(upstream_client, script)

    assert type(error) is kind
    assert error.may_be_processed is may_be_processed


async def test_a_peer_that_says_nothing_is_left_in_time(upstream_client: UpstreamClient) -> None:
    error = await fail_after(upstream_client, hanging, seconds=0.05)

    assert type(error) is HeadersTimeout
    assert error.may_be_processed


async def test_a_request_that_cannot_get_out_was_not_processed(
    upstream_client: UpstreamClient,
) -> None:
    error = await fail_after(upstream_client, closing_unread, body=b"x" * 20_000_000)

    assert type(error) is SendFailed
    assert error.may_be_processed is False


async def test_a_peer_that_does_not_read_is_left_in_time(upstream_client: UpstreamClient) -> None:
    done = asyncio.Event()

    async def script(peer: Peer) -> None:
        await done.wait()

    async with raw_server(script) as server:
        with pytest.raises(SendFailed):
            await post(upstream_client, server.target, b"x" * 50_000_000, seconds=0.1)
        done.set()


async def test_what_came_before_a_loss_is_read_first(upstream_client: UpstreamClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.write(STREAM + b"3\r\nabc\r\n")

    async with raw_server(script) as server:
        response = await post(upstream_client, server.target)
        await until(lambda: upstream_client.open_connections == 0)

        assert await response.read_chunk(1) == b"abc"
        with pytest.raises(ConnectionLost) as caught:
            await response.read_chunk(1)
        assert caught.value.bytes_received == 3


async def test_a_pause_in_the_body_ends_it(upstream_client: UpstreamClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.write(STREAM + b"3\r\nabc\r\n")
        await peer.closed()

    async with raw_server(script) as server:
        response = await post(upstream_client, server.target)
        assert await response.read_chunk(1) == b"abc"
        with pytest.raises(ReadTimeout):
            await response.read_chunk(0.05)
        await until(lambda: upstream_client.open_connections == 0)


async def test_a_slow_drip_does_not_outlast_the_whole_time(upstream_client: UpstreamClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.write(STREAM)
        while True:
            await peer.write(b"1\r\nx\r\n")
            await asyncio.sleep(0.01)

    async with raw_server(script) as server:
        response = await post(upstream_client, server.target)
        with pytest.raises(ReadTimeout):
            await response.read_all(10_000, 0.1)
