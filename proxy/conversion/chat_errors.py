"""Errors and rate-limit headers as OpenAI's clients expect them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec

from proxy.sse import write_data
from turnpike.kernel import clock

Headers = list[tuple[bytes, bytes]]

SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRow:
    """How one status is said in OpenAI's words."""

    status: int
    error_type: str
    code: str | None


# By Turnpike's own status; docs/conversion.md has the same rows.
ERRORS: Mapping[int, ErrorRow] = {
    400: ErrorRow(status=400, error_type="invalid_request_error", code=None),
    401: ErrorRow(status=401, error_type="invalid_request_error", code="invalid_api_key"),
    402: ErrorRow(status=402, error_type="insufficient_quota", code="insufficient_quota"),
    403: ErrorRow(status=403, error_type="invalid_request_error", code="permission_denied"),
    404: ErrorRow(status=404, error_type="invalid_request_error", code="not_found"),
    405: ErrorRow(status=405, error_type="invalid_request_error", code="method_not_allowed"),
    408: ErrorRow(status=408, error_type="invalid_request_error", code="request_timeout"),
    409: ErrorRow(status=409, error_type="invalid_request_error", code="conflict"),
    413: ErrorRow(status=413, error_type="invalid_request_error", code="request_too_large"),
    429: ErrorRow(status=429, error_type="rate_limit_error", code="rate_limit_exceeded"),
    500: ErrorRow(status=500, error_type="server_error", code="internal_error"),
    504: ErrorRow(status=504, error_type="server_error", code="timeout"),
    # Clients that list the statuses they try again have never heard of 529.
    529: ErrorRow(status=503, error_type="server_error", code="overloaded"),
}
MODEL_NOT_FOUND = "model_not_found"
CONTEXT_TOO_LONG = "context_length_exceeded"
# In a stream the status line is long gone: the type of the event tells.
STATUS_OF_TYPE: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
# Anthropic's words name its own header, and OpenAI's are what some clients look for.
BAD_KEY = "invalid x-api-key"
CHAT_BAD_KEY = "Incorrect API key provided."
_TOO_LONG = ("prompt is too long", "input length and `max_tokens` exceed context limit")
_PATH = re.compile(r"([a-z_][a-z0-9_]*(?:\.[a-z0-9_]+)*): ")

# Ours, and what OpenAI's clients read; the order is that of the answer.
RATE_HEADERS: Mapping[bytes, bytes] = {
    b"anthropic-ratelimit-requests-limit": b"x-ratelimit-limit-requests",
    b"anthropic-ratelimit-requests-remaining": b"x-ratelimit-remaining-requests",
    b"anthropic-ratelimit-requests-reset": b"x-ratelimit-reset-requests",
    b"anthropic-ratelimit-tokens-limit": b"x-ratelimit-limit-tokens",
    b"anthropic-ratelimit-tokens-remaining": b"x-ratelimit-remaining-tokens",
    b"anthropic-ratelimit-tokens-reset": b"x-ratelimit-reset-tokens",
}
_RENAMED: Mapping[bytes, bytes] = {
    b"request-id": b"x-request-id",
    b"anthropic-organization-id": b"openai-organization",
}


class _ErrorBody(msgspec.Struct, kw_only=True):
    message: str
    type: str
    param: str | None
    code: str | None


class _Error(msgspec.Struct, kw_only=True):
    error: _ErrorBody


class _ReadErrorBody(msgspec.Struct, kw_only=True):
    type: str = "api_error"
    message: str = ""


class _ReadError(msgspec.Struct, kw_only=True):
    error: _ReadErrorBody


_read_error = msgspec.json.Decoder(_ReadError).decode


def chat_error(status: int, error_type: str, message: str) -> tuple[int, bytes]:
    """An error of ours as OpenAI's status and body."""
    row = ERRORS.get(status) or ERRORS[500 if status >= 500 else 400]
    is_known = status in ERRORS
    found = _PATH.match(message)
    body = _ErrorBody(
        message=CHAT_BAD_KEY if message == BAD_KEY else message,
        type=row.error_type,
        param=found[1] if found is not None else None,
        code=_code(row, error_type, message),
    )
    return row.status if is_known else status, msgspec.json.encode(_Error(error=body))


def convert_error(status: int, payload: bytes) -> tuple[int, bytes]:
    """An error in Anthropic's shape as OpenAI's status and body."""
    try:
        error = _read_error(payload).error
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        error = _ReadErrorBody(message="The request failed.")
    return chat_error(status, error.type, error.message)


def error_chunk(payload: bytes) -> bytes:
    """An `error` event's data as what OpenAI's streams end with when they end badly."""
    try:
        kind = _read_error(payload).error.type
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        kind = "api_error"
    return write_data(convert_error(STATUS_OF_TYPE.get(kind, 500), payload)[1])


def chat_headers(headers: Iterable[tuple[bytes, bytes]], *, now_us: int) -> Headers:
    """An answer's headers in OpenAI's words: ids, limits, and how long until each is full again."""
    kept: Headers = []
    for name, value in headers:
        known = _RENAMED.get(name) or RATE_HEADERS.get(name)
        if known is None:
            if not name.startswith(b"anthropic-"):
                kept.append((name, value))
        elif name.endswith(b"-reset"):
            kept.append((known, _duration(value, now_us)))
        else:
            kept.append((known, value))
    return kept


def _code(row: ErrorRow, error_type: str, message: str) -> str | None:
    if row.status == 404 and message.startswith("model:"):
        return MODEL_NOT_FOUND
    if error_type == "invalid_request_error" and message.startswith(_TOO_LONG):
        return CONTEXT_TOO_LONG
    return row.code


def _duration(instant: bytes, now_us: int) -> bytes:
    """How long until an instant, as OpenAI writes it: `1s`, `6m0s`."""
    at_us = clock.us_of_datetime(datetime.fromisoformat(instant.decode()))
    seconds = max(0, -(-(at_us - now_us) // SECOND_US))
    minutes, rest = divmod(seconds, 60)
    return b"%dm%ds" % (minutes, rest) if minutes else b"%ds" % rest
