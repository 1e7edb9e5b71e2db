"""Errors, headers and models as OpenAI's clients expect them."""

import json

import pytest

from proxy import auth
from proxy.conversion.chat_errors import chat_error, chat_headers, convert_error, error_chunk
from proxy.conversion.chat_models import list_with_chat_fields
from proxy.conversion.messages_errors import messages_error
from proxy.responses import error_body
from turnpike.kernel import clock


@pytest.mark.parametrize(
    ("status", "error_type", "message", "expected"),
    [
        (401, "authentication_error", "expired", (401, "invalid_api_key", None)),
        (402, "billing_error", "Too low.", (402, "insufficient_quota", None)),
        (404, "not_found_error", "model: nope", (404, "model_not_found", "model")),
        (404, "not_found_error", "There is nothing.", (404, "not_found", None)),
        (429, "rate_limit_error", "Slow.", (429, "rate_limit_exceeded", None)),
        (529, "overloaded_error", "Busy.", (503, "overloaded", None)),
        (
            400,
            "invalid_request_error",
            "prompt is too long: 9 tokens > 8 maximum",
            (400, "context_length_exceeded", None),
        ),
        (
            400,
            "invalid_request_error",
            "messages.0.content.1.text: Field required",
            (400, None, "messages.0.content.1.text"),
        ),
        (418, "odd", "Tea.", (418, None, None)),
        (502, "odd", "Gate.", (502, "internal_error", None)),
    ],
)
def test_error(
    status: int, error_type: str, message: str, expected: tuple[int, str | None, str | None]
) -> None:
    body = error_body(status, error_type, message, "req_1")

    answered, converted = convert_error(status, body)

    error = json.loads(converted)["error"]
    assert (answered, error["code"], error["param"]) == expected
    assert error["message"] == message
    assert (answered, converted) == chat_error(status, error_type, message)


def test_a_wrong_key_is_said_in_the_words_that_clients_look_for() -> None:
    _, converted = chat_error(401, "authentication_error", auth.BAD_KEY)

    # LiteLLM takes a 401 without these words for a bad request.
    assert "Incorrect API key provided" in json.loads(converted)["error"]["message"]


@pytest.mark.parametrize("payload", [b"", b"<html>", b"[]", b'{"error":"x"}'])
def test_error_that_nobody_can_read(payload: bytes) -> None:
    status, converted = convert_error(500, payload)

    assert status == 500
    assert json.loads(converted)["error"]["message"] == "The request failed."
    assert error_chunk(payload).startswith(b'data: {"error":')


def test_headers_in_openais_words() -> None:
    at = b"2026-11-21T10:15:30Z"
    headers = [
        (b"content-type", b"application/json"),
        (b"request-id", b"req_1"),
        (b"anthropic-organization-id", b"ten_1"),
        (b"anthropic-workspace-id", b"wrkspc_1"),
        (b"anthropic-ratelimit-requests-limit", b"50"),
        (b"anthropic-ratelimit-requests-remaining", b"49"),
        (b"anthropic-ratelimit-requests-reset", at),
        (b"anthropic-ratelimit-tokens-reset", at),
        (b"retry-after", b"3"),
    ]
    now_us = clock.us_of_datetime(clock.datetime_of_us(1_795_256_130_000_000)) - 360_500_000

    assert chat_headers(headers, now_us=now_us) == [
        (b"content-type", b"application/json"),
        (b"x-request-id", b"req_1"),
        (b"openai-organization", b"ten_1"),
        (b"x-ratelimit-limit-requests", b"50"),
        (b"x-ratelimit-remaining-requests", b"49"),
        (b"x-ratelimit-reset-requests", b"6m1s"),
        (b"x-ratelimit-reset-tokens", b"6m1s"),
        (b"retry-after", b"3"),
    ]
    assert chat_headers(headers[6:7], now_us=now_us + 400_000_000)[0][1] == b"0s"


def test_models_have_the_fields_of_both() -> None:
    page = {
        "data": [
            {"type": "model", "id": "m", "created_at": "2026-02-17T00:00:00Z"},
            {"type": "model", "id": "n", "created_at": ""},
        ],
        "has_more": False,
        "first_id": "m",
        "last_id": "n",
    }

    both = list_with_chat_fields(page)

    assert both["object"] == "list"
    assert both["first_id"] == "m"
    assert both["data"][0] == {
        "type": "model",
        "id": "m",
        "created_at": "2026-02-17T00:00:00Z",
        "object": "model",
        "created": 1_771_286_400,
        "owned_by": "turnpike",
    }
    assert both["data"][1]["created"] == 0


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b'{"error":{"message":"No such field","type":"x","code":null}}', "No such field"),
        (
            b'{"error":{"message":"9 > 8","code":"context_length_exceeded"}}',
            "prompt is too long: 9 > 8",
        ),
        (b'{"error":"plain"}', "plain"),
        (b'{"object":"error","message":"vllm","code":400}', "vllm"),
        (b'{"detail":"fastapi"}', "fastapi"),
        (b"<html>", "The upstream refused the request."),
    ],
)
def test_refusals_of_other_servers(payload: bytes, message: str) -> None:
    converted = json.loads(messages_error(400, payload, request_id="req_1"))

    assert converted == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": message},
        "request_id": "req_1",
    }
