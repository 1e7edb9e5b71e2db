"""The bytes on the wire: what a program without an SDK sees of the platform."""

import json
from typing import Any

import httpx
import pytest

Json = dict[str, Any]
TURN: Json = {"role": "user", "content": "[[say=Three euros for two axles.]]"}
BODY: Json = {"model": "claude-sonnet-4-6", "max_tokens": 100, "messages": [TURN]}


def stable(document: Json) -> Json:
    """A message without its id, which is another one each time."""
    assert document["id"].startswith("msg_")
    return {**document, "id": "msg_"}


def test_a_json_answer_has_the_golden_form(wire: httpx.Client) -> None:
    response = wire.post("/v1/messages", json=BODY)

    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/json")
    assert response.headers["request-id"].startswith("req_01")
    assert stable(response.json()) == {
        "id": "msg_",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-6",
        "content": [{"type": "text", "text": "Three euros for two axles.", "citations": None}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "stop_details": None,
        "usage": {
            "input_tokens": 9,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 7,
            "service_tier": "standard",
            "inference_geo": "global",
        },
    }


def test_a_stream_has_the_golden_form(wire: httpx.Client) -> None:
    response = wire.post("/v1/messages", json={**BODY, "stream": True})

    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["request-id"].startswith("req_01")
    start, rest = response.text.split("\n\n", 1)
    name, data = start.split("\n")
    assert name == "event: message_start"
    assert json.loads(data.removeprefix("data: "))["message"]["usage"]["input_tokens"] == 9
    assert rest == (
        "event: content_block_start\n"
        'data: {"type":"content_block_start","index":0,'
        '"content_block":{"type":"text","text":"","citations":null}}\n\n'
        "event: content_block_delta\n"
        'data: {"type":"content_block_delta","index":0,'
        '"delta":{"type":"text_delta","text":"Three euros for two "}}\n\n'
        "event: content_block_delta\n"
        'data: {"type":"content_block_delta","index":0,'
        '"delta":{"type":"text_delta","text":"axles."}}\n\n'
        "event: content_block_stop\n"
        'data: {"type":"content_block_stop","index":0}\n\n'
        "event: ping\n"
        'data: {"type":"ping"}\n\n'
        "event: message_delta\n"
        'data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
        '"usage":{"output_tokens":7}}\n\n'
        "event: message_stop\n"
        'data: {"type":"message_stop"}\n\n'
    )


@pytest.mark.parametrize("header", ["x-api-key", "authorization"])
@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
@pytest.mark.parametrize("query", ["", "?beta=true"])
def test_both_key_headers_and_both_versions_are_taken(
    base_url: str, api_key: str, header: str, version: str, query: str
) -> None:
    key = {"x-api-key": api_key, "authorization": f"Bearer {api_key}"}[header]
    headers = {header: key, "anthropic-version": version}

    response = httpx.post(f"{base_url}/v1/messages{query}", json=BODY, headers=headers)

    assert response.status_code == 200


def test_a_system_turn_is_taken_in_the_middle(wire: httpx.Client) -> None:
    turns = [TURN, {"role": "system", "content": "Be brief."}]

    assert wire.post("/v1/messages", json={**BODY, "messages": turns}).status_code == 200


@pytest.mark.parametrize("path", ["/api/hello", "/"])
def test_the_warm_up_of_clients_is_answered(base_url: str, path: str) -> None:
    assert httpx.head(base_url + path).status_code == 200


DUPLICATE = b'{"model":"claude-sonnet-4-6","max_tokens":5,"max_tokens":9,"messages":[]}'
DEEP = (
    b'{"model":"claude-sonnet-4-6","max_tokens":5,"messages":' + b"[" * 5_000 + b"]" * 5_000 + b"}"
)


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "kind"),
    [
        ("POST", "/v1/messages", b"{", 400, "invalid_request_error"),
        ("POST", "/v1/messages", b"", 400, "invalid_request_error"),
        ("POST", "/v1/messages", b"[]", 400, "invalid_request_error"),
        ("POST", "/v1/messages", b"\xff\xfe", 400, "invalid_request_error"),
        ("POST", "/v1/messages", b"{}", 400, "invalid_request_error"),
        ("POST", "/v1/messages", DUPLICATE, 400, "invalid_request_error"),
        ("POST", "/v1/messages", DEEP, 400, "invalid_request_error"),
        ("POST", "/v1/nothing", b"{}", 404, "not_found_error"),
        ("GET", "/v1/files/file_1", b"", 404, "not_found_error"),
        ("GET", "/v1/messages", b"", 405, "invalid_request_error"),
    ],
)
def test_bad_input_gets_an_error_in_the_apis_shape(
    wire: httpx.Client, method: str, path: str, content: bytes, status: int, kind: str
) -> None:
    response = wire.request(method, path, content=content)

    document = response.json()
    assert (response.status_code, document["error"]["type"]) == (status, kind)
    assert document["type"] == "error"
    assert document["request_id"] == response.headers["request-id"]
    assert wire.post("/v1/messages", json=BODY).status_code == 200


def test_missing_fields_are_named_as_the_api_names_them(wire: httpx.Client) -> None:
    for name in BODY:
        body = {field: value for field, value in BODY.items() if field != name}
        response = wire.post("/v1/messages", json=body)
        assert response.status_code == 400
        assert response.json()["error"]["message"] == f"{name}: Field required"
