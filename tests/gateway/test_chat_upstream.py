"""An OpenAI-compatible upstream behind both faces: answers, streams, tools, money, faults."""

import dataclasses
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.gateway.conftest import HELLO, SONNET, billed, served
from turnpike.contracts.snapshots import Candidate

STREAM = {**HELLO, "stream": True}
TOOL = {
    "name": "get_lane",
    "description": "Finds the lane of a plate.",
    "input_schema": {
        "type": "object",
        "properties": {"plate": {"type": "string"}},
        "required": ["plate"],
    },
}


@pytest.fixture
def openai(world: Any) -> Any:
    """The simulator as an upstream that speaks Chat Completions alone."""
    upstream = dataclasses.replace(world.plane.upstreams["9"], kind="openai")
    world.publish_plane(upstreams={"9": upstream})
    return world


class Script:
    """A server that keeps what it was asked and answers what a test told it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.status = 200
        self.content_type = b"application/json"
        self.payload = b""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.asked.append((scope["path"], headers, json.loads(body)))
        head = [(b"content-type", self.content_type), (b"x-request-id", b"up-1")]
        await send({"type": "http.response.start", "status": self.status, "headers": head})
        await send({"type": "http.response.body", "body": self.payload})

    def stream(self, *chunks: Any) -> None:
        """Answer with these chunks and [DONE]."""
        self.content_type = b"text/event-stream"
        lines = [b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks]
        self.payload = b"".join([*lines, b"data: [DONE]\n\n"])


@pytest.fixture
async def script(world: Any) -> AsyncIterator[Script]:
    """A scripted upstream at a base URL that ends with /v1, as OpenAI's do."""
    one = Script()
    async with served(one) as port:
        upstream = dataclasses.replace(
            world.plane.upstreams["9"], kind="openai", base_url=f"http://127.0.0.1:{port}/v1"
        )
        route = Candidate(upstream=9, upstream_model="llama-9")
        world.publish_plane(upstreams={"9": upstream}, routes={SONNET: (route,)})
        yield one


def delta(piece: Any = None, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": piece or {}, "finish_reason": finish}
    return {"model": "llama-9-q4", "choices": [choice], **fields}


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


async def the_event(gateway: Any) -> Any:
    await gateway.until(lambda: len(gateway.world.events()) == 1)
    return gateway.world.events()[0]


def worth_micro(usage: dict[str, int]) -> int:
    return usage["input_tokens"] * 3 + usage["output_tokens"] * 15


async def test_answer_is_a_message_with_its_money(
    gateway: Any, openai: Any, simulator: int
) -> None:
    response = await gateway.post()
    event = await the_event(gateway)

    message = response.json()
    rows = await billed(simulator)
    assert response.status_code == 200
    assert message["type"] == "message"
    assert message["id"] == "msg_" + response.headers["request-id"].removeprefix("req_")
    assert message["content"][0]["text"]
    assert (event.rank, event.usage) == (3, message["usage"])
    assert event.attempts[0].upstream_request_id is not None
    assert openai.held_micro() == worth_micro(message["usage"])
    assert [row["usage"]["output_tokens"] for row in rows] == [message["usage"]["output_tokens"]]
    assert "x-turnpike-ignored" not in response.headers


async def test_stream_is_events_with_true_usage(gateway: Any, openai: Any, simulator: int) -> None:
    response = await gateway.post(STREAM)
    event = await the_event(gateway)

    events = events_of(response.text)
    rows = await billed(simulator)
    assert [events[0]["type"], events[-1]["type"]] == ["message_start", "message_stop"]
    assert (event.rank, event.stop_reason) == (3, events[-2]["delta"]["stop_reason"])
    assert event.usage["output_tokens"] == rows[0]["usage"]["output_tokens"]
    assert event.usage["input_tokens"] == rows[0]["usage"]["input_tokens"]
    assert openai.held_micro() == worth_micro(event.usage)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_both_faces_over_the_same_upstream(
    gateway: Any, openai: Any, is_stream: bool
) -> None:
    body = {"model": SONNET, "max_tokens": 50, "messages": HELLO["messages"], "stream": is_stream}

    chat = await gateway.post(body, path="/v1/chat/completions")
    event = await the_event(gateway)

    assert chat.status_code == 200
    assert event.rank == 3
    if is_stream:
        assert chat.text.endswith("data: [DONE]\n\n")
    else:
        assert chat.json()["usage"]["completion_tokens"] == event.usage["output_tokens"]


@pytest.mark.parametrize("is_stream", [False, True])
async def test_tool_is_called_and_answered(gateway: Any, openai: Any, is_stream: bool) -> None:
    asked = {**HELLO, "tools": [TOOL], "tool_choice": {"type": "any"}, "stream": is_stream}

    response = await gateway.post(asked)

    if is_stream:
        events = events_of(response.text)
        starts = [item for item in events if item["type"] == "content_block_start"]
        pieces = [
            item["delta"]["partial_json"]
            for item in events
            if item.get("delta", {}).get("type") == "input_json_delta"
        ]
        call = {**starts[-1]["content_block"], "input": json.loads("".join(pieces))}
    else:
        call = response.json()["content"][-1]
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "Lane 7"}
    turns = [
        *HELLO["messages"],
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    answer = await gateway.post({**HELLO, "tools": [TOOL], "messages": turns})
    assert (call["type"], call["name"]) == ("tool_use", "get_lane")
    assert isinstance(call["input"]["plate"], str)
    assert answer.status_code == 200


async def test_upstream_is_asked_in_its_own_words(gateway: Any, script: Script) -> None:
    script.stream(delta({"content": "Hi"}), delta(finish="stop"))

    response = await gateway.post({**STREAM, "top_k": 4}, anthropic_beta="x-2026", cookie="a=b")

    path, headers, body = script.asked[0]
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == "Bearer upstream-secret"
    assert not [name for name in headers if name.startswith(("anthropic", "x-api", "cookie"))]
    assert body == {
        "model": "llama-9",
        "messages": HELLO["messages"],
        "max_tokens": 100,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert response.headers["x-turnpike-ignored"] == "top_k"


async def test_usage_that_never_comes_is_estimated_and_observed(
    gateway: Any, world: Any, script: Script
) -> None:
    script.stream(delta({"content": "Eight chars."}), delta(finish="stop"))

    response = await gateway.post(STREAM)
    event = await the_event(gateway)

    estimate = events_of(response.text)[0]["message"]["usage"]["input_tokens"]
    metrics = (await gateway.client.get("/metrics")).text
    assert re.search(r'flag="usage_missing"[^}]*} [1-9]', metrics)
    assert estimate > 0
    assert (event.rank, event.status) == (2, "observed")
    assert event.usage == {"input_tokens": estimate, "output_tokens": 3}
    assert world.held_micro() == worth_micro(event.usage)


async def test_true_input_replaces_a_higher_estimate(
    gateway: Any, world: Any, script: Script
) -> None:
    usage = {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}
    script.stream(delta({"content": "Hi"}), delta(finish="stop"), {"choices": [], "usage": usage})

    response = await gateway.post(STREAM)
    event = await the_event(gateway)

    assert events_of(response.text)[0]["message"]["usage"]["input_tokens"] > 2
    assert event.rank == 3
    assert (event.usage["input_tokens"], event.usage["output_tokens"]) == (2, 1)
    assert world.held_micro() == worth_micro(event.usage)


async def test_answer_without_usage_is_observed(gateway: Any, script: Script) -> None:
    message = {"index": 0, "message": {"content": "Four"}, "finish_reason": "stop"}
    script.payload = json.dumps({"choices": [message]}).encode()

    response = await gateway.post()
    event = await the_event(gateway)

    assert response.json()["usage"]["output_tokens"] == 1
    assert (event.rank, event.usage["output_tokens"]) == (2, 1)


async def test_answer_that_is_none_costs_nothing(gateway: Any, world: Any, script: Script) -> None:
    script.payload = b'{"choices":[]}'

    response = await gateway.post()
    event = await the_event(gateway)

    assert (response.status_code, response.json()["error"]["type"]) == (500, "api_error")
    assert (event.rank, world.held_micro()) == (0, 0)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
async def test_refusal_of_the_upstream_is_told_in_the_clients_shape(
    gateway: Any, world: Any, script: Script, path: str
) -> None:
    script.status = 400
    script.payload = (
        b'{"error":{"message":"9 tokens > 8","type":"x","code":"context_length_exceeded"}}'
    )

    response = await gateway.post(path=path)
    event = await the_event(gateway)

    error = response.json()["error"]
    assert response.status_code == 400
    assert error["message"] == "prompt is too long: 9 tokens > 8"
    assert error.get("code", "context_length_exceeded") == "context_length_exceeded"
    assert (event.rank, event.attempts[0].upstream_request_id) == (0, "up-1")
    assert world.held_micro() == 0


async def test_error_in_mid_stream_is_an_error_event(gateway: Any, script: Script) -> None:
    script.stream(delta({"content": "Hello"}), {"error": {"message": "Out of memory"}})

    response = await gateway.post(STREAM)
    event = await the_event(gateway)

    last = events_of(response.text)[-1]
    assert (last["type"], last["error"]["message"]) == ("error", "Out of memory")
    assert last["request_id"] == response.headers["request-id"]
    assert event.rank == 2
    assert event.usage["output_tokens"] == 2


async def test_stream_that_is_cut_ends_with_an_error_and_is_estimated(
    gateway: Any, openai: Any, simulator: int
) -> None:
    response = await gateway.post(STREAM, x_simulator="cut_after_events=2")
    event = await the_event(gateway)

    rows = await billed(simulator)
    assert events_of(response.text)[-1]["type"] == "error"
    assert event.rank == 2
    assert event.usage["input_tokens"] > 0
    assert 0 < event.usage["output_tokens"] <= rows[0]["usage"]["output_tokens"]


async def test_stream_that_falls_silent_is_a_timeout(gateway: Any, openai: Any) -> None:
    upstream = dataclasses.replace(openai.plane.upstreams["9"], silence_timeout_seconds=0.2)
    openai.publish_plane(upstreams={"9": upstream})

    response = await gateway.post(STREAM, x_simulator="hang_after_events=3")
    event = await the_event(gateway)

    assert events_of(response.text)[-1]["error"]["type"] == "timeout_error"
    assert event.rank == 2
    assert (openai.slots_taken(), openai.open_records()) == (0, 0)


async def test_client_that_leaves_pays_for_what_it_saw(gateway: Any, openai: Any) -> None:
    body = {**STREAM, "max_tokens": 20_000}
    async with gateway.client.stream(
        "POST", "/v1/messages", json=body, headers=gateway.headers(x_simulator="delay_ms=1")
    ) as response:
        await anext(response.aiter_bytes())
    event = await the_event(gateway)

    assert event.rank >= 2
    assert event.usage["input_tokens"] > 0
    assert (openai.slots_taken(), openai.open_records()) == (0, 0)


async def test_busy_upstream_is_overloaded(gateway: Any, openai: Any) -> None:
    response = await gateway.post(x_simulator="status=529")

    assert response.status_code == 529
    assert openai.held_micro() == 0


async def test_what_the_upstream_cannot_take_is_refused_before_it_costs(
    gateway: Any, openai: Any, simulator: int
) -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}

    response = await gateway.post({**HELLO, "tools": [search]})

    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("tools.0.type: ")
    assert openai.events() == await billed(simulator) == []
    assert openai.held_micro() == 0


async def test_what_one_upstream_cannot_take_another_does(
    gateway: Any, world: Any, simulator: int
) -> None:
    chat = dataclasses.replace(world.plane.upstreams["9"], upstream=8, kind="openai")
    world.publish_plane(
        upstreams={**world.plane.upstreams, "8": chat},
        routes={
            SONNET: (
                Candidate(upstream=8, upstream_model=SONNET, priority=0),
                Candidate(upstream=9, upstream_model=SONNET, priority=1),
            )
        },
    )
    cited = {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": "Rates"},
        "citations": {"enabled": True},
    }
    content = [cited, {"type": "text", "text": "What is the toll?"}]

    plain = await gateway.post()
    special = await gateway.post({**HELLO, "messages": [{"role": "user", "content": content}]})
    await gateway.until(lambda: len(world.events()) == 2)

    assert (plain.status_code, special.status_code) == (200, 200)
    assert [event.attempts[0].upstream for event in world.events()] == [8, 9]


async def test_failure_of_one_kind_is_served_by_the_other(gateway: Any, world: Any) -> None:
    away = dataclasses.replace(
        world.plane.upstreams["9"], upstream=8, kind="openai", base_url="http://127.0.0.1:9"
    )
    world.publish_plane(
        upstreams={**world.plane.upstreams, "8": away},
        routes={
            SONNET: (
                Candidate(upstream=8, upstream_model=SONNET, priority=0),
                Candidate(upstream=9, upstream_model=SONNET, priority=1),
            )
        },
    )

    response = await gateway.post({**HELLO, "top_k": 3})
    event = await the_event(gateway)

    assert response.status_code == 200
    assert [attempt.outcome for attempt in event.attempts] == ["failed", "answered"]
    assert "x-turnpike-ignored" not in response.headers


async def test_tokens_are_estimated_where_nobody_can_count(gateway: Any, openai: Any) -> None:
    body = {"model": SONNET, "messages": HELLO["messages"]}

    response = await gateway.post(body, path="/v1/messages/count_tokens")

    assert response.status_code == 200
    assert response.json()["input_tokens"] > 0
    assert response.headers["content-type"] == "application/json"
