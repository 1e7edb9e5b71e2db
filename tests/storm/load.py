"""Seeded load: a crowd of clients that ask, read, hang up and are answered badly."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.storm.client import Connection, Seen

CLIENTS = 36
MODELS = ("claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-5")
TENANTS: tuple[dict[str, Any], ...] = (
    {"name": "big", "tier": "enterprise", "credit": "1000"},
    {"name": "line", "tier": "enterprise", "line": "500"},
    {"name": "budget", "tier": "pro", "credit": "100", "key": {"daily_budget_nano": 90 * 10**9}},
    {"name": "small", "tier": "pro", "credit": "0.25"},
    {"name": "tight", "tier": "basic", "credit": "50", "limits": {"concurrency": 3}},
)
# How often each tenant's turn comes.
WEIGHTS = (6, 4, 3, 1, 1)
PAUSE_SECONDS = (0.02, 0.25)
# After a refusal a client waits as real ones do, or one tenant's refusals would be all the load.
REFUSED_SECONDS = 0.4
LONG_TEXT = "All the notes of a long meeting, which never change. " * 220


@dataclass(slots=True)
class Load:
    """The clients, and what they saw."""

    port: int
    keys: Mapping[str, str]
    seed: int
    seen: list[Seen] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Ask until told to stop; what runs then may end."""
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._client(random.Random(f"{self.seed} client {number}")))

    async def _client(self, rng: random.Random) -> None:
        connection = Connection(self.port)
        while not self.stop.is_set():
            (plan,) = rng.choices(TENANTS, WEIGHTS)
            seen, body, leave_after = make_request(rng, tenant=plan["name"])
            pause_seconds = rng.uniform(*PAUSE_SECONDS)
            key = self.keys[seen.tenant]
            self.seen.append(seen)
            await connection.ask(seen, key=key, body=body, leave_after=leave_after)
            if not seen.is_answered:
                pause_seconds += REFUSED_SECONDS
            await asyncio.sleep(pause_seconds)
        connection.close()


def make_request(rng: random.Random, *, tenant: str) -> tuple[Seen, dict[str, Any], int]:
    """A request, what its upstream shall do, and after how many events its client leaves."""
    is_stream = rng.random() < 0.65
    tokens = rng.randint(4, 160)
    body = {
        "model": rng.choice(MODELS),
        "max_tokens": tokens + rng.randint(0, 200),
        "stream": is_stream,
        "messages": [{"role": "user", "content": f"Say {rng.getrandbits(64):x} in other words."}],
    }
    if rng.random() < 0.2:
        cached = {"type": "text", "text": LONG_TEXT, "cache_control": {"type": "ephemeral"}}
        body["system"] = [cached]
    orders = [f"tokens={tokens}", f"pace_ms={rng.choice((0, 5, 20, 60, 150))}"]
    orders += _misbehaviour(rng, is_stream=is_stream)
    leave_after = rng.randint(1, 12) if is_stream and rng.random() < 0.12 else -1
    seen = Seen(tenant=tenant, is_stream=is_stream, orders="; ".join(orders))
    return seen, body, leave_after


def _misbehaviour(rng: random.Random, *, is_stream: bool) -> list[str]:
    draw = rng.random()
    if draw < 0.04:
        return [f"status={rng.choice((429, 500, 529, 400))}"]
    if draw < 0.06:
        return ["drop"]
    if draw < 0.10:
        return [f"delay_ms={rng.randint(50, 1_500)}"]
    if draw < 0.16 and is_stream:
        return [f"cut_after_events={rng.randint(0, 12)}"]
    if draw < 0.18 and is_stream:
        return [f"error_after_events={rng.randint(1, 8)}"]
    return []
