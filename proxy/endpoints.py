"""Which path and method does what; reads requests, and turns refusals into answers."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from urllib.parse import unquote

from proxy.admission import Admitter, Ask
from proxy.api_errors import ApiError
from proxy.asgi import Receive, Scope, Send
from proxy.auth import client_address
from proxy.batch_items import HEADER as TICKET_HEADER
from proxy.batch_items import BatchItems
from proxy.body import read_messages_body
from proxy.chat_face import ChatFace
from proxy.config import MIB, ProxyConfig
from proxy.conversion.chat_models import with_chat_fields
from proxy.counting import Counter
from proxy.http_cycle import BODY_IN_SCOPE
from proxy.http_protocol import HEADERS_IN_SCOPE, MEMO_IN_SCOPE
from proxy.idempotency import HEADER, Claim, Idempotency, fingerprint_of
from proxy.metrics import METRICS
from proxy.models_api import get_model, list_models, list_models_of_both
from proxy.pipeline import Pipeline
from proxy.responses import error_body, send_answer
from proxy.snapshots import View
from turnpike.contracts.snapshots import SCOPE_MESSAGES, SCOPE_MODELS
from turnpike.kernel import clock, ids

logger = logging.getLogger(__name__)

BODY_SECONDS = 30.0
BODY_BYTES_PER_SECOND_MIN = 64 * 1024
JSON_TYPE = (b"content-type", b"application/json")
CHAT_PATH = "/v1/chat/completions"
MODELS_PATH = "/v1/models"
MESSAGES_PATH = "/v1/messages"
POST_PATHS = frozenset((MESSAGES_PATH, "/v1/messages/count_tokens"))
NAMED_PATHS = POST_PATHS | {CHAT_PATH, MODELS_PATH}


Run = Callable[[Send], Awaitable[None]]


class ClientGone(Exception):
    """The client hung up before its request was complete."""


class Endpoints:
    """The data plane's API."""

    def __init__(
        self,
        *,
        config: ProxyConfig,
        admitter: Admitter,
        pipeline: Pipeline,
        counter: Counter,
        idempotency: Idempotency,
        batch_items: BatchItems,
    ) -> None:
        self._idempotency = idempotency
        self._config = config
        self._admitter = admitter
        self._pipeline = pipeline
        self._counter = counter
        self._batch_items = batch_items

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Every answer has a request id, in header and error body."""
        path, method = scope["path"], scope["method"]
        if path == "/api/hello" or path == "/":
            await send_answer(
                send, 200, [(b"content-type", b"text/plain")], b"" if method == "HEAD" else b"ok"
            )
            return
        ask = self._ask(scope)
        if path == CHAT_PATH:
            send = ChatFace(send)
        status = 200
        try:
            await self._dispatch(path, method, ask, scope, receive, send)
        except ApiError as error:
            status = error.status
            METRICS.refusals.labels(error.reason.partition(":")[0]).inc()
            await send_error(send, error, ask.request_id)
        except ClientGone:
            METRICS.clients_gone.inc()
        except Exception:
            status = 500
            logger.exception("request.failed", extra={"request_id": ask.request_id})
            # Refused by the server when the answer has begun; it then closes the connection.
            await send_error(send, _internal(), ask.request_id)
        name = path if path in NAMED_PATHS else "other"
        METRICS.note_request(name, status, clock.monotonic_seconds() - ask.begun_at)

    def _dispatch(
        self, path: str, method: str, ask: Ask, scope: Scope, receive: Receive, send: Send
    ) -> Awaitable[None]:
        if path in POST_PATHS:
            _require(method, "POST")
            return self._post(path, ask, scope, receive, send)
        if isinstance(send, ChatFace):
            _require(method, "POST")
            return self._chat(ask, scope, receive, send)
        if path == MODELS_PATH or path.startswith(MODELS_PATH + "/"):
            _require(method, "GET")
            return self._models(path, ask, scope, send)
        raise ApiError(404, "not_found_error", f"There is nothing at {path[:200]}.")

    def _post(
        self, path: str, ask: Ask, scope: Scope, receive: Receive, send: Send
    ) -> Awaitable[None]:
        """Go on at once where the key is known and the body is there."""
        if TICKET_HEADER in ask.headers and path == MESSAGES_PATH:
            return self._batch_item(ask, scope, receive, send)
        view = self._admitter.known(ask)
        if view is not None:
            _require_version(ask)
            raw = self._body(ask, scope)
            if raw:
                return self._take(path, ask, view, raw, receive, send)
        return self._post_later(path, ask, view, scope, receive, send)

    async def _post_later(
        self, path: str, ask: Ask, view: View | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if view is None:
            view = await self._admitter.authenticate(ask)
        _require_version(ask)
        raw = self._body(ask, scope) or await self._read_body(ask.headers, receive)
        await self._take(path, ask, view, raw, receive, send)

    def _take(
        self, path: str, ask: Ask, view: View, raw: bytes, receive: Receive, send: Send
    ) -> Awaitable[None]:
        if path != MESSAGES_PATH:
            body = read_messages_body(raw, is_counting=True)
            return self._counter.count_tokens(ask, view, body, send)
        body = read_messages_body(raw)
        if HEADER not in ask.headers:
            return self._pipeline.messages(ask, view, body, receive, send)
        run = partial(self._pipeline.messages, ask, view, body, receive)
        return self._once(path, ask, view, raw, send, run)

    async def _batch_item(self, ask: Ask, scope: Scope, receive: Receive, send: Send) -> None:
        ticket = self._batch_items.ticket_of(ask)
        raw = self._body(ask, scope) or await self._read_body(ask.headers, receive)
        await self._batch_items.answer(ask, ticket, raw, send)

    async def _chat(self, ask: Ask, scope: Scope, receive: Receive, face: ChatFace) -> None:
        view = await self._admitter.authenticate(ask)
        raw = self._body(ask, scope) or await self._read_body(ask.headers, receive)
        body = face.read(raw, view)
        run = partial(self._pipeline.messages, face.ask_of(ask), view, body, receive)
        if HEADER in ask.headers:
            run_below = partial(face.run_over, run)
            await self._once(CHAT_PATH, ask, view, raw, face.below, run_below)
        else:
            await run(face)

    async def _once(
        self, path: str, ask: Ask, view: View, raw: bytes, send: Send, run: Run
    ) -> None:
        """The request as one of its Idempotency-Key: run, or answered as it was before."""
        claim = Claim(
            key=ask.headers[HEADER],
            tenant=view.key.tenant,
            workspace=view.key.workspace,
            rid=ask.rid,
            fingerprint=fingerprint_of(path, raw),
        )
        check = partial(self._admitter.standing, ask, view, scope=SCOPE_MESSAGES)
        await self._idempotency.serve(claim, send, run, check)

    async def _models(self, path: str, ask: Ask, scope: Scope, send: Send) -> None:
        view = await self._admitter.authenticate(ask)
        view = await self._admitter.standing(ask, view, scope=SCOPE_MODELS)
        has_version = b"anthropic-version" in ask.headers
        at_us = ask.started_at_us
        if path == MODELS_PATH:
            list_them = list_models if has_version else list_models_of_both
            found = list_them(view, scope["query_string"], at_us=at_us)
        else:
            found = get_model(view, unquote(path.removeprefix(MODELS_PATH + "/")), at_us=at_us)
            found = found if has_version else with_chat_fields(found)
        headers = [
            JSON_TYPE,
            (b"request-id", ask.request_id.encode()),
            (b"anthropic-organization-id", view.who.tenant_id.encode()),
        ]
        if not has_version:
            headers.append((b"x-request-id", ask.request_id.encode()))
        await send_answer(send, 200, headers, json.dumps(found).encode())

    def _ask(self, scope: Scope) -> Ask:
        now_us = clock.now_us()
        rid, request_id = ids.new_request_id(now_us // 1_000)
        memo = scope.get(MEMO_IN_SCOPE)
        # A head that is known has no repeated names.
        headers = headers_of(scope) if memo is None else scope[HEADERS_IN_SCOPE]
        client = scope.get("client")
        peer = client[0] if client else ""
        trusted = self._config.trusted_proxies
        if trusted:
            peer = client_address(peer, headers.get(b"x-forwarded-for", b""), trusted)
        return Ask(
            rid=rid,
            request_id=request_id,
            headers=headers,
            address=peer,
            started_at_us=now_us,
            begun_at=clock.monotonic_seconds(),
            memo=memo,
        )

    def _body(self, ask: Ask, scope: Scope) -> bytes | None:
        """The body where it came with the head; else it has to be waited for."""
        if ask.memo is None:  # a head that is known says nothing of that kind
            _check_framing(ask.headers)
        raw: bytes | None = scope.pop(BODY_IN_SCOPE, None)
        return raw if raw is not None and len(raw) <= self._config.body_bytes_max else None

    async def _read_body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """The whole body within its deadline. Raises ApiError 413 or 408, or ClientGone."""
        limit = self._config.body_bytes_max
        declared = headers.get(b"content-length", b"")
        length = int(declared) if declared.isdigit() else 0
        if length > limit:
            raise _too_large(limit)
        seconds = BODY_SECONDS + length / BODY_BYTES_PER_SECOND_MIN
        try:
            async with asyncio.timeout(seconds):
                return await _collect(receive, limit)
        except TimeoutError as error:
            raise ApiError(
                408,
                "timeout_error",
                "The request body did not arrive in time. Nothing was charged.",
            ) from error


async def _collect(receive: Receive, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        if not pieces and not message.get("more_body", False):
            if len(piece) > limit:
                raise _too_large(limit)
            return bytes(piece)
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)


async def send_error(send: Send, error: ApiError, request_id: str) -> None:
    """Answer with an error in the API's own shape."""
    body = error_body(
        error.status, error.error_type, error.message, request_id, details=error.details
    )
    headers = [JSON_TYPE, *error.headers]
    if not any(name == b"request-id" for name, _ in error.headers):
        headers.append((b"request-id", request_id.encode()))
    if not any(name == b"x-should-retry" for name, _ in error.headers) and error.status < 429:
        headers.append((b"x-should-retry", b"false"))
    await send_answer(send, error.status, headers, body)


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """The request's headers by lower-case name; repeated ones are joined by commas."""
    fields = scope["headers"]
    headers: dict[bytes, bytes] = scope.pop(HEADERS_IN_SCOPE, None) or dict(fields)
    if len(headers) == len(fields):
        return headers
    headers.clear()
    for name, value in fields:
        headers[name] = b"%b,%b" % (headers[name], value) if name in headers else value
    return headers


def _check_framing(headers: Mapping[bytes, bytes]) -> None:
    if b"content-length" in headers and b"transfer-encoding" in headers:
        raise ApiError(
            400, "invalid_request_error", "content-length and transfer-encoding exclude each other"
        )
    if b"content-encoding" not in headers:
        return
    encoding = headers[b"content-encoding"].strip().lower()
    if encoding not in (b"", b"identity"):
        raise ApiError(
            400,
            "invalid_request_error",
            "Compressed request bodies are not accepted. Send the body as it is.",
            details={"error_code": "request_body_encoding_unsupported"},
        )


def _require_version(ask: Ask) -> None:
    if b"anthropic-version" not in ask.headers:
        raise ApiError(400, "invalid_request_error", "anthropic-version: header is required")


def _require(method: str, allowed: str) -> None:
    if method != allowed:
        raise ApiError(
            405,
            "invalid_request_error",
            f"Method {method[:20]} is not allowed here; use {allowed}.",
            headers=((b"allow", allowed.encode()),),
        )


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413,
        "request_too_large",
        f"The request body exceeds {limit // MIB} MiB. Nothing was charged.",
    )


def _internal() -> ApiError:
    return ApiError(500, "api_error", "Something went wrong on our side.", should_retry=True)
