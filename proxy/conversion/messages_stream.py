"""A stream of chat completion chunks as Messages events; no I/O.

Blocks of Messages stand strictly one after another, calls of a chat completion may come mixed: one
block is open at a time, and what belongs to others waits until the answer is complete.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from proxy.conversion.chat_shapes import ReadAnswer, ReadChoice, ReadMessage, ReadToolCall
from proxy.conversion.messages_errors import error_words
from proxy.conversion.messages_response import stop_reason_of, tool_id_of
from proxy.conversion.messages_shapes import Message, Text, ToolUse, Usage
from proxy.conversion.usage import estimated_usage, messages_usage, read_chat_usage
from proxy.responses import error_event
from proxy.sse import PING, Event, EventParser, write_event

DONE_DATA = b"[DONE]"
BLOCKS_MAX = 1_000
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
_NULL = b"null"

_read_chunk = msgspec.json.Decoder(ReadAnswer).decode
_encode = msgspec.json.encode


@dataclass(slots=True, kw_only=True)
class _Block:
    """A block that is open or waits. `number` counts tool calls; text has none."""

    number: int | None = None
    call_id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)


class MessagesStream:
    """Converts one stream. The same bytes give the same events, however they are cut.

    `is_estimated`: the upstream never said what it used.
    """

    def __init__(
        self, *, message_id: str, model: str, input_estimate: int, request_id: str
    ) -> None:
        self.is_estimated = True
        self._parser = EventParser()
        self._message_id = message_id
        self._model = model
        self._request_id = request_id
        self._input_estimate = input_estimate
        self._characters = 0
        self._usage: Usage | None = None
        self._finish_reason: str | None = None
        self._has_started = False
        self._has_refused = False
        self._is_over = False
        self._open: _Block | None = None
        self._waiting: list[_Block] = []
        self._calls: dict[int, _Block] = {}
        self._next_index = 0

    def feed(self, chunk: bytes) -> bytes:
        """The events that these bytes complete. Raises StreamTooLarge as the parser does."""
        return b"".join(
            [piece for event in self._parser.feed(chunk) for piece in self._convert(event)]
        )

    def finish(self) -> bytes:
        """The upstream's stream ended: what is left to say. Nothing where it was cut off."""
        is_complete = self._finish_reason is not None and not self._is_over
        return b"".join(self._end()) if is_complete else b""

    def _convert(self, event: Event) -> Iterable[bytes]:
        if self._is_over:
            return
        if event.data == DONE_DATA:
            yield from self._end()
            return
        try:
            chunk = _read_chunk(event.data)
        except _UNREADABLE:
            return
        if bytes(chunk.error) != _NULL:
            self._is_over = True
            yield error_event("api_error", error_words(chunk.error), self._request_id)
            return
        yield from self._start(chunk.model)
        if bytes(chunk.usage) != _NULL:
            self._note_usage(chunk.usage)
        for choice in chunk.choices or ():
            if choice.index == 0:
                yield from self._choose(choice)

    def _note_usage(self, raw: msgspec.Raw) -> None:
        usage = read_chat_usage(raw)
        if usage is not None:
            self._usage, self.is_estimated = messages_usage(usage), False

    def _start(self, model: str | None) -> Iterable[bytes]:
        if self._has_started:
            return
        self._has_started = True
        message = Message(
            id=self._message_id,
            model=model or self._model,
            content=[],
            usage=Usage(input_tokens=self._input_estimate, output_tokens=0),
        )
        yield _event("message_start", message=message)

    def _choose(self, choice: ReadChoice) -> Iterable[bytes]:
        delta = choice.delta
        if delta is not None:
            yield from self._add(delta)
        if choice.finish_reason is not None and self._finish_reason is None:
            self._finish_reason = choice.finish_reason
            yield from self._flush()

    def _add(self, delta: ReadMessage) -> Iterable[bytes]:
        reasoning = delta.reasoning_content or delta.reasoning
        if reasoning:
            # Thinking without a signature would be refused when a client sends it back.
            self._characters += len(reasoning)
            yield PING
        for text in (delta.content, delta.refusal):
            if text:
                yield from self._say(text)
        self._has_refused = self._has_refused or bool(delta.refusal)
        for call in delta.tool_calls or ():
            yield from self._call(call)
        if delta.function_call is not None:
            yield from self._call(ReadToolCall(index=0, function=delta.function_call))

    def _say(self, text: str) -> Iterable[bytes]:
        self._characters += len(text)
        block = self._open
        if block is not None and block.number is not None:
            self._wait_with_text(text)
            return
        if block is None:
            self._open = _Block()
            yield self._begin(Text(text=""))
        yield self._piece("text_delta", text=text)

    def _wait_with_text(self, text: str) -> None:
        last = self._waiting[-1] if self._waiting else None
        if last is None or last.number is not None:
            last = _Block()
            self._wait(last)
        last.pieces.append(text)

    def _wait(self, block: _Block) -> None:
        if len(self._waiting) < BLOCKS_MAX:
            self._waiting.append(block)

    def _call(self, call: ReadToolCall) -> Iterable[bytes]:
        block = self._block_of(call)
        block.call_id = block.call_id or call.id or ""
        block.name = block.name or call.function.name or ""
        piece = call.function.arguments or ""
        self._characters += len(piece)
        if block is not self._open and self._may_open(block):
            yield from self._close()
            self._waiting.remove(block)
            yield from self._show(block)
        if block is not self._open:
            block.pieces.append(piece)
        elif piece:
            yield self._piece("input_json_delta", partial_json=piece)

    def _may_open(self, block: _Block) -> bool:
        """Whether a new call may be shown at once: it has a name, and only text is before it."""
        is_first = bool(self._waiting) and self._waiting[0] is block
        return is_first and bool(block.name) and (self._open is None or self._open.number is None)

    def _block_of(self, call: ReadToolCall) -> _Block:
        index = call.index
        if index is None:
            # Servers that count no calls send each whole, or go on with the last one.
            known = [n for n, block in self._calls.items() if call.id in (None, block.call_id)]
            index = known[-1] if known else len(self._calls)
        block = self._calls.get(index)
        if block is None:
            block = self._calls[index] = _Block(number=len(self._calls))
            self._wait(block)
        return block

    def _flush(self) -> Iterable[bytes]:
        """The answer is complete: close what is open, and show what waits in its order."""
        yield from self._close()
        waiting, self._waiting = self._waiting, []
        for block in waiting:
            yield from self._show(block)
            yield from self._close()

    def _show(self, block: _Block) -> Iterable[bytes]:
        self._open = block
        if block.number is None:
            yield self._begin(Text(text=""))
            yield self._piece("text_delta", text="".join(block.pieces))
            return
        call_id = block.call_id or tool_id_of(self._message_id, block.number)
        yield self._begin(ToolUse(id=call_id, name=block.name, input=msgspec.Raw(b"{}")))
        if any(block.pieces):
            yield self._piece("input_json_delta", partial_json="".join(block.pieces))

    def _begin(self, block: Text | ToolUse) -> bytes:
        return _event("content_block_start", index=self._next_index, content_block=block)

    def _piece(self, kind: str, **values: str) -> bytes:
        delta = {"type": kind, **values}
        return _event("content_block_delta", index=self._next_index, delta=delta)

    def _close(self) -> Iterable[bytes]:
        if self._open is None:
            return
        self._open = None
        yield _event("content_block_stop", index=self._next_index)
        self._next_index += 1

    def _end(self) -> Iterable[bytes]:
        self._is_over = True
        yield from self._start(None)
        yield from self._flush()
        usage = self._usage or estimated_usage(
            input_estimate=self._input_estimate, output_characters=self._characters
        )
        reason = stop_reason_of(
            self._finish_reason, has_tools=bool(self._calls), is_refusal=self._has_refused
        )
        delta = {"stop_reason": reason, "stop_sequence": None}
        yield _event("message_delta", delta=delta, usage=usage)
        yield _event("message_stop")


def _event(name: str, **values: Any) -> bytes:
    return write_event(name.encode(), _encode({"type": name, **values}))
