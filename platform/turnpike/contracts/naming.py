"""Which model a name means: ids, aliases, dotted and prefixed forms of either."""

from collections.abc import Iterable, Mapping

from turnpike.contracts import rating
from turnpike.contracts.snapshots import ModelSnapshot, PriceSet

CLAUDE_PREFIX = "claude-"  # of all models that Anthropic makes


def index_names(models: Iterable[ModelSnapshot]) -> dict[str, str]:
    """Every name that models go by, to the canonical one; an id beats an alias."""
    known = list(models)
    names = {
        alias.lower().replace(".", "-"): model.model for model in known for alias in model.aliases
    }
    names.update({alias: model.model for model in known for alias in model.aliases})
    names.update({model.model: model.model for model in known})
    return names


def canonical_name(names: Mapping[str, str], text: str) -> str | None:
    """The canonical model behind what a client wrote, or None."""
    found = names.get(text)
    if found is not None:
        return found
    plain = text.lower().removeprefix("anthropic/").removesuffix("[1m]").replace(".", "-")
    return names.get(plain)


def is_priced(price_set: PriceSet, model: str, *, variant: str = rating.STANDARD) -> bool:
    """Whether a model has all five token prices; without them nothing may be admitted."""
    present = {row.component for row in price_set.prices.get(model, ()) if row.variant == variant}
    return present.issuperset(rating.TOKEN_COMPONENTS)
