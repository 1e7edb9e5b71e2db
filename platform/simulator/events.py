"""Turns an answer into server-sent events, each with what it adds to the bill."""

from collections.abc import Iterator
from typing import NamedTuple

from simulator.answer import Answer, block_json
from simulator.record import tokens_of
from simulator.wire import Json, encode

CHARACTERS_PER_CHUNK = 20
_BAD_JSON = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"del\n\n'


class Event(NamedTuple):
    """One event's bytes, and how many characters of output are billed once it is written."""

    data: bytes
    characters: int = 0
    is_final_usage: bool = False
    is_error: bool = False


def sse(name: str, document: Json) -> bytes:
    """One event as it stands on the wire."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), encode(document))


def events_of(answer: Answer, *, message_id: str, usage_fault: str = "") -> Iterator[Event]:
    """The whole stream of an answer, in the order of the Messages API."""
    yield Event(sse("message_start", _message_start(answer, message_id, usage_fault)))
    for index, block in enumerate(answer.content):
        yield from _block_events(answer, index, block)
        if index == 0:
            yield Event(sse("ping", {"type": "ping"}))
    yield Event(_message_delta(answer, usage_fault), is_final_usage=True)
    if usage_fault == "decreasing":
        # Totals never fall on the real wire; a meter has to survive one that does.
        yield Event(_message_delta(answer, usage_fault, divisor=2))
    yield Event(sse("message_stop", {"type": "message_stop"}))


def broken_event() -> Event:
    """An event whose data is no JSON."""
    return Event(_BAD_JSON)


def error_event(*, error_type: str, message: str, request_id: str) -> Event:
    """The event that ends a stream which has already said 200."""
    error = {"type": error_type, "message": message}
    return Event(
        sse("error", {"type": "error", "error": error, "request_id": request_id}), is_error=True
    )


def message_of(answer: Answer, *, message_id: str, usage_fault: str = "") -> Json:
    """The answer as one JSON document."""
    message = {
        **_message(answer, message_id),
        "content": list(answer.content),
        "stop_reason": answer.stop_reason,
        "stop_sequence": answer.stop_sequence,
        "stop_details": None,
        "usage": _reported(answer.final_usage, usage_fault),
    }
    if usage_fault == "missing":
        del message["usage"]
    return with_container(message, answer)


def with_container(document: Json, answer: Answer) -> Json:
    """With the container in which an answer ran code, if it did."""
    container = None if answer.extras is None else answer.extras.container
    return document if container is None else {**document, "container": container}


def _message(answer: Answer, message_id: str) -> Json:
    return {"id": message_id, "type": "message", "role": "assistant", "model": answer.model}


def _message_start(answer: Answer, message_id: str, usage_fault: str) -> Json:
    message = {
        **_message(answer, message_id),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
        "usage": _reported(answer.usage, usage_fault),
    }
    if usage_fault == "missing":
        del message["usage"]
    return {"type": "message_start", "message": message}


def _message_delta(answer: Answer, usage_fault: str, *, divisor: int = 1) -> bytes:
    final = answer.final_usage
    usage: Json = {"output_tokens": final["output_tokens"] // divisor}
    for name in ("output_tokens_details", "server_tool_use", "iterations"):
        if name in final:
            usage[name] = final[name]
    if "server_tool_use" in final:
        for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"):
            usage[name] = final[name]
    delta = with_container(
        {"stop_reason": answer.stop_reason, "stop_sequence": answer.stop_sequence}, answer
    )
    document: Json = {
        "type": "message_delta",
        "delta": delta,
        "usage": _reported(usage, usage_fault),
    }
    if usage_fault == "missing":
        del document["usage"]
    return sse("message_delta", document)


def _reported(usage: Json, usage_fault: str) -> Json:
    if usage_fault == "negative":
        return {name: -value if isinstance(value, int) else value for name, value in usage.items()}
    if usage_fault == "inflated":
        return {**usage, "output_tokens": usage["output_tokens"] * 10}
    if usage_fault == "unknown":
        odd = {"moon_requests": 3, **(usage.get("server_tool_use") or {})}
        return {**usage, "dream_tokens": 7, "server_tool_use": odd, "service_tier": "platinum"}
    if usage_fault == "priority":
        return {**usage, "service_tier": "priority"}
    return usage


def _block_events(answer: Answer, index: int, block: Json) -> Iterator[Event]:
    yield Event(sse("content_block_start", _start(index, block)))
    if block["type"] == "text":
        for citation in block["citations"] or ():
            yield _delta(index, {"type": "citations_delta", "citation": citation})
        yield from _pieces(index, "text_delta", "text", block["text"])
    elif block["type"] == "thinking":
        yield from _pieces(index, "thinking_delta", "thinking", block["thinking"])
        signed = {"type": "signature_delta", "signature": block["signature"]}
        yield _delta(index, signed, answer.hidden_characters)
    elif block["type"] in {"tool_use", "server_tool_use"}:
        yield _delta(index, {"type": "input_json_delta", "partial_json": ""})
        yield from _pieces(index, "input_json_delta", "partial_json", block_json(block))
    yield Event(
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n' % index
    )


def _start(index: int, block: Json) -> Json:
    empty: dict[str, Json] = {
        "text": {"text": ""},
        "thinking": {"thinking": "", "signature": ""},
        "tool_use": {"input": {}},
        "server_tool_use": {"input": {}},
    }
    shown = {**block, **empty.get(block["type"], {})}
    if shown.get("citations"):
        shown["citations"] = []
    return {"type": "content_block_start", "index": index, "content_block": shown}


def _pieces(index: int, kind: str, name: str, text: str) -> Iterator[Event]:
    head = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,' % index
    head += b'"delta":{"type":"%s","%s":' % (kind.encode(), name.encode())
    for start in range(0, len(text), CHARACTERS_PER_CHUNK):
        piece = text[start : start + CHARACTERS_PER_CHUNK]
        yield Event(head + encode(piece) + b"}}\n\n", len(piece))


def _delta(index: int, delta: Json, characters: int = 0) -> Event:
    document = {"type": "content_block_delta", "index": index, "delta": delta}
    return Event(sse("content_block_delta", document), characters)


def chunk_count(answer: Answer) -> int:
    """About how many chunks the answer takes; a JSON reply waits in proportion."""
    return tokens_of(answer.output_characters) * 4 // CHARACTERS_PER_CHUNK
