"""Reads what money and routing depend on from a body, and leaves every other value as it came.

The top level alone is decoded; values stay the bytes they were. Duplicate keys at the top level are
refused, since parsers disagree about which one counts, and the body that was checked must be the
body that is sent.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from proxy.api_errors import ApiError
from turnpike.contracts.demand import prompt_parts

MAX_TOKENS_MAX = 10_000_000
MODEL_LENGTH_MAX = 256
FIELDS_MAX = 200
# What most bodies consist of.
KNOWN_FIELDS = (
    *("model", "messages", "max_tokens", "stream", "system", "tools", "tool_choice", "metadata"),
    *("temperature", "top_p", "top_k", "stop_sequences", "thinking", "output_config"),
    *("service_tier", "betas", "context_management", "container", "mcp_servers"),
)

# How a list of objects begins, and any list; an empty one ends there too.
_OBJECTS = b"[{"
_LIST = re.compile(rb"\[[ \t\n\r]*(\])?")

_decode_top = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_read_text = msgspec.json.Decoder(str).decode
_read_number = msgspec.json.Decoder(int).decode
_read_flag = msgspec.json.Decoder(bool).decode


class _Widths(dict[str, int]):
    """How long names are as JSON: the API's own are known, others are looked at each time."""

    def __missing__(self, name: str) -> int:
        return len(_encode(name))


_width = _Widths({name: len(_encode(name)) for name in KNOWN_FIELDS}).__getitem__


class MessagesBody(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A checked body of /v1/messages or count_tokens."""

    raw: bytes
    fields: Mapping[str, msgspec.Raw]
    model: str
    max_tokens: int
    is_stream: bool
    is_verbatim: bool  # the bytes are a compact object, so they may be sent as they came

    def parts(self) -> list[bytes]:
        """The bytes that become input tokens."""
        return prompt_parts(self.fields)

    def to_upstream(self, model: str) -> bytes:
        """The body to send: the very bytes, or the top level written again around the values'."""
        if self.is_verbatim and model == self.model:
            return self.raw
        members = (
            b"%b:%b" % (_encode(name), _encode(model) if name == "model" else bytes(value))
            for name, value in self.fields.items()
        )
        return b"{" + b",".join(members) + b"}"


def read_messages_body(raw: bytes, *, is_counting: bool = False) -> MessagesBody:
    """Check a body. Raises ApiError 400 in the API's own style."""
    fields, is_verbatim = _top_level(raw)
    model: str = _field(fields, "model", _read_text, "string")
    if not model or len(model) > MODEL_LENGTH_MAX:
        raise _invalid(f"model: String should have 1 to {MODEL_LENGTH_MAX} characters")
    max_tokens = 0
    if not is_counting:
        max_tokens = _field(fields, "max_tokens", _read_number, "integer")
        if max_tokens < 0:
            raise _invalid("max_tokens: Input should be greater than or equal to 0")
        if max_tokens > MAX_TOKENS_MAX:
            raise _invalid(f"max_tokens: Input should be less than or equal to {MAX_TOKENS_MAX}")
    _check_messages(fields)
    has_stream = not is_counting and "stream" in fields
    is_stream = has_stream and _field(fields, "stream", _read_flag, "boolean")
    return MessagesBody(
        raw=raw,
        fields=fields,
        model=model,
        max_tokens=max_tokens,
        is_stream=bool(is_stream),
        is_verbatim=is_verbatim,
    )


def _top_level(raw: bytes) -> tuple[Mapping[str, msgspec.Raw], bool]:
    try:
        if not raw.isascii():
            raw.decode()
        fields = _decode_top(raw)
    except msgspec.ValidationError as error:
        raise _invalid("Request body: Input should be an object") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _invalid(f"The request body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise _invalid("The request body is nested too deeply") from error
    # A compact object without a duplicate is exactly as long as its members put together.
    if len(fields) > FIELDS_MAX:
        raise _invalid(f"Request body: at most {FIELDS_MAX} fields are accepted")
    length = 1 + 2 * len(fields) + sum(map(_width, fields)) + sum(map(len, fields.values()))
    if fields and length == len(raw):
        return fields, True
    _refuse_duplicates(raw)
    return fields, False


def _refuse_duplicates(raw: bytes) -> None:
    last: list[Sequence[tuple[str, Any]]] = [()]

    def keep(pairs: list[tuple[str, Any]]) -> None:
        last[0] = pairs  # objects close from the inside out: the last one is the outermost

    try:
        json.loads(raw, object_pairs_hook=keep)
    except RecursionError as error:
        raise _invalid("The request body is nested too deeply") from error
    except ValueError as error:
        raise _invalid(f"The request body is not valid JSON: {error}") from error
    seen: set[str] = set()
    for name, _ in last[0]:
        if name in seen:
            raise _invalid(f"{name[:80]}: Duplicate key")
        seen.add(name)


def _field(
    fields: Mapping[str, msgspec.Raw], name: str, read: Callable[[msgspec.Raw], Any], word: str
) -> Any:
    raw = fields.get(name)
    if raw is None:
        raise _invalid(f"{name}: Field required")
    try:
        return read(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _invalid(f"{name}: Input should be a valid {word}") from error


def _check_messages(fields: Mapping[str, msgspec.Raw]) -> None:
    raw = fields.get("messages")
    if raw is None:
        raise _invalid("messages: Field required")
    start = memoryview(raw)[:2]
    if start == _OBJECTS:
        return  # as nearly always, and for half of what an expression costs
    begun = _LIST.match(raw)
    if begun is None:
        raise _invalid("messages: Input should be a valid list")
    if begun[1]:
        raise _invalid("messages: at least one message is required")


def _invalid(message: str) -> ApiError:
    return ApiError(400, "invalid_request_error", message)
