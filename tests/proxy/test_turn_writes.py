"""Writes are held until the turn's end, and none is lost, doubled or out of order."""

import asyncio
import logging
from typing import Any

import pytest

from proxy.turn_writes import HELD_BYTES_MAX, TurnWrites, turn_writes_of, with_turn_writes


class Wire(asyncio.Transport):
    """Stands in for a socket: what it was told, in order."""

    def __init__(self, told: list[Any]) -> None:
        super().__init__({"socket": "its socket"})
        self.told = told
        self.is_closed = False

    def write(self, data: Any) -> None:
        self.told.append(data)

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        self.told.append("pause")

    def resume_reading(self) -> None:
        self.told.append("resume")

    def close(self) -> None:
        self.told.append("close")
        self.is_closed = True

    def abort(self) -> None:
        self.told.append("abort")
        self.is_closed = True


@pytest.fixture
def told() -> list[Any]:
    return []


@pytest.fixture
async def wire(told: list[Any]) -> Wire:
    return Wire(told)


@pytest.fixture
async def transport(wire: Wire) -> asyncio.Transport:
    return with_turn_writes(wire, asyncio.get_running_loop())


async def test_what_is_written_leaves_in_the_next_turn_and_in_order(
    transport: asyncio.Transport, told: list[Any]
) -> None:
    transport.write(b"one")
    transport.write(b"two")
    assert told == []

    await asyncio.sleep(0)
    assert told == [b"one", b"two"]

    transport.write(b"three")
    await asyncio.sleep(0)
    assert told == [b"one", b"two", b"three"]


async def test_the_sockets_of_a_loop_write_together(told: list[Any]) -> None:
    loop = asyncio.get_running_loop()
    first, second = (with_turn_writes(Wire(told), loop) for _ in range(2))
    loop.call_soon(first.write, b"a")
    loop.call_soon(told.append, "work")
    loop.call_soon(second.write, b"b")

    await asyncio.sleep(0)
    assert told == ["work"]
    await asyncio.sleep(0)
    assert told == ["work", b"a", b"b"]


async def test_a_close_lets_everything_out_first(
    transport: asyncio.Transport, told: list[Any]
) -> None:
    transport.write(b"last words")
    transport.close()
    assert told == [b"last words", "close"]

    await asyncio.sleep(0)
    assert told == [b"last words", "close"]


async def test_what_is_held_when_the_socket_is_dropped_is_dropped_too(
    transport: asyncio.Transport, told: list[Any]
) -> None:
    transport.write(b"too late")
    transport.abort()
    await asyncio.sleep(0)

    assert told == ["abort"]


async def test_too_much_to_hold_leaves_at_once(
    transport: asyncio.Transport, told: list[Any]
) -> None:
    whole = b"x" * HELD_BYTES_MAX
    transport.write(whole)
    assert told == []

    transport.write(b"y")
    assert told == [whole, b"y"]


async def test_all_else_is_the_sockets_own(
    transport: asyncio.Transport, wire: Wire, told: list[Any]
) -> None:
    transport.pause_reading()
    transport.resume_reading()

    assert told == ["pause", "resume"]
    assert transport.get_extra_info("socket") == "its socket"
    assert not transport.is_closing()
    wire.is_closed = True
    assert transport.is_closing()


async def test_one_that_fails_keeps_none_of_the_others(
    told: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_data: bytes) -> None:
        raise RuntimeError("the handler is closed")

    writes = turn_writes_of(asyncio.get_running_loop())
    writes.put(fail, b"a")
    writes.put(told.append, b"b")
    with caplog.at_level(logging.ERROR, logger="proxy.turn_writes"):
        await asyncio.sleep(0)

    assert told == [b"b"]
    assert [record.message for record in caplog.records] == ["socket.write_failed"]


async def test_what_a_write_brings_about_is_written_in_its_turn(told: list[Any]) -> None:
    writes = TurnWrites(asyncio.get_running_loop())

    def answer(data: bytes) -> None:
        told.append(data)
        writes.put(told.append, b"because of it")

    writes.put(answer, b"first")
    writes.put(told.append, b"second")
    await asyncio.sleep(0)
    assert told == [b"first", b"second"]
    await asyncio.sleep(0)
    assert told == [b"first", b"second", b"because of it"]


def test_another_loop_has_its_own() -> None:
    async def held() -> TurnWrites:
        return turn_writes_of(asyncio.get_running_loop())

    assert asyncio.run(held()) is not asyncio.run(held())
