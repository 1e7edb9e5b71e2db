"""An answer of the Messages API as a chat completion."""

from collections.abc import Mapping

import msgspec

from proxy.conversion.chat_shapes import (
    Answer,
    Choice,
    Completion,
    Function,
    ToolCall,
)
from proxy.conversion.messages_shapes import Answer as Message
from proxy.conversion.messages_shapes import AnswerBlock
from proxy.conversion.usage import chat_usage

# docs/conversion.md has the same rows. A reason that is not here is taken for a natural end.
FINISH_REASONS: Mapping[str, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "compaction": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "max_thinking_length": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}

_read_message = msgspec.json.Decoder(Message).decode


class Unreadable(ValueError):
    """An answer is not what its API says; it cannot be converted."""


def completion_of(payload: bytes, *, created: int) -> bytes:
    """Convert an answer; `created` is in seconds since 1970. Raises Unreadable."""
    try:
        message = _read_message(payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Unreadable("The answer is no message.") from error
    texts = [block.text for block in message.content if block.type == "text"]
    calls = [_call(block) for block in message.content if block.type == "tool_use"]
    answer = Answer(role="assistant", content="".join(texts) if texts else None, refusal=None)
    if message.stop_reason == "refusal" and message.stop_details is not None:
        answer.refusal = message.stop_details.explanation
    if calls:
        answer.tool_calls = calls
    completion = Completion(
        id=message.id,
        object="chat.completion",
        created=created,
        model=message.model,
        choices=[Choice(message=answer, finish_reason=finish_reason_of(message.stop_reason))],
        usage=chat_usage(message.usage),
    )
    return msgspec.json.encode(completion)


def finish_reason_of(stop_reason: str | None) -> str:
    """Why it ended, in OpenAI's words."""
    return FINISH_REASONS.get(stop_reason or "", "stop")


def _call(block: AnswerBlock) -> ToolCall:
    arguments = bytes(block.input).decode()
    return ToolCall(
        id=block.id, type="function", function=Function(name=block.name, arguments=arguments)
    )
