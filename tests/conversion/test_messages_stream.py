"""Chat completions of other servers as answers of Messages: events, usage, every cut."""

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.conversion.chat_response import Unreadable
from proxy.conversion.chat_stream import ChatStream
from proxy.conversion.messages_response import STOP_REASONS, message_of
from proxy.conversion.messages_stream import MessagesStream
from proxy.metering import StreamMeter
from proxy.sse import DONE, PING, EventParser, write_data
from tests.support.servers import ROOT

USAGE = {
    "prompt_tokens": 50,
    "completion_tokens": 9,
    "total_tokens": 59,
    "prompt_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 5},
    "completion_tokens_details": {"reasoning_tokens": 4},
}
OPENAI_SAMPLE = (ROOT / "tests" / "proxy" / "samples" / "openai_tool_use.sse").read_bytes()


def converter(input_estimate: int = 33) -> MessagesStream:
    return MessagesStream(
        message_id="msg_01x", model="m", input_estimate=input_estimate, request_id="req_01x"
    )


def convert(*pieces: bytes) -> bytes:
    stream = converter()
    return b"".join([stream.feed(piece) for piece in pieces]) + stream.finish()


def chunk(delta: Any = None, finish: str | None = None, **fields: Any) -> bytes:
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    return write_data(json.dumps({"model": "up", "choices": choices, **fields}).encode())


def call(index: int | None, piece: str = "", **fields: str) -> bytes:
    made: dict[str, Any] = {"function": {"arguments": piece}}
    if index is not None:
        made["index"] = index
    if "id" in fields:
        made["id"] = fields["id"]
    if "name" in fields:
        made["function"]["name"] = fields["name"]
    return chunk({"tool_calls": [made]})


LAST = write_data(json.dumps({"choices": [], "usage": USAGE}).encode())


def events_of(converted: bytes) -> list[dict[str, Any]]:
    events = EventParser().feed(converted)
    made = [json.loads(event.data) for event in events]
    assert [event.name.decode() for event in events] == [event["type"] for event in made]
    return made


def blocks_of(converted: bytes) -> list[tuple[str, str]]:
    """Kind and content of each block; also that they stand strictly one after another."""
    blocks: list[tuple[str, str]] = []
    open_index = None
    for event in events_of(converted):
        if event["type"] == "content_block_start":
            assert open_index is None
            assert event["index"] == len(blocks)
            open_index = event["index"]
            block = event["content_block"]
            kind = block["type"] if block["type"] == "text" else f"{block['id']} {block['name']}"
            blocks.append((kind, ""))
        elif event["type"] == "content_block_delta":
            assert event["index"] == open_index
            delta = event["delta"]
            piece = delta.get("text") or delta.get("partial_json") or ""
            blocks[-1] = (blocks[-1][0], blocks[-1][1] + piece)
        elif event["type"] == "content_block_stop":
            assert event["index"] == open_index
            open_index = None
    return blocks


def test_text_and_usage() -> None:
    converted = convert(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}),
        chunk(finish="stop"),
        LAST,
        DONE,
    )

    assert events_of(converted) == [
        {
            "type": "message_start",
            "message": {
                "type": "message",
                "id": "msg_01x",
                "role": "assistant",
                "model": "up",
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {"input_tokens": 33, "output_tokens": 0},
            },
        },
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "Hel"},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "lo"},
        },
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {
                "input_tokens": 25,
                "output_tokens": 9,
                "cache_creation_input_tokens": 5,
                "cache_read_input_tokens": 20,
                "output_tokens_details": {"thinking_tokens": 4},
            },
        },
        {"type": "message_stop"},
    ]


def test_calls_in_order_are_blocks_in_order() -> None:
    converted = convert(
        chunk({"content": "Look."}),
        call(0, id="a", name="f"),
        call(0, '{"x"'),
        call(0, ":1}"),
        call(1, id="b", name="g"),
        call(1, "{}"),
        chunk(finish="tool_calls"),
        DONE,
    )

    assert blocks_of(converted) == [("text", "Look."), ("a f", '{"x":1}'), ("b g", "{}")]
    assert events_of(converted)[-2]["delta"]["stop_reason"] == "tool_use"


def test_calls_that_come_mixed_are_put_in_order() -> None:
    converted = convert(
        call(0, '{"a":', id="a", name="f"),
        call(1, '{"b":', id="b", name="g"),
        call(0, "1}"),
        chunk({"content": "Meanwhile"}),
        call(1, "2}"),
        chunk({"content": " more"}),
        chunk(finish="stop"),
        DONE,
    )

    assert blocks_of(converted) == [
        ("a f", '{"a":1}'),
        ("b g", '{"b":2}'),
        ("text", "Meanwhile more"),
    ]


def test_first_call_is_shown_while_it_comes() -> None:
    stream = converter()
    stream.feed(call(0, id="a", name="f"))

    assert b'"partial_json":"{}"' in stream.feed(call(0, "{}"))


def test_calls_without_index_or_id() -> None:
    whole = convert(
        call(None, '{"x":1}', id="a", name="f"),
        call(None, '{"y":2}', id="b", name="g"),
        chunk(finish="stop"),
        DONE,
    )
    pieces = convert(call(None, "{", name="f"), call(None, "}"), chunk(finish="tool_calls"), DONE)
    old = convert(
        chunk({"function_call": {"name": "f", "arguments": ""}}),
        chunk({"function_call": {"arguments": "{}"}}),
        chunk(finish="function_call"),
        DONE,
    )

    assert blocks_of(whole) == [("a f", '{"x":1}'), ("b g", '{"y":2}')]
    assert blocks_of(pieces) == blocks_of(old) == [("toolu_01x_0 f", "{}")]
    assert events_of(old)[-2]["delta"]["stop_reason"] == "tool_use"


def test_usage_that_never_comes_is_estimated_and_told() -> None:
    stream = converter()
    converted = b"".join(
        [
            stream.feed(chunk({"reasoning_content": "Thinking"})),
            stream.feed(chunk({"content": "Hello"})),
            stream.feed(chunk(finish="length")),
            stream.feed(DONE),
        ]
    )

    last = events_of(converted)[-2]
    assert stream.is_estimated is True
    assert last["usage"] == {"input_tokens": 33, "output_tokens": 4}
    assert last["delta"]["stop_reason"] == "max_tokens"


def test_usage_is_told_when_it_came() -> None:
    stream = converter()
    for piece in (chunk({"content": "x"}), chunk(finish="stop"), LAST, DONE):
        stream.feed(piece)

    assert stream.is_estimated is False


@pytest.mark.parametrize("usage", [None, {}, "x", {"prompt_tokens": "5"}])
def test_usage_that_is_none_counts_as_missing(usage: Any) -> None:
    stream = converter()
    converted = stream.feed(chunk({"content": "x"}, finish="stop", usage=usage) + DONE)

    assert stream.is_estimated is True
    assert events_of(converted)[-2]["usage"] == {"input_tokens": 33, "output_tokens": 1}


def test_stream_without_done_ends_when_it_had_a_reason() -> None:
    converted = convert(chunk({"content": "x"}), chunk(finish="stop", usage=USAGE))
    cut = convert(chunk({"content": "x"}))

    assert events_of(converted)[-1] == {"type": "message_stop"}
    assert events_of(cut)[-1]["type"] == "content_block_delta"


def test_reasoning_is_a_ping() -> None:
    assert convert(chunk({"reasoning": "Hm"})).endswith(PING)


def test_refusal_in_words() -> None:
    converted = convert(chunk({"refusal": "No."}), chunk(finish="stop"), DONE)

    assert blocks_of(converted) == [("text", "No.")]
    assert events_of(converted)[-2]["delta"]["stop_reason"] == "refusal"


def test_error_ends_the_stream() -> None:
    error = write_data(b'{"error":{"message":"Out of memory","code":500}}')

    converted = convert(chunk({"content": "x"}), error, chunk({"content": "y"}), DONE)

    assert events_of(converted)[-1] == {
        "type": "error",
        "error": {"type": "api_error", "message": "Out of memory"},
        "request_id": "req_01x",
    }
    assert b'"y"' not in converted


def test_unreadable_chunks_and_other_answers_are_passed_over() -> None:
    other = write_data(b'{"choices":[{"index":1,"delta":{"content":"no"}}]}')
    good = [chunk({"content": "x"}), chunk(finish="stop"), DONE]

    assert convert(good[0], b"data: {broken\n\n", other, *good[1:]) == convert(*good)


def test_every_cut_gives_the_same_bytes() -> None:
    whole = OPENAI_SAMPLE
    expected = convert(whole)

    assert blocks_of(expected)[1][1] == '{"plate": "AB-123", "axles": 2}'
    for place in range(1, len(whole)):
        assert convert(whole[:place], whole[place:]) == expected
    assert convert(*[whole[n : n + 1] for n in range(len(whole))]) == expected


def test_golden_chunks_come_back_as_they_were() -> None:
    there = convert(OPENAI_SAMPLE)
    back = ChatStream(created=1_795_219_200, has_usage_chunk=True).feed(there)

    assert back.replace(b"msg_01x", b"msg_01SampleTool0000000000002") == OPENAI_SAMPLE


pieces = st.one_of(
    st.builds(lambda text: chunk({"content": text}), st.text(max_size=5)),
    st.builds(
        lambda index, text: call(index, text, id=f"c{index}", name=f"f{index}"),
        st.integers(0, 3),
        st.sampled_from(["", "{", "}", '"a"', "é"]),
    ),
    st.just(chunk({"reasoning_content": "Hm"})),
)


@given(st.lists(pieces, max_size=12), st.randoms(use_true_random=False))
def test_any_stream_is_in_order_and_the_same_however_cut(
    made: list[bytes], rng: random.Random
) -> None:
    whole = b"".join([*made, chunk(finish="stop"), LAST, DONE])
    expected = convert(whole)
    place = rng.randrange(len(whole))

    blocks = blocks_of(expected)

    assert convert(whole[:place], whole[place:]) == expected
    assert sum(len(text) for _, text in blocks) == _characters(made)
    meter, prefix = StreamMeter(), StreamMeter()
    meter.feed(expected)
    prefix.feed(expected[: rng.randrange(len(expected))])
    assert meter.is_reported
    assert meter.output_chars == _characters(made)
    assert prefix.output_chars <= meter.output_chars
    assert (prefix.usage.get("output_tokens") or 0) <= meter.usage["output_tokens"] == 9


def _characters(made: list[bytes]) -> int:
    total = 0
    for event in EventParser().feed(b"".join(made)):
        delta = json.loads(event.data)["choices"][0]["delta"]
        total += len(delta.get("content") or "")
        total += sum(len(item["function"]["arguments"]) for item in delta.get("tool_calls", ()))
    return total


def completion(message: Any, finish: str = "stop", **fields: Any) -> bytes:
    choices = [{"index": 0, "message": message, "finish_reason": finish}]
    return json.dumps({"model": "up", "choices": choices, "usage": USAGE, **fields}).encode()


def read(payload: bytes) -> tuple[dict[str, Any], bool]:
    made = message_of(payload, message_id="msg_01x", model="m", input_estimate=33)
    return json.loads(made.body), made.is_estimated


def test_answer() -> None:
    functions = [{"name": "f", "arguments": '{"a": 1.0}'}, {"name": "g", "arguments": ""}]
    message = {
        "content": "Hi",
        "tool_calls": [{"id": "c", "function": functions[0]}, {"function": functions[1]}],
    }

    converted, is_estimated = read(completion(message))

    assert converted == {
        "type": "message",
        "id": "msg_01x",
        "role": "assistant",
        "model": "up",
        "content": [
            {"type": "text", "text": "Hi"},
            {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1.0}},
            {"type": "tool_use", "id": "toolu_01x_1", "name": "g", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 25,
            "output_tokens": 9,
            "cache_creation_input_tokens": 5,
            "cache_read_input_tokens": 20,
            "output_tokens_details": {"thinking_tokens": 4},
        },
    }
    assert is_estimated is False


@pytest.mark.parametrize(("finish", "stop"), [*STOP_REASONS.items(), ("eos", "end_turn")])
def test_each_reason_to_finish(finish: str, stop: str) -> None:
    assert read(completion({"content": "x"}, finish))[0]["stop_reason"] == stop


def test_refusal_and_old_calls_and_cut_arguments() -> None:
    refused, _ = read(completion({"content": None, "refusal": "No."}))
    old, _ = read(completion({"function_call": {"name": "f", "arguments": '{"a'}}, "length"))

    assert (refused["stop_reason"], refused["content"][0]["text"]) == ("refusal", "No.")
    assert old["stop_reason"] == "max_tokens"
    assert old["content"][0]["input"] == {"INVALID_JSON": '{"a'}


def test_answer_without_usage_is_estimated() -> None:
    converted, is_estimated = read(completion({"content": "x" * 9}, usage=None))

    assert is_estimated is True
    assert converted["usage"] == {"input_tokens": 33, "output_tokens": 3}


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"{}", b'{"choices":[]}', b'{"choices":[{"index":0}]}', b"{broken"]
)
def test_what_is_no_completion_cannot_be_read(payload: bytes) -> None:
    with pytest.raises(Unreadable):
        read(payload)
