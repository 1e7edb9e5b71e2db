"""What goes out: errors in Anthropic's shape, whole answers, and no header that should not."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.responses import (
    DEFAULT_MESSAGES,
    ERROR_TYPES,
    error_body,
    error_event,
    send_error,
    upstream_request_headers,
    upstream_response_headers,
)
from proxy.sse import Event, EventParser

NEVER_SENT = (
    b"authorization",
    b"x-api-key",
    b"cookie",
    b"host",
    b"forwarded",
    b"x-forwarded-for",
    b"x-real-ip",
    b"proxy-authorization",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"content-length",
    b"upgrade",
    b"keep-alive",
    b"expect",
    b"accept-encoding",
    b"content-encoding",
    b"anthropic-user-profile-id",
    b"anthropic-workspace-id",
    b"anthropic-organization-id",
    b"x-simulator",
    b"x-turnpike-member",
    b"x-turnpike-request-id",
)


def test_an_error_has_the_shape_of_the_api() -> None:
    body = error_body(429, "rate_limit_error", "Slow down.", "req_1", {"error_code": "ramp"})

    assert json.loads(body) == {
        "type": "error",
        "error": {
            "type": "rate_limit_error",
            "message": "Slow down.",
            "details": {"error_code": "ramp"},
        },
        "request_id": "req_1",
    }


@pytest.mark.parametrize(("status", "error_type"), ERROR_TYPES.items())
def test_an_error_without_words_takes_those_of_its_status(status: int, error_type: str) -> None:
    error = json.loads(error_body(status, "", "", "req_1"))["error"]

    assert error == {"type": error_type, "message": DEFAULT_MESSAGES[error_type]}


def test_an_error_in_a_stream_is_one_event() -> None:
    sent = error_event("overloaded_error", "Line one.\n\nevent: evil", "req_1")

    (event,) = EventParser().feed(sent)
    assert event == Event(b"error", event.data)
    assert json.loads(event.data) == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "Line one.\n\nevent: evil"},
        "request_id": "req_1",
    }


async def test_a_whole_error_is_two_messages() -> None:
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    await send_error(
        send, 402, "billing_error", "", request_id="req_1", headers=[(b"x-should-retry", b"false")]
    )

    start, body = messages
    assert start["status"] == 402
    assert start["headers"] == [
        (b"content-type", b"application/json"),
        (b"request-id", b"req_1"),
        (b"x-should-retry", b"false"),
        (b"content-length", b"%d" % len(body["body"])),
    ]
    assert json.loads(body["body"])["error"]["type"] == "billing_error"
    assert not body.get("more_body")


async def test_another_api_writes_its_errors_in_its_own_shape() -> None:
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    await send_error(send, 404, "", "", request_id="r", write=lambda status, *_: b"%d" % status)

    assert messages[1]["body"] == b"404"


def test_known_and_open_headers_go_upstream() -> None:
    headers = {
        b"content-type": b"application/json",
        b"anthropic-version": b"2023-06-01",
        b"anthropic-beta": b"a,b,c",
        b"anthropic-some-day": b"x",
        b"user-agent": b"claude-cli/2",
        b"x-app": b"cli",
    }

    sent = upstream_request_headers({b"cookie": b"a", **headers, b"x-api-key": b"b"})

    assert sent == [*headers.items(), (b"accept-encoding", b"identity")]


@given(
    names=st.lists(st.sampled_from([*NEVER_SENT, b"content-type", b"anthropic-beta", b"x-a"])),
    named=st.lists(st.sampled_from([b"Anthropic-Beta", b" content-type", b"keep-alive", b""])),
)
def test_what_must_stay_behind_never_goes_upstream(names: list[bytes], named: list[bytes]) -> None:
    headers = {**dict.fromkeys(names, b"secret"), b"connection": b",".join(named)}

    sent = upstream_request_headers(headers)

    assert sent[-1] == (b"accept-encoding", b"identity")
    dropped = {name.strip().lower() for name in named}
    allowed = {b"content-type", b"anthropic-beta"} - dropped
    assert {name for name, _ in sent[:-1]} == allowed & set(names)


def test_ids_and_limits_of_the_shared_account_never_come_down() -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"request-id", b"req_theirs"),
        (b"anthropic-organization-id", b"org"),
        (b"anthropic-ratelimit-requests-limit", b"1"),
        (b"anthropic-priority-input-tokens-limit", b"1"),
        (b"retry-after", b"9"),
        (b"set-cookie", b"a=b"),
        (b"server", b"cloud"),
        (b"cf-ray", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"content-length", b"5"),
        (b"content-encoding", b"gzip"),
        (b"cache-control", b"no-cache"),
    ]

    assert upstream_response_headers(headers) == [
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-cache"),
    ]
