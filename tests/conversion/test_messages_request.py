"""A body of Messages as a request for an OpenAI-compatible upstream."""

import json
from typing import Any

import msgspec
import pytest

from proxy.api_errors import ApiError
from proxy.conversion.messages_request import CARRIED, REFUSED, ConvertedBody, chat_body_of
from proxy.conversion.traits import EFFORTS, ModelTraits

PLAIN = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
CHAT = {"model": "up", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
FULL = ModelTraits(can_stop_thinking=True, efforts=frozenset(EFFORTS))
TOOL = {"name": "f", "description": "F", "input_schema": {"type": "object"}, "strict": True}
CHAT_TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "F",
        "parameters": {"type": "object"},
        "strict": True,
    },
}
PNG = {"type": "base64", "media_type": "image/png", "data": "QQ=="}


def convert(
    *, traits: ModelTraits = FULL, upstream_model: str = "up", **fields: Any
) -> tuple[dict[str, Any], ConvertedBody]:
    raw = json.dumps({**PLAIN, **fields}).encode()
    top = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    converted = chat_body_of(top, upstream_model=upstream_model, traits=traits)
    return json.loads(converted.body), converted


def messages(*turns: dict[str, Any]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = convert(messages=list(turns))[0]["messages"]
    return made


def refusal(**fields: Any) -> str:
    with pytest.raises(ApiError) as caught:
        convert(**fields)
    assert caught.value.status == 400
    return caught.value.message


SAMPLES: list[tuple[str, Any, dict[str, Any]]] = [
    ("model", "x", {}),
    ("max_tokens", 5, {"max_tokens": 5}),
    ("messages", PLAIN["messages"], {}),
    ("system", "Be brief.", {}),
    ("stop_sequences", ["a"], {"stop": ["a"]}),
    ("stream", True, {"stream": True, "stream_options": {"include_usage": True}}),
    ("stream", False, {"stream": False}),
    ("temperature", 0.5, {"temperature": 0.5}),
    ("top_p", 0.5, {"top_p": 0.5}),
    ("tools", [TOOL], {"tools": [CHAT_TOOL]}),
    ("tool_choice", {"type": "any"}, {"tool_choice": "required"}),
    (
        "tool_choice",
        {"type": "tool", "name": "f"},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
    ),
    (
        "output_config",
        {"effort": "max", "format": {"type": "json_schema", "schema": {"a": 1}}},
        {
            "reasoning_effort": "max",
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": {"a": 1}, "strict": True},
            },
        },
    ),
    ("thinking", {"type": "disabled"}, {"reasoning_effort": "none"}),
    ("service_tier", "standard_only", {"service_tier": "default"}),
]


def test_there_is_a_sample_for_each_row_that_is_carried() -> None:
    assert {name for name, _, _ in SAMPLES} == set(CARRIED)


@pytest.mark.parametrize(("name", "value", "expected"), SAMPLES)
def test_carried_field(name: str, value: Any, expected: dict[str, Any]) -> None:
    body, converted = convert(**{name: value})

    body.pop("messages")
    assert body == {"model": "up", "max_tokens": 9, **expected}
    assert converted.ignored == ()


def test_newer_models_have_another_name_for_the_limit() -> None:
    body, _ = convert(upstream_model="gpt-5.2-mini")

    assert (body.get("max_tokens"), body["max_completion_tokens"]) == (None, 9)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("top_k", 5),
        ("metadata", {"user_id": "u"}),
        ("cache_control", {"type": "ephemeral"}),
        ("speed", "fast"),
        ("diagnostics", {"previous_message_id": None}),
        ("thinking", {"type": "adaptive"}),
        ("invented", 1),
    ],
)
def test_what_only_steers_is_named(field: str, value: Any) -> None:
    body, converted = convert(**{field: value})

    assert (body, converted.ignored) == (CHAT, (field,))


@pytest.mark.parametrize(
    ("field", "value"), [("speed", "standard"), ("inference_geo", "global"), ("metadata", {})]
)
def test_what_asks_for_nothing_is_passed_over(field: str, value: Any) -> None:
    body, converted = convert(**{field: value})

    assert (body, converted.ignored) == (CHAT, ())


@pytest.mark.parametrize("field", REFUSED)
def test_what_the_request_depends_on_is_refused(field: str) -> None:
    assert refusal(**{field: {"x": 1}}) == f"{field}: the upstream of this model cannot do this"


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"inference_geo": "us"}, "inference_geo"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"tools": [{"name": "f"}]}, "tools.0.input_schema"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
    ],
)
def test_refused(fields: dict[str, Any], path: str) -> None:
    assert refusal(**fields).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "block",
    [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "container_upload", "file_id": "f"},
        {"type": "image", "source": {"type": "file", "file_id": "f"}},
        {"type": "document", "source": {"type": "url", "url": "https://example.org"}},
        {"type": "document", "source": {**PNG}},
        {
            "type": "document",
            "source": {"type": "text", "data": "x"},
            "citations": {"enabled": True},
        },
        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "search_result"}]},
    ],
)
def test_blocks_without_an_equivalent_are_refused(block: dict[str, Any]) -> None:
    assert refusal(messages=[{"role": "user", "content": [block]}]).startswith(
        "messages.0.content.0"
    )


def test_server_tools_of_the_assistant_are_refused() -> None:
    block = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}

    assert "`server_tool_use`" in refusal(messages=[{"role": "assistant", "content": [block]}])


def test_system_texts_keep_their_order() -> None:
    system = [{"type": "text", "text": "A", "cache_control": {"type": "ephemeral"}}]
    turns = [
        {"role": "user", "content": "Q"},
        {"role": "system", "content": [{"type": "text", "text": "B"}]},
    ]

    body, converted = convert(system=[*system, {"type": "text", "text": "A2"}], messages=turns)

    assert body["messages"] == [
        {"role": "system", "content": "A\nA2"},
        {"role": "user", "content": "Q"},
        {"role": "system", "content": "B"},
    ]
    assert converted.ignored == ("system.cache_control",)


def test_results_stand_first_and_their_pictures_follow() -> None:
    results = [
        {"type": "tool_result", "tool_use_id": "a", "content": "7"},
        {
            "type": "tool_result",
            "tool_use_id": "b",
            "is_error": True,
            "content": [{"type": "text", "text": "bad"}, {"type": "image", "source": PNG}],
        },
        {"type": "tool_result", "tool_use_id": "c"},
    ]

    made = messages({"role": "user", "content": [*results, {"type": "text", "text": "So?"}]})

    assert made == [
        {"role": "tool", "content": "7", "tool_call_id": "a"},
        {"role": "tool", "content": "Error: bad", "tool_call_id": "b"},
        {"role": "tool", "content": "", "tool_call_id": "c"},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}},
                {"type": "text", "text": "So?"},
            ],
        },
    ]


def test_calls_keep_the_bytes_of_their_input() -> None:
    raw = (
        b'{"model":"m","max_tokens":1,"messages":[{"role":"assistant","content":'
        b'[{"type":"text","text":"Look"},'
        b'{"type":"tool_use","id":"t","name":"f","input":{"a": 1.0, "n":123456789012345678901}}]}]}'
    )
    top = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])

    converted = json.loads(chat_body_of(top, upstream_model="up", traits=FULL).body)

    assert converted["messages"] == [
        {
            "role": "assistant",
            "content": "Look",
            "tool_calls": [
                {
                    "id": "t",
                    "type": "function",
                    "function": {
                        "name": "f",
                        "arguments": '{"a": 1.0, "n":123456789012345678901}',
                    },
                }
            ],
        }
    ]


def test_thinking_of_earlier_turns_is_left_out_and_named() -> None:
    thinking = {"type": "thinking", "thinking": "Hm", "signature": "s"}
    body, converted = convert(
        messages=[
            {"role": "user", "content": "Q"},
            {"role": "assistant", "content": [thinking]},
            {"role": "assistant", "content": [thinking, {"type": "text", "text": "A"}]},
        ]
    )

    assert body["messages"][1:] == [{"role": "assistant", "content": "A"}]
    assert converted.ignored == ("messages.content.thinking",)


def test_documents_that_an_upstream_can_take() -> None:
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "QQ=="}
    text = {"type": "text", "media_type": "text/plain", "data": "Rates"}

    made = messages(
        {
            "role": "user",
            "content": [
                {"type": "document", "source": pdf},
                {"type": "document", "source": text, "title": "T"},
            ],
        }
    )

    file_data = "data:application/pdf;base64,QQ=="
    assert made[0]["content"] == [
        {"type": "file", "file": {"filename": "document.pdf", "file_data": file_data}},
        {"type": "text", "text": "T\n\nRates"},
    ]


def test_one_tool_at_a_time() -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": True}

    body, converted = convert(tools=[TOOL], tool_choice=choice)

    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("auto", False)
    assert converted.ignored == ()


def test_effort_and_thinking_that_the_model_lacks_are_named() -> None:
    lacks = ModelTraits(efforts=frozenset())
    body, converted = convert(
        traits=lacks, output_config={"effort": "low"}, thinking={"type": "disabled"}
    )
    asked, _ = convert(traits=ModelTraits(), output_config={"effort": "low"})

    assert "reasoning_effort" not in body
    assert converted.ignored == ("thinking", "output_config.effort")
    assert asked["reasoning_effort"] == "low"
