"""Path and model name to a route: upstream, converter, price."""

import msgspec

from proxy.api_errors import ApiError
from proxy.asgi import Headers
from proxy.events import fixed_members
from proxy.limiter.plans import Plan, limits_of, make_plan
from proxy.snapshots import Plane, View
from proxy.upstreams.selection import Hop, hops_of
from turnpike.contracts.naming import is_priced
from turnpike.contracts.snapshots import (
    KIND_PLAYGROUND,
    SCOPE_MESSAGES,
    UPSTREAM_OPENAI,
    Candidate,
    ModelSnapshot,
    PriceSet,
)
from turnpike.contracts.standing import refusal_of_key

RETIRED = "retired"
KNOWN_MAX = 10_000
NO_PRICES = PriceSet(price_set=0, book=0, from_us=0)
NO_LIMITS = make_plan(tenant=0, buckets=(), slots=(), budgets=(), output_reserve_max=None)


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request may go, by priority, what it costs, and what limits it meets."""

    model: ModelSnapshot
    requested: str
    price_set: PriceSet
    hops: tuple[Hop, ...]
    is_successor: bool
    plan: Plan = NO_LIMITS  # what the key meets there
    fixed_members: bytes = b""  # what all events of the key say that go this way
    answer_headers: Headers = []  # what all answers to the key say that came this way
    is_plain: bool = False  # every request that the key sends this way is let in as it is


class _Known(msgspec.Struct, frozen=True):
    """A route that was found, what it was found from, and while which prices are in force."""

    view: View
    route: Route
    from_us: int
    until_us: int


_known: dict[tuple[str, str], _Known] = {}


def route_model(view: View, name: str, *, at_us: int) -> Route:
    """The route of a model name for a key.

    Raises ApiError: 404 for an unknown, disabled or unpriced model, 403 for one the key or its tier
    may not use, 529 when no upstream that serves it is enabled. What was found is remembered for as
    long as the very same view and prices come in.
    """
    route = known_route(view, name, at_us)
    if route is None:
        plane, book = view.plane, view.terms.book
        route = _find_route(view, name, plane.find_price_set(book=book, at_us=at_us))
        if len(_known) >= KNOWN_MAX:
            _known.clear()
        from_us, until_us = plane.price_span(book=book, at_us=at_us)
        _known[view.digest, name] = _Known(view, route, from_us, until_us)
    return route


def known_route(view: View, name: str, at_us: int) -> Route | None:
    """What `route_model` found before, where the very same view and prices come in again."""
    known = _known.get((view.digest, name))
    if known is None or known.view is not view or not known.from_us <= at_us < known.until_us:
        return None
    return known.route


def _find_route(view: View, name: str, price_set: PriceSet | None) -> Route:
    plane = view.plane
    model = plane.find_model(name)
    if model is None or not model.is_enabled:
        raise _unknown(name)
    served, is_successor = model, False
    candidates = _enabled(plane, model)
    if not candidates and model.is_successor_allowed and model.successor:
        successor = plane.find_model(model.successor)
        if successor is not None and successor.is_enabled:
            served, candidates, is_successor = successor, _enabled(plane, successor), True
    _check_allowed(view, asked=model, served=served)
    if price_set is None or not is_priced(price_set, served.model):
        raise _unknown(name)
    if not candidates:
        if model.lifecycle == RETIRED or not plane.snapshot.routes.get(served.model):
            raise _unknown(name)
        raise _no_upstream()
    hops = hops_of(plane.snapshot.upstreams, candidates)
    return Route(
        model=served,
        requested=name,
        price_set=price_set,
        hops=hops,
        is_successor=is_successor,
        plan=limits_of(key=view.key, who=view.who, terms=view.terms, tier=view.tier, model=served),
        fixed_members=_members(
            view, view.key.member, requested=name, model=served.model, price_set=price_set
        ),
        answer_headers=_answer_headers(view, served=served.model if is_successor else None),
        is_plain=_is_unconditional(view)
        and not any(hop.upstream.kind == UPSTREAM_OPENAI for hop in hops),
    )


def _is_unconditional(view: View) -> bool:
    """Whether a key may send messages whatever the time, the address, the headers and the model."""
    key = view.key
    return (
        refusal_of_key(key, view.who, scope=SCOPE_MESSAGES, address="", at_us=0) is None
        and key.expires_at_us is None
        and not key.ip_ranges
        and key.kind != KIND_PLAYGROUND  # whose headers say for whom it asks
        and not view.tier.denied_betas
        and not view.plane.snapshot.switches.is_claude_only
    )


def _answer_headers(view: View, *, served: str | None) -> Headers:
    headers = [(b"anthropic-organization-id", view.who.tenant_id.encode())]
    workspace = view.who.workspaces.get(str(view.key.workspace))
    if workspace is not None:
        headers.append((b"anthropic-workspace-id", workspace.workspace_id.encode()))
    if served is not None:
        headers.append((b"x-turnpike-served-model", served.encode()))
    return headers


def members_for(view: View, route: Route, *, member: str | None) -> bytes:
    """The fixed members of an event of somebody else than the key's own member."""
    return _members(
        view,
        member,
        requested=route.requested,
        model=route.model.model,
        price_set=route.price_set,
    )


def _members(
    view: View, member: str | None, *, requested: str, model: str, price_set: PriceSet
) -> bytes:
    key = view.key
    return fixed_members(
        tenant=key.tenant,
        workspace=key.workspace,
        key=key.key,
        member=member,
        model=model,
        requested_model=requested,
        price_set=price_set.price_set,
        discount_bp=view.terms.discount_bp,
    )


def check_model_use(view: View, name: str, *, price_set: PriceSet) -> ModelSnapshot:
    """A model that a request names besides its own: known, priced and allowed. Raises ApiError."""
    model = view.plane.find_model(name)
    if model is None or not model.is_enabled or not is_priced(price_set, model.model):
        raise _unknown(name)
    _check_allowed(view, asked=model, served=model)
    return model


def narrowed(route: Route, upstream: int) -> Route:
    """The route with one upstream alone. Raises ApiError 529 when that one does not serve."""
    hops = tuple(hop for hop in route.hops if hop.upstream.upstream == upstream)
    if not hops:
        raise _no_upstream()
    return msgspec.structs.replace(route, hops=hops)


def route_of_item(plane: Plane, name: str) -> Route:
    """The route of a batch item, whose model and price were decided with its batch.

    Raises ApiError 529 while no upstream serves the model.
    """
    model = plane.snapshot.models.get(name)
    candidates = [] if model is None else _enabled(plane, model)
    if model is None or not candidates:
        raise _no_upstream()
    return Route(
        model=model,
        requested=name,
        price_set=NO_PRICES,
        hops=hops_of(plane.snapshot.upstreams, candidates),
        is_successor=False,
    )


def visible_models(view: View, *, at_us: int) -> list[ModelSnapshot]:
    """The models that a key may use and that somebody serves, newest first."""
    price_set = view.plane.find_price_set(book=view.terms.book, at_us=at_us)
    if price_set is None:
        return []
    found = [
        model
        for model in view.plane.snapshot.models.values()
        if model.is_enabled
        and _is_allowed(view, model.model)
        and is_priced(price_set, model.model)
        and _enabled(view.plane, model)
    ]
    return sorted(found, key=lambda model: (model.created_at, model.model), reverse=True)


def _check_allowed(view: View, *, asked: ModelSnapshot, served: ModelSnapshot) -> None:
    for model in (asked, served):
        if not _is_allowed(view, model.model):
            raise ApiError(
                403, "permission_error", f"This API key may not use the model {model.model}."
            )


def _is_allowed(view: View, model: str) -> bool:
    if model in view.tier.denied_models:
        return False
    allowed = view.key.models
    return (
        allowed is None
        or model in allowed
        or any(
            (found := view.plane.find_model(name)) is not None and found.model == model
            for name in allowed
        )
    )


def _enabled(plane: Plane, model: ModelSnapshot) -> list[Candidate]:
    upstreams = plane.snapshot.upstreams
    return [
        candidate
        for candidate in plane.snapshot.routes.get(model.model, ())
        if (upstream := upstreams.get(str(candidate.upstream))) is not None and upstream.is_enabled
    ]


def _no_upstream() -> ApiError:
    return ApiError(
        529,
        "overloaded_error",
        "No upstream serves this model at the moment.",
        retry_after_seconds=5,
    )


def _unknown(name: str) -> ApiError:
    return ApiError(404, "not_found_error", f"model: {name[:200]}")
