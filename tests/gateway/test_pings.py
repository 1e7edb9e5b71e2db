"""Streams that fall silent: the gateway's own pings, and what they must not disturb."""

import asyncio
from typing import Any

import pytest

from proxy.streaming import PING, PING_SECONDS, Pulse
from turnpike.kernel import clock

STREAM = (
    b'{"model":"claude-sonnet-4-6","max_tokens":200,"stream":true,'
    b'"messages":[{"role":"user","content":"[[tokens=150]]"}]}'
)


class Client:
    """Takes what is sent, and may be slow."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.is_ready = asyncio.Event()
        self.is_ready.set()

    async def send(self, message: Any) -> None:
        await self.is_ready.wait()
        self.sent.append(message["body"])


@pytest.fixture
def client() -> Client:
    """A client that is ready."""
    return Client()


async def test_a_silent_stream_gets_a_ping_every_15_seconds(client: Client) -> None:
    pulse = Pulse(client.send)
    pulse.waiting_after = b"event: a\ndata: {}\n\n"

    for second in range(46):
        pulse.tick(float(second))
        await pulse.settle()

    assert client.sent == [PING] * 3


@pytest.mark.parametrize("chunk", [b"event: a\ndata: {", b"event: a\n", b""])
async def test_there_is_no_ping_in_the_middle_of_an_event(client: Client, chunk: bytes) -> None:
    pulse = Pulse(client.send)
    pulse.waiting_after = chunk

    pulse.tick(0.0)
    pulse.tick(PING_SECONDS * 4)

    assert pulse.ping is None


async def test_a_chunk_starts_the_time_anew_and_a_busy_relay_is_let_alone(client: Client) -> None:
    pulse = Pulse(client.send)
    for second in range(0, 100, 10):
        pulse.waiting_after = bytes(f"data: {second}\n\n", "ascii")
        pulse.tick(float(second))
    pulse.waiting_after = None  # it is sending, to a client that reads slowly
    pulse.tick(500.0)
    pulse.tick(600.0)

    assert pulse.ping is None


async def test_a_ping_under_way_holds_back_the_next_and_is_waited_for(client: Client) -> None:
    pulse = Pulse(client.send)
    client.is_ready.clear()
    pulse.waiting_after = b"data: x\n\n"
    for second in (0.0, 15.0, 30.0, 45.0):
        pulse.tick(second)
        await asyncio.sleep(0)

    settled = asyncio.ensure_future(pulse.settle())
    await asyncio.sleep(0)
    assert not settled.done()
    client.is_ready.set()
    await settled

    assert client.sent == [PING]


async def test_pings_reach_the_client_between_events_and_are_not_billed(
    gateway: Any, world: Any
) -> None:
    keeper = gateway.app._gateway.keeper
    request = gateway.client.build_request(
        "POST",
        "/v1/messages",
        content=STREAM,
        headers=gateway.headers(x_simulator="hang_after_events=5"),
    )
    response = await gateway.client.send(request, stream=True)
    text = b""
    async with asyncio.timeout(30):
        async for piece in response.aiter_raw():
            text += piece
            if PING in text and b"message_start" in text:
                break
            for exchange in keeper._open.values():
                exchange.pulse.tick(clock.monotonic_seconds())
                exchange.pulse.tick(clock.monotonic_seconds() + PING_SECONDS)
    await response.aclose()
    await gateway.until(lambda: len(world.events()) == 1)

    assert text.index(b"message_start") < text.index(PING)
    assert text[: text.index(PING)].endswith(b"\n\n")
    assert world.events()[0].status == "observed"
