"""Whatever comes, a conversion ends in its own errors or in valid JSON, never in an accident."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.api_errors import ApiError
from proxy.conversion import chat_request, messages_request
from proxy.conversion.chat_errors import convert_error
from proxy.conversion.chat_response import Unreadable, completion_of
from proxy.conversion.chat_stream import ChatStream
from proxy.conversion.messages_errors import messages_error
from proxy.conversion.messages_response import message_of
from proxy.conversion.messages_stream import MessagesStream
from proxy.conversion.traits import EFFORTS, ModelTraits
from proxy.sse import EventParser, write_data, write_event

FULL = ModelTraits(can_stop_thinking=True, efforts=frozenset(EFFORTS))

# Words that mean something to one side or the other: much of what comes is nearly right.
# fmt: off
WORDS = (
    "type", "role", "content", "text", "user", "assistant", "system", "tool", "function", "image",
    "image_url", "file", "url", "source", "base64", "media_type", "data", "id", "name", "input",
    "arguments", "tool_calls", "tool_use", "tool_result", "tool_use_id", "tool_call_id",
    "document", "title", "citations", "enabled", "cache_control", "index", "delta", "message",
    "choices", "finish_reason", "usage", "prompt_tokens", "completion_tokens", "cached_tokens",
    "prompt_tokens_details", "input_tokens", "output_tokens", "stop_reason", "auto", "none",
    "required", "any", "json_schema", "schema", "format", "effort", "high", "allowed_tools",
    "mode", "tools", "error", "code", "partial_json", "content_block", "text_delta",
    "input_json_delta", "stop", "length", "application/pdf",
)
# fmt: on
words = st.sampled_from(WORDS)
leaves = (
    words
    | st.text(max_size=3)
    | st.integers(-2, 2**70)
    | st.booleans()
    | st.none()
    | st.sampled_from(["{}", "{", "data:image/png;base64,QQ==", "https://example.org", 0.5])
)
values: st.SearchStrategy[Any] = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=5),
    max_leaves=12,
)
turns = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool", "function"])},
        optional={
            "content": values,
            "tool_calls": values,
            "tool_call_id": values,
            "function_call": values,
        },
    ),
    max_size=3,
)


def bodies(names: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"model": st.just("m"), "max_tokens": st.just(5), "messages": turns | values},
        optional={
            name: values for name in names if name not in ("model", "max_tokens", "messages")
        },
    )


def dump(value: Any) -> bytes:
    """As a client may write it: with escapes, lone surrogates included."""
    return json.dumps(value).encode()


@settings(max_examples=80)
@given(bodies([*chat_request.CARRIED, *chat_request.REFUSED, "stream_options", "seed"]))
def test_chat_request(body: dict[str, Any]) -> None:
    try:
        converted = chat_request.messages_body_of(dump(body), traits_of=lambda _: FULL)
    except ApiError:
        return
    made = json.loads(converted.body)
    assert made["messages"][0]["role"] == "user"
    assert all(turn["content"] for turn in made["messages"])


@settings(max_examples=80)
@given(bodies([*messages_request.CARRIED, *messages_request.REFUSED, "top_k"]))
def test_messages_request(body: dict[str, Any]) -> None:
    top = msgspec.json.decode(dump(body), type=dict[str, msgspec.Raw])
    try:
        converted = messages_request.chat_body_of(top, upstream_model="up", traits=FULL)
    except ApiError:
        return
    made = json.loads(converted.body)
    assert made["model"] == "up"
    assert bool(made.get("stream")) == ("stream_options" in made)


@settings(max_examples=80)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "",
                    "error",
                    "message_start",
                    "message_delta",
                    "content_block_start",
                    "content_block_delta",
                    "content_block_stop",
                    "message_stop",
                ]
            ),
            st.dictionaries(words, values, max_size=5),
        ),
        max_size=8,
    )
)
def test_stream_of_messages(events: list[tuple[str, dict[str, Any]]]) -> None:
    stream = ChatStream(created=1, has_usage_chunk=True)

    converted = b"".join(
        [stream.feed(write_event(name.encode(), dump(data))) for name, data in events]
    )

    for event in EventParser().feed(converted):
        assert event.data == b"[DONE]" or json.loads(event.data)


chunks = st.fixed_dictionaries(
    {},
    optional={
        "choices": values
        | st.lists(
            st.fixed_dictionaries(
                {"index": st.just(0), "delta": st.dictionaries(words, values, max_size=4)},
                optional={"finish_reason": words},
            ),
            max_size=2,
        ),
        "usage": values,
        "error": values,
        "model": values,
    },
)


@settings(max_examples=80)
@given(st.lists(chunks, max_size=8))
def test_stream_of_chunks(made: list[dict[str, Any]]) -> None:
    stream = MessagesStream(message_id="msg_1", model="m", input_estimate=1, request_id="req_1")

    converted = b"".join([stream.feed(write_data(dump(chunk))) for chunk in made])
    converted += stream.finish()

    kinds = [json.loads(event.data)["type"] for event in EventParser().feed(converted)]
    assert kinds.count("message_start") <= 1
    assert kinds.count("message_stop") <= 1
    assert kinds.count("content_block_stop") <= kinds.count("content_block_start")


@settings(max_examples=80)
@given(st.dictionaries(words, values, max_size=6))
def test_answers_and_errors(payload: dict[str, Any]) -> None:
    raw = dump(payload)
    reads: tuple[Callable[[], bytes], ...] = (
        lambda: completion_of(raw, created=1),
        lambda: message_of(raw, message_id="msg_1", model="m", input_estimate=1).body,
    )
    for read in reads:
        try:
            assert json.loads(read())
        except Unreadable:
            continue
    assert json.loads(convert_error(400, raw)[1])["error"]["message"] is not None
    assert json.loads(messages_error(400, raw, request_id="req_1"))["error"]["message"]
