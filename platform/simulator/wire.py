"""The small words of the wire: JSON, ids, and errors in the shape of the API being spoken."""

import itertools
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
VERSION_2023 = "2023-06-01"
VERSION_2026 = "2026-10-21"
VERSIONS = frozenset({VERSION_2023, VERSION_2026})

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
ERROR_MESSAGES = {
    401: "invalid x-api-key",
    429: "This request would exceed the rate limit of your organization.",
    500: "Internal server error",
    504: "The request took too long.",
    529: "Overloaded",
}

Json = dict[str, Any]

# Compact, as the real API writes it; str keys keep the order in which they were put.
encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Refusal(Exception):
    """The simulator declines a request; nothing is billed."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        error_type: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.error_type = error_type or ERROR_TYPES.get(status, "api_error")
        self.headers = headers


def decode_object(body: bytes) -> Json:
    """The JSON object of a request's body. Raises Refusal for anything else."""
    try:
        value = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(f"The request body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise Refusal("The request body must be a JSON object.")
    return value


class IdSource:
    """Makes ids that look like the real ones and never repeat in the life of the process."""

    def __init__(self) -> None:
        self._head = "".join(secrets.choice(ALPHABET) for _ in range(15))
        self._count = itertools.count(secrets.randbelow(58**3))

    def next(self, prefix: str) -> str:
        """For example ``req_01`` and 22 characters."""
        number, tail = next(self._count), ""
        for _ in range(7):
            number, digit = divmod(number, 58)
            tail = ALPHABET[digit] + tail
        return f"{prefix}_01{self._head}{tail}"


def base58_of(number: int, *, length: int) -> str:
    """The last `length` digits of a number, so that ids in an answer follow from its request."""
    characters = []
    for _ in range(length):
        number, digit = divmod(number, 58)
        characters.append(ALPHABET[digit])
    return "".join(characters)


def anthropic_error(*, error_type: str, message: str, request_id: str) -> bytes:
    """The body of a refusal on the Messages API."""
    error = {"type": error_type, "message": message}
    return encode({"type": "error", "error": error, "request_id": request_id})


def openai_error(*, error_type: str, message: str) -> bytes:
    """The body of a refusal on the chat completions API."""
    code = "model_not_found" if error_type == "not_found_error" else error_type
    return encode({"error": {"message": message, "type": error_type, "param": None, "code": code}})


def now_seconds() -> float:
    """Seconds since 1970."""
    return time.time_ns() / 1_000_000_000


def timestamp(at_seconds: float) -> str:
    """RFC 3339 in UTC, with microseconds."""
    return (EPOCH + timedelta(microseconds=round(at_seconds * 1_000_000))).strftime(
        "%Y-%m-%dT%H:%M:%S.%fZ"
    )
