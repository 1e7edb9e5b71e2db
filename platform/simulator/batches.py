"""/v1/messages/batches, in memory: a batch is worked off when somebody first asks for it."""

import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from simulator.events import message_of
from simulator.exchange import BATCH_BODY_BYTES_MAX, Exchange
from simulator.messages import TURNPIKE_REQUEST_ID, answer_request, betas_of, unserved
from simulator.prompt import read_prompt
from simulator.record import Row
from simulator.state import State
from simulator.validation import check_messages_request, check_version
from simulator.wire import Json, Refusal, decode_object, encode, now_seconds, timestamp

BATCHES_MAX = 1_000
# An item with this `metadata.user_id` is never begun.
EXPIRE = "simulator-expire"
ITEMS_MAX = 100_000
_DAY_SECONDS = 86_400
_PATH = "/v1/messages/batches"
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_FORBIDDEN = ("stream", "speed", "fallbacks", "thread")
_OUTCOMES = ("succeeded", "errored", "canceled", "expired")
_RESULTS_TYPE = (b"content-type", b"application/x-jsonl")


@dataclass(slots=True, kw_only=True)
class Batch:
    """One batch and, once it has ended, its results."""

    ident: str
    items: list[Json]
    version: str
    betas: list[str]
    turnpike_request_id: str | None
    created_at_seconds: float
    ended_at_seconds: float | None = None
    canceled_at_seconds: float | None = None
    results: list[Json] = field(default_factory=list)


class BatchStore:
    """All batches of the process, the last thousand of them."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._batches: OrderedDict[str, Batch] = OrderedDict()

    def reset(self) -> None:
        """Forget every batch."""
        self._batches.clear()

    def endpoint(self, exchange: Exchange) -> Callable[[State, Exchange], Awaitable[None]]:
        """What answers a path below /v1/messages/batches. Raises Refusal (404) for others."""
        rest = exchange.path.removeprefix(_PATH).strip("/").split("/")
        words = tuple(word if n else bool(word) for n, word in enumerate(rest))
        endpoints: dict[tuple[object, ...], Callable[[State, Exchange], Awaitable[None]]] = {
            ("POST", False): self._create,
            ("GET", False): self._list,
            ("GET", True): self._retrieve,
            ("DELETE", True): self._delete,
            ("GET", True, "results"): self._results,
            ("POST", True, "cancel"): self._cancel,
        }
        found = endpoints.get((exchange.method, *words))
        if found is None:
            raise unserved(exchange)
        return found

    async def _create(self, state: State, exchange: Exchange) -> None:
        version = check_version(exchange.header(b"anthropic-version"))
        request = decode_object(await exchange.body(bytes_max=BATCH_BODY_BYTES_MAX))
        items = request.get("requests")
        _check_items(items)
        batch = Batch(
            ident=state.ids.next("msgbatch"),
            items=items or [],
            version=version,
            betas=betas_of(exchange),
            turnpike_request_id=exchange.header(TURNPIKE_REQUEST_ID),
            created_at_seconds=now_seconds(),
        )
        self._batches[batch.ident] = batch
        if len(self._batches) > BATCHES_MAX:
            self._batches.popitem(last=False)
        await exchange.reply(encode(_shown(batch, exchange)))

    async def _list(self, _state: State, exchange: Exchange) -> None:
        idents = list(reversed(self._batches))
        query = exchange.query
        if query.get("after_id") in self._batches:
            idents = idents[idents.index(query["after_id"]) + 1 :]
        limit = int(query.get("limit", "20"))
        page = idents[:limit]
        document = {
            "data": [_shown(self._worked_off(self._batches[i]), exchange) for i in page],
            "has_more": len(idents) > limit,
            "first_id": page[0] if page else None,
            "last_id": page[-1] if page else None,
        }
        await exchange.reply(encode(document))

    async def _retrieve(self, _state: State, exchange: Exchange) -> None:
        batch = self._worked_off(self._find(exchange))
        await exchange.reply(encode(_shown(batch, exchange)))

    async def _cancel(self, _state: State, exchange: Exchange) -> None:
        batch = self._find(exchange)
        if batch.ended_at_seconds is None and batch.canceled_at_seconds is None:
            batch.canceled_at_seconds = now_seconds()
        await exchange.reply(encode(_shown(batch, exchange)))

    async def _delete(self, _state: State, exchange: Exchange) -> None:
        batch = self._find(exchange)
        if batch.ended_at_seconds is None:
            raise Refusal(f"Batch {batch.ident} has not ended; cancel it first.")
        del self._batches[batch.ident]
        await exchange.reply(encode({"id": batch.ident, "type": "message_batch_deleted"}))

    async def _results(self, _state: State, exchange: Exchange) -> None:
        batch = self._worked_off(self._find(exchange))
        lines = b"".join(encode(result) + b"\n" for result in batch.results)
        await exchange.reply(lines, headers=(_RESULTS_TYPE,))

    def _find(self, exchange: Exchange) -> Batch:
        ident = exchange.path.removeprefix(_PATH + "/").split("/")[0]
        if ident not in self._batches:
            raise Refusal(f"Batch {ident} not found.", status=404)
        return self._batches[ident]

    def _worked_off(self, batch: Batch) -> Batch:
        age_seconds = now_seconds() - batch.created_at_seconds
        is_canceled = batch.canceled_at_seconds is not None
        if batch.ended_at_seconds is None and (
            is_canceled or age_seconds >= self._state.batch_seconds
        ):
            batch.results = [
                {"custom_id": item["custom_id"], "result": self._result(batch, item)}
                for item in batch.items
            ]
            batch.ended_at_seconds = now_seconds()
        return batch

    def _result(self, batch: Batch, item: Json) -> Json:
        if batch.canceled_at_seconds is not None:
            return {"type": "canceled"}
        if _orders(item["params"]) == EXPIRE:
            return {"type": "expired"}
        request_id = self._state.ids.next("req")
        try:
            message = self._message(batch, item, request_id)
        except Refusal as refusal:
            error = {"type": refusal.error_type, "message": refusal.message}
            wrapped = {"type": "error", "error": error, "request_id": request_id}
            return {"type": "errored", "error": wrapped}
        return {"type": "succeeded", "message": message}

    def _message(self, batch: Batch, item: Json, request_id: str) -> Json:
        params = item["params"]
        for name in _FORBIDDEN:
            if params.get(name):
                raise Refusal(f"{name}: Extra inputs are not permitted")
        check_messages_request(params, version=batch.version, betas=batch.betas)
        answer = answer_request(self._state, params, prompt=read_prompt(params))
        usage = {**answer.final_usage, "service_tier": "batch"}
        self._state.record.bill(
            Row(
                request_id=request_id,
                turnpike_request_id=batch.turnpike_request_id,
                model=answer.model,
                usage=usage,
                output_characters=answer.output_characters,
                is_stream=False,
                custom_id=item["custom_id"],
            )
        )
        return {**message_of(answer, message_id=self._state.ids.next("msg")), "usage": usage}


def _orders(params: Json) -> str:
    """What an item orders of the simulator, in the one field that nobody reads."""
    metadata = params.get("metadata")
    return str(metadata.get("user_id")) if isinstance(metadata, dict) else ""


def _check_items(items: object) -> None:
    if not isinstance(items, list) or not items:
        raise Refusal("requests: Field required")
    if len(items) > ITEMS_MAX:
        raise Refusal(f"requests: at most {ITEMS_MAX} requests are allowed")
    seen: set[str] = set()
    for position, item in enumerate(items):
        ident = item.get("custom_id") if isinstance(item, dict) else None
        if not isinstance(ident, str) or not _CUSTOM_ID.fullmatch(ident):
            raise Refusal(
                f"requests.{position}.custom_id: String should match pattern "
                "'^[a-zA-Z0-9_-]{1,64}$'"
            )
        if ident in seen:
            raise Refusal(f"requests.{position}.custom_id: '{ident}' is not unique")
        if not isinstance(item.get("params"), dict):
            raise Refusal(f"requests.{position}.params: Field required")
        seen.add(ident)


def _shown(batch: Batch, exchange: Exchange) -> Json:
    has_ended = batch.ended_at_seconds is not None
    kinds = [line["result"]["type"] for line in batch.results]
    counts = {kind: kinds.count(kind) for kind in _OUTCOMES}
    working = "in_progress" if batch.canceled_at_seconds is None else "canceling"
    base = f"http://{exchange.header(b'host') or 'localhost'}"
    return {
        "id": batch.ident,
        "type": "message_batch",
        "processing_status": "ended" if has_ended else working,
        "request_counts": {"processing": 0 if has_ended else len(batch.items), **counts},
        "created_at": timestamp(batch.created_at_seconds),
        "expires_at": timestamp(batch.created_at_seconds + _DAY_SECONDS),
        "ended_at": _instant(batch.ended_at_seconds),
        "cancel_initiated_at": _instant(batch.canceled_at_seconds),
        "archived_at": None,
        "results_url": f"{base}{_PATH}/{batch.ident}/results" if has_ended else None,
    }


def _instant(at_seconds: float | None) -> str | None:
    return None if at_seconds is None else timestamp(at_seconds)
