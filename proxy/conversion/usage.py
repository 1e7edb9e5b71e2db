"""Usage in the words of either API; no number is lost on the way."""

from collections.abc import Mapping
from typing import Any

import msgspec

from proxy.conversion import chat_shapes, messages_shapes

CHARACTERS_PER_TOKEN = 4
_COUNTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


def chat_usage(usage: Mapping[str, Any]) -> chat_shapes.Usage:
    """What a message used, as a completion says it: the prompt with what came from a cache."""
    prompt = sum(_count(usage, name) for name in _COUNTS)
    output = _count(usage, "output_tokens")
    written = _count(usage, "cache_creation_input_tokens")
    converted = chat_shapes.Usage(
        prompt_tokens=prompt,
        completion_tokens=output,
        total_tokens=prompt + output,
        prompt_tokens_details=chat_shapes.PromptDetails(
            cached_tokens=_count(usage, "cache_read_input_tokens"),
            cache_write_tokens=written or None,
        ),
    )
    details = usage.get("output_tokens_details")
    thinking = _count(details, "thinking_tokens") if isinstance(details, Mapping) else 0
    if thinking:
        converted.completion_tokens_details = chat_shapes.CompletionDetails(
            reasoning_tokens=thinking
        )
    return converted


def read_chat_usage(raw: msgspec.Raw) -> chat_shapes.ReadUsage | None:
    """The usage of a completion, or None where there is none that can be one."""
    try:
        return msgspec.json.decode(raw, type=chat_shapes.ReadUsage | None)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def messages_usage(usage: chat_shapes.ReadUsage) -> messages_shapes.Usage:
    """What a completion used, as a message says it: what came from a cache stands apart."""
    prompt = usage.prompt_tokens_details
    cached = (prompt.cached_tokens or 0) if prompt is not None else 0
    written = (prompt.cache_write_tokens or 0) if prompt is not None else 0
    details = usage.completion_tokens_details
    thinking = (details.reasoning_tokens or 0) if details is not None else 0
    return messages_shapes.Usage(
        # A server that counts its cache apart from the prompt must not make the rest negative.
        input_tokens=max(0, usage.prompt_tokens - cached - written),
        output_tokens=usage.completion_tokens,
        cache_creation_input_tokens=written,
        cache_read_input_tokens=cached,
        output_tokens_details=messages_shapes.OutputDetails(thinking_tokens=thinking)
        if thinking
        else None,
    )


def estimated_usage(*, input_estimate: int, output_characters: int) -> messages_shapes.Usage:
    """What was used as far as anyone can tell, where a server does not say."""
    return messages_shapes.Usage(
        input_tokens=input_estimate,
        output_tokens=-(-output_characters // CHARACTERS_PER_TOKEN),
    )


def _count(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return max(0, value) if is_count and value is not None else 0
