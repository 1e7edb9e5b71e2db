"""Bad input: a clear error in the API's own style, nothing charged, the worker alive."""

from typing import Any

import pytest

MESSAGES = '"messages":[{"role":"user","content":"x"}]'
DEEP = (
    b'{"model":"claude-sonnet-4-6","max_tokens":5,"messages":'
    + b"[" * 100_000
    + b"]" * 100_000
    + b"}"
)

CASES = [
    ("not json", b"{", "not valid JSON"),
    ("nothing", b"", "not valid JSON"),
    ("no object", b"[]", "Input should be an object"),
    ("text behind", b"{} {}", "not valid JSON"),
    ("no utf-8", b'{"model":"\xff\xfe"}', "not valid JSON"),
    ("no model", b'{"max_tokens":5,' + MESSAGES.encode() + b"}", "model: Field required"),
    (
        "no max_tokens",
        b'{"model":"claude-sonnet-4-6",' + MESSAGES.encode() + b"}",
        "max_tokens: Field required",
    ),
    ("no messages", b'{"model":"claude-sonnet-4-6","max_tokens":5}', "messages: Field required"),
    (
        "empty messages",
        b'{"model":"claude-sonnet-4-6","max_tokens":5,"messages":[ ]}',
        "messages: at least one message is required",
    ),
    (
        "messages no list",
        b'{"model":"claude-sonnet-4-6","max_tokens":5,"messages":"x"}',
        "messages: Input should be a valid list",
    ),
    (
        "model no text",
        b'{"model":7,"max_tokens":5,' + MESSAGES.encode() + b"}",
        "model: Input should be a valid string",
    ),
    (
        "model too long",
        b'{"model":"' + b"m" * 300 + b'","max_tokens":5,' + MESSAGES.encode() + b"}",
        "model: String should have",
    ),
    (
        "max_tokens text",
        b'{"model":"claude-sonnet-4-6","max_tokens":"5",' + MESSAGES.encode() + b"}",
        "max_tokens: Input should be a valid integer",
    ),
    (
        "max_tokens float",
        b'{"model":"claude-sonnet-4-6","max_tokens":5.5,' + MESSAGES.encode() + b"}",
        "max_tokens: Input should be a valid integer",
    ),
    (
        "max_tokens negative",
        b'{"model":"claude-sonnet-4-6","max_tokens":-1,' + MESSAGES.encode() + b"}",
        "max_tokens: Input should be greater than or equal to 0",
    ),
    (
        "max_tokens huge",
        b'{"model":"claude-sonnet-4-6","max_tokens":99999999999,' + MESSAGES.encode() + b"}",
        "max_tokens: Input should be less than or equal to",
    ),
    (
        "stream text",
        b'{"model":"claude-sonnet-4-6","max_tokens":5,"stream":"yes",' + MESSAGES.encode() + b"}",
        "stream: Input should be a valid boolean",
    ),
    (
        "duplicate model",
        b'{"model":"claude-sonnet-4-6","model":"claude-opus-5","max_tokens":5,'
        + MESSAGES.encode()
        + b"}",
        "model: Duplicate key",
    ),
    (
        "duplicate behind an escape",
        b'{"model":"claude-sonnet-4-6","m\\u006fdel":"claude-opus-5","max_tokens":5,'
        + MESSAGES.encode()
        + b"}",
        "model: Duplicate key",
    ),
    (
        "too many fields",
        b"{" + b",".join(b'"f%d":1' % n for n in range(300)) + b"}",
        "at most 200 fields",
    ),
    ("too deep", DEEP, "nested too deeply"),
]


@pytest.mark.parametrize(
    ("body", "message"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
async def test_bad_body_is_refused_with_400_and_costs_nothing(
    gateway: Any, world: Any, body: bytes, message: str
) -> None:
    response = await gateway.post(body)

    error = response.json()
    assert response.status_code == 400
    assert error["type"] == "error"
    assert error["error"]["type"] == "invalid_request_error"
    assert message in error["error"]["message"]
    assert error["request_id"] == response.headers["request-id"]
    assert response.headers["x-should-retry"] == "false"
    assert (world.events(), world.held_micro(), world.open_records()) == ([], 0, 0)
    assert (await gateway.post()).status_code == 200


async def test_body_of_33_mib_is_refused_with_413(gateway: Any, world: Any) -> None:
    response = await gateway.post(b"x" * (33 * 1024 * 1024))

    assert response.status_code == 413
    assert response.json()["error"]["type"] == "request_too_large"
    assert world.events() == []
    assert (await gateway.post()).status_code == 200


async def test_chunked_body_of_33_mib_is_refused_with_413(gateway: Any) -> None:
    async def pieces() -> Any:
        for _ in range(33):
            yield b"x" * (1024 * 1024)

    response = await gateway.client.post(
        "/v1/messages", content=pieces(), headers=gateway.headers()
    )

    assert response.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status", "error_type"),
    [
        ("GET", "/v1/messages", 405, "invalid_request_error"),
        ("DELETE", "/v1/messages", 405, "invalid_request_error"),
        ("POST", "/v1/models", 405, "invalid_request_error"),
        ("POST", "/v1/messages/", 404, "not_found_error"),
        ("POST", "/v1/complete", 404, "not_found_error"),
        ("GET", "/v1/../etc/passwd", 404, "not_found_error"),
    ],
)
async def test_wrong_path_or_method_is_refused(
    gateway: Any, method: str, path: str, status: int, error_type: str
) -> None:
    response = await gateway.client.request(method, path, headers=gateway.headers())

    assert response.status_code == status
    assert response.json()["error"]["type"] == error_type


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        ({"x_api_key": ""}, 401, "x-api-key header is required"),
        ({"x_api_key": "garbage"}, 401, "invalid x-api-key"),
        ({"x_api_key": "tpk_live_" + "a" * 42}, 401, "invalid x-api-key"),
        ({"x_api_key": "sk-ant-api03-xyz"}, 401, "invalid x-api-key"),
        (
            {"x_api_key": "", "authorization": "Basic dXNlcjpwdw=="},
            401,
            "x-api-key header is required",
        ),
        ({"anthropic_version": ""}, 400, "anthropic-version: header is required"),
        ({"content_encoding": "gzip"}, 400, "Compressed request bodies"),
    ],
)
async def test_bad_header_is_refused(
    gateway: Any, headers: dict[str, str], status: int, message: str
) -> None:
    response = await gateway.post(**headers)

    assert response.status_code == status
    assert message in response.json()["error"]["message"]


async def test_unknown_key_of_good_form_is_refused(gateway: Any) -> None:
    from turnpike.kernel import hashing

    response = await gateway.post(x_api_key=hashing.new_key(hashing.API_KEY_PREFIX))

    assert (response.status_code, response.json()["error"]["message"]) == (401, "invalid x-api-key")


@pytest.mark.parametrize("model", ["claude-nope", "gpt-5", "claude-unpriced-1", "*", "../x"])
async def test_unknown_and_unpriced_models_are_refused(
    gateway: Any, world: Any, model: str
) -> None:
    body = {"model": model, "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}

    response = await gateway.post(body)

    assert response.status_code == 404
    assert response.json()["error"]["message"] == f"model: {model}"
    assert world.events() == []


async def test_guessing_address_is_answered_without_asking_redis(gateway: Any, world: Any) -> None:
    from turnpike.kernel import hashing

    for _ in range(30):
        await gateway.post(x_api_key=hashing.new_key(hashing.API_KEY_PREFIX))
    asked = []
    for _ in range(3):  # the worker's own rounds ask too, now and then
        before = gets_of(world)
        refused = await gateway.post(x_api_key=hashing.new_key(hashing.API_KEY_PREFIX))
        asked.append(gets_of(world) - before)

    assert refused.status_code == 401
    assert min(asked) == 0


def gets_of(world: Any) -> int:
    """How often Redis was asked for a value."""
    calls: int = world.redis.info("commandstats")["cmdstat_get"]["calls"]
    return calls
