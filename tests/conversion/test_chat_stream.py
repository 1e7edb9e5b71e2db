"""Messages streams as chat completion chunks: golden bytes, and the same however they are cut."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from proxy.conversion.chat_response import FINISH_REASONS, Unreadable, completion_of
from proxy.conversion.chat_stream import KEEP_ALIVE, ChatStream
from proxy.sse import DONE, EventParser, write_event
from tests.support.servers import ROOT

SAMPLES = ROOT / "tests" / "proxy" / "samples"
CREATED = 1_795_219_200
STREAMS = sorted(path.stem for path in SAMPLES.glob("*.sse") if not path.stem.startswith("openai"))


def sample(name: str) -> bytes:
    return Path(SAMPLES / f"{name}.sse").read_bytes()


def convert(*pieces: bytes, has_usage_chunk: bool = True) -> bytes:
    stream = ChatStream(created=CREATED, has_usage_chunk=has_usage_chunk)
    return b"".join([stream.feed(piece) for piece in pieces])


def chunks_of(converted: bytes) -> list[dict[str, Any]]:
    events = EventParser().feed(converted)
    assert all(event.name == b"" for event in events)
    return [json.loads(event.data) for event in events if event.data != b"[DONE]"]


def text_of(chunks: list[dict[str, Any]]) -> str:
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def event(name: str, **values: Any) -> bytes:
    return write_event(name.encode(), json.dumps({"type": name, **values}).encode())


START = event("message_start", message={"id": "msg_1", "model": "m", "usage": {"input_tokens": 3}})
END = event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 2}) + event(
    "message_stop"
)


def test_golden_chunks_of_a_tool_call() -> None:
    assert convert(sample("tool_use")) == sample("openai_tool_use")


@pytest.mark.parametrize("name", STREAMS)
def test_every_cut_gives_the_same_bytes(name: str) -> None:
    whole = sample(name)
    expected = convert(whole)

    for place in range(1, len(whole)):
        assert convert(whole[:place], whole[place:]) == expected
    assert convert(*[whole[n : n + 1] for n in range(len(whole))]) == expected
    rng = random.Random(7)
    places = sorted(rng.sample(range(len(whole)), 20))
    pieces = [whole[a:b] for a, b in zip([0, *places], [*places, len(whole)], strict=True)]
    assert convert(*pieces) == expected


@pytest.mark.parametrize("name", STREAMS)
def test_any_prefix_says_no_more_than_the_whole(name: str) -> None:
    whole = sample(name)
    expected = convert(whole)

    assert all(expected.startswith(convert(whole[:place])) for place in range(0, len(whole), 7))


def test_text() -> None:
    converted = convert(sample("text"))
    chunks = chunks_of(converted)

    assert text_of(chunks) == "The toll is three euros – 3 €."
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"] == {
        "prompt_tokens": 21,
        "completion_tokens": 14,
        "total_tokens": 35,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert {(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks} == {
        ("msg_01SampleText0000000000001", CREATED, "claude-opus-4-8")
    }
    assert converted.endswith(DONE)


def test_usage_is_left_out_where_nobody_asked() -> None:
    converted = convert(sample("text"), has_usage_chunk=False)

    assert b"usage" not in converted
    assert all(chunk["choices"] for chunk in chunks_of(converted))
    assert converted.endswith(DONE)


def test_thinking_is_a_comment_and_its_tokens_are_told() -> None:
    converted = convert(sample("thinking"))
    chunks = chunks_of(converted)

    assert text_of(chunks) == "3.00 euros."
    assert b"axles" not in converted
    assert converted.count(KEEP_ALIVE) == 4
    assert chunks[-1]["usage"]["completion_tokens_details"] == {"reasoning_tokens": 172}
    assert chunks[-1]["usage"]["completion_tokens"] == 187


def test_caches_are_part_of_the_prompt() -> None:
    usage = chunks_of(convert(sample("full_usage")))[-1]["usage"]

    assert usage["prompt_tokens"] == 2_620 + 3_000 + 43_000
    assert usage["prompt_tokens_details"] == {"cached_tokens": 43_000, "cache_write_tokens": 3_000}
    assert usage["total_tokens"] == usage["prompt_tokens"] + 350


def test_error_ends_the_stream_without_done() -> None:
    converted = convert(sample("error_in_mid_stream"), END)
    chunks = chunks_of(converted)

    assert chunks[-1] == {
        "error": {
            "message": "Overloaded",
            "type": "server_error",
            "param": None,
            "code": "overloaded",
        }
    }
    assert b"[DONE]" not in converted
    assert text_of(chunks[:-1]) == "The first half of an answer that will not be fin"


def test_pings_are_comments_and_unknown_events_nothing() -> None:
    converted = convert(sample("pings"))

    assert converted.startswith(KEEP_ALIVE)
    assert text_of(chunks_of(converted)) == "Go"
    assert b"future" not in converted


def test_calls_are_counted_from_zero_whatever_their_block() -> None:
    blocks = [
        event("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""}),
        event("content_block_start", index=1, content_block={"type": "text", "text": "So"}),
        event(
            "content_block_start",
            index=2,
            content_block={"type": "tool_use", "id": "a", "name": "f", "input": {}},
        ),
        event("content_block_stop", index=2),
        event(
            "content_block_start",
            index=3,
            content_block={"type": "tool_use", "id": "b", "name": "g", "input": {"x": 1}},
        ),
        event("content_block_stop", index=3),
    ]

    chunks = chunks_of(convert(START, *blocks, END))
    calls = [
        call
        for chunk in chunks
        for choice in chunk["choices"]
        for call in choice["delta"].get("tool_calls", ())
    ]

    assert text_of(chunks) == "So"
    assert [(call["index"], call["function"]["arguments"]) for call in calls] == [
        (0, ""),
        (0, "{}"),
        (1, ""),
        (1, '{"x": 1}'),
    ]
    assert [call["id"] for call in calls if "id" in call] == ["a", "b"]


def test_unreadable_events_are_passed_over() -> None:
    broken = b"event: content_block_delta\ndata: {broken\n\n"

    assert convert(START, broken, END) == convert(START, END)


def answer(**fields: Any) -> bytes:
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "model": "m",
        "content": [],
        "stop_reason": None,
    }
    return json.dumps({**message, **fields}).encode()


def test_completion() -> None:
    converted = json.loads(
        completion_of(
            answer(
                content=[
                    {"type": "thinking", "thinking": "Hm", "signature": "s"},
                    {"type": "text", "text": "One "},
                    {"type": "text", "text": "two"},
                    {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1.0}},
                ],
                stop_reason="tool_use",
                usage={"input_tokens": 4, "output_tokens": 5, "cache_read_input_tokens": 6},
            ),
            created=CREATED,
        )
    )

    assert converted == {
        "id": "msg_1",
        "object": "chat.completion",
        "created": CREATED,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "One two",
                    "refusal": None,
                    "tool_calls": [
                        {
                            "id": "t",
                            "type": "function",
                            "function": {"name": "f", "arguments": '{"a": 1.0}'},
                        }
                    ],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 6},
        },
    }


@pytest.mark.parametrize(("stop", "finish"), [*FINISH_REASONS.items(), ("new_reason", "stop")])
def test_each_reason_to_stop(stop: str, finish: str) -> None:
    converted = json.loads(completion_of(answer(stop_reason=stop), created=0))
    streamed = chunks_of(convert(START, event("message_delta", delta={"stop_reason": stop})))

    assert converted["choices"][0]["finish_reason"] == finish
    assert converted["choices"][0]["message"]["content"] is None
    assert streamed[-1]["choices"][0]["finish_reason"] == finish


def test_refusal_is_explained() -> None:
    details = {"type": "refusal", "category": None, "explanation": "No."}

    converted = completion_of(answer(stop_reason="refusal", stop_details=details), created=0)

    assert json.loads(converted)["choices"][0]["message"]["refusal"] == "No."


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"id":5}', b'"x"'])
def test_what_is_no_message_cannot_be_read(payload: bytes) -> None:
    with pytest.raises(Unreadable):
        completion_of(payload, created=0)
