"""GET /v1/models: a list to look at. Every id that begins with `claude-` is served all the same."""

from simulator.exchange import Exchange
from simulator.state import State
from simulator.validation import is_model
from simulator.wire import Json, Refusal, encode

_LISTED = (
    ("claude-fable-5-2", "2026-11-09"),
    ("claude-haiku-5-5", "2026-10-07"),
    ("claude-opus-5-5", "2026-09-24"),
    ("claude-sonnet-5-5", "2026-09-24"),
    ("claude-opus-5", "2026-07-24"),
    ("claude-sonnet-5", "2026-06-30"),
    ("claude-opus-4-8", "2026-05-28"),
    ("claude-opus-4-7", "2026-04-16"),
    ("claude-sonnet-4-6", "2026-02-17"),
    ("claude-opus-4-6", "2026-02-05"),
    ("claude-opus-4-5-20251101", "2025-11-24"),
    ("claude-haiku-4-5-20251001", "2025-10-15"),
    ("claude-sonnet-4-5-20250929", "2025-09-29"),
)
_LINES = frozenset({"haiku", "sonnet", "opus", "fable", "mythos"})
_UNDATED = "2024-01-01"
_PAGE_DEFAULT = 20
_PAGE_MAX = 1_000


async def list_models(_state: State, exchange: Exchange) -> None:
    """Page through the list, newest first."""
    query = exchange.query
    try:
        limit = int(query.get("limit", _PAGE_DEFAULT))
    except ValueError as error:
        raise Refusal("limit: Input should be a valid integer") from error
    if not 1 <= limit <= _PAGE_MAX:
        raise Refusal("limit: Input should be between 1 and 1000")
    ids = [ident for ident, _ in _LISTED]
    start, stop = 0, len(ids)
    if query.get("after_id") in ids:
        start = ids.index(query["after_id"]) + 1
    if query.get("before_id") in ids:
        stop = ids.index(query["before_id"])
    page = ids[start:stop][:limit]
    document = {
        "data": [_model(ident) for ident in page],
        "has_more": stop - start > limit,
        "first_id": page[0] if page else None,
        "last_id": page[-1] if page else None,
    }
    await exchange.reply(encode(document))


async def get_model(_state: State, exchange: Exchange) -> None:
    """One model, of any name in the family."""
    ident = exchange.path.removeprefix("/v1/models/")
    if not is_model(ident):
        raise Refusal(f"model: {ident}", status=404)
    await exchange.reply(encode(_model(ident)))


def _model(ident: str) -> Json:
    words = ident.split("-")
    return {
        "type": "model",
        "id": ident,
        "display_name": " ".join(word.capitalize() for word in words),
        "created_at": dict(_LISTED).get(ident, _UNDATED) + "T00:00:00Z",
        "lifecycle": "active",
        "deprecated_at": None,
        "retires_at": None,
        "line": next((word for word in words if word in _LINES), None),
        "max_input_tokens": 1_000_000,
        "max_tokens": 128_000,
        "capabilities": None,
    }
