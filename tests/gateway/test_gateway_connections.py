"""Slow clients, stops of the server, and what two connections do at once."""

import asyncio
import dataclasses
import json
from typing import Any

import pytest

from proxy import endpoints, pipeline

STREAM = (
    b'{"model":"claude-sonnet-4-6","max_tokens":3000,"stream":true,'
    b'"messages":[{"role":"user","content":"[[tokens=2500]]"}]}'
)


async def test_body_that_does_not_arrive_is_given_up(
    gateway: Any, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "BODY_SECONDS", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(
        f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {world.secret}\r\n"
        "anthropic-version: 2023-06-01\r\ncontent-length: 100\r\n\r\n{".encode()
    )

    head = await reader.readuntil(b"\r\n")
    writer.close()

    assert head.startswith(b"HTTP/1.1 408")
    assert (world.events(), world.open_records()) == ([], 0)


async def test_client_that_leaves_in_its_body_costs_nothing(gateway: Any, world: Any) -> None:
    _reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(
        f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {world.secret}\r\n"
        "anthropic-version: 2023-06-01\r\ncontent-length: 100\r\n\r\n{".encode()
    )
    await writer.drain()
    writer.close()

    assert (await gateway.post()).status_code == 200
    await gateway.until(lambda: len(world.events()) == 1)
    assert world.open_records() == 0


async def test_stream_beyond_the_drain_time_ends_with_an_error_event(
    gateway: Any, world: Any
) -> None:
    keeper = gateway.app._gateway.keeper
    keeper._drain_seconds = 0.0
    async with gateway.client.stream(
        "POST", "/v1/messages", content=STREAM, headers=gateway.headers(x_simulator="pace_ms=5")
    ) as response:
        chunks = response.aiter_raw()
        await anext(chunks)
        gateway.app.begin_drain()
        rest = b"".join([chunk async for chunk in chunks])
    ready = await gateway.client.get("/readyz")

    assert b"overloaded_error" in rest
    assert b"message_stop" not in rest
    assert ready.status_code == 503
    await gateway.until(lambda: len(world.events()) == 1)
    assert world.events()[0].status == "observed"


async def test_client_that_reads_slowly_slows_only_its_own_stream(gateway: Any, world: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1_024)
    writer.write(
        f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {world.secret}\r\n"
        f"anthropic-version: 2023-06-01\r\ncontent-length: {len(STREAM)}\r\n\r\n".encode()
        + STREAM
    )
    await reader.readuntil(b"\r\n\r\n")

    answers = [await gateway.post() for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200] * 5
    writer.close()
    await gateway.until(lambda: len(world.events()) == 6)


async def test_requests_on_one_connection_are_answered_in_order(gateway: Any, world: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    body = json.dumps(
        {
            "model": "claude-sonnet-4-6",
            "max_tokens": 5,
            "messages": [{"role": "user", "content": "x"}],
        }
    ).encode()
    one = (
        f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {world.secret}\r\n"
        f"anthropic-version: 2023-06-01\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body
    two = f"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-api-key: {world.secret}\r\n\r\n".encode()

    writer.write(one + two)
    heads = [await _answer(reader), await _answer(reader)]
    writer.close()

    assert [json.loads(body).get("type", "page") for body in heads] == ["message", "page"]


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length")
    )
    return await reader.readexactly(length)


async def test_client_that_leaves_before_the_first_byte_frees_its_slot(
    gateway: Any, world: Any
) -> None:
    _reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(
        f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {world.secret}\r\n"
        "anthropic-version: 2023-06-01\r\nx-simulator: hang\r\n"
        f"content-length: {len(STREAM)}\r\n\r\n".encode()
        + STREAM
    )
    await gateway.until(lambda: world.slots_taken() == 1)

    writer.close()
    await gateway.until(lambda: len(world.events()) == 1, seconds=2)

    event = world.events()[0]
    assert (event.status, event.usage, event.attempts[0].outcome) == ("void", {}, "unknown")
    assert (world.slots_taken(), world.held_micro()) == (0, 0)


async def test_client_that_leaves_a_drained_upstream_pays_the_whole_answer(
    gateway: Any, world: Any
) -> None:
    drained = dataclasses.replace(world.plane.upstreams["9"], on_disconnect="drain")
    world.publish_plane(upstreams={"9": drained})
    body = STREAM.replace(b"2500", b"60")
    async with gateway.client.stream(
        "POST", "/v1/messages", content=body, headers=gateway.headers(x_simulator="pace_ms=5")
    ) as response:
        await anext(response.aiter_raw())

    await gateway.until(lambda: len(world.events()) == 1)

    event = world.events()[0]
    assert (event.status, event.usage["output_tokens"]) == ("reported", 60)


@pytest.mark.parametrize(
    ("terms", "status"),
    [
        ({"on_disconnect": "drain"}, "reported"),
        ({"on_disconnect": "drain", "drain_seconds": 1}, "observed"),
        ({"on_disconnect": "cancel"}, "observed"),
    ],
)
async def test_the_tenants_word_on_clients_that_leave_goes_before_the_upstreams(
    gateway: Any, world: Any, terms: dict[str, Any], status: str
) -> None:
    has_drain = terms["on_disconnect"] == "cancel"
    upstream = dataclasses.replace(
        world.plane.upstreams["9"], on_disconnect="drain" if has_drain else "cancel"
    )
    world.publish_plane(upstreams={"9": upstream})
    world.publish(**terms)
    tokens, pace_ms = (b"2500", 20) if "drain_seconds" in terms else (b"60", 5)
    async with gateway.client.stream(
        "POST",
        "/v1/messages",
        content=STREAM.replace(b"2500", tokens),
        headers=gateway.headers(x_simulator=f"pace_ms={pace_ms}"),
    ) as response:
        await anext(response.aiter_raw())

    await gateway.until(lambda: len(world.events()) == 1, seconds=4)

    event = world.events()[0]
    assert event.status == status
    assert event.usage["output_tokens"] < 2_500
    assert (world.slots_taken(), world.open_records()) == (0, 0)


async def test_mistake_of_ours_is_a_500_that_leaks_nothing(
    gateway: Any, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_payload: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(pipeline, "meter_answer", broken)
    response = await gateway.post()
    await gateway.until(lambda: len(world.events()) == 1)

    assert response.status_code == 500
    assert response.json()["error"]["type"] == "api_error"
    assert (world.slots_taken(), world.held_micro(), world.open_records()) == (0, 0, 0)
