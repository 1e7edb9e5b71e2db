"""What the simulator answers."""

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

Json = dict[str, Any]
Ask = Callable[..., httpx.Response]
LANE = {
    "name": "get_lane",
    "input_schema": {
        "type": "object",
        "properties": {"plate": {"type": "string"}, "axles": {"type": "integer", "minimum": 2}},
        "required": ["plate", "axles"],
    },
}


def usage_of(response: httpx.Response) -> Json:
    usage: Json = response.raise_for_status().json()["usage"]
    return usage


def test_the_same_request_gets_the_same_words(ask: Ask) -> None:
    first, second = ask("Why are tolls due?").json(), ask("Why are tolls due?").json()

    assert first["content"] == second["content"]
    assert first["id"] != second["id"]
    assert ask("Why not?").json()["content"] != first["content"]


def test_four_characters_are_a_token_on_both_sides(ask: Ask) -> None:
    message = ask("x" * 41, system="y" * 40).json()

    assert message["usage"]["input_tokens"] == 21
    assert message["usage"]["output_tokens"] == -(-len(message["content"][0]["text"]) // 4)
    assert message["stop_reason"] == "end_turn"


def test_a_test_may_set_length_and_words(ask: Ask) -> None:
    long, exact = ask("[[tokens=300]]"), ask("[[say=drei € bitte]]")

    assert usage_of(long)["output_tokens"] == 300
    assert exact.json()["content"][0]["text"] == "drei € bitte"
    assert usage_of(ask("Hi", orders="tokens=77"))["output_tokens"] == 77


def test_max_tokens_ends_the_answer(ask: Ask) -> None:
    message = ask("[[tokens=300]]", max_tokens=25).json()

    assert message["stop_reason"] == "max_tokens"
    assert message["usage"]["output_tokens"] == 25
    assert len(message["content"][0]["text"]) == 100


def test_no_tokens_at_all_warm_the_cache(ask: Ask) -> None:
    message = ask("Hi", max_tokens=0).json()

    assert (message["content"], message["stop_reason"]) == ([], "max_tokens")
    assert message["usage"]["output_tokens"] == 0


def test_a_stop_sequence_ends_the_answer(ask: Ask) -> None:
    message = ask("[[say=one two three]]", stop_sequences=[" three", "two"]).json()

    assert message["content"][0]["text"] == "one "
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "two")
    assert message["usage"]["output_tokens"] == 1


def test_a_tool_that_the_prompt_names_is_called(ask: Ask) -> None:
    message = ask("Use get_lane for `AB-123`.", tools=[LANE]).json()

    assert message["stop_reason"] == "tool_use"
    call = message["content"][1]
    assert (call["name"], call["input"]) == ("get_lane", {"plate": "AB-123", "axles": 2})


@pytest.mark.parametrize(
    ("choice", "stop_reason"),
    [
        ({"type": "auto"}, "end_turn"),
        ({"type": "any"}, "tool_use"),
        ({"type": "tool", "name": "get_lane"}, "tool_use"),
        ({"type": "none"}, "end_turn"),
    ],
)
def test_tool_choice_decides(ask: Ask, choice: Json, stop_reason: str) -> None:
    message = ask("What now?", tools=[LANE], tool_choice=choice).json()

    assert message["stop_reason"] == stop_reason


def test_a_tools_result_is_answered_in_words(ask: Ask) -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "get_lane", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Lane 4"}
    turns = [
        {"role": "user", "content": "Use get_lane."},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
        {"role": "system", "content": "Be brief."},
    ]

    message = ask(messages=turns, tools=[LANE]).json()

    assert message["stop_reason"] == "end_turn"
    assert message["content"][0]["text"] == "The tool answered: Lane 4"


def test_thinking_is_shown_or_hidden_and_billed_either_way(ask: Ask) -> None:
    enabled = {"type": "enabled", "budget_tokens": 1024}
    shown = ask("Think.", max_tokens=2_000, thinking=enabled).json()
    hidden = ask("Think.", max_tokens=2_000, thinking={**enabled, "display": "omitted"}).json()

    assert shown["content"][0]["thinking"]
    assert hidden["content"][0] == {**shown["content"][0], "thinking": ""}
    assert hidden["usage"] == shown["usage"]
    details = shown["usage"]["output_tokens_details"]
    assert 0 < details["thinking_tokens"] < shown["usage"]["output_tokens"]


def test_images_and_documents_have_a_flat_price(ask: Ask) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "A" * 4_000}
    image = {"type": "image", "source": source}
    pdf = {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}}
    page = {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": "d" * 40},
    }

    usage = usage_of(ask([image, pdf, page, {"type": "text", "text": "four"}]))

    assert usage["input_tokens"] == 1_568 + 2_000 + 10 + 1


def test_a_marked_prefix_is_written_once_and_read_afterwards(ask: Ask) -> None:
    hour = [
        {"type": "text", "text": "h" * 400, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    ]
    turn = [
        {"type": "text", "text": "m" * 200, "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "q" * 40},
    ]

    first, second = usage_of(ask(turn, system=hour)), usage_of(ask(turn, system=hour))

    assert (first["input_tokens"], first["cache_read_input_tokens"]) == (10, 0)
    assert first["cache_creation"] == {
        "ephemeral_5m_input_tokens": 50,
        "ephemeral_1h_input_tokens": 100,
    }
    assert (second["input_tokens"], second["cache_read_input_tokens"]) == (10, 150)
    assert second["cache_creation_input_tokens"] == 0


def test_web_search_is_reported_as_a_server_tool(ask: Ask) -> None:
    tool = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}

    message = ask("Search for tolls", tools=[tool]).json()

    kinds = [block["type"] for block in message["content"]]
    assert kinds == ["server_tool_use", "web_search_tool_result", "text"]
    assert message["usage"]["server_tool_use"]["web_search_requests"] == 1


def test_price_variants_come_back_in_the_usage(ask: Ask) -> None:
    usage = usage_of(ask("Hi", speed="fast", inference_geo="us"))

    assert (usage["speed"], usage["inference_geo"]) == ("fast", "us")


def test_a_json_schema_is_answered_with_json(ask: Ask) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "kind": {"enum": ["car", "truck"]}},
        "required": ["ok", "kind"],
    }

    message = ask("Hi", output_config={"format": {"type": "json_schema", "schema": schema}}).json()

    assert json.loads(message["content"][0]["text"]) == {"ok": False, "kind": "car"}


def test_a_stream_adds_up_to_the_json_answer(
    ask: Ask, parse_events: Callable[[str], list[Json]]
) -> None:
    fields: Json = {"tools": [LANE], "max_tokens": 2_000, "thinking": {"type": "adaptive"}}
    whole = ask("Use get_lane for `Ü-1`.", **fields).json()

    events = parse_events(ask("Use get_lane for `Ü-1`.", stream=True, **fields).text)

    parts: dict[str, str] = {"text": "", "partial_json": "", "thinking": "", "signature": ""}
    for event in events:
        for name, piece in event.get("delta", {}).items():
            if name in parts:
                parts[name] += piece
    thinking, text, call = whole["content"]
    assert parts["thinking"] == thinking["thinking"]
    assert parts["signature"] == thinking["signature"]
    assert parts["text"] == text["text"]
    assert json.loads(parts["partial_json"]) == call["input"]
    assert events[-2]["usage"]["output_tokens"] == whole["usage"]["output_tokens"]
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_stream_has_the_grammar_of_the_api(
    ask: Ask, parse_events: Callable[[str], list[Json]]
) -> None:
    response = ask("[[say=Three euros for two axles.]]", stream=True)

    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert [event["type"] for event in parse_events(response.text)] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "ping",
        "message_delta",
        "message_stop",
    ]


def test_count_tokens_counts_like_the_answer(simulator: httpx.Client, ask: Ask) -> None:
    turns = [{"role": "user", "content": "z" * 99}]
    body = {"model": "claude-sonnet-4-6", "messages": turns, "system": "s"}

    counted = simulator.post("/v1/messages/count_tokens", json=body).json()

    assert counted == {"input_tokens": 25}
    assert usage_of(ask(messages=turns, system="s"))["input_tokens"] == 25


def test_models_are_listed_in_pages_and_found_by_any_name(simulator: httpx.Client) -> None:
    first = simulator.get("/v1/models", params={"limit": 2}).json()
    second = simulator.get("/v1/models", params={"limit": 2, "after_id": first["last_id"]}).json()

    assert [len(first["data"]), first["has_more"], len(second["data"])] == [2, True, 2]
    assert first["data"][0]["created_at"] > second["data"][0]["created_at"]
    assert simulator.get("/v1/models/claude-any-9").json()["id"] == "claude-any-9"
    assert simulator.get("/v1/models/gpt-9").status_code == 404


def test_the_pace_of_a_stream_can_be_set(ask: Ask) -> None:
    begun = time.monotonic()

    ask("[[tokens=25]]", stream=True, orders="pace_ms=20")

    assert time.monotonic() - begun > 0.2


def test_the_static_answer_needs_no_valid_request(
    ask: Ask, billed: Callable[[], list[Json]]
) -> None:
    message = ask("Hi", max_tokens=None, orders="static").json()
    stream = ask("Hi", stream=True, orders="static")

    assert message["usage"]["output_tokens"] == 200
    assert '"output_tokens":200' in stream.text
    assert [row["usage"]["output_tokens"] for row in billed()] == [200, 200]
    assert {row["model"] for row in billed()} == {"claude-sonnet-4-6"}
