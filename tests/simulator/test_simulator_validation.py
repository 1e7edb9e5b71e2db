"""What the simulator declines, and in which words."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

Json = dict[str, Any]
Ask = Callable[..., httpx.Response]
SCHEMA: Json = {"type": "object", "properties": {}}
NEW = {"anthropic-version": "2026-10-21"}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "t", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "x"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"messages": None}, "messages: Field required"),
        ({"model": None}, "model: Field required"),
        ({"max_tokens": "9"}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": True}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": -1}, "max_tokens: Input should be greater than or equal to 0"),
        ({"max_tokens": 128_001}, "max_tokens: 128001 > 128000, which is the maximum allowed"),
        ({"max_tokens": 0, "stream": True}, "max_tokens: 0 cannot be combined with stream"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": "hi"}, "messages: Input should be a valid list"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages: first message must use"),
        ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
        ({"messages": [{"role": "root", "content": "x"}]}, "messages.0.role: Input should be"),
        ({"foo": 1}, "foo: Extra inputs are not permitted"),
        ({"context_management": {}}, "context_management: Extra inputs are not permitted"),
        ({"stream": "yes"}, "stream: Input should be a valid boolean"),
        ({"temperature": 1.5}, "temperature: range: 0..1"),
        ({"stop_sequences": [" "]}, "stop_sequences.0: each stop sequence must contain"),
        ({"metadata": {"name": "x"}}, "metadata.name: Extra inputs are not permitted"),
        ({"system": [{"type": "image"}]}, "system.0.type: Input should be 'text'"),
        (
            {"tools": [{"name": "a b", "input_schema": SCHEMA}]},
            "tools.0.custom.name: String should",
        ),
        ({"tools": [{"name": "a"}]}, "tools.0.custom.input_schema: Field required"),
        (
            {"tools": [{"name": "a", "input_schema": SCHEMA}] * 2},
            "tools: Tool names must be unique.",
        ),
        ({"thinking": {"type": "enabled"}}, "thinking.enabled.budget_tokens: Field required"),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1023}},
            "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024",
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            "`max_tokens` must be greater than `thinking.budget_tokens`.",
        ),
        ({"thinking": {"type": "deep"}}, "thinking: Input tag 'deep' found using 'type'"),
        (
            {"cache_control": {"type": "ephemeral", "ttl": "2h"}},
            "cache_control.ttl: Input should be '5m' or '1h'",
        ),
    ],
)
def test_bad_fields_are_named(ask: Ask, fields: Json, message: str) -> None:
    response = ask("Hi", **fields)

    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert response.json()["error"]["message"].startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"type": "text", "text": ""}], "messages: text content blocks must be non-empty"),
        ([{"type": "foo"}], "messages.0.content.0: Input tag 'foo' found using 'type'"),
        ([{"type": "image"}], "messages.0.content.0.image.source: Field required"),
        ([RESULT], "messages.0.content.0: unexpected `tool_use_id` found"),
        ("", "messages.0: user messages must have non-empty content"),
        (
            [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}] * 5,
            "A maximum of 4 blocks with cache_control may be provided. Found 5.",
        ),
    ],
)
def test_bad_content_is_named(ask: Ask, content: Any, message: str) -> None:
    response = ask(content)

    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith(message)


def test_a_tool_call_must_be_answered_in_the_next_turn(ask: Ask) -> None:
    turns = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [CALL]},
        {"role": "user", "content": "never mind"},
    ]

    response = ask(messages=turns)

    assert response.status_code == 400
    assert "messages.2: `tool_use` ids were found" in response.json()["error"]["message"]
    turns[-1] = {"role": "user", "content": [RESULT]}
    assert ask(messages=turns).status_code == 200


def test_sampling_belongs_to_the_old_version_alone(ask: Ask) -> None:
    assert ask("Hi", temperature=0.5, top_k=3).status_code == 200

    for name, value in (("temperature", 1.0), ("top_p", 1.0), ("top_k", 0)):
        response = ask("Hi", headers=NEW, **{name: value})
        assert response.status_code == 400
        assert response.json()["error"]["message"].startswith(f"{name}: ")


def test_the_new_version_refuses_two_kinds_of_blocks(ask: Ask) -> None:
    document = {"type": "document", "source": {"type": "text", "data": "x"}}
    turns = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [document]},
        {"role": "user", "content": "y"},
    ]
    cited = [{"type": "text", "text": "x", "citations": [{"type": "char_location"}]}]

    assert ask(messages=turns).status_code == 200
    assert ask(messages=turns, headers=NEW).status_code == 400
    assert ask(cited).status_code == 200
    assert ask(cited, headers=NEW).status_code == 400


def test_a_beta_opens_its_field(ask: Ask) -> None:
    beta = {"anthropic-beta": "other-2026-01-01,context-management-2025-06-27"}

    assert ask("Hi", context_management={"edits": []}, headers=beta).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "message"),
    [
        ("/v1/messages", b"{", {}, 400, "The request body is not valid JSON"),
        ("/v1/messages", b"[" * 100_000, {}, 400, "The request body is not valid JSON"),
        ("/v1/messages", b"[1]", {}, 400, "The request body must be a JSON object."),
        ("/v1/messages", b"{}", {"anthropic-version": "1999"}, 400, "anthropic-version: "),
        (
            "/v1/messages",
            b"x" * (32 * 1024 * 1024 + 1),
            {},
            413,
            "Request exceeds the maximum size",
        ),
        ("/v1/nothing", b"{}", {}, 404, "Not found: POST /v1/nothing"),
        ("/v1/models", b"{}", {}, 405, "Method Not Allowed"),
    ],
)
def test_bad_requests_are_answered_in_shape(
    simulator: httpx.Client, path: str, body: bytes, headers: Json, status: int, message: str
) -> None:
    response = simulator.post(path, content=body, headers=headers)

    assert response.status_code == status
    assert response.json()["type"] == "error"
    assert response.json()["error"]["message"].startswith(message)
    assert response.json()["request_id"] == response.headers["request-id"]


def test_headers_that_must_be_there(simulator_url: str) -> None:
    without_key = httpx.post(f"{simulator_url}/v1/messages", json={})
    without_version = httpx.post(
        f"{simulator_url}/v1/messages", json={}, headers={"authorization": "Bearer x"}
    )

    assert (without_key.status_code, without_version.status_code) == (401, 400)
    assert without_key.json()["error"]["message"] == "x-api-key header is required"
    assert without_version.json()["error"]["message"] == "anthropic-version: header is required"


def test_an_unknown_model_is_not_found(ask: Ask) -> None:
    response = ask("Hi", model="gpt-4")

    assert response.status_code == 404
    assert response.json()["error"] == {"type": "not_found_error", "message": "model: gpt-4"}
