"""A refusal arrives as the exception class that the official Python SDK has for it."""

from collections.abc import Callable
from typing import Any

import anthropic
import pytest

MODEL = "claude-sonnet-4-6"
PROMPT: Any = [{"role": "user", "content": "Hi"}]
BODY_BYTES_MAX = 32 * 1024 * 1024

ClientFor = Callable[[str], anthropic.Anthropic]
IssueKey = Callable[..., str]


def ask(client: anthropic.Anthropic, **fields: Any) -> anthropic.types.Message:
    arguments: Any = {"model": MODEL, "max_tokens": 50, "messages": PROMPT, **fields}
    message: anthropic.types.Message = client.messages.create(**arguments)
    return message


def error_of(error: anthropic.APIStatusError) -> Any:
    """The error in the body, once body, header and class agree about the request."""
    body: Any = error.body
    assert body["type"] == "error"
    assert body["request_id"] == error.request_id
    return body["error"]


def test_a_wrong_key_is_an_authentication_error(client_for: ClientFor) -> None:
    with pytest.raises(anthropic.AuthenticationError) as caught:
        ask(client_for("sk-ant-api03-nobody-has-this"))

    assert error_of(caught.value)["type"] == "authentication_error"


def test_a_bad_request_is_a_bad_request_error(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        ask(client, max_tokens="many")

    assert error_of(caught.value)["type"] == "invalid_request_error"
    assert error_of(caught.value)["message"].startswith("max_tokens: ")


def test_what_the_upstream_declines_is_told_in_its_words(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        ask(client, extra_body={"foo": 1})

    assert error_of(caught.value)["message"] == "foo: Extra inputs are not permitted"


def test_no_credit_is_a_payment_required_error(client_for: ClientFor, issue_key: IssueKey) -> None:
    with pytest.raises(anthropic.PaymentRequiredError) as caught:
        ask(client_for(issue_key(credit="0")))

    assert error_of(caught.value)["type"] == "billing_error"
    assert caught.value.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("model", ["claude-nope-9", "gpt-4"])
def test_an_unknown_model_is_a_not_found_error(client: anthropic.Anthropic, model: str) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        ask(client, model=model)

    assert error_of(caught.value) == {"type": "not_found_error", "message": f"model: {model}"}


def test_too_large_a_body_is_a_content_too_large_error(client: anthropic.Anthropic) -> None:
    huge: Any = [{"role": "user", "content": "x" * (BODY_BYTES_MAX + 1)}]

    with pytest.raises(anthropic.ContentTooLargeError) as caught:
        ask(client, messages=huge)

    assert error_of(caught.value)["type"] == "request_too_large"


def test_one_request_over_the_limit_is_a_rate_limit_error(
    client_for: ClientFor, issue_key: IssueKey
) -> None:
    client = client_for(issue_key(credit="50", tier="basic"))
    limit = 50

    admitted, refusal = _until_refused(client, tries=2 * limit)

    # The bucket refills while it empties, so a few more than its size may pass.
    assert limit <= admitted < 2 * limit
    assert error_of(refusal)["type"] == "rate_limit_error"
    headers = refusal.response.headers
    assert 1 <= int(headers["retry-after"]) <= 2
    assert headers["anthropic-ratelimit-requests-limit"] == str(limit)
    assert headers["anthropic-ratelimit-requests-remaining"] == "0"


def _until_refused(
    client: anthropic.Anthropic, *, tries: int
) -> tuple[int, anthropic.RateLimitError]:
    for admitted in range(tries):
        try:
            ask(client, max_tokens=1)
        except anthropic.RateLimitError as refusal:
            return admitted, refusal
    pytest.fail(f"None of {tries} requests was refused.")


@pytest.mark.parametrize("stream", [False, True])
def test_an_overloaded_upstream_is_an_overloaded_error(
    client: anthropic.Anthropic, stream: bool
) -> None:
    with pytest.raises(anthropic.OverloadedError) as caught:
        ask(client, stream=stream, extra_headers={"x-simulator": "status=529"})

    assert (caught.value.status_code, error_of(caught.value)["type"]) == (529, "overloaded_error")


def test_a_stream_that_breaks_is_an_error_and_never_a_short_answer(
    client: anthropic.Anthropic,
) -> None:
    long: Any = [{"role": "user", "content": "[[tokens=100]]"}]
    cut = {"x-simulator": "cut_after_events=6"}

    with (
        pytest.raises(anthropic.APIStatusError) as caught,
        client.messages.stream(
            model=MODEL, max_tokens=200, messages=long, extra_headers=cut
        ) as stream,
    ):
        stream.until_done()

    assert caught.value.status_code == 200
    assert error_of(caught.value)["type"] in {"api_error", "overloaded_error"}
