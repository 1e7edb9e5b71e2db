"""What the programs of `manage.py demo_traffic` say, and how it is sent: over HTTP, as by anybody.

Believable in its mixture: agents with tools whose growing conversations are cached, chats that
stream, evaluations that do not, a translator, and what goes wrong in life: a model that does not
exist, a body without `max_tokens`, a key that may not, a burst, credit that ends.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from turnpike.kernel import clock
from turnpike.management.traffic_tenants import LiveTenant, Program

IN_FLIGHT_MAX = 12
REQUESTS_MAX = 5_000
PER_SECOND = 2.5
ANSWER_SECONDS_MAX = 60.0
TURNS_MAX = 6
BURST = 70
BURST_AFTER = 40  # requests
SONNET, HAIKU, OPUS = "claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-1"
SYSTEM_PROMPT = (
    "You are a careful engineer in a large code base. Read before you write, keep changes small, "
    "run the tests that touch what you change, and say what you did in two sentences. "
) * 60
TOOLS = [
    {
        "name": "read_file",
        "description": "Read a file of the repository.",
        "input_schema": {
            "type": "object",
            "properties": {"path": {"type": "string"}},
            "required": ["path"],
        },
    }
]
QUESTIONS = (
    "Why does the retry in the uploader run twice?",
    "Summarise last week's incidents for the board in five lines.",
    "Which of these two designs is easier to undo, and why?",
    "Write a polite answer to a customer whose parcel is late.",
    "Explain the difference between a lease and a lock with an example.",
    "Turn this table into three findings and one open question.",
)
TEXTS = (
    "请把这段合同条款翻译成英文。",
    "Переведите письмо на китайский.",
    "把产品说明改得更自然。",
)


@dataclass(slots=True, kw_only=True)
class Tally:
    """What came back, by status; what was sent."""

    sent: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    tenants: Counter[str] = field(default_factory=Counter)

    def note(self, tenant: str, status: str) -> None:
        """Count one answer."""
        self.sent += 1
        self.statuses[status] += 1
        self.tenants[tenant] += 1


@dataclass(slots=True, kw_only=True)
class _Talk:
    """A conversation that grows; agents go on with theirs."""

    messages: list[dict[str, Any]] = field(default_factory=list)


class Traffic:
    """Sends requests of several tenants for a while."""

    def __init__(self, *, base_url: str, tenants: Sequence[LiveTenant], seed: int) -> None:
        self._base_url = base_url
        self._tenants = tenants
        # Not for secrets: the same seed says the same again.
        self._chance = random.Random(seed)  # noqa: S311
        self._talks: dict[str, _Talk] = {}
        self.tally = Tally()

    async def run(self, *, seconds: float, on_answer: Callable[[], None]) -> Tally:
        """Send until the time is over; never more than the bound, never too much at once."""
        limits = httpx2.Limits(max_connections=IN_FLIGHT_MAX * 2)
        places = asyncio.Semaphore(IN_FLIGHT_MAX)
        ends_at = clock.monotonic_seconds() + seconds
        async with (
            httpx2.AsyncClient(
                base_url=self._base_url, timeout=ANSWER_SECONDS_MAX, limits=limits
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            for number in range(REQUESTS_MAX):
                if clock.monotonic_seconds() >= ends_at:
                    break
                for live, program, body in self._next(number):
                    await places.acquire()
                    group.create_task(self._send(client, live, program, body, places, on_answer))
                await asyncio.sleep(self._chance.expovariate(PER_SECOND))
        return self.tally

    def _next(self, number: int) -> Iterator[tuple[LiveTenant, Program, dict[str, Any]]]:
        chance = self._chance
        live = chance.choices(self._tenants, [item.spec.weight for item in self._tenants])[0]
        programs = live.spec.programs
        program = chance.choices(programs, [item.weight for item in programs])[0]
        yield live, program, self._body(live, program)
        if number == BURST_AFTER:
            # Somebody's loop without a pause, once: the limit of a minute says no.
            eager = next(item for item in self._tenants if item.spec.tier == "basic")
            for _ in range(BURST):
                yield eager, eager.spec.programs[0], _short(HAIKU)

    def _body(self, live: LiveTenant, program: Program) -> dict[str, Any]:
        odd = self._chance.random()
        if odd < 0.012:
            return _short("claude-of-next-year")
        if odd < 0.024:
            return {"model": HAIKU, "messages": [_user("Hello")]}
        if program.kind == "agent":
            return self._agent(live, program)
        if program.kind == "tools":
            text = self._chance.choice(QUESTIONS)
            return {**_short(SONNET, text, 600), "tools": TOOLS, "stream": True}
        if program.kind == "translate":
            text = self._chance.choice(TEXTS) * self._chance.randrange(5, 40)
            return {**_short(HAIKU, text, 800), "stream": True}
        if program.kind == "batch":
            return _short(HAIKU, self._chance.choice(QUESTIONS) * 12, 400)
        models: tuple[str, ...] = (SONNET, SONNET, HAIKU, OPUS)
        if program.models is not None and odd < 0.9:
            models = program.models
        model = self._chance.choice(models)
        return {**_short(model, self._chance.choice(QUESTIONS), 700), "stream": True}

    def _agent(self, live: LiveTenant, program: Program) -> dict[str, Any]:
        talk = self._talks.setdefault(f"{live.spec.name}/{program.key}", _Talk())
        if len(talk.messages) >= 2 * TURNS_MAX:
            talk.messages.clear()
        talk.messages.append(_user(self._chance.choice(QUESTIONS)))
        cached = {"cache_control": {"type": "ephemeral"}}
        body = {
            "model": self._chance.choice((SONNET, SONNET, OPUS)),
            "max_tokens": 1_200,
            "stream": True,
            "system": [{"type": "text", "text": SYSTEM_PROMPT, **cached}],
            "tools": TOOLS,
            "messages": [*talk.messages],
        }
        talk.messages.append({"role": "assistant", "content": "I read it and changed one line."})
        return body

    async def _send(
        self,
        client: httpx2.AsyncClient,
        live: LiveTenant,
        program: Program,
        body: dict[str, Any],
        places: asyncio.Semaphore,
        on_answer: Callable[[], None],
    ) -> None:
        headers = {
            "x-api-key": live.secrets[program.key],
            "anthropic-version": "2023-06-01",
            "content-type": "application/json",
        }
        try:
            async with client.stream(
                "POST", "/v1/messages", content=json.dumps(body), headers=headers
            ) as answer:
                async for _chunk in answer.aiter_bytes():
                    pass
            status = str(answer.status_code)
        except httpx2.HTTPError as error:
            status = type(error).__name__
        finally:
            places.release()
        self.tally.note(live.spec.name, status)
        on_answer()


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _short(model: str, text: str = "One more.", max_tokens: int = 64) -> dict[str, Any]:
    return {"model": model, "max_tokens": max_tokens, "messages": [_user(text)]}
