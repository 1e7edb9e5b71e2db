"""read_items: the body of a new batch to checked items, without touching the database.

What a batch as a whole needs (a list, ids that tell items apart) refuses the batch. What is wrong
with one item's params makes that item `errored`, as the API has it; it is then free.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from turnpike.contracts.demand import Demand, at_batch_prices, read_demand
from turnpike.contracts.features import NotServed, Wants
from turnpike.kernel.errors import InvalidInput

ITEMS_MAX = 100_000
MODEL_LENGTH_MAX = 256
MAX_TOKENS_MAX = 10_000_000
FIELDS_MAX = 200
# What keeps state elsewhere, is answered piece by piece, or is priced in another way.
FORBIDDEN = ("stream", "speed", "fallbacks", "thread")
CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_EMPTY_LIST = re.compile(rb"\[[ \t\n\r]*\]")


class _Body(msgspec.Struct, frozen=True):
    requests: list[msgspec.Raw]


class _Entry(msgspec.Struct, frozen=True):
    custom_id: str
    params: msgspec.Raw


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One item: what it asks for and can cause, or why it cannot be carried out."""

    number: int
    custom_id: str
    params: bytes
    model: str = ""
    demand: Demand | None = None
    problem: str = ""


class BadItem(ValueError):
    """The item's params cannot be carried out; the message is for the tenant."""


def read_items(body: bytes) -> Iterator[Draft]:
    """The items in their order. Raises InvalidInput, at the latest at the offending item."""
    try:
        entries = _decode_body(body).requests
    except msgspec.ValidationError as error:
        raise InvalidInput("requests: Input should be a valid list", field="requests") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput("The request body is not valid JSON.") from error
    if not entries:
        raise InvalidInput("requests: at least one request is required", field="requests")
    if len(entries) > ITEMS_MAX:
        raise InvalidInput(f"requests: at most {ITEMS_MAX} requests are allowed", field="requests")
    seen: set[str] = set()
    for number, raw in enumerate(entries):
        entry = _entry(raw, number)
        if entry.custom_id in seen:
            raise InvalidInput(f"requests.{number}.custom_id: '{entry.custom_id}' is not unique")
        seen.add(entry.custom_id)
        yield _draft(entry, number)


def with_model(params: bytes, model: str) -> bytes:
    """The params with another name in the place of the model's."""
    fields: dict[str, Any] = dict(_decode_fields(params))
    fields["model"] = msgspec.Raw(_encode(model))
    return _encode(fields)


def _entry(raw: msgspec.Raw, number: int) -> _Entry:
    try:
        entry = _decode_entry(raw)
        bytes(entry.params).decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(
            f"requests.{number}: An object with `custom_id` and `params` is required"
        ) from error
    if not CUSTOM_ID.fullmatch(entry.custom_id):
        raise InvalidInput(
            f"requests.{number}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'"
        )
    if bytes(entry.params)[:1] != b"{":
        raise InvalidInput(f"requests.{number}.params: Input should be an object")
    return entry


def _draft(entry: _Entry, number: int) -> Draft:
    raw = bytes(entry.params)
    try:
        fields = _decode_fields(raw)
        # Written again, so that of a key that came twice the one that was checked is sent.
        params = _encode(fields)
        model, max_tokens = _check(fields)
        demand = at_batch_prices(read_demand(fields, raw=params, max_tokens=max_tokens))
        _refuse_wants(demand.wants)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Draft(number=number, custom_id=entry.custom_id, params=b"", problem="Invalid JSON")
    except (BadItem, NotServed) as error:
        return Draft(number=number, custom_id=entry.custom_id, params=b"", problem=str(error))
    return Draft(
        number=number, custom_id=entry.custom_id, params=params, model=model, demand=demand
    )


def _check(fields: dict[str, msgspec.Raw]) -> tuple[str, int]:
    """What money and routing depend on; everything else is for the upstream to judge."""
    _refuse_many(fields)
    model: str = _field(fields, "model", str, "string")
    if not 0 < len(model) <= MODEL_LENGTH_MAX or "\x00" in model:
        raise BadItem(f"model: String should have 1 to {MODEL_LENGTH_MAX} characters")
    max_tokens: int = _field(fields, "max_tokens", int, "integer")
    if not 1 <= max_tokens <= MAX_TOKENS_MAX:
        raise BadItem(f"max_tokens: Input should be from 1 to {MAX_TOKENS_MAX}")
    if "messages" not in fields:
        raise BadItem("messages: Field required")
    messages = bytes(fields["messages"])
    if messages[:1] != b"[" or _EMPTY_LIST.fullmatch(messages):
        raise BadItem("messages: at least one message is required")
    for name in FORBIDDEN:
        if bytes(fields.get(name, b"null")) not in (b"null", b"false"):
            raise BadItem(f"{name}: Not supported in message batches")
    return model, max_tokens


def _refuse_wants(wants: Wants) -> None:
    """What tenants share upstream, or what costs by another model, needs a request of its own."""
    if wants.features or wants.objects or wants.fallbacks or wants.advisors or wants.names_objects:
        named = ", ".join(sorted(wants.features)) or "objects or models beside its own"
        raise BadItem(f"params: {named}: Not supported in message batches")


def _refuse_many(fields: dict[str, msgspec.Raw]) -> None:
    if len(fields) > FIELDS_MAX:
        raise BadItem(f"params: at most {FIELDS_MAX} fields are accepted")


def _field(fields: dict[str, msgspec.Raw], name: str, kind: Callable[..., Any], word: str) -> Any:
    raw = fields.get(name)
    if raw is None:
        raise BadItem(f"{name}: Field required")
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadItem(f"{name}: Input should be a valid {word}") from error
