"""Models in both shapes at once, for clients that do not say whose they are."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

OWNER = "turnpike"


def with_chat_fields(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model of the Models API with OpenAI's fields beside its own."""
    created_at = model["created_at"]
    created = int(datetime.fromisoformat(created_at).timestamp()) if created_at else 0
    return {**model, "object": "model", "created": created, "owned_by": OWNER}


def list_with_chat_fields(page: Mapping[str, Any]) -> dict[str, Any]:
    """A page of the Models API with OpenAI's fields beside its own."""
    models = [with_chat_fields(model) for model in page["data"]]
    return {"object": "list", **page, "data": models}
