"""The official Python SDK, current major, against a running platform: Messages in all its forms."""

import base64
from typing import Any

import anthropic
import pytest

MODEL = "claude-sonnet-4-6"
THINKING_MODEL = "claude-opus-4-5-20251101"
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(64)).decode()
LANE: Any = {
    "name": "get_lane",
    "description": "Finds a car's lane.",
    "input_schema": {
        "type": "object",
        "properties": {"plate": {"type": "string"}},
        "required": ["plate"],
    },
}


def ask(
    client: anthropic.Anthropic, content: Any = "Hello", **fields: Any
) -> anthropic.types.Message:
    """One turn; keywords are further arguments of `messages.create`."""
    arguments: Any = {"model": MODEL, "max_tokens": 500, **fields}
    arguments.setdefault("messages", [{"role": "user", "content": content}])
    message: anthropic.types.Message = client.messages.create(**arguments)
    return message


def text_of(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_plain_message_comes_back(client: anthropic.Anthropic) -> None:
    message = ask(client, "[[say=Three euros.]]")

    assert (message.type, message.role, message.model) == ("message", "assistant", MODEL)
    assert text_of(message) == "Three euros."
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens == 3
    assert message._request_id is not None
    assert message._request_id.startswith("req_")


async def test_the_async_client_gets_the_same(
    client: anthropic.Anthropic, async_client: anthropic.AsyncAnthropic
) -> None:
    mine: Any = [{"role": "user", "content": "Why tolls?"}]

    message = await async_client.messages.create(model=MODEL, max_tokens=500, messages=mine)

    assert text_of(message) == text_of(ask(client, "Why tolls?"))


def test_system_may_be_text_or_blocks(client: anthropic.Anthropic) -> None:
    text = ask(client, system="Be brief, please.")
    blocks = ask(
        client, system=[{"type": "text", "text": "Be brief"}, {"type": "text", "text": ", please."}]
    )

    assert text.usage.input_tokens == blocks.usage.input_tokens == 6


def test_several_turns_are_one_prompt(client: anthropic.Anthropic) -> None:
    turns = [
        {"role": "user", "content": "a" * 40},
        {"role": "assistant", "content": [{"type": "text", "text": "b" * 40}]},
        {"role": "user", "content": [{"type": "text", "text": "c" * 40}]},
        {"role": "system", "content": "d" * 40},
    ]

    assert ask(client, messages=turns).usage.input_tokens == 40


def test_a_tool_is_called_and_its_result_read(client: anthropic.Anthropic) -> None:
    asked = ask(client, "Use get_lane for `AB-123`.", tools=[LANE])
    call = asked.content[-1]
    assert asked.stop_reason == "tool_use"
    assert call.type == "tool_use"
    assert call.input == {"plate": "AB-123"}

    result = {"type": "tool_result", "tool_use_id": call.id, "content": "Lane 4"}
    turns = [
        {"role": "user", "content": "Use get_lane for `AB-123`."},
        {"role": "assistant", "content": asked.content},
        {"role": "user", "content": [result]},
    ]
    answered = ask(client, messages=turns, tools=[LANE])

    assert answered.stop_reason == "end_turn"
    assert "Lane 4" in text_of(answered)


@pytest.mark.parametrize(
    ("choice", "stop_reason"),
    [
        ({"type": "auto"}, "end_turn"),
        ({"type": "any", "disable_parallel_tool_use": True}, "tool_use"),
        ({"type": "tool", "name": "get_lane"}, "tool_use"),
        ({"type": "none"}, "end_turn"),
    ],
)
def test_tool_choice_passes_through(
    client: anthropic.Anthropic, choice: Any, stop_reason: str
) -> None:
    assert ask(client, "What now?", tools=[LANE], tool_choice=choice).stop_reason == stop_reason


@pytest.mark.parametrize(
    "source",
    [
        {"type": "url", "url": "https://example.org/bridge.png"},
        {"type": "base64", "media_type": "image/png", "data": PIXEL},
    ],
    ids=["url", "base64"],
)
def test_images_are_read(client: anthropic.Anthropic, source: Any) -> None:
    image = {"type": "image", "source": source}

    usage = ask(client, [image, {"type": "text", "text": "What?"}]).usage

    assert usage.input_tokens == 1_568 + 2


@pytest.mark.parametrize(
    ("source", "tokens"),
    [
        ({"type": "url", "url": "https://example.org/tariff.pdf"}, 2_000),
        ({"type": "base64", "media_type": "application/pdf", "data": PIXEL}, 2_000),
        ({"type": "text", "media_type": "text/plain", "data": "t" * 80}, 20),
        ({"type": "content", "content": [{"type": "text", "text": "t" * 80}]}, 20),
    ],
    ids=["url", "base64", "text", "content"],
)
def test_documents_are_read(client: anthropic.Anthropic, source: Any, tokens: int) -> None:
    document = {"type": "document", "source": source}

    usage = ask(client, [document, {"type": "text", "text": "Sums?"}]).usage

    assert usage.input_tokens == tokens + 2


@pytest.mark.parametrize(
    "thinking",
    [{"type": "enabled", "budget_tokens": 1_024}, {"type": "adaptive"}],
    ids=["enabled", "adaptive"],
)
def test_thinking_comes_before_the_answer(client: anthropic.Anthropic, thinking: Any) -> None:
    message = ask(client, "Think.", model=THINKING_MODEL, max_tokens=2_000, thinking=thinking)

    first = message.content[0]
    assert first.type == "thinking"
    assert first.thinking
    assert first.signature
    details = message.usage.output_tokens_details
    assert details is not None
    assert 0 < details.thinking_tokens < message.usage.output_tokens


def test_omitted_thinking_keeps_its_signature(client: anthropic.Anthropic) -> None:
    thinking: Any = {"type": "adaptive", "display": "omitted"}

    first = ask(client, "Think.", max_tokens=2_000, thinking=thinking).content[0]

    assert first.type == "thinking"
    assert (first.thinking, bool(first.signature)) == ("", True)


def test_a_cached_prefix_is_written_then_read(client: anthropic.Anthropic, unique: str) -> None:
    hour = {"type": "ephemeral", "ttl": "1h"}
    system: Any = [{"type": "text", "text": unique * 200, "cache_control": hour}]

    first, second = ask(client, system=system).usage, ask(client, system=system).usage

    assert first.cache_creation is not None
    assert first.cache_creation.ephemeral_1h_input_tokens == len(unique) * 200 / 4
    assert first.cache_read_input_tokens == 0
    assert second.cache_read_input_tokens == first.cache_creation_input_tokens
    assert second.cache_creation_input_tokens == 0


def test_a_stop_sequence_is_named(client: anthropic.Anthropic) -> None:
    message = ask(client, "[[say=one, two, three]]", stop_sequences=[" three"])

    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", " three")
    assert text_of(message) == "one, two,"


def test_max_tokens_is_a_stop_reason(client: anthropic.Anthropic) -> None:
    message = ask(client, "[[tokens=300]]", max_tokens=20)

    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 20)


def test_metadata_passes_through(client: anthropic.Anthropic) -> None:
    assert ask(client, metadata={"user_id": "customer-17"}).type == "message"


def test_temperature_belongs_to_the_old_version(client: anthropic.Anthropic) -> None:
    old = {"anthropic-version": "2023-06-01"}

    assert ask(client, extra_body={"temperature": 0.3}, extra_headers=old).type == "message"
    with pytest.raises(anthropic.BadRequestError, match="temperature"):
        ask(client, extra_body={"temperature": 0.3})


def test_betas_open_their_fields(client: anthropic.Anthropic) -> None:
    messages: Any = [{"role": "user", "content": "Hi"}]
    edits: Any = {"edits": [{"type": "clear_tool_uses_20250919"}]}

    message = client.beta.messages.create(
        model=MODEL,
        max_tokens=100,
        messages=messages,
        context_management=edits,
        betas=["context-management-2025-06-27"],
    )

    assert message.type == "message"


def test_tokens_are_counted(client: anthropic.Anthropic) -> None:
    messages: Any = [{"role": "user", "content": "z" * 99}]

    counted = client.messages.count_tokens(model=MODEL, messages=messages, system="s", tools=[LANE])

    assert (
        counted.input_tokens
        == ask(client, messages=messages, system="s", tools=[LANE]).usage.input_tokens
    )


async def test_models_are_listed_and_found(
    client: anthropic.Anthropic, async_client: anthropic.AsyncAnthropic
) -> None:
    listed = {model.id: model async for model in async_client.models.list(limit=2)}

    found = client.models.retrieve(MODEL)
    assert len(listed) > 2
    assert listed[MODEL] == found
    assert (found.type, found.id) == ("model", MODEL)
