"""A chat completion of an OpenAI-compatible upstream as an answer of the Messages API."""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from proxy.conversion.chat_response import Unreadable
from proxy.conversion.chat_shapes import ReadAnswer, ReadFunction, ReadMessage
from proxy.conversion.messages_shapes import Message, Text, ToolUse
from proxy.conversion.usage import estimated_usage, messages_usage, read_chat_usage

# docs/conversion.md has the same rows. A reason that is not here is taken for a natural end.
STOP_REASONS: Mapping[str, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
# Under this name the Messages API passes input on that is no JSON, a cut one say.
INVALID_JSON = "INVALID_JSON"

_read_answer = msgspec.json.Decoder(ReadAnswer).decode
_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedAnswer:
    """A message. `is_estimated`: the upstream did not say what it used."""

    body: bytes
    is_estimated: bool


def message_of(
    payload: bytes, *, message_id: str, model: str, input_estimate: int
) -> ConvertedAnswer:
    """Convert a completion; `model` stands where it names none. Raises Unreadable."""
    try:
        answer = _read_answer(payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Unreadable("The answer is no chat completion.") from error
    choices = [choice for choice in answer.choices or () if choice.index == 0]
    if not choices or choices[0].message is None:
        raise Unreadable("The chat completion has no answer.")
    said = choices[0].message
    content = _blocks(said, message_id)
    usage = read_chat_usage(answer.usage)
    if usage is None:
        used = estimated_usage(input_estimate=input_estimate, output_characters=_size(said))
    else:
        used = messages_usage(usage)
    has_tools = any(isinstance(block, ToolUse) for block in content)
    message = Message(
        id=message_id,
        model=answer.model or model,
        content=content,
        stop_reason=stop_reason_of(
            choices[0].finish_reason, has_tools=has_tools, is_refusal=bool(said.refusal)
        ),
        usage=used,
    )
    return ConvertedAnswer(body=_encode(message), is_estimated=usage is None)


def stop_reason_of(finish_reason: str | None, *, has_tools: bool, is_refusal: bool = False) -> str:
    """Why it ended, in the words of Messages; some servers call every end but `length` a stop."""
    reason = STOP_REASONS.get(finish_reason or "", "end_turn")
    if reason == "end_turn" and has_tools:
        return "tool_use"
    return "refusal" if reason == "end_turn" and is_refusal else reason


def tool_id_of(message_id: str, number: int) -> str:
    """An id for a call that came without one."""
    return f"toolu_{message_id.rpartition('_')[2]}_{number}"


def _blocks(message: ReadMessage, message_id: str) -> list[Text | ToolUse]:
    blocks: list[Text | ToolUse] = [
        Text(text=text) for text in (message.content, message.refusal) if text
    ]
    for number, call in enumerate(message.tool_calls or ()):
        blocks.append(_tool_use(call.id or tool_id_of(message_id, number), call.function))
    if message.function_call is not None:
        blocks.append(_tool_use(tool_id_of(message_id, 0), message.function_call))
    return blocks


def _tool_use(call_id: str, function: ReadFunction) -> ToolUse:
    return ToolUse(id=call_id, name=function.name or "", input=_input_of(function.arguments or ""))


def _input_of(arguments: str) -> msgspec.Raw:
    if not arguments.strip():
        return msgspec.Raw(b"{}")
    encoded = arguments.encode()
    try:
        msgspec.json.decode(encoded, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError):
        return msgspec.Raw(_encode({INVALID_JSON: arguments}))
    return msgspec.Raw(encoded)


def _size(message: ReadMessage) -> int:
    texts = [message.content, message.refusal, message.reasoning_content, message.reasoning]
    functions = [call.function for call in message.tool_calls or ()]
    if message.function_call is not None:
        functions.append(message.function_call)
    texts += [function.arguments for function in functions]
    return sum(len(text) for text in texts if text)
