"""Three simulators behind one gateway, each of which can be told to fail whatever it is sent."""

import asyncio
import contextlib
import dataclasses
import gzip
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

from simulator.__main__ import EagerProtocol
from simulator.app import Simulator
from simulator.state import State
from tests.gateway.conftest import MASTER_KEYS, served
from turnpike.contracts.snapshots import Candidate, CredentialSnapshot, credential_place
from turnpike.kernel import sealing

NUMBERS = (11, 12, 13)
MAD_CHUNK = bytes(1024 * 1024)
MAD_CHUNKS = 80
BOMB = gzip.compress(bytes(10_000_000))


class Faulty:
    """A simulator that adds an order to each request for an answer, and remembers who came."""

    def __init__(self) -> None:
        self.simulator = Simulator(State(pace_ms=0, is_static=False))
        self.orders = b""
        self.is_all_failing = False
        self.fail_next: list[str] = []
        self.instead: Any = None
        self.byte_seconds = 0.0
        self.requests: list[Mapping[bytes, bytes]] = []
        self.checks = 0
        self.port = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            is_check = scope["path"] == "/v1/models"
            self.checks += is_check
            if not is_check:
                self.requests.append(dict(scope["headers"]))
            if self.fail_next and not is_check:
                order = self.fail_next.pop(0).encode()
                scope = {**scope, "headers": [*scope["headers"], (b"x-simulator", order)]}
            elif self.orders and (not is_check or self.is_all_failing):
                scope = {**scope, "headers": [*scope["headers"], (b"x-simulator", self.orders)]}
            if not is_check and self.instead is not None:
                await self.instead(scope, receive, send)
                return
            if not is_check and self.byte_seconds:
                send = self._drip(send)
        await self.simulator(scope, receive, send)

    def _drip(self, send: Any) -> Any:
        """Each byte of a body by itself, with a pause before it."""

        async def send_slowly(message: Any) -> None:
            body = message.get("body", b"")
            for at in range(len(body)):
                await asyncio.sleep(self.byte_seconds)
                await send({**message, "body": body[at : at + 1], "more_body": True})
            if not body or not message.get("more_body"):
                await send({**message, "body": b""} if body else message)

        return send_slowly

    def answer_instead(self, app: Any) -> None:
        """From now on something else answers whatever it is asked, checks apart."""
        self.instead = app

    def drip(self, *, byte_seconds: float) -> None:
        """From now on its answers come byte by byte."""
        self.byte_seconds = byte_seconds

    def fail(self, orders: str, *, is_all_failing: bool = False) -> None:
        """From now on, whatever it is asked; with `is_all_failing` its checks too."""
        self.orders, self.is_all_failing = orders.encode(), is_all_failing

    def repair(self) -> None:
        """From now on it behaves."""
        self.orders, self.is_all_failing = b"", False
        self.instead, self.byte_seconds = None, 0.0

    def billed(self) -> list[Any]:
        """The attempts that it billed, by its own record."""
        return list(self.simulator.state.record.rows())


class Trio:
    """The three, and the plane that routes to them."""

    def __init__(self, gateway: Any, upstreams: Mapping[int, Faulty]) -> None:
        self.gateway = gateway
        self.world = gateway.world
        self.upstreams = upstreams
        self.changes: dict[int, dict[str, Any]] = {number: {} for number in upstreams}
        self.rows = {number: {"weight": 1, "priority": 0} for number in upstreams}
        self.credential_changes: dict[int, dict[str, Any]] = {}
        self.credentials: dict[int, tuple[int, ...]] = {n: (n * 10,) for n in upstreams}

    def publish(self) -> None:
        """Publish the upstreams as they are now."""
        model = "claude-sonnet-4-6"
        base = self.world.plane.upstreams.get("9") or next(
            iter(self.world.plane.upstreams.values())
        )
        upstreams = {
            str(number): dataclasses.replace(
                base,
                upstream=number,
                name=f"upstream-{number}",
                credentials=tuple(map(self._credential, self.credentials[number])),
                **{"base_url": f"http://127.0.0.1:{faulty.port}", **self.changes[number]},
            )
            for number, faulty in self.upstreams.items()
        }
        candidates = tuple(
            Candidate(upstream=number, upstream_model=model, **self.rows[number])
            for number in self.upstreams
        )
        self.world.publish_plane(upstreams=upstreams, routes={model: candidates})

    def _credential(self, number: int) -> CredentialSnapshot:
        place = credential_place(number)
        sealed = sealing.seal(f"secret-{number}", place=place, master_keys=MASTER_KEYS)
        changes = self.credential_changes.get(number, {})
        return CredentialSnapshot(credential=number, sealed=sealed, **changes)

    def change(self, number: int, **changes: Any) -> None:
        """Change an upstream's snapshot and publish it."""
        self.changes[number] |= changes
        self.publish()

    def counts(self) -> dict[int, int]:
        """How many requests each got so far."""
        return {number: len(faulty.requests) for number, faulty in self.upstreams.items()}

    def peer(self, number: int) -> Any:
        """What the gateway knows of an upstream."""
        return self.gateway.app._gateway.switchboard.board.peer(number)

    async def ask_many(self, bodies: list[Any], *, at_once: int = 8) -> list[Any]:
        """Post bodies, some at a time; the answers in order."""
        gate = asyncio.Semaphore(at_once)

        async def ask(body: Any) -> Any:
            async with gate:
                return await self.gateway.post(body)

        return await asyncio.gather(*(ask(body) for body in bodies))


async def check_money(trio: Trio, requests: int) -> None:
    """One event for each request; charged once, and only what an upstream billed."""
    await trio.gateway.until(lambda: trio.world.event_count() == requests)
    events = trio.world.events()
    assert len({event.rid for event in events}) == requests
    billed = Counter(
        row["upstream_request_id"] for faulty in trio.upstreams.values() for row in faulty.billed()
    )
    assert set(billed.values()) <= {1}
    for event in events:
        bearing = [attempt for attempt in event.attempts if attempt.usage]
        assert len(bearing) <= 1
        assert bool(event.usage) == bool(bearing)
        if bearing:
            assert billed[bearing[0].upstream_request_id or ""] == 1
    assert (trio.world.slots_taken(), trio.world.open_records()) == (0, 0)


async def send_too_much(scope: Any, receive: Any, send: Any) -> None:
    """An upstream gone mad: an answer that is larger than any may be."""
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(MAD_CHUNKS):
        await send({"type": "http.response.body", "body": MAD_CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def send_a_bomb(scope: Any, receive: Any, send: Any) -> None:
    """An upstream that packs its answer unasked: a few bytes that stand for very many."""
    headers = [(b"content-type", b"application/json"), (b"content-encoding", b"gzip")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BOMB, "more_body": False})


async def send_a_page(scope: Any, receive: Any, send: Any) -> None:
    """A proxy's page in place of an answer."""
    headers = [(b"content-type", b"text/html")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"<html>Sign in</html>", "more_body": False})


def turn(conversation: int, turns: int = 1, **fields: Any) -> dict[str, Any]:
    """The body of a conversation's turn."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": f"Conversation {conversation}"}]
    for number in range(1, turns):
        messages.append({"role": "assistant", "content": f"Answer {number}"})
        messages.append({"role": "user", "content": f"Question {number}"})
    return {"model": "claude-sonnet-4-6", "max_tokens": 16, "messages": messages, **fields}


@contextlib.asynccontextmanager
async def make_trio(gateway: Any) -> AsyncIterator[Trio]:
    """Three simulators, published."""
    async with contextlib.AsyncExitStack() as stack:
        upstreams = {}
        for number in NUMBERS:
            faulty = upstreams[number] = Faulty()
            faulty.port = await stack.enter_async_context(served(faulty, EagerProtocol))
        trio = Trio(gateway, upstreams)
        trio.publish()
        yield trio
