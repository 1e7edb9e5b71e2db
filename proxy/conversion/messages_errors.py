"""An OpenAI-compatible upstream's refusal in the shape of the Messages API."""

from typing import Any

import msgspec

from proxy.responses import error_body

TOO_LONG = "prompt is too long: "
MESSAGE_DEFAULT = "The upstream refused the request."


class _ReadErrorBody(msgspec.Struct, kw_only=True):
    message: str | None = None
    type: str | None = None
    code: Any = None


class _ReadError(msgspec.Struct, kw_only=True):
    error: _ReadErrorBody | str | None = None
    message: str | None = None  # some servers have no object around it
    detail: Any = None


_read_error = msgspec.json.Decoder(_ReadError).decode


def messages_error(status: int, payload: bytes, *, request_id: str) -> bytes:
    """Convert an error's body. Clients that compact on a prompt too long know it by its words."""
    message, code = _words(payload)
    if code == "context_length_exceeded" and not message.startswith(TOO_LONG):
        message = TOO_LONG + message
    return error_body(status, "", message or MESSAGE_DEFAULT, request_id)


def error_words(payload: bytes | msgspec.Raw) -> str:
    """The sentence of an error that came in a stream."""
    return _words(b'{"error":%b}' % bytes(payload))[0] or MESSAGE_DEFAULT


def _words(payload: bytes) -> tuple[str, str]:
    try:
        read = _read_error(payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return "", ""
    if isinstance(read.error, str):
        return read.error, ""
    if read.error is not None:
        return read.error.message or "", str(read.error.code or "")
    detail = read.detail if isinstance(read.detail, str) else ""
    return read.message or detail, ""
