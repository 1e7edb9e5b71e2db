"""The official OpenAI SDK for Python against a running platform: the other face of the same key."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

MODEL = "claude-sonnet-4-6"
PROMPT: Any = [{"role": "user", "content": "[[tokens=40]]"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_lane",
        "parameters": {
            "type": "object",
            "properties": {"plate": {"type": "string"}},
            "required": ["plate"],
        },
    },
}


@pytest.fixture
def chat(base_url: str, api_key: str) -> Iterator[openai.OpenAI]:
    """A client that does not retry, so that a refusal is seen at once."""
    with openai.OpenAI(
        base_url=f"{base_url}/v1", api_key=api_key, max_retries=0, timeout=30
    ) as made:
        yield made


def test_answer_with_usage_and_request_id(chat: openai.OpenAI) -> None:
    completion = chat.chat.completions.create(model=MODEL, messages=PROMPT, max_tokens=100)

    choice = completion.choices[0]
    assert completion.object == "chat.completion"
    assert choice.finish_reason == "stop"
    assert choice.message.content
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 40
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + 40
    assert completion._request_id is not None
    assert completion._request_id.startswith("req_")


def test_stream_says_what_the_answer_says(chat: openai.OpenAI) -> None:
    whole = chat.chat.completions.create(model=MODEL, messages=PROMPT, max_tokens=100)
    stream = chat.chat.completions.create(
        model=MODEL,
        messages=PROMPT,
        max_tokens=100,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)

    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 40
    assert len({chunk.id for chunk in chunks}) == 1


def test_helper_adds_up_a_tool_call(chat: openai.OpenAI) -> None:
    asked: Any = [{"role": "user", "content": "Use get_lane for `AB-123`."}]

    with chat.chat.completions.stream(model=MODEL, messages=asked, tools=[TOOL]) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()

    message = final.choices[0].message
    assert final.choices[0].finish_reason == "tool_calls"
    assert message.tool_calls is not None
    call = message.tool_calls[0]
    assert call.type == "function"
    assert call.function.name == "get_lane"
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "Lane 7"}
    turns: Any = [*asked, json.loads(message.model_dump_json(exclude_none=True)), result]
    answer = chat.chat.completions.create(model=MODEL, messages=turns, tools=[TOOL])
    assert answer.choices[0].message.content


def test_picture(chat: openai.OpenAI) -> None:
    parts: Any = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}},
    ]

    answer = chat.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": parts}], max_tokens=20
    )

    assert answer.choices[0].finish_reason in ("stop", "length")


def test_models_are_listed_and_found(chat: openai.OpenAI) -> None:
    listed = list(chat.models.list())
    found = chat.models.retrieve(MODEL)

    assert MODEL in [model.id for model in listed]
    assert (found.id, found.object, found.owned_by) == (MODEL, "model", "turnpike")
    assert found.created > 1_700_000_000


def test_errors_are_the_sdks_own(chat: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        chat.chat.completions.create(model="gpt-none", messages=PROMPT)
    with pytest.raises(openai.BadRequestError) as two:
        chat.chat.completions.create(model=MODEL, messages=PROMPT, n=2)
    with pytest.raises(openai.AuthenticationError) as wrong:
        chat.with_options(api_key="wrong").models.list()

    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    assert two.value.param == "n"
    assert unknown.value.request_id is not None
    assert wrong.value.status_code == 401


def test_no_credit_is_not_tried_again(base_url: str, issue_key: Any) -> None:
    key = issue_key(credit="0.0001")
    with (
        openai.OpenAI(base_url=f"{base_url}/v1", api_key=key, max_retries=2) as poor,
        pytest.raises(openai.APIStatusError) as caught,
    ):
        poor.chat.completions.create(model=MODEL, messages=PROMPT, max_tokens=1_000)

    assert caught.value.status_code == 402
    assert caught.value.code == "insufficient_quota"
    assert caught.value.response.request.headers["x-stainless-retry-count"] == "0"


async def test_async_client(base_url: str, api_key: str) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{base_url}/v1", api_key=api_key, max_retries=0
    ) as made:
        stream = await made.chat.completions.create(
            model=MODEL, messages=PROMPT, max_tokens=100, stream=True
        )
        pieces = [c.choices[0].delta.content or "" async for c in stream if c.choices]

    assert len("".join(pieces)) == 160
