"""From a body and a key to an admitted exchange, or to a refusal that cost nothing.

The snapshots in the cache decide; the script compares their versions. Numbers that moved meanwhile
keep nothing: they are read again and the decision is made anew. A refusal that the cache alone
decided is checked against the versions first, so a change holds from the next request both ways.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import msgspec

from proxy.allowance import check_claude, check_wants, may_share_objects
from proxy.api_errors import ApiError, overloaded
from proxy.auth import Authenticator, check_standing
from proxy.body import MessagesBody
from proxy.chat_upstream import with_chat_bodies
from proxy.config import ProxyConfig
from proxy.demand import demand_of, refuse_denied_betas, wants_of
from proxy.estimator import Estimator
from proxy.events import base_json, event_members
from proxy.exchange import Exchange
from proxy.known_head import HeadMemo
from proxy.limiter.answers import rate_limit_headers, refusal_of
from proxy.limiter.limiter import GRANTED, REASON_AWAY, Admission, Limiter
from proxy.limiter.limits import Spec, build_spec, spec_count_tokens
from proxy.metrics import METRICS
from proxy.ownership import Owners
from proxy.pricing import Demand, hold_micro
from proxy.redis_pipe import RedisAway
from proxy.refusals import ACCEPTED, RefusalLog
from proxy.routing import Route, known_route, members_for, narrowed, route_model
from proxy.snapshots import PlaneCold, SnapshotStore, View
from turnpike.contracts.demand import OtherCalls
from turnpike.contracts.features import NOTHING, Wants
from turnpike.contracts.snapshots import KIND_PLAYGROUND, SCOPE_COUNT_TOKENS, SCOPE_MESSAGES
from turnpike.kernel import clock

T = TypeVar("T")

POLICY_ATTEMPTS = 4
MEMBER_LENGTH_MAX = 64


class Ask(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request as it came in, before anybody decided anything."""

    rid: str
    request_id: str
    headers: Mapping[bytes, bytes]
    address: str
    started_at_us: int
    begun_at: float
    is_chat: bool = False
    upstream: int | None = None  # where the objects live that it names
    memo: HeadMemo | None = None  # what was made of the same headers before

    def __repr__(self) -> str:
        """Without the headers: they hold a key."""
        return f"Ask({self.request_id})"


class Decision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the snapshots say: where the request may go, and what is asked of the limiter."""

    route: Route
    spec: Spec
    members: bytes
    hold_micro: int
    unseen_micro: int = 0  # the part of it for what `message_start` does not tell of
    demand: Demand | None = None  # None where only tokens are counted


Admitted = tuple[Decision, View, Admission]


class Admitter:
    """Decides on requests: all of policy, limits and money."""

    def __init__(
        self,
        *,
        config: ProxyConfig,
        authenticator: Authenticator,
        store: SnapshotStore,
        limiter: Limiter,
        refusals: RefusalLog,
        owners: Owners,
        estimator: Estimator,
    ) -> None:
        self._owners = owners
        self._estimator = estimator
        self._config = config
        self._authenticator = authenticator
        self._store = store
        self._limiter = limiter
        self._refusals = refusals

    def known(self, ask: Ask) -> View | None:
        """The view of the request's key where nobody need be asked. Raises ApiError 401."""
        return self._authenticator.known(ask.headers, ask.memo)

    async def authenticate(self, ask: Ask) -> View:
        """The view of the request's key. Raises ApiError 401, or 529 while nobody can tell."""
        try:
            return await self._authenticator.authenticate(ask.headers, address=ask.address)
        except PlaneCold as error:
            raise cold() from error
        except RedisAway as error:
            raise away() from error

    def admit(self, ask: Ask, view: View, body: MessagesBody) -> Awaitable[Admitted]:
        """Admit a request for an answer. Raises ApiError; then nothing is held or counted."""
        demand = demand_of(body)
        return self._admit(ask, view, body, demand.wants, self._decide, demand)

    def admit_count(self, ask: Ask, view: View, body: MessagesBody) -> Awaitable[Admitted]:
        """Admit a request that only counts tokens: it has a rate of its own, and costs nothing."""
        wants = wants_of(body)
        return self._admit(ask, view, body, wants, self._decide_count, wants)

    def begin(self, ask: Ask, body: MessagesBody, admitted: Admitted) -> Exchange:
        """The exchange of a request for an answer that was just admitted."""
        decision, view, admission = admitted
        demand = decision.demand
        assert demand is not None
        self._refusals.count(view.key.tenant, ACCEPTED, ask.started_at_us)
        exchange = Exchange(
            rid=ask.rid,
            request_id=ask.request_id,
            view=view,
            route=decision.route,
            model=decision.route.model.model,
            spec=decision.spec,
            members=decision.members,
            started_at_us=ask.started_at_us,
            admission=admission,
            max_tokens=body.max_tokens,
            hold_micro=decision.hold_micro,
            begun_at=ask.begun_at,
            beaten_at=ask.begun_at,
            wants=demand.wants,
            measure=demand.measure,
        )
        if decision.unseen_micro:  # hardly ever, and a call with more than 15 names is a slow one
            exchange.unseen_micro = decision.unseen_micro
        return exchange

    async def standing(self, ask: Ask, view: View, *, scope: str) -> View:
        """The key's view now, for what needs no admission: one round trip reads the versions."""
        try:
            current = await self._current(view)
        except (RedisAway, PlaneCold):
            current = view
        check_standing(current, scope=scope, address=ask.address)
        return current

    async def _admit(
        self,
        ask: Ask,
        view: View,
        body: MessagesBody,
        wants: Wants,
        decide: Callable[[Ask, View, MessagesBody, T], Decision],
        asked: T,
    ) -> Admitted:
        if wants.objects:
            ask, view = await self._pin(ask, view, wants, body.model)
        is_current = False
        for _ in range(POLICY_ATTEMPTS):
            try:
                decision = decide(ask, view, body, asked)
            except ApiError as refusal:
                newer = view if is_current else await self._current_or(view)
                if newer is view:
                    self._note(view, ask, refusal, body.model)
                    raise
                view, is_current = newer, True
                continue
            begun_at = clock.monotonic_seconds()
            admission = await self._limiter.admit(decision.spec, view.terms)
            METRICS.admit_seconds.observe(clock.monotonic_seconds() - begun_at)
            if admission.code != GRANTED or admission.is_local:
                await self._note_unusual(view, admission)
            if admission.code == GRANTED or admission.is_granted:
                return decision, view, admission
            if not admission.is_policy_stale:
                raise await self._refused(ask, view, decision, admission)
            METRICS.policy_retries.inc()
            view, is_current = await self._read_again(view), True
        raise overloaded("Your account is being changed. Try again shortly.", reason="policy")

    def _decide(self, ask: Ask, view: View, body: MessagesBody, demand: Demand) -> Decision:
        route = known_route(view, body.model, ask.started_at_us)
        is_plain = route is not None and route.is_plain and ask.upstream is None
        if route is None or not is_plain:
            check_standing(view, scope=SCOPE_MESSAGES, address=ask.address)
            refuse_denied_betas(ask.headers, view.tier.denied_betas)
            route = self._route(ask, view, body)
        demand = self._estimator.fitted(demand, route.model.model)
        discount_bp, unseen = view.terms.discount_bp, 0
        if demand.wants is NOTHING:
            hold = hold_micro(
                demand, price_set=route.price_set, model=route.model.model, discount_bp=discount_bp
            )
        else:
            others = check_wants(demand.wants, view, price_set=route.price_set)
            hold, unseen = _holds(demand, route, others, discount_bp=discount_bp)
        if not is_plain:
            route = with_chat_bodies(route, body)
        if hold is None:
            raise ApiError(
                404, "not_found_error", f"model: {body.model} has no price for this request"
            )
        members = event_members(
            route.fixed_members if is_plain else _fixed_members(ask, view, route),
            ask.rid,
            ask.started_at_us,
            is_stream=body.is_stream,
        )
        spec = build_spec(
            rid=ask.rid,
            plan=route.plan,
            input_estimate=demand.input_estimate,
            max_tokens=body.max_tokens,
            hold_micro=hold,
            base=base_json(members, route.hops[0].upstream_model, body.max_tokens),
            tenant_version=view.tenant_version,
            global_version=view.plane.version,
            lease_ms=self._config.lease_ms,
            at_us=ask.started_at_us,
        )
        return Decision(
            route=route,
            spec=spec,
            members=members,
            hold_micro=hold,
            unseen_micro=unseen,
            demand=demand,
        )

    def _decide_count(self, ask: Ask, view: View, body: MessagesBody, wants: Wants) -> Decision:
        check_standing(view, scope=SCOPE_COUNT_TOKENS, address=ask.address)
        refuse_denied_betas(ask.headers, view.tier.denied_betas)
        route = self._route(ask, view, body)
        check_wants(wants, view, price_set=route.price_set)
        spec = spec_count_tokens(
            rid=ask.rid,
            key=view.key,
            tier=view.tier,
            tenant_version=view.tenant_version,
            global_version=view.plane.version,
        )
        return Decision(route=route, spec=spec, members=b"", hold_micro=0)

    def _route(self, ask: Ask, view: View, body: MessagesBody) -> Route:
        if not ask.is_chat:
            check_claude(view, body.model)
        route = route_model(view, body.model, at_us=ask.started_at_us)
        return route if ask.upstream is None else narrowed(route, ask.upstream)

    async def _pin(self, ask: Ask, view: View, wants: Wants, model: str) -> tuple[Ask, View]:
        """Check that what a body names upstream is the tenant's, and remember where it lives."""
        view = await self._current_or(view)
        if may_share_objects(view):
            return ask, view
        try:
            upstream = await self._owners.find_upstream(view.key.tenant, wants.objects)
        except RedisAway as error:
            raise away() from error
        except ApiError as refusal:
            self._note(view, ask, refusal, model)
            raise
        return msgspec.structs.replace(ask, upstream=upstream), view

    async def _note_unusual(self, view: View, admission: Admission) -> None:
        if admission.is_local or admission.reason == REASON_AWAY:
            outcome = "admitted" if admission.is_local else "refused"
            METRICS.fallback_admissions.labels(outcome).inc()
        if admission.is_tenant_cold:
            with suppress(RedisAway):
                await self._store.mark_cold(view.key.tenant)

    async def _current(self, view: View) -> View:
        """The same view while its versions are in force, else a fresh one."""
        versions = await self._store.versions(view.key.tenant)
        if versions == (view.tenant_version, view.plane.version):
            return view
        return await self._authenticator.read_again(view)

    async def _current_or(self, view: View) -> View:
        try:
            return await self._current(view)
        except (RedisAway, PlaneCold):
            return view

    async def _read_again(self, view: View) -> View:
        try:
            return await self._authenticator.read_again(view)
        except PlaneCold as error:
            raise cold() from error
        except RedisAway as error:
            raise away() from error

    async def _refused(
        self, ask: Ask, view: View, decision: Decision, admission: Admission
    ) -> ApiError:
        if admission.is_cold:
            return cold()
        refusal = refusal_of(admission, decision.spec)
        error = ApiError(
            refusal.status,
            refusal.error_type,
            refusal.message,
            reason=admission.reason,
            headers=(*rate_limit_headers(decision.spec, admission), *refusal.headers),
        )
        numbers = {"wait_us": admission.wait_us, "available_micro": admission.available_micro}
        self._note(view, ask, error, decision.route.requested, **numbers)
        return error

    def _note(self, view: View, ask: Ask, error: ApiError, model: str, **numbers: Any) -> None:
        self._refusals.refuse(
            view.key.tenant,
            {
                "at_us": ask.started_at_us,
                "request_id": ask.request_id,
                "reason": error.reason,
                "status": error.status,
                "type": error.error_type,
                "message": error.message,
                "model": model[:200],
                "key": view.key.key_id,
                **numbers,
            },
        )


def _holds(
    demand: Demand, route: Route, others: tuple[OtherCalls, ...], *, discount_bp: int
) -> tuple[int | None, int]:
    """What is held, and the part of it for calls that the first words of an answer do not tell."""
    price = partial(
        hold_micro,
        price_set=route.price_set,
        model=route.model.model,
        discount_bp=discount_bp,
    )
    hold = price(demand, others=others)
    if hold is None:
        return None, 0
    plain = price(msgspec.structs.replace(demand, wants=NOTHING))
    return hold, hold - (plain or 0)


def _fixed_members(ask: Ask, view: View, route: Route) -> bytes:
    """The route's, unless the console says for which member it asks."""
    if view.key.kind != KIND_PLAYGROUND:
        return route.fixed_members
    member = ask.headers.get(b"x-turnpike-member", b"").decode("latin-1")[:MEMBER_LENGTH_MAX]
    return members_for(view, route, member=member) if member else route.fixed_members


def cold() -> ApiError:
    """529: the control plane has not published everything yet."""
    return overloaded("The service is starting. Try again shortly.", reason="cold")


def away() -> ApiError:
    """529: the limiter's server is away and the request does not qualify for the fallback."""
    return overloaded(
        "The service is recovering. Nothing was charged; try again shortly.", reason="away"
    )
