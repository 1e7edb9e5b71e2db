"""A chat completion request as a body of Messages: each row of the contract, each refusal."""

import hashlib
import json
from typing import Any

import pytest

from proxy.api_errors import ApiError
from proxy.conversion.chat_request import (
    CARRIED,
    EMPTY_SCHEMA,
    JSON_INSTRUCTION,
    REFUSED,
    ConvertedRequest,
    messages_body_of,
)
from proxy.conversion.traits import EFFORTS, ModelTraits, traits_of
from turnpike.contracts.snapshots import ModelSnapshot

PLAIN = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
LANE = {"name": "get_lane", "description": "A lane", "parameters": {"type": "object"}}
TOOLS = [{"type": "function", "function": LANE}, {"type": "function", "function": {"name": "b"}}]
FULL = ModelTraits(can_stop_thinking=True, efforts=frozenset(EFFORTS))
PNG = "data:image/png;base64,aGVsbG8="
PICTURE = {"type": "image_url", "image_url": {"url": PNG}}
PDF = {"type": "file", "file": {"file_data": "data:application/pdf;base64,QQ=="}}


def convert(
    body: Any = None, traits: ModelTraits = FULL, **fields: Any
) -> tuple[dict[str, Any], ConvertedRequest]:
    raw = json.dumps({**PLAIN, **(body or {}), **fields}).encode()
    converted = messages_body_of(raw, traits_of=lambda _: traits)
    return json.loads(converted.body), converted


def refusal(**fields: Any) -> str:
    with pytest.raises(ApiError) as caught:
        convert(**fields)
    assert (caught.value.status, caught.value.error_type) == (400, "invalid_request_error")
    return caught.value.message


def test_smallest_request() -> None:
    body, converted = convert()

    assert body == {**PLAIN, "max_tokens": 16_384}
    assert (converted.ignored, converted.has_usage_chunk) == ((), False)


# One sample for each row that is carried: what it looks like in Messages.
SAMPLES: list[tuple[str, Any, dict[str, Any]]] = [
    ("model", "other", {"model": "other"}),
    ("messages", [{"role": "user", "content": "x"}], {}),
    ("max_completion_tokens", 7, {"max_tokens": 7}),
    ("max_tokens", 8, {"max_tokens": 8}),
    ("temperature", 0.25, {"temperature": 0.25}),
    ("top_p", 0.5, {"top_p": 0.5}),
    ("stop", "END", {"stop_sequences": ["END"]}),
    ("stop", ["a", "b"], {"stop_sequences": ["a", "b"]}),
    ("stream", True, {"stream": True}),
    (
        "tools",
        TOOLS,
        {
            "tools": [
                {"name": "get_lane", "description": "A lane", "input_schema": {"type": "object"}},
                {"name": "b", "input_schema": json.loads(EMPTY_SCHEMA)},
            ]
        },
    ),
    (
        "functions",
        [{"name": "b", "parameters": {"type": "object", "x": 1.0}, "strict": True}],
        {
            "tools": [
                {"name": "b", "input_schema": {"type": "object", "x": 1.0}, "strict": True},
            ]
        },
    ),
    ("tool_choice", "required", {"tool_choice": {"type": "any"}}),
    (
        "tool_choice",
        {"type": "function", "function": {"name": "b"}},
        {"tool_choice": {"type": "tool", "name": "b"}},
    ),
    ("function_call", {"name": "b"}, {"tool_choice": {"type": "tool", "name": "b"}}),
    ("parallel_tool_calls", True, {}),
    ("response_format", {"type": "text"}, {}),
    (
        "response_format",
        {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"a": 1}}},
        {"output_config": {"format": {"type": "json_schema", "schema": {"a": 1}}}},
    ),
    ("response_format", {"type": "json_object"}, {"system": JSON_INSTRUCTION}),
    ("reasoning_effort", "minimal", {"output_config": {"effort": "low"}}),
    ("reasoning_effort", "max", {"output_config": {"effort": "max"}}),
    ("reasoning_effort", "none", {"thinking": {"type": "disabled"}}),
    ("user", "u1", {"metadata": {"user_id": hashlib.sha256(b"u1").hexdigest()}}),
    ("safety_identifier", "u1", {"metadata": {"user_id": hashlib.sha256(b"u1").hexdigest()}}),
    ("service_tier", "auto", {"service_tier": "auto"}),
    ("service_tier", "default", {"service_tier": "standard_only"}),
    ("thinking", {"type": "adaptive"}, {"thinking": {"type": "adaptive"}}),
    ("top_k", 5, {"top_k": 5}),
]


def test_there_is_a_sample_for_each_row_that_is_carried() -> None:
    assert {name for name, _, _ in SAMPLES} == set(CARRIED)


@pytest.mark.parametrize(("name", "value", "expected"), SAMPLES)
def test_carried_field(name: str, value: Any, expected: dict[str, Any]) -> None:
    body, converted = convert(**{name: value})

    changed = {key: item for key, item in body.items() if PLAIN.get(key) != item}
    changed.pop("messages", None)
    assert {"max_tokens": 16_384, **changed} == {"max_tokens": 16_384, **expected}
    assert converted.ignored == ()


def test_unknown_and_uncarried_fields_are_named_once_in_their_order() -> None:
    _, converted = convert(
        seed=1,
        logit_bias={"5": 1},
        messages=[
            {"role": "user", "name": "ann", "content": "a"},
            {"role": "user", "name": "bob", "content": "b"},
        ],
        service_tier="flex",
        logprobs=True,
    )

    assert converted.ignored == ("messages.name", "service_tier", "seed", "logit_bias", "logprobs")


def test_odd_names_do_not_get_into_a_header_and_their_number_is_bounded() -> None:
    _, odd = convert({"a\r\nset-cookie: x": 1})
    _, many = convert({f"field{n}": n for n in range(100)})

    assert odd.ignored == ("unnamed",)
    assert len(many.ignored) == 25
    assert many.ignored[-1] == "and-others"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 1),
        ("logprobs", False),
        ("store", False),
        ("presence_penalty", 0),
        ("frequency_penalty", 0.0),
        ("logit_bias", {}),
        ("metadata", {}),
        ("tools", []),
        ("modalities", ["text"]),
        ("seed", None),
        ("tools", None),
    ],
)
def test_what_asks_for_nothing_is_passed_over(name: str, value: Any) -> None:
    body, converted = convert(**{name: value})

    assert converted.ignored == ()
    assert set(body) == {"model", "messages", "max_tokens"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 2}, f"n: {REFUSED['n']}"),
        ({"audio": {"voice": "x"}}, f"audio: {REFUSED['audio']}"),
        ({"modalities": ["audio"]}, f"modalities: {REFUSED['modalities']}"),
        ({"model": None}, "model: Field required"),
        ({"model": 5}, "model: Input should be a valid string"),
        ({"messages": None}, "messages: Field required"),
        ({"messages": "x"}, "messages: Input should be a valid list"),
        ({"messages": []}, "messages: at least one message of a user is required"),
        ({"max_tokens": "9"}, "max_tokens: Input should be a valid integer"),
        ({"temperature": "hot"}, "temperature: Input should be a valid number"),
        ({"stream": 1}, "stream: Input should be a valid boolean"),
        ({"stop": [1]}, "stop: Input should be a valid list of strings"),
        (
            {"tools": [{"type": "custom", "custom": {}}]},
            "tools.0.type: 'custom' tools are not supported; use functions",
        ),
        ({"tools": [{"type": "function"}]}, "tools.0.function: Field required"),
        (
            {"tool_choice": "some"},
            "tool_choice: Input should be one of 'none', 'auto', 'required', or an object",
        ),
        (
            {"tool_choice": {"type": "custom", "custom": {"name": "x"}}},
            "tool_choice.type: 'custom' tools are not supported; use functions",
        ),
        (
            {"response_format": {"type": "grammar"}},
            "response_format.type: 'grammar' is not supported",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
            "response_format.json_schema.schema: Field required",
        ),
        ({"messages": [{"content": "x"}]}, "messages.0.role: Field required"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.0.content: must not be empty"),
        ({"messages": ["x"]}, "messages.0: Input should be an object"),
        (
            {"messages": [{"role": "critic", "content": "x"}]},
            "messages.0.role: Input should be one of 'system', 'developer', 'user', 'assistant',"
            " 'tool', 'function'",
        ),
        (
            {"messages": [{"role": "system", "content": [PICTURE]}]},
            "messages.0.content: only text is possible here",
        ),
        (
            {"messages": [{"role": "tool", "tool_call_id": "c", "content": [PDF]}]},
            "messages.0.content: only text and images are possible here",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "c", "type": "custom"}]}]},
            "messages.0.tool_calls.0.type: 'custom' calls are not supported; use functions",
        ),
        (
            {"reasoning_effort": "huge"},
            "reasoning_effort: Input should be one of 'none', 'minimal', 'low', 'medium', 'high',"
            " 'xhigh', 'max'",
        ),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "some"}}},
            "tool_choice.allowed_tools.mode: Input should be one of 'auto', 'required'",
        ),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"tools": [{"type": "mcp", "server_label": "x"}]},
                }
            },
            "tool_choice.allowed_tools.tools.0.type: 'mcp' tools are not supported; use functions",
        ),
    ],
)
def test_refused(fields: dict[str, Any], message: str) -> None:
    assert refusal(**fields) == message


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"[]", "Request body: Input should be an object"),
        (b"{", "The request body is not valid JSON."),
        (b'{"model":"\xff"}', "The request body is not valid JSON: 'utf-8' codec"),
    ],
)
def test_no_object_at_all(raw: bytes, message: str) -> None:
    with pytest.raises(ApiError, match=message):
        messages_body_of(raw, traits_of=lambda _: FULL)


def test_sampling_beyond_the_range_or_the_model_is_named() -> None:
    hot, hot_converted = convert(temperature=1.5)
    newer = ModelTraits(takes_sampling=False)
    none, none_converted = convert(temperature=0.5, top_p=1, top_k=4, traits=newer)

    assert (hot["temperature"], hot_converted.ignored) == (1, ("temperature",))
    assert set(none) == {"model", "messages", "max_tokens"}
    assert none_converted.ignored == ("temperature", "top_k")


def test_effort_that_the_model_lacks_is_named() -> None:
    body, converted = convert(reasoning_effort="xhigh", traits=ModelTraits(efforts=frozenset()))
    stays, thinks = convert(reasoning_effort="none", traits=ModelTraits())

    assert "output_config" not in body
    assert "thinking" not in stays
    assert converted.ignored == thinks.ignored == ("reasoning_effort",)


def test_effort_and_form_go_together() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}

    body, _ = convert(reasoning_effort="high", response_format=form)

    assert body["output_config"] == {
        "effort": "high",
        "format": {"type": "json_schema", "schema": {"type": "object"}},
    }


def test_newer_limit_goes_before_the_older_one() -> None:
    assert convert(max_tokens=5, max_completion_tokens=6)[0]["max_tokens"] == 6


def test_blank_stops_are_left_out_and_named() -> None:
    body, converted = convert(stop=[" ", "x", "\n"])
    none, _ = convert(stop="\n")

    assert (body["stop_sequences"], converted.ignored) == (["x"], ("stop",))
    assert "stop_sequences" not in none


def test_usage_chunk_is_asked_for() -> None:
    _, asked = convert(stream=True, stream_options={"include_usage": True})
    _, more = convert(stream=True, stream_options={"include_obfuscation": False})

    assert (asked.has_usage_chunk, asked.ignored) == (True, ())
    assert more.has_usage_chunk is False
    assert more.ignored == ("stream_options.include_obfuscation",)


def test_tools_one_at_a_time_and_some_of_them() -> None:
    single, _ = convert(tools=TOOLS, parallel_tool_calls=False)
    allowed, _ = convert(
        tools=TOOLS,
        tool_choice={
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "required",
                "tools": [{"type": "function", "function": {"name": "b"}}],
            },
        },
    )
    never, _ = convert(tools=TOOLS, tool_choice="none", parallel_tool_calls=False)
    without, _ = convert(tool_choice="auto", parallel_tool_calls=False)

    assert single["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert [tool["name"] for tool in allowed["tools"]] == ["b"]
    assert allowed["tool_choice"] == {"type": "any"}
    assert never["tool_choice"] == {"type": "none"}
    assert "tool_choice" not in without


def test_traits_come_from_the_catalogue() -> None:
    supported, not_supported = {"supported": True}, {"supported": False}
    types = {"enabled": not_supported, "disabled": supported, "adaptive": supported}
    newer = ModelSnapshot(
        model="m",
        display_name="M",
        max_tokens=64_000,
        capabilities={
            "effort": {**supported, "low": supported, "high": supported, "max": not_supported},
            "thinking": {**supported, "types": types},
        },
    )
    small = ModelSnapshot(model="m", display_name="M", max_tokens=4_096)

    assert traits_of(newer) == ModelTraits(
        max_tokens_default=16_384,
        takes_sampling=False,
        can_stop_thinking=True,
        efforts=frozenset(("low", "high")),
    )
    assert traits_of(small) == ModelTraits(max_tokens_default=4_096)
    assert traits_of(None) == ModelTraits()
