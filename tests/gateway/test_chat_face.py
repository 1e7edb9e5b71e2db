"""/v1/chat/completions over the whole data plane: answers, streams, errors, limits, money."""

import json
from typing import Any

import pytest

from tests.gateway.conftest import billed

SONNET = "claude-sonnet-4-6"
CHAT_PATH = "/v1/chat/completions"
HELLO: dict[str, Any] = {
    "model": SONNET,
    "max_completion_tokens": 100,
    "messages": [{"role": "user", "content": "Hello there"}],
}
STREAM = {**HELLO, "stream": True, "stream_options": {"include_usage": True}}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_lane",
            "description": "Finds the lane of a plate.",
            "parameters": {
                "type": "object",
                "properties": {"plate": {"type": "string"}},
                "required": ["plate"],
            },
        },
    }
]


async def post(gateway: Any, body: Any = HELLO, **headers: str) -> Any:
    """Post as an OpenAI client does: a bearer token and no version."""
    secret = gateway.world.secret
    usual = {"x_api_key": "", "anthropic_version": "", "authorization": f"Bearer {secret}"}
    return await gateway.post(body, path=CHAT_PATH, **{**usual, **headers})


async def the_event(gateway: Any) -> Any:
    await gateway.until(lambda: len(gateway.world.events()) == 1)
    return gateway.world.events()[0]


def chunks_of(text: str) -> list[dict[str, Any]]:
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def worth_micro(usage: dict[str, Any]) -> int:
    """What a completion's usage costs, without a cache, rounded up as it is held."""
    nanos = usage["prompt_tokens"] * 3_000 + usage["completion_tokens"] * 15_000
    return -(-int(nanos) // 1_000)


async def test_answer_is_a_completion_with_its_money(
    gateway: Any, world: Any, simulator: int
) -> None:
    response = await post(gateway)
    event = await the_event(gateway)

    completion = response.json()
    rows = await billed(simulator)
    assert response.status_code == 200
    assert completion["object"] == "chat.completion"
    assert completion["model"] == SONNET
    assert completion["choices"][0]["finish_reason"] in ("stop", "length")
    assert completion["choices"][0]["message"]["content"]
    assert (event.rank, event.status) == (3, "reported")
    assert completion["usage"]["completion_tokens"] == event.usage["output_tokens"]
    assert world.held_micro() == worth_micro(completion["usage"])
    assert [row["usage"]["output_tokens"] for row in rows] == [event.usage["output_tokens"]]
    assert (world.slots_taken(), world.open_records()) == (0, 0)


async def test_headers_are_openais(gateway: Any) -> None:
    response = await post(gateway, {**HELLO, "seed": 7, "logit_bias": {"5": 1}})

    headers = response.headers
    assert headers["x-request-id"].startswith("req_01")
    assert headers["x-ratelimit-limit-requests"] == "200"
    assert headers["x-ratelimit-remaining-requests"] == "199"
    assert headers["x-ratelimit-limit-tokens"] == "400000"
    assert headers["x-ratelimit-reset-requests"].endswith("s")
    assert headers["x-turnpike-ignored"] == "seed, logit_bias"
    assert int(headers["content-length"]) == len(response.content)
    assert not [name for name in headers if name.startswith("anthropic-")]


async def test_stream_is_chunks_with_usage_at_the_end(gateway: Any, world: Any) -> None:
    response = await post(gateway, STREAM)
    event = await the_event(gateway)

    chunks = chunks_of(response.text)
    text = "".join(
        choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]
    )
    plain = (await post(gateway)).json()
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("data: [DONE]\n\n")
    assert text == plain["choices"][0]["message"]["content"]
    assert chunks[-1]["usage"]["completion_tokens"] == event.usage["output_tokens"]
    assert (event.rank, event.stream) == (3, True)


async def test_stream_without_options_has_no_usage(gateway: Any) -> None:
    response = await post(gateway, {**HELLO, "stream": True})

    assert response.text.endswith("data: [DONE]\n\n")
    assert all("usage" not in chunk for chunk in chunks_of(response.text))


@pytest.mark.parametrize("is_stream", [False, True])
async def test_tool_is_called_and_answered(gateway: Any, is_stream: bool) -> None:
    asked = {**HELLO, "tools": TOOLS, "tool_choice": "required", "stream": is_stream}

    response = await post(gateway, asked)

    if is_stream:
        pieces = [
            call
            for chunk in chunks_of(response.text)
            for choice in chunk["choices"]
            for call in choice["delta"].get("tool_calls", ())
        ]
        arguments = "".join(piece["function"]["arguments"] for piece in pieces)
        call = {**pieces[0], "function": {**pieces[0]["function"], "arguments": arguments}}
        assert {piece["index"] for piece in pieces} == {0}
        call.pop("index")
    else:
        call = response.json()["choices"][0]["message"]["tool_calls"][0]
    result = {"role": "tool", "tool_call_id": call["id"], "content": "Lane 7"}
    turns = [*HELLO["messages"], {"role": "assistant", "tool_calls": [call]}, result]
    answer = await post(gateway, {**HELLO, "tools": TOOLS, "messages": turns})
    assert call["function"]["name"] == "get_lane"
    assert isinstance(json.loads(call["function"]["arguments"])["plate"], str)
    assert answer.status_code == 200


async def test_pictures_go_up(gateway: Any) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}
    content = [{"type": "text", "text": "What is this?"}, picture]

    response = await post(gateway, {**HELLO, "messages": [{"role": "user", "content": content}]})

    assert response.status_code == 200


async def test_refusals_are_in_openais_shape_and_cost_nothing(gateway: Any, world: Any) -> None:
    unknown = await post(gateway, {**HELLO, "model": "nope"})
    two = await post(gateway, {**HELLO, "n": 2})
    wrong = await post(gateway, authorization="Bearer tpk_live_wrong")
    broken = await post(gateway, b"{")
    method = await gateway.client.get(CHAT_PATH, headers=gateway.headers())

    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert (two.status_code, two.json()["error"]["param"]) == (400, "n")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "invalid_api_key")
    assert (broken.status_code, method.status_code) == (400, 405)
    for response in (unknown, two, wrong, broken, method):
        assert set(response.json()) == {"error"}
        assert response.headers["x-request-id"].startswith("req_01")
        assert response.headers["x-should-retry"] == "false"
    assert world.held_micro() == 0
    assert world.events() == []


async def test_empty_wallet_is_insufficient_quota(gateway: Any, world: Any) -> None:
    world.set_wallet(posted_micro=10)

    response = await post(gateway)

    error = response.json()["error"]
    assert response.status_code == 402
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
    assert response.headers["x-should-retry"] == "false"


async def test_rate_limit_says_when_to_come_back(gateway: Any, world: Any) -> None:
    world.set_tier_limits(requests_per_minute=1)

    first, second = await post(gateway), await post(gateway)

    assert (first.status_code, second.status_code) == (200, 429)
    assert second.json()["error"]["code"] == "rate_limit_exceeded"
    assert int(second.headers["retry-after"]) >= 1
    assert second.headers["x-ratelimit-remaining-requests"] == "0"


async def test_refusal_of_the_upstream_is_converted(gateway: Any, world: Any) -> None:
    response = await post(gateway, {**HELLO, "top_k": -1})
    event = await the_event(gateway)

    error = response.json()["error"]
    assert response.status_code == 400
    assert error["param"] == "top_k"
    assert (event.rank, world.held_micro()) == (0, 0)


async def test_busy_upstream_is_a_503(gateway: Any, world: Any) -> None:
    response = await post(gateway, x_simulator="status=529")
    await the_event(gateway)

    assert (response.status_code, response.json()["error"]["code"]) == (503, "overloaded")
    assert response.headers["x-should-retry"] == "true"
    assert world.held_micro() == 0


async def test_stream_that_breaks_off_ends_with_an_error(gateway: Any, world: Any) -> None:
    response = await post(gateway, STREAM, x_simulator="cut_after_events=4")
    event = await the_event(gateway)

    chunks = chunks_of(response.text)
    assert "error" in chunks[-1]
    assert "[DONE]" not in response.text
    assert event.rank == 2
    assert event.usage["output_tokens"] > 0


async def test_client_that_leaves_pays_for_what_it_saw(gateway: Any, world: Any) -> None:
    body = {**STREAM, "max_completion_tokens": 20_000}
    async with gateway.client.stream(
        "POST", CHAT_PATH, json=body, headers=gateway.headers(x_simulator="delay_ms=1")
    ) as response:
        await anext(response.aiter_bytes())
    event = await the_event(gateway)

    assert event.rank >= 2
    assert event.usage["input_tokens"] > 0
    assert (world.slots_taken(), world.open_records()) == (0, 0)


async def test_many_at_once_cannot_spend_more_than_there_is(gateway: Any, world: Any) -> None:
    # Each may cost 100 output tokens at 15 micros and its input: 5 fit, more do not.
    world.set_wallet(posted_micro=5 * 1_600)

    responses = await gateway.gather([post(gateway) for _ in range(12)], held=5)
    admitted = [response for response in responses if response.status_code == 200]
    await gateway.until(lambda: world.open_records() == 0)

    assert {response.status_code for response in responses} == {200, 402}
    assert len(admitted) == 5
    assert world.held_micro() == sum(worth_micro(item.json()["usage"]) for item in admitted)


async def test_models_have_both_shapes_where_no_version_is_named(gateway: Any) -> None:
    headers = gateway.headers(anthropic_version="")
    both = await gateway.client.get("/v1/models", headers=headers)
    one = await gateway.client.get(f"/v1/models/{SONNET}", headers=headers)
    anthropics = await gateway.client.get("/v1/models", headers=gateway.headers())

    listed = both.json()
    assert (listed["object"], listed["has_more"]) == ("list", False)
    assert listed["data"][0] == one.json()
    assert one.json()["object"] == one.json()["type"] == "model"
    assert one.json()["created"] == 1_771_286_400
    assert one.json()["owned_by"] == "turnpike"
    assert both.headers["x-request-id"] == both.headers["request-id"]
    assert "object" not in anthropics.json()
    assert [item["id"] for item in anthropics.json()["data"]] == [
        item["id"] for item in listed["data"]
    ]
