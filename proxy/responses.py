"""Errors in the shape of the API being spoken, answers in two sends, and header allowlists."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from proxy.asgi import Headers, Send
from proxy.http_cycle import cycle_of
from proxy.sse import write_event

_encode = msgspec.json.encode

JSON = b"application/json"
EVENT_STREAM = b"text/event-stream; charset=utf-8"

# What the official SDKs expect for each status.
ERROR_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}

DEFAULT_MESSAGES: Mapping[str, str] = {
    "invalid_request_error": "The request is not valid.",
    "authentication_error": "invalid x-api-key",
    "billing_error": "The credit of this account does not cover the request.",
    "permission_error": "This key may not do that.",
    "not_found_error": "There is nothing at this address.",
    "timeout_error": "The model took too long to answer.",
    "conflict_error": "Another request is changing the same thing.",
    "request_too_large": "The request is larger than this endpoint takes.",
    "rate_limit_error": "A rate limit was reached; the headers say which, and when to try again.",
    "api_error": "Something went wrong on our side.",
    "overloaded_error": "Overloaded; try again shortly.",
}

# Requests going up: this list, and every `anthropic-*` header that is not denied below.
_REQUEST_HEADERS = frozenset(
    (
        b"accept",
        b"content-type",
        b"user-agent",
        b"x-app",
        b"x-claude-code-agent-id",
        b"x-claude-code-parent-agent-id",
        b"x-claude-code-session-id",
    )
)
# They name things of the account whose key goes up, so a tenant must not choose them.
_DENIED_REQUEST_HEADERS = frozenset(
    (
        b"anthropic-user-profile-id",
        b"anthropic-workspace-id",
        b"anthropic-organization-id",
    )
)
# Answers coming down: everything else, ids and rate headers of the shared account too, stays here.
_RESPONSE_HEADERS = frozenset(
    (b"cache-control", b"content-language", b"content-type", b"deprecation", b"sunset")
)
_IDENTITY = (b"accept-encoding", b"identity")

# How an error is written: (status, type, message, request id, details) to bytes. Another API's
# face brings its own.
ErrorWriter = Callable[[int, str, str, str, Mapping[str, Any] | None], bytes]


def error_body(
    status: int,
    error_type: str,
    message: str,
    request_id: str,
    details: Mapping[str, Any] | None = None,
) -> bytes:
    """The JSON body of an error in Anthropic's shape. What is empty takes its status' default."""
    kind = error_type or ERROR_TYPES.get(status, "api_error")
    words = message or DEFAULT_MESSAGES.get(kind, DEFAULT_MESSAGES["api_error"])
    error: dict[str, Any] = {"type": kind, "message": words}
    if details:
        error["details"] = details
    return _encode({"type": "error", "error": error, "request_id": request_id})


def error_event(
    error_type: str,
    message: str,
    request_id: str,
    details: Mapping[str, Any] | None = None,
) -> bytes:
    """The event that ends a stream which cannot go on: the status line has long been sent."""
    return write_event(b"error", error_body(200, error_type, message, request_id, details))


def send_answer(send: Send, status: int, headers: Headers, body: bytes) -> Awaitable[None]:
    """Send a whole answer; its length is added."""
    cycle = cycle_of(send)
    if cycle is None:
        return _send_parts(send, status, headers, body)
    return cycle.answer(status, headers, body)  # our own server takes it in one call


async def _send_parts(send: Send, status: int, headers: Headers, body: bytes) -> None:
    fields = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def send_json(
    send: Send,
    status: int,
    body: bytes,
    *,
    request_id: str,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Send a JSON answer with its request id."""
    await send_answer(
        send,
        status,
        [(b"content-type", JSON), (b"request-id", request_id.encode()), *headers],
        body,
    )


async def send_error(
    send: Send,
    status: int,
    error_type: str,
    message: str,
    *,
    request_id: str,
    headers: Iterable[tuple[bytes, bytes]] = (),
    details: Mapping[str, Any] | None = None,
    write: ErrorWriter = error_body,
) -> None:
    """Send an error in the shape that `write` gives it."""
    body = write(status, error_type, message, request_id, details)
    await send_json(send, status, body, request_id=request_id, headers=headers)


def upstream_request_headers(headers: Mapping[bytes, bytes]) -> Headers:
    """The client's headers that may go upstream; names are lower-case already, as ASGI has them.

    A new list, so that credentials, cookies, `host`, `forwarded*`, hop-by-hop headers and whatever
    `connection` names stay behind, whether we know of them or not.
    """
    kept = [(name, headers[name]) for name in _going_up(tuple(headers))]
    named = headers.get(b"connection", b"")
    if len(named) > len(b"keep-alive"):
        dropped = {item.strip().lower() for item in named.split(b",")}
        kept = [field for field in kept if field[0] not in dropped]
    kept.append(_IDENTITY)
    return kept


@lru_cache(maxsize=256)  # a client sends the same names with each request
def _going_up(names: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(
        name
        for name in names
        if name in _REQUEST_HEADERS
        or (name.startswith(b"anthropic-") and name not in _DENIED_REQUEST_HEADERS)
    )


def upstream_response_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """An upstream's headers that a tenant may see; names are lower-case already."""
    kept = []
    for field in headers:  # no comprehension: to make its function takes as long as all the rest
        if field[0] in _RESPONSE_HEADERS:
            kept.append(field)
    return kept
