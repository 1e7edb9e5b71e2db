"""POST /v1/chat/completions: the same answers with OpenAI's manners, for text and tools."""

import json
from collections.abc import Iterator

from simulator.answer import Answer, block_json
from simulator.events import CHARACTERS_PER_CHUNK, Event
from simulator.exchange import CutShort, Exchange
from simulator.messages import (
    TURNPIKE_REQUEST_ID,
    Silence,
    answer_request,
    write_events,
)
from simulator.prompt import read_prompt
from simulator.record import Row
from simulator.state import State
from simulator.validation import check_messages_request, is_model
from simulator.wire import VERSION_2023, Json, Refusal, decode_object, encode, now_seconds

_MAX_TOKENS_DEFAULT = 4_096
_FINISH_REASONS = {"max_tokens": "length", "tool_use": "tool_calls"}
_TOOL_CHOICES = {"none": "none", "auto": "auto", "required": "any"}


async def create_chat_completion(state: State, exchange: Exchange) -> None:
    """Answer a chat completion, as JSON or as chunks."""
    chat = decode_object(await exchange.body())
    request = _as_messages(chat)
    check_messages_request(request, version=VERSION_2023)
    prompt = read_prompt(request)
    answer = answer_request(state, request, prompt=prompt, tokens=exchange.faults.tokens)
    is_stream = bool(chat.get("stream"))
    row = Row(
        request_id=exchange.request_id,
        turnpike_request_id=exchange.header(TURNPIKE_REQUEST_ID),
        model=answer.model,
        usage=answer.usage,
        output_characters=0,
        is_stream=is_stream,
    )
    if is_stream:
        has_usage = bool((chat.get("stream_options") or {}).get("include_usage"))
        await exchange.start_stream()
        chunks = _chunks(answer, ident=exchange.request_id, has_usage=has_usage)
        if await write_events(state, exchange, _with_faults(exchange, chunks), row, answer):
            await exchange.end()
        return
    row.usage, row.output_characters = answer.final_usage, answer.output_characters
    state.record.bill(row)
    await exchange.reply(encode(_completion(answer, ident=exchange.request_id)))


def _with_faults(exchange: Exchange, chunks: Iterator[Event]) -> Iterator[Event]:
    """Break a stream off, or fall silent, where the request's orders say."""
    for position, chunk in enumerate(chunks):
        if position == exchange.faults.cut_after_events:
            raise CutShort
        if position == exchange.faults.hang_after_events:
            raise Silence
        yield chunk


def _as_messages(chat: Json) -> Json:
    model, messages = chat.get("model"), chat.get("messages")
    if not isinstance(model, str) or not is_model(model):
        raise Refusal(f"The model `{model}` does not exist", status=404)
    if not isinstance(messages, list) or not messages:
        raise Refusal("messages: at least one message is required")
    system = [_text(m) for m in messages if m.get("role") in ("system", "developer")]
    stop = chat.get("stop") or []
    request: Json = {
        "model": model,
        "max_tokens": chat.get("max_completion_tokens")
        or chat.get("max_tokens")
        or _MAX_TOKENS_DEFAULT,
        "messages": [_message(m) for m in messages if m.get("role") not in ("system", "developer")],
        "stop_sequences": [stop] if isinstance(stop, str) else stop,
        "tools": [_tool(tool) for tool in chat.get("tools") or ()],
        "tool_choice": _tool_choice(chat.get("tool_choice")),
    }
    return {**request, "system": "\n".join(system)} if system else request


def _text(message: Json) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content if part.get("type") == "text")


def _message(message: Json) -> Json:
    role = message.get("role")
    if role == "tool":
        result = {"type": "tool_result", "tool_use_id": message.get("tool_call_id")}
        return {"role": "user", "content": [{**result, "content": _text(message)}]}
    blocks: list[Json] = [{"type": "text", "text": _text(message)}] if _text(message) else []
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        block = {"type": "tool_use", "id": call.get("id"), "name": function.get("name")}
        blocks.append({**block, "input": json.loads(function.get("arguments") or "{}")})
    if isinstance(message.get("content"), list):
        images = [part for part in message["content"] if part.get("type") == "image_url"]
        blocks += [{"type": "image", "source": part["image_url"]} for part in images]
    return {"role": role, "content": blocks or _text(message)}


def _tool(tool: Json) -> Json:
    function: Json = tool.get("function") or {}
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    return {"name": function.get("name"), "input_schema": schema}


def _tool_choice(choice: str | Json | None) -> Json:
    if isinstance(choice, dict):
        return {"type": "tool", "name": (choice.get("function") or {}).get("name")}
    return {"type": _TOOL_CHOICES.get(choice or "auto", "auto")}


def _finish_reason(answer: Answer) -> str:
    return _FINISH_REASONS.get(answer.stop_reason, "stop")


def _shown_text(answer: Answer) -> str:
    return "".join(block["text"] for block in answer.content if block["type"] == "text")


def _calls(answer: Answer) -> list[Json]:
    return [
        {
            "id": block["id"],
            "type": "function",
            "function": {"name": block["name"], "arguments": block_json(block) or "{}"},
        }
        for block in answer.content
        if block["type"] == "tool_use"
    ]


def _usage(answer: Answer) -> Json:
    usage = answer.final_usage
    cached, written = usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]
    prompt_tokens = usage["input_tokens"] + cached + written
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": usage["output_tokens"],
        "total_tokens": prompt_tokens + usage["output_tokens"],
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _completion(answer: Answer, *, ident: str) -> Json:
    message: Json = {"role": "assistant", "content": _shown_text(answer) or None}
    if _calls(answer):
        message["tool_calls"] = _calls(answer)
    return {
        "id": "chatcmpl-" + ident,
        "object": "chat.completion",
        "created": int(now_seconds()),
        "model": answer.model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": _finish_reason(answer),
            }
        ],
        "usage": _usage(answer),
    }


def _chunks(answer: Answer, *, ident: str, has_usage: bool) -> Iterator[Event]:
    head: Json = {
        "id": "chatcmpl-" + ident,
        "object": "chat.completion.chunk",
        "created": int(now_seconds()),
        "model": answer.model,
    }
    tail: Json = {"usage": None} if has_usage else {}

    def chunk(delta: Json, characters: int = 0, finish_reason: str | None = None) -> Event:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        document = {**head, "choices": [choice], **tail}
        return Event(b"data: %s\n\n" % encode(document), characters, finish_reason is not None)

    yield chunk({"role": "assistant", "content": ""})
    text = _shown_text(answer)
    for at in range(0, len(text), CHARACTERS_PER_CHUNK):
        piece = text[at : at + CHARACTERS_PER_CHUNK]
        yield chunk({"content": piece}, len(piece))
    for index, call in enumerate(_calls(answer)):
        arguments = call["function"]["arguments"]
        opened = {"index": index, **call, "function": {**call["function"], "arguments": ""}}
        yield chunk({"tool_calls": [opened]})
        more = {"index": index, "function": {"arguments": arguments}}
        yield chunk({"tool_calls": [more]}, len(arguments))
    yield chunk({}, 0, _finish_reason(answer))
    if has_usage:
        yield Event(b"data: %s\n\n" % encode({**head, "choices": [], "usage": _usage(answer)}))
    yield Event(b"data: [DONE]\n\n")
