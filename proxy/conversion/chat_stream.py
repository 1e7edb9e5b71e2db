"""A stream of Messages events as chat completion chunks; no I/O."""

from typing import Any

import msgspec
from msgspec import UNSET

from proxy.conversion.chat_errors import error_chunk
from proxy.conversion.chat_response import finish_reason_of
from proxy.conversion.chat_shapes import Chunk, ChunkChoice, Delta, Function, ToolCall
from proxy.conversion.usage import chat_usage
from proxy.sse import DONE, Event, EventParser, write_data

# A comment: clients skip it, and whatever watches the connection sees that it lives.
KEEP_ALIVE = b": keep-alive\n\n"
_EMPTY_INPUT = msgspec.Raw(b"{}")
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)


class _Message(msgspec.Struct):
    id: str = ""
    model: str = ""
    usage: dict[str, Any] | None = None


class _Block(msgspec.Struct):
    type: str = ""
    id: str = ""
    name: str = ""
    text: str = ""
    input: msgspec.Raw = _EMPTY_INPUT


class _Delta(msgspec.Struct):
    type: str = ""
    text: str = ""
    partial_json: str = ""
    stop_reason: str | None = None


class _Data(msgspec.Struct):
    """What any event may hold."""

    type: str = ""
    index: int = 0
    message: _Message = msgspec.field(default_factory=_Message)
    content_block: _Block = msgspec.field(default_factory=_Block)
    delta: _Delta = msgspec.field(default_factory=_Delta)
    usage: dict[str, Any] | None = None


_read_data = msgspec.json.Decoder(_Data).decode
_encode = msgspec.json.encode


class ChatStream:
    """Converts one stream. The same bytes give the same chunks, however they are cut."""

    def __init__(self, *, created: int, has_usage_chunk: bool) -> None:
        self._parser = EventParser()
        self._created = created
        self._has_usage_chunk = has_usage_chunk
        self._id = ""
        self._model = ""
        self._usage: dict[str, Any] = {}
        self._tools: dict[int, int] = {}  # block index -> number of the tool call
        self._inputs: dict[int, msgspec.Raw] = {}  # of blocks none of whose pieces came yet
        self._has_finished = False
        self._is_over = False

    def feed(self, chunk: bytes) -> bytes:
        """The chunks that these bytes complete. Raises StreamTooLarge as the parser does."""
        return b"".join([self._convert(event) for event in self._parser.feed(chunk)])

    def _convert(self, event: Event) -> bytes:
        if self._is_over:
            return b""
        if event.name == b"error":
            self._is_over = True
            return error_chunk(event.data)
        try:
            data = _read_data(event.data)
        except _UNREADABLE:
            return b""
        return self._convert_data(event.name.decode("latin-1") or data.type, data, event)

    def _convert_data(self, name: str, data: _Data, event: Event) -> bytes:
        if name == "content_block_delta":
            return self._delta(data)
        if name == "content_block_start":
            return self._start_block(data)
        if name == "content_block_stop":
            return self._stop_block(data.index)
        if name == "message_start":
            return self._start(data.message)
        if name == "message_delta":
            return self._finish(data)
        if name == "message_stop":
            return self._stop()
        if name == "error":
            self._is_over = True
            return error_chunk(event.data)
        return KEEP_ALIVE if name == "ping" else b""

    def _start(self, message: _Message) -> bytes:
        self._id, self._model = message.id, message.model
        self._note(message.usage)
        return self._chunk(Delta(role="assistant", content=""))

    def _start_block(self, data: _Data) -> bytes:
        block = data.content_block
        if block.type == "text":
            return self._chunk(Delta(content=block.text)) if block.text else b""
        if block.type != "tool_use":
            return KEEP_ALIVE
        number = self._tools[data.index] = len(self._tools)
        self._inputs[data.index] = block.input
        call = ToolCall(
            index=number,
            id=block.id,
            type="function",
            function=Function(name=block.name, arguments=""),
        )
        return self._chunk(Delta(tool_calls=[call]))

    def _delta(self, data: _Data) -> bytes:
        delta = data.delta
        if delta.type == "text_delta":
            return self._chunk(Delta(content=delta.text)) if delta.text else b""
        if delta.type == "input_json_delta" and data.index in self._tools:
            if not delta.partial_json:
                return b""
            self._inputs.pop(data.index, None)
            return self._arguments(data.index, delta.partial_json)
        return KEEP_ALIVE

    def _stop_block(self, index: int) -> bytes:
        """A tool none of whose input came has what it began with: clients parse it."""
        whole = self._inputs.pop(index, None)
        return b"" if whole is None else self._arguments(index, bytes(whole).decode())

    def _arguments(self, index: int, piece: str) -> bytes:
        call = ToolCall(index=self._tools[index], function=Function(arguments=piece))
        return self._chunk(Delta(tool_calls=[call]))

    def _finish(self, data: _Data) -> bytes:
        self._note(data.usage)
        if data.delta.stop_reason is None or self._has_finished:
            return b""
        self._has_finished = True
        return self._chunk(Delta(), finish_reason_of(data.delta.stop_reason))

    def _stop(self) -> bytes:
        self._is_over = True
        if not self._has_usage_chunk:
            return DONE
        last = self._base([])
        last.usage = chat_usage(self._usage)
        return write_data(_encode(last)) + DONE

    def _note(self, usage: dict[str, Any] | None) -> None:
        """The last value that is none of null counts."""
        for name, value in (usage or {}).items():
            if value is not None:
                self._usage[name] = value

    def _chunk(self, delta: Delta, finish_reason: str | None = None) -> bytes:
        chunk = self._base([ChunkChoice(delta=delta, finish_reason=finish_reason)])
        return write_data(_encode(chunk))

    def _base(self, choices: list[ChunkChoice]) -> Chunk:
        return Chunk(
            id=self._id,
            object="chat.completion.chunk",
            created=self._created,
            model=self._model,
            choices=choices,
            usage=None if self._has_usage_chunk else UNSET,
        )
