"""What an upstream says of one item, to an outcome: hostile input, kept to what we can store."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec

from billing.models.batches import BatchItem, MessageBatch
from billing.services.batch_content import error_result
from billing.services.batch_results import Outcome
from turnpike.contracts.usage import Attempt
from turnpike.kernel import ids

USAGE_LENGTH_MAX = 65_536
TEXT_LENGTH_MAX = 300
MESSAGE_LENGTH_MAX = 2_000
API_ERROR = "api_error"
UNREADABLE = "The model's answer could not be read. Nothing was charged."


class _Message(msgspec.Struct, frozen=True):
    usage: Any = None
    stop_reason: Any = None


class _Error(msgspec.Struct, frozen=True):
    type: str = API_ERROR
    message: str = ""


class _ErrorBody(msgspec.Struct, frozen=True):
    error: _Error = _Error()


class _Result(msgspec.Struct, frozen=True):
    type: str
    message: msgspec.Raw = msgspec.Raw()
    error: _ErrorBody = _ErrorBody()


_decode_result = msgspec.json.Decoder(_Result).decode
_decode_message = msgspec.json.Decoder(_Message).decode
_decode_error = msgspec.json.Decoder(_ErrorBody).decode


def read_outcome(batch: MessageBatch, number: int, result: bytes, *, attempt: Attempt) -> Outcome:
    """One `result` object of an upstream's results."""
    request_id = ids.derived_uuid7(batch.id, number)
    try:
        result.decode()
        found = _decode_result(result)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return errored(number, API_ERROR, UNREADABLE, request_id=request_id)
    if found.type == BatchItem.State.SUCCEEDED and bytes(found.message):
        return succeeded(number, bytes(found.message), request_id=request_id, attempts=(attempt,))
    if found.type in (BatchItem.State.CANCELED, BatchItem.State.EXPIRED):
        return Outcome(
            number=number, state=found.type, result=b'{"type":"%b"}' % found.type.encode()
        )
    error = found.error.error
    return errored(number, error.type, error.message, request_id=request_id)


def succeeded(
    number: int, message: bytes, *, request_id: UUID, attempts: tuple[Attempt, ...]
) -> Outcome:
    """A whole message; what it used is read from it, the message itself stays as it came."""
    try:
        found = _decode_message(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return errored(number, API_ERROR, UNREADABLE, request_id=request_id)
    usage = _storable(found.usage)
    last = dataclasses.replace(attempts[-1], usage=usage)
    return Outcome(
        number=number,
        state=str(BatchItem.State.SUCCEEDED),
        result=b'{"type":"succeeded","message":%b}' % message,
        usage=usage,
        stop_reason=_text(found.stop_reason),
        attempts=(*attempts[:-1], last),
    )


def errored(number: int, error_type: str, message: str, *, request_id: UUID) -> Outcome:
    """An item that failed; it is free."""
    return Outcome(
        number=number,
        state=str(BatchItem.State.ERRORED),
        result=error_result(
            error_type[:TEXT_LENGTH_MAX], message[:MESSAGE_LENGTH_MAX], request_id=request_id
        ),
    )


def refused(number: int, payload: bytes, *, request_id: UUID) -> Outcome:
    """An item that was answered with an error body."""
    try:
        error = _decode_error(payload).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return errored(number, API_ERROR, UNREADABLE, request_id=request_id)
    return errored(number, error.type, error.message, request_id=request_id)


def _storable(usage: Any) -> Mapping[str, Any]:
    """Usage as it came, where PostgreSQL can keep it; else the numbers in it alone."""
    if not isinstance(usage, dict):
        return {}
    try:
        text = json.dumps(usage, allow_nan=False, ensure_ascii=False)
        text.encode()
        if len(text) <= USAGE_LENGTH_MAX and "\\u0000" not in text:
            return usage
    except (ValueError, RecursionError):
        pass
    return {name: value for name, value in list(usage.items())[:100] if type(value) is int}


def _text(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    return value.encode("utf-8", "replace").decode().replace("\x00", "")[:TEXT_LENGTH_MAX]
