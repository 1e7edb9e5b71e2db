"""Counts what a response used while its bytes go by; no I/O.

A stream's usage is cumulative: the last value of each counter counts, never a sum. Values that no
honest upstream sends (negative, falling, of a wrong type) are left out, the highest sane one stays,
and a flag tells that this happened.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from proxy.plain_usage import PlainUsage, read_plain, usage_as_read
from proxy.sse import Event, EventParser
from proxy.usage_totals import COUNT_MAX, FLAG_INVALID, merge_usage
from turnpike.contracts import rating

CHARACTERS_RATIO = 0.25

FLAG_MALFORMED_EVENT = "malformed_event"
FLAG_MALFORMED_ANSWER = "malformed_answer"
FLAG_MISSING = "usage_missing"
FLAG_SECOND_START = "second_message_start"

# More than this is no usage; it would be written down again with every chunk.
USAGE_BYTES_MAX = 64 * 1024
_NULL = msgspec.Raw(b"null")
_NO_FLAGS: frozenset[str] = frozenset()


class _DeltaBody(msgspec.Struct, gc=False):
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    content: str | None = None
    estimated_tokens: int | None = None


class _BlockDelta(msgspec.Struct, gc=False):
    delta: _DeltaBody


class _Block(msgspec.Struct):
    text: str | None = None
    thinking: str | None = None


class _BlockStart(msgspec.Struct):
    content_block: _Block


class _Message(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    usage: msgspec.Raw = _NULL


class _MessageStart(msgspec.Struct):
    message: _Message


class _Stop(msgspec.Struct):
    stop_reason: str | None = None


class _MessageDelta(msgspec.Struct):
    delta: _Stop = msgspec.field(default_factory=_Stop)
    usage: msgspec.Raw = _NULL


class _ErrorBody(msgspec.Struct):
    type: str = "api_error"
    message: str = ""


class _Error(msgspec.Struct):
    error: _ErrorBody


class _Typed(msgspec.Struct):
    type: str = ""


class _Answer(msgspec.Struct, gc=False):
    type: str | None = None
    id: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    usage: msgspec.Raw = _NULL
    content: msgspec.Raw = msgspec.Raw(b"[]")


_read_delta = msgspec.json.Decoder(_BlockDelta).decode
_read_block = msgspec.json.Decoder(_BlockStart).decode
_read_start = msgspec.json.Decoder(_MessageStart).decode
_read_end = msgspec.json.Decoder(_MessageDelta).decode
_read_error = msgspec.json.Decoder(_Error).decode
_read_typed = msgspec.json.Decoder(_Typed).decode
_read_usage = msgspec.json.Decoder(dict[str, Any] | None).decode
_read_answer = msgspec.json.Decoder(_Answer).decode
_UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorEvent:
    """What an upstream says when it gives up in mid-stream."""

    error_type: str
    message: str


class AnswerMeter(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a JSON answer says about itself. `is_reported`: its usage can be relied on."""

    usage: Mapping[str, Any] = {}
    stop_reason: str | None = None
    model: str | None = None
    message_id: str | None = None
    output_chars: int = 0
    flags: frozenset[str] = frozenset()
    counts: Mapping[str, int] | None = None  # what is billed, where the usage is a plain one

    @property
    def is_reported(self) -> bool:
        """Whether this is a message with a sane count of its output."""
        return not self.flags or not self.flags & {FLAG_MISSING, FLAG_MALFORMED_ANSWER}

    def observed_usage(
        self, *, max_tokens: int | None, ratio: float = CHARACTERS_RATIO
    ) -> dict[str, Any]:
        """The usage, with the output estimated from what can be seen where it is not reported."""
        if self.is_reported:
            return dict(self.usage)
        return _with_output(self.usage, math.ceil(self.output_chars * ratio), max_tokens)


class StreamMeter:
    """Reads the usage out of a Messages stream whose chunks may be cut anywhere.

    `usage` holds the upstream's own last sane values. `version` rises when `usage` or
    `output_chars` changed, `usage_version` when `usage` did.
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        ratio: float = CHARACTERS_RATIO,
        *,
        is_input_estimated: bool = False,
    ) -> None:
        self.usage: dict[str, Any] = {}
        self.output_chars = 0
        self.estimated_thinking_tokens = 0
        self.model: str | None = None
        self.message_id: str | None = None
        self.stop_reason: str | None = None
        self.has_started = False
        self.is_complete = False
        self.error_event: ErrorEvent | None = None
        self.flags: set[str] = set()
        self.version = 0
        self.usage_version = 0
        self._max_tokens = max_tokens
        self._ratio = ratio
        self._is_input_estimated = is_input_estimated
        self._thinking_chars = 0
        self._has_final_output = False
        self._parser = EventParser()

    @property
    def is_final(self) -> bool:
        """Whether the message ended: its stop was seen, or at least its reason to stop."""
        return self.has_started and (self.is_complete or self.stop_reason is not None)

    @property
    def is_reported(self) -> bool:
        """Whether `usage` is the upstream's own final word, and a sane one."""
        return self.is_final and self._has_final_output and not _lacks_counts(self.usage)

    def feed(self, chunk: bytes) -> None:
        """Read on. Never fails on what an event holds; raises StreamTooLarge as the parser does."""
        for event in self._parser.feed(chunk):
            try:
                if event.name == b"content_block_delta":
                    self._add(_read_delta(event.data).delta)
                else:
                    self._read(event)
            except _UNREADABLE:
                self._read_leniently(event)

    def observed_usage(self) -> dict[str, Any]:
        """What was used as far as anyone can tell; for cut streams the output is estimated.

        The estimate is the highest of what was reported and what was seen, at most `max_tokens`.
        Empty before the message began: nothing is billed then.
        """
        if not self.has_started:
            return {}
        if self.is_reported:
            return dict(self.usage)
        thinking = max(self._thinking_chars * self._ratio, self.estimated_thinking_tokens)
        seen = (self.output_chars - self._thinking_chars) * self._ratio + thinking
        return _with_output(self.usage, math.ceil(seen), self._max_tokens)

    def _add(self, delta: _DeltaBody) -> None:
        size = len(delta.text or "") + len(delta.partial_json or "") + len(delta.content or "")
        if delta.thinking:
            self._thinking_chars += len(delta.thinking)
            size += len(delta.thinking)
        if delta.estimated_tokens is not None and 0 < delta.estimated_tokens <= COUNT_MAX:
            self.estimated_thinking_tokens += delta.estimated_tokens
            self.version += 1
        if size:
            self.output_chars += size
            self.version += 1

    def _read(self, event: Event) -> None:
        # A stream without event lines still says in its data what each event is.
        name = event.name.decode() or _read_typed(event.data).type
        if name == "content_block_delta":
            self._add(_read_delta(event.data).delta)
        elif name == "content_block_start":
            block = _read_block(event.data).content_block
            self._add(_DeltaBody(text=block.text, thinking=block.thinking))
        elif name == "message_start":
            self._start(_read_start(event.data).message)
        elif name == "message_delta":
            self._end(_read_end(event.data))
        elif name == "message_stop":
            self.is_complete = self.has_started
        elif name == "error":
            error = _read_error(event.data).error
            self.error_event = ErrorEvent(error_type=error.type, message=error.message)

    def _start(self, message: _Message) -> None:
        if self.has_started:
            self.flags.add(FLAG_SECOND_START)
        self.has_started = True
        self.model = message.model or self.model
        self.message_id = message.id or self.message_id
        self._merge(_usage_of(message.usage, self.flags))
        if _lacks_counts(self.usage):
            self.flags.add(FLAG_MISSING)
        self.version += 1

    def _end(self, message: _MessageDelta) -> None:
        self.stop_reason = message.delta.stop_reason or self.stop_reason
        news = _usage_of(message.usage, self.flags)
        if self._is_input_estimated and news:
            # A guess stood there until now, and the truth may be lower.
            self.usage.pop("input_tokens", None)
            self._is_input_estimated = False
        self._merge(news)
        reported = news.get("output_tokens")
        if reported is not None:
            # Not so where the value was refused: then a better one stayed, or none.
            self._has_final_output = self.usage.get("output_tokens") == reported
        elif self.stop_reason is not None and not self._has_final_output:
            self.flags.add(FLAG_MISSING)

    def _merge(self, news: Mapping[str, Any]) -> None:
        if merge_usage(self.usage, news, self.flags):
            self.usage_version += 1
            self.version += 1

    def _read_leniently(self, event: Event) -> None:
        """What the typed reader refused: count its text if there is any, and flag it."""
        self.flags.add(FLAG_MALFORMED_EVENT)
        if event.name == b"error":
            self.error_event = ErrorEvent(error_type="api_error", message="")
        if event.name != b"content_block_delta":
            return
        try:
            delta = json.loads(event.data)["delta"]
            texts = [delta.get(name) for name in ("text", "partial_json", "thinking")]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return
        self._add(_DeltaBody(text="".join(text for text in texts if isinstance(text, str))))


def meter_answer(body: bytes) -> AnswerMeter:
    """Read what a JSON answer used. Never fails: flags tell what was wrong with it."""
    try:
        answer = _read_answer(body)
    except _UNREADABLE:
        return AnswerMeter(flags=frozenset((FLAG_MALFORMED_ANSWER,)))
    flags: set[str] = set()
    if answer.type != "message":
        flags.add(FLAG_MALFORMED_ANSWER)
    usage, counts = _first_usage(answer.usage, flags)
    is_missing = counts is None and _lacks_counts(usage)
    if is_missing:
        flags.add(FLAG_MISSING)
    return AnswerMeter(
        usage=usage,
        stop_reason=answer.stop_reason,
        model=answer.model,
        message_id=answer.id,
        output_chars=_chars_of(answer.content) if is_missing else 0,
        flags=frozenset(flags) if flags else _NO_FLAGS,
        counts=counts,
    )


def _first_usage(
    raw: msgspec.Raw, flags: set[str]
) -> tuple[Mapping[str, Any], Mapping[str, int] | None]:
    """The usage of a whole answer; the decoder checks its usual shape at a third of the price."""
    try:
        plain = read_plain(raw)
    except _UNREADABLE:
        usage: dict[str, Any] = {}
        merge_usage(usage, _usage_of(raw, flags), flags)
        return usage, None
    return usage_as_read(raw, plain), _counts_of(plain)


def _counts_of(plain: PlainUsage) -> Mapping[str, int] | None:
    """What is billed by a plain usage; None where rating has to look at it more closely."""
    if plain.server_tool_use or plain.speed or plain.inference_geo or plain.service_tier == "batch":
        return None
    split = plain.cache_creation
    return rating.plain_counts(
        input_tokens=plain.input_tokens,
        output_tokens=plain.output_tokens,
        cache_creation=plain.cache_creation_input_tokens or 0,
        five_minutes=split.ephemeral_5m_input_tokens if split is not None else 0,
        one_hour=split.ephemeral_1h_input_tokens if split is not None else 0,
        cache_read=plain.cache_read_input_tokens or 0,
    )


def _lacks_counts(usage: Mapping[str, Any]) -> bool:
    return usage.get("input_tokens") is None or usage.get("output_tokens") is None


def _usage_of(raw: msgspec.Raw, flags: set[str]) -> Mapping[str, Any]:
    """The usage object, or an empty one where there is none that can be one."""
    try:
        usage = _read_usage(raw) if len(bytes(raw)) <= USAGE_BYTES_MAX else None
    except _UNREADABLE:
        usage = None
    if usage is None and bytes(raw) != b"null":
        flags.add(FLAG_INVALID)
    return usage or {}


def _with_output(usage: Mapping[str, Any], estimate: int, max_tokens: int | None) -> dict[str, Any]:
    output = max(usage.get("output_tokens") or 0, estimate)
    if max_tokens is not None:
        output = min(output, max_tokens)
    return {**usage, "output_tokens": output}


def _chars_of(content: msgspec.Raw) -> int:
    """The characters of an answer's blocks: text, thinking, and the input of tools as JSON."""
    try:
        blocks = json.loads(bytes(content))
    except (ValueError, RecursionError):
        return 0
    total = 0
    for block in blocks if isinstance(blocks, list) else []:
        if not isinstance(block, dict):
            continue
        for name in ("text", "thinking"):
            text = block.get(name)
            total += len(text) if isinstance(text, str) else 0
        if block.get("type") in ("tool_use", "server_tool_use"):
            total += len(json.dumps(block.get("input"), separators=(",", ":")))
    return total
