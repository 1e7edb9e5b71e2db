"""The official Python SDK's streams and stream helpers, against a running platform."""

from typing import Any

import anthropic

MODEL = "claude-sonnet-4-6"
PROMPT: Any = [{"role": "user", "content": "[[tokens=40]]"}]
TOOL: Any = {
    "name": "get_lane",
    "input_schema": {
        "type": "object",
        "properties": {"plate": {"type": "string"}},
        "required": ["plate"],
    },
}


def test_raw_events_come_in_order(client: anthropic.Anthropic) -> None:
    stream = client.messages.create(model=MODEL, max_tokens=100, messages=PROMPT, stream=True)
    events = list(stream)

    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert kinds.count("content_block_delta") == 8
    last = events[-2]
    assert last.type == "message_delta"
    assert last.usage.output_tokens == 40


def test_the_helper_adds_up_what_it_streams(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(model=MODEL, max_tokens=100, messages=PROMPT)

    with client.messages.stream(model=MODEL, max_tokens=100, messages=PROMPT) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()

    assert len(pieces) == 8
    assert "".join(pieces) == stream.get_final_text()
    assert [block.type for block in final.content] == ["text"]
    assert stream.get_final_text() == "".join(b.text for b in whole.content if b.type == "text")
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert stream.request_id is not None
    assert stream.request_id.startswith("req_")


async def test_the_async_helper_does_too(async_client: anthropic.AsyncAnthropic) -> None:
    async with async_client.messages.stream(model=MODEL, max_tokens=100, messages=PROMPT) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()

    assert len(text) == 160
    assert final.stop_reason == "end_turn"


def test_a_tool_call_is_streamed_in_pieces(client: anthropic.Anthropic) -> None:
    asked: Any = [{"role": "user", "content": "Use get_lane for `" + "AB-123-" * 9 + "`."}]

    with client.messages.stream(
        model=MODEL, max_tokens=200, messages=asked, tools=[TOOL]
    ) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()

    call = final.content[-1]
    assert len(pieces) > 2
    assert call.type == "tool_use"
    assert call.input == {"plate": "AB-123-" * 9}
    assert final.stop_reason == "tool_use"


def test_thinking_is_streamed_before_the_text(client: anthropic.Anthropic) -> None:
    thinking: Any = {"type": "adaptive", "display": "summarized"}

    with client.messages.stream(
        model=MODEL, max_tokens=2_000, messages=PROMPT, thinking=thinking
    ) as stream:
        order = [event.type for event in stream if event.type in {"thinking", "signature", "text"}]
        final = stream.get_final_message()

    assert order == sorted(order, key=["thinking", "signature", "text"].index)
    assert [block.type for block in final.content] == ["thinking", "text"]


def test_a_stream_that_is_left_early_leaves_the_client_usable(client: anthropic.Anthropic) -> None:
    long: Any = [{"role": "user", "content": "[[tokens=2000]]"}]

    with client.messages.stream(model=MODEL, max_tokens=4_000, messages=long) as stream:
        first = next(iter(stream.text_stream))

    assert len(first) == 20
    assert client.messages.create(model=MODEL, max_tokens=9, messages=PROMPT).type == "message"


def test_raw_responses_show_the_headers(client: anthropic.Anthropic) -> None:
    response = client.messages.with_raw_response.create(model=MODEL, max_tokens=50, messages=PROMPT)

    assert response.headers["request-id"].startswith("req_01")
    assert int(response.headers["anthropic-ratelimit-requests-limit"]) > 0
    assert int(response.headers["anthropic-ratelimit-tokens-remaining"]) >= 0
    assert response.parse().type == "message"
