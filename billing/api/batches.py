"""/v1/messages/batches: message batches in the shapes of Anthropic's API, with an API key."""

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.inference import InferenceCaller
from billing.models.batches import MessageBatch
from billing.queries.batches import find_batch, list_batches, list_results
from billing.services.batch_admission import create_batch
from billing.services.batch_content import open_batch_key, place_of
from billing.services.batch_records import cancel_batch, delete_batch
from turnpike.control import idempotency
from turnpike.control.drf import REPLAYED_HEADER, ControlView, OneForm
from turnpike.control.organizations import anthropic_error
from turnpike.control.publication import Publication
from turnpike.control.scope import tenant_scope
from turnpike.env import env
from turnpike.kernel import clock, ids
from turnpike.kernel.errors import InvalidInput, NotFound, Unavailable
from turnpike.kernel.sealing import DataKey

PATH = "/v1/messages/batches"
BODY_BYTES_MAX = 256 * 1024 * 1024
READ_AT_ONCE = 1024 * 1024
LIMIT_DEFAULT, LIMIT_MAX = 20, 1_000
OVERLOADED = 529


class TooLarge(exceptions.APIException):
    """The body is larger than a batch may be."""

    status_code = 413
    default_detail = "The request body exceeds 256 MiB. Nothing was charged."


class BatchView(ControlView):
    """What the six endpoints share: the key, the tenant's rows, errors in Anthropic's shape."""

    authentication_names = ("accounts.api.inference.InferenceAuthentication",)
    parser_classes = []
    content_negotiation_class = OneForm
    organization = ""
    schema = None

    @property
    def key_caller(self) -> InferenceCaller:
        """The key's caller."""
        caller = self.caller
        assert isinstance(caller, InferenceCaller)
        return caller

    def check_caller(self) -> None:
        """Authentication has judged the key; the API's version is named by every request."""
        self.organization = self.key_caller.who.tenant_id
        if "anthropic-version" not in self.request.headers:
            raise InvalidInput("anthropic-version: header is required")

    def scope(self) -> AbstractContextManager[None]:
        """The rows of the key's tenant."""
        return tenant_scope(self.key_caller.key.tenant)

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response]:
        """Failures become Anthropic's error object; what will pass says when to come again."""
        return _error

    def finalize_response(
        self, request: Request, response: HttpResponseBase, *args: Any, **kwargs: Any
    ) -> Any:
        """Name the account, as the data plane does."""
        finished = super().finalize_response(request, response, *args, **kwargs)  # type: ignore[arg-type]
        if self.organization:
            finished["anthropic-organization-id"] = self.organization
        return finished

    def find(self, batch_id: str) -> MessageBatch:
        """The key's workspace's batch of that id. Raises NotFound."""
        key = self.key_caller.key
        try:
            number = ids.parse_public_id(ids.BATCH, batch_id)
        except ValueError:
            raise _not_found(batch_id) from None
        batch = find_batch(tenant=key.tenant, workspace=key.workspace, batch=number)
        if batch is None:
            raise _not_found(batch_id)
        return batch

    def _answer_once(
        self, request: Request, publication: Publication, *args: Any, **kwargs: Any
    ) -> tuple[Response, idempotency.IdempotentAnswer | None]:
        # A body may be large and is read once, so the endpoint that has one claims its key itself.
        handler = getattr(self, str(request.method).lower())
        return handler(request, *args, **kwargs), None


class BatchesView(BatchView):
    """All batches of the key's workspace."""

    def get(self, request: Request) -> Response:
        """A page of batches, the newest first."""
        key = self.key_caller.key
        page = list_batches(
            tenant=key.tenant,
            workspace=key.workspace,
            limit=_limit(request.query_params.get("limit")),
            after=_cursor(request.query_params, "after_id"),
            before=_cursor(request.query_params, "before_id"),
        )
        data = [shown(batch) for batch in page.batches]
        return Response(
            {
                "data": data,
                "has_more": page.has_more,
                "first_id": data[0]["id"] if data else None,
                "last_id": data[-1]["id"] if data else None,
            }
        )

    def post(self, request: Request) -> Response:
        """Admit a batch; with an Idempotency-Key once, whatever is repeated."""
        caller = self.key_caller
        body = _read_body(request)
        claim = self._claim(request, body)
        if isinstance(claim, idempotency.Replay):
            return Response(claim.body, status=claim.status, headers={REPLAYED_HEADER: "true"})
        batch = create_batch(
            key=caller.key,
            who=caller.who,
            body=body,
            api_version=request.headers["anthropic-version"],
            betas=request.headers.get("anthropic-beta", ""),
        )
        answer = shown(batch)
        if claim is not None:
            idempotency.keep_answer(claim, status=200, body=answer)
        return Response(answer)

    def _claim(
        self, request: Request, body: bytes
    ) -> idempotency.IdempotentAnswer | idempotency.Replay | None:
        key = request.headers.get("idempotency-key")
        if key is None:
            return None
        digest = hashlib.sha256(PATH.encode())
        digest.update(body)
        return idempotency.claim_key(
            tenant=self.key_caller.key.tenant,
            actor=self.key_caller.actor,
            key=key,
            request_digest=digest.hexdigest(),
        )


class OneBatchView(BatchView):
    """One batch."""

    def get(self, _request: Request, batch_id: str) -> Response:
        """How it stands."""
        return Response(shown(self.find(batch_id)))

    def delete(self, _request: Request, batch_id: str) -> Response:
        """Forget it, once it has ended."""
        batch = self.find(batch_id)
        answer = {"id": batch.public_id, "type": "message_batch_deleted"}
        delete_batch(batch)
        return Response(answer)


class CancelBatchView(BatchView):
    """Stops a batch."""

    def post(self, _request: Request, batch_id: str) -> Response:
        """Begin nothing more of it."""
        return Response(shown(cancel_batch(self.find(batch_id))))


class BatchResultsView(BatchView):
    """The results of a batch."""

    def get(self, _request: Request, batch_id: str) -> Any:
        """A line for each item, as a stream."""
        batch = self.find(batch_id)
        if batch.archived_at is not None:
            raise NotFound(f"The results of batch {batch.public_id} are no longer available.")
        if batch.state != MessageBatch.State.ENDED:
            raise InvalidInput(f"Batch {batch.public_id} has no results yet; it has not ended.")
        lines = _lines(batch.tenant_id, batch.id, open_batch_key(batch))
        return StreamingHttpResponse(lines, content_type="application/x-jsonl")


def shown(batch: MessageBatch) -> dict[str, Any]:
    """A batch in the API's shape; its results are on our own host, whoever worked on it."""
    has_ended = batch.state == MessageBatch.State.ENDED
    has_results = has_ended and batch.archived_at is None
    base = env().public_base_url.rstrip("/")
    return {
        "id": batch.public_id,
        "type": "message_batch",
        "processing_status": batch.state,
        "request_counts": {
            "processing": 0 if has_ended else batch.item_count,
            "succeeded": batch.succeeded,
            "errored": batch.errored,
            "canceled": batch.canceled,
            "expired": batch.expired,
        },
        "created_at": clock.rfc3339(batch.created_at),
        "expires_at": clock.rfc3339(batch.expires_at),
        "ended_at": None if batch.ended_at is None else clock.rfc3339(batch.ended_at),
        "cancel_initiated_at": None
        if batch.cancel_initiated_at is None
        else clock.rfc3339(batch.cancel_initiated_at),
        "archived_at": None if batch.archived_at is None else clock.rfc3339(batch.archived_at),
        "results_url": f"{base}{PATH}/{batch.public_id}/results" if has_results else None,
    }


async def _lines(tenant: int, batch: UUID, data_key: DataKey) -> AsyncIterator[bytes]:
    last = -1
    while True:
        chunk, last = await sync_to_async(_chunk)(tenant, batch, data_key, last)
        if not chunk:
            return
        yield chunk


def _chunk(tenant: int, batch: UUID, data_key: DataKey, after: int) -> tuple[bytes, int]:
    with tenant_scope(tenant):
        items = list_results(batch=batch, after=after)
    lines = []
    for item in items:
        result = b'{"type":"%b"}' % item.state.encode()
        if item.result is not None:
            place = place_of(item.number, "result")
            result = data_key.unseal(bytes(item.result), place=place)
        lines.append(b'{"custom_id":"%b","result":%b}\n' % (item.custom_id.encode(), result))
    return b"".join(lines), items[-1].number if items else after


def _read_body(request: Request) -> bytes:
    source = request._request
    declared = str(source.META.get("CONTENT_LENGTH") or "")
    if declared.isdecimal() and int(declared) > BODY_BYTES_MAX:
        raise TooLarge
    if source.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise InvalidInput("Compressed request bodies are not accepted. Send the body as it is.")
    body = bytearray()
    while piece := source.read(READ_AT_ONCE):
        body += piece
        if len(body) > BODY_BYTES_MAX:
            raise TooLarge
    return bytes(body)


def _limit(text: str | None) -> int:
    if text is None:
        return LIMIT_DEFAULT
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:6]) <= LIMIT_MAX:
        raise InvalidInput(f"limit: Input should be from 1 to {LIMIT_MAX}")
    return int(text)


def _cursor(query: Mapping[str, str], name: str) -> UUID | None:
    text = query.get(name)
    if not text:
        return None
    try:
        return ids.parse_public_id(ids.BATCH, text)
    except ValueError as error:
        raise InvalidInput(f"{name}: Not the id of a message batch") from error


def _not_found(batch_id: str) -> NotFound:
    return NotFound(f"Batch {batch_id[:80]} not found.")


def _error(error: Exception, context: dict[str, Any]) -> Response:
    response = anthropic_error(error, context)
    if isinstance(error, Unavailable):
        response.status_code = OVERLOADED
        response["retry-after"] = "5"
    response["x-should-retry"] = "true" if response.status_code >= 429 else "false"
    return response
