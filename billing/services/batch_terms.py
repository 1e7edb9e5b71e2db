"""What a batch may ask for and what it costs: models, prices, routes, as PostgreSQL has them now.

The control plane decides by the truth itself, so there is no snapshot that could be stale.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from billing.models.catalog import PriceSet as PriceSetRow
from billing.models.upstreams import ADMIN_CREDENTIAL, Route, Upstream, UpstreamCredential
from billing.services.prices import load_price_sets
from billing.snapshots import list_models, read_switches, tier_of_tenant
from turnpike.contracts.demand import Demand, hold_micro
from turnpike.contracts.naming import CLAUDE_PREFIX, canonical_name, index_names, is_priced
from turnpike.contracts.snapshots import KeySnapshot, ModelSnapshot, PriceSet
from turnpike.kernel.errors import InvalidInput, NotFound, PermissionDenied, Unavailable

BATCH = "batch"
RETIRED = "retired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How items of a model go: as a batch of an upstream, or one by one (`upstream` is None)."""

    model: str
    upstream: int | None
    credential: int | None
    upstream_model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTerms:
    """What a key may use, and at what price."""

    key: KeySnapshot
    models: Mapping[str, ModelSnapshot]
    names: Mapping[str, str]
    routes: Mapping[str, list[Route]]
    credentials: Mapping[int, list[int]]
    price_set: PriceSet
    discount_bp: int
    denied_models: Collection[str]
    denied_betas: Collection[str]
    is_claude_only: bool = False

    def way_of(self, name: str) -> Way:
        """Where a model's items go.

        Raises NotFound, PermissionDenied, Unavailable, InvalidInput for another maker's model.
        """
        served = self._served(name)
        routes = self.routes.get(served.model)
        if not routes:
            if served.lifecycle == RETIRED:
                raise NotFound(f"model: {name}")
            raise Unavailable(f"No upstream serves the model {served.model} at the moment.")
        for route in routes:
            upstream = route.upstream
            takes_batches = upstream.has_batches and upstream.kind == Upstream.Kind.ANTHROPIC
            if takes_batches and not upstream.is_draining:
                owned = self.credentials.get(route.upstream_id, [])
                return Way(
                    model=served.model,
                    upstream=route.upstream_id,
                    credential=owned[0] if owned else None,
                    upstream_model=route.upstream_model,
                )
        return Way(model=served.model, upstream=None, credential=None, upstream_model=served.model)

    def hold_of(self, demand: Demand, *, model: str) -> int:
        """The worst that an item can cost, in micros. Raises NotFound where a part has no price."""
        hold = hold_micro(
            demand, price_set=self.price_set, model=model, discount_bp=self.discount_bp
        )
        if hold is None:
            raise NotFound(f"model: {model} has no price for this request")
        return hold

    def _served(self, name: str) -> ModelSnapshot:
        """The model that answers to a name, allowed and priced."""
        asked = served = self._model(name)
        if self.is_claude_only and not asked.model.startswith(CLAUDE_PREFIX):
            raise InvalidInput(
                f"model: {asked.model} is served on /v1/chat/completions; batches serve Claude"
                " models alone"
            )
        if not self.routes.get(asked.model) and asked.is_successor_allowed and asked.successor:
            served = self._model(asked.successor)
        for model in (asked, served):
            if not self._is_allowed(model.model):
                raise PermissionDenied(f"This API key may not use the model {model.model}.")
        if not is_priced(self.price_set, served.model, variant=BATCH):
            raise NotFound(f"model: {name}")
        return served

    def _model(self, name: str) -> ModelSnapshot:
        found = canonical_name(self.names, name)
        if found is None or not self.models[found].is_enabled:
            raise NotFound(f"model: {name[:200]}")
        return self.models[found]

    def _is_allowed(self, model: str) -> bool:
        if model in self.denied_models:
            return False
        allowed = self.key.models
        return allowed is None or any(canonical_name(self.names, name) == model for name in allowed)


def read_terms(key: KeySnapshot, *, at: datetime) -> BatchTerms:
    """The terms of a key's tenant at an instant. Raises NotFound while nothing is priced."""
    tier = tier_of_tenant(key.tenant)
    number = (
        PriceSetRow.objects.filter(book_id=tier.terms.book, effective__contains=at)
        .values_list("pk", flat=True)
        .first()
    )
    if number is None:
        raise NotFound("No prices are in force.")
    routes: dict[str, list[Route]] = defaultdict(list)
    rows = Route.objects.filter(is_enabled=True, upstream__is_enabled=True, weight__gt=0)
    for row in rows.select_related("model", "upstream").order_by(
        "priority", "-weight", "upstream_id"
    ):
        routes[row.model.model].append(row)
    credentials: dict[int, list[int]] = defaultdict(list)
    for upstream, credential in (
        UpstreamCredential.objects.filter(is_enabled=True)
        .exclude(name=ADMIN_CREDENTIAL)
        .order_by("pk")
        .values_list("upstream_id", "pk")
    ):
        credentials[upstream].append(credential)
    models = {model.model: model for model in list_models()}
    return BatchTerms(
        key=key,
        models=models,
        names=index_names(models.values()),
        routes=dict(routes),
        credentials=dict(credentials),
        price_set=load_price_sets([number])[number],
        discount_bp=tier.terms.discount_bp,
        denied_models=tier.tier.denied_models,
        denied_betas=tier.tier.denied_betas,
        is_claude_only=read_switches().is_claude_only,
    )
