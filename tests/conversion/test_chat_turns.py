"""The conversation of a chat completion request as system text and turns of Messages."""

import json
from typing import Any

import pytest

from proxy.api_errors import ApiError
from proxy.conversion.chat_request import JSON_INSTRUCTION, messages_body_of
from proxy.conversion.traits import ModelTraits

TOOL = {"type": "function", "function": {"name": "b"}}
PNG = "data:image/png;base64,aGVsbG8="


def convert(**fields: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    raw = json.dumps({"model": "m", **fields}).encode()
    converted = messages_body_of(raw, traits_of=lambda _: ModelTraits())
    return json.loads(converted.body), converted.ignored


def turns(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = convert(messages=list(messages))[0]["messages"]
    return made


def refusal(*messages: dict[str, Any]) -> str:
    with pytest.raises(ApiError) as caught:
        turns(*messages)
    assert (caught.value.status, caught.value.error_type) == (400, "invalid_request_error")
    return caught.value.message


def test_system_texts_move_to_the_front() -> None:
    body, _ = convert(
        messages=[
            {"role": "system", "content": "One."},
            {"role": "user", "content": "Hi"},
            {"role": "developer", "content": [{"type": "text", "text": "Two."}]},
        ],
        response_format={"type": "json_object"},
    )

    assert body["system"] == f"One.\nTwo.\n{JSON_INSTRUCTION}"
    assert body["messages"] == [{"role": "user", "content": "Hi"}]


def test_places_to_cache_are_kept() -> None:
    marked = {"type": "text", "text": "Long.", "cache_control": {"type": "ephemeral"}}

    body, ignored = convert(
        messages=[{"role": "system", "content": [marked]}, {"role": "user", "content": [marked]}],
        tools=[{**TOOL, "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    )

    assert body["system"] == [marked]
    assert body["messages"] == [{"role": "user", "content": [marked]}]
    assert body["tools"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert ignored == ()


def test_pictures_and_files() -> None:
    parts = [
        {"type": "text", "text": "Look"},
        {"type": "image_url", "image_url": {"url": PNG, "detail": "auto"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.jpg"}},
        {
            "type": "file",
            "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,QQ=="},
        },
    ]

    made = turns({"role": "user", "content": parts})

    assert made[0]["content"] == [
        {"type": "text", "text": "Look"},
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": "aGVsbG8="},
        },
        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.jpg"}},
        {
            "type": "document",
            "title": "a.pdf",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "QQ=="},
        },
    ]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            {"type": "input_audio", "input_audio": {}},
            "type: 'input_audio' parts are not supported; use text, image_url or file",
        ),
        (
            {"type": "file", "file": {"file_id": "f"}},
            "file.file_id: uploaded files are not supported",
        ),
        (
            {"type": "file", "file": {"file_data": "data:text/csv;base64,QQ=="}},
            "file.file_data: Input should be a PDF as a base64 data URL",
        ),
        (
            {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
            "image_url.url: Input should be an http(s) URL or a base64 data URL",
        ),
    ],
)
def test_parts_that_are_refused(part: dict[str, Any], message: str) -> None:
    sentence = refusal({"role": "user", "content": [part]})

    assert sentence.startswith(f"messages.0.content.0.{message}")


def test_calls_and_results() -> None:
    call = {"name": "get_lane", "arguments": '{"plate": "AB", "n": 1.0}'}
    empty = {"name": "get_lane", "arguments": ""}

    made = turns(
        {"role": "user", "content": "Which?"},
        {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": call},
                {"id": "c2", "type": "function", "function": empty},
            ],
        },
        {"role": "user", "content": "Go on"},
        {"role": "tool", "tool_call_id": "c1", "content": "7"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "8"}]},
    )

    assert made == [
        {"role": "user", "content": "Which?"},
        {
            "role": "assistant",
            "content": [
                {
                    "type": "tool_use",
                    "id": "c1",
                    "name": "get_lane",
                    "input": {"plate": "AB", "n": 1.0},
                },
                {"type": "tool_use", "id": "c2", "name": "get_lane", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "7"},
                {
                    "type": "tool_result",
                    "tool_use_id": "c2",
                    "content": [{"type": "text", "text": "8"}],
                },
                {"type": "text", "text": "Go on"},
            ],
        },
    ]


@pytest.mark.parametrize("arguments", ["{", "[1]", "7"])
def test_arguments_that_are_no_object_are_refused(arguments: str) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}

    sentence = refusal({"role": "assistant", "tool_calls": [call]})

    assert sentence == (
        "messages.0.tool_calls.0.function.arguments: Input should be a JSON object as a string"
    )


def test_functions_in_the_old_form_get_ids() -> None:
    made = turns(
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "7"},
    )

    assert made[1]["content"][0]["id"] == made[2]["content"][0]["tool_use_id"]


def test_assistant_at_the_beginning_and_without_words() -> None:
    made = turns(
        {"role": "assistant", "content": "Welcome."},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "Hi"},
    )

    assert [turn["role"] for turn in made] == ["user", "assistant", "user"]
    assert [turn["content"] for turn in made] == ["(start)", "Welcome.", "Hi"]
