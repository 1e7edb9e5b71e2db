"""What a model can be asked for, as far as the catalogue says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from turnpike.contracts.snapshots import ModelSnapshot

# Chat Completions does not ask for a bound, Messages does. High enough for an answer with thinking,
# and low enough that the hold of a request does not lock up a small balance.
MAX_TOKENS_DEFAULT = 16_384
EFFORTS = ("low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTraits:
    """What decides how a request is converted. What nobody knows is left to the upstream."""

    max_tokens_default: int = MAX_TOKENS_DEFAULT
    takes_sampling: bool = True
    can_stop_thinking: bool = False
    efforts: frozenset[str] | None = None  # None: not known


UNKNOWN = ModelTraits()


def traits_of(model: ModelSnapshot | None) -> ModelTraits:
    """The traits of a model; of one that nobody knows, what most models have."""
    if model is None:
        return UNKNOWN
    limit = min(model.max_tokens or MAX_TOKENS_DEFAULT, MAX_TOKENS_DEFAULT)
    known = model.capabilities
    if not known:
        return ModelTraits(max_tokens_default=limit)
    types = _inner(_inner(known, "thinking"), "types")
    effort = _inner(known, "effort")
    # The generation that refuses thinking budgets is the one that refuses sampling parameters.
    has_thinking = _is_supported(known, "thinking")
    return ModelTraits(
        max_tokens_default=limit,
        takes_sampling=not has_thinking or _is_supported(types, "enabled"),
        can_stop_thinking=_is_supported(types, "disabled"),
        efforts=frozenset(name for name in EFFORTS if _is_supported(effort, name)),
    )


def _inner(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = values.get(name)
    return value if isinstance(value, Mapping) else {}


def _is_supported(values: Mapping[str, Any], name: str) -> bool:
    return _inner(values, name).get("supported") is True
