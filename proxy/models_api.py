"""GET /v1/models and /v1/models/{id}: the models that a key may use, newest first."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

from proxy.api_errors import ApiError
from proxy.conversion.chat_models import list_with_chat_fields
from proxy.routing import visible_models
from proxy.snapshots import View
from turnpike.contracts.snapshots import ModelSnapshot

LIMIT_DEFAULT = 20
LIMIT_OF_OTHERS = 1_000  # OpenAI's list has no pages
LIMIT_MAX = 1_000
LIFECYCLES = ("active", "deprecated", "retired")
LISTED = ("active", "deprecated")
QUERY_BYTES_MAX = 4_096


def list_models(view: View, query: bytes, *, at_us: int) -> dict[str, Any]:
    """One page of models in the API's shape. Raises ApiError 400 for a bad query."""
    return _page(view, _read_query(query, limit=LIMIT_DEFAULT), at_us=at_us)


def list_models_of_both(view: View, query: bytes, *, at_us: int) -> dict[str, Any]:
    """The same for clients that do not say whose they are: the fields of both APIs."""
    wanted = _read_query(query, limit=LIMIT_OF_OTHERS)
    return list_with_chat_fields(_page(view, wanted, at_us=at_us))


def _page(view: View, wanted: "_Wanted", *, at_us: int) -> dict[str, Any]:
    models = [
        model for model in visible_models(view, at_us=at_us) if model.lifecycle in wanted.lifecycles
    ]
    start, end = 0, len(models)
    if wanted.after_id is not None:
        start = _position(models, wanted.after_id, "after_id") + 1
    if wanted.before_id is not None:
        end = _position(models, wanted.before_id, "before_id")
        start = max(start, end - wanted.limit)
    page = models[start : min(end, start + wanted.limit)]
    has_more = start > 0 if wanted.before_id is not None else start + len(page) < end
    return {
        "data": [model_info(model) for model in page],
        "has_more": has_more,
        "first_id": page[0].model if page else None,
        "last_id": page[-1].model if page else None,
    }


def get_model(view: View, name: str, *, at_us: int) -> dict[str, Any]:
    """One model by its id or an alias. Raises ApiError 404."""
    found = view.plane.find_model(name)
    for model in visible_models(view, at_us=at_us):
        if found is not None and model.model == found.model:
            return model_info(model)
    raise ApiError(404, "not_found_error", f"model: {name[:200]}")


def model_info(model: ModelSnapshot) -> dict[str, Any]:
    """A model in the shape of the Models API."""
    return {
        "type": "model",
        "id": model.model,
        "display_name": model.display_name,
        "created_at": model.created_at,
        "lifecycle": model.lifecycle,
        "deprecated_at": model.deprecated_at,
        "retires_at": model.retires_at,
        "line": model.line,
        "max_input_tokens": model.max_input_tokens,
        "max_tokens": model.max_tokens,
        "capabilities": model.capabilities,
    }


class _Wanted:
    """A checked query."""

    def __init__(self, values: Mapping[str, Sequence[str]], *, limit: int) -> None:
        self.limit = limit
        if "limit" in values:
            text = values["limit"][-1]
            self.limit = int(text) if text.isdecimal() and len(text) <= 6 else 0
            if not 1 <= self.limit <= LIMIT_MAX:
                raise _invalid(f"limit: Input should be between 1 and {LIMIT_MAX}")
        self.after_id = values["after_id"][-1] if "after_id" in values else None
        self.before_id = values["before_id"][-1] if "before_id" in values else None
        self.lifecycles = tuple(values.get("lifecycle[]", ())) or LISTED
        if any(name not in LIFECYCLES for name in self.lifecycles):
            raise _invalid("lifecycle: Input should be 'active', 'deprecated' or 'retired'")


def _read_query(query: bytes, *, limit: int) -> _Wanted:
    if len(query) > QUERY_BYTES_MAX:
        raise _invalid("The query is too long")
    return _Wanted(parse_qs(query.decode("latin-1"), keep_blank_values=True), limit=limit)


def _position(models: Sequence[ModelSnapshot], name: str, field: str) -> int:
    for index, model in enumerate(models):
        if model.model == name:
            return index
    raise _invalid(f"{field}: no such model in this list")


def _invalid(message: str) -> ApiError:
    return ApiError(400, "invalid_request_error", message)
