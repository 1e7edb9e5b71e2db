"""Publishes tier, price and route snapshots to Redis, values first and their version last.

Each publication reads what it writes under a lock of its own, so that an older reader can never
overwrite a newer one. What Redis does not take now is repaired by the next full publication.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import redis
from django.db.models import Q
from django.db.models.functions import Now

from accounts.models import Tenant
from billing.locks import lock_publication
from billing.models import (
    CatalogModel,
    Price,
    PriceBook,
    PriceSet,
    Route,
    Subscription,
    Tier,
    Upstream,
    Wallet,
)
from billing.models.catalog import DEFAULT_BOOK
from billing.models.state import PlatformState
from billing.models.tiers import DEFAULT_TIER
from billing.models.upstreams import ADMIN_CREDENTIAL
from billing.queries.balance import pending_by_tenant
from turnpike.contracts import snapshots
from turnpike.contracts.snapshots import (
    Candidate,
    CredentialSnapshot,
    Limits,
    ModelSnapshot,
    PlaneSnapshot,
    Switches,
    TenantTerms,
    TierSnapshot,
    UpstreamSnapshot,
)
from turnpike.control import policy
from turnpike.control.publication import note_published
from turnpike.control.redis import redis_client
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, codec, keyspace, money
from turnpike.kernel.errors import NotFound

logger = logging.getLogger(__name__)

TERMS_FIELD = "terms"
# Old sets stay for requests that began under them and are rated in the gateway.
PAST_PRICES = timedelta(hours=48)
# A prepaid tenant is served from the local fallback only above twice the fallback's cap of $1.
GOOD_STANDING_NANOS_MIN = 2 * money.NANOS_PER_UNIT
TENANTS_AT_ONCE_MAX = 500


def publish_terms(tenant: int) -> bool:
    """Write what a tenant bought; False where Redis did not take it. Raises no version."""
    try:
        with platform_scope("billing.publish_terms"):
            lock_publication(tenant=tenant)
            write_terms([tenant])
    except redis.RedisError:
        logger.exception("terms.not_published", extra={"tenant": tenant})
        return False
    note_published()
    return True


def publish_plane() -> bool:
    """Write tiers, models, prices, routes and upstreams, then the global version."""
    try:
        with platform_scope("billing.publish_plane"):
            version = write_plane()
            policy.raise_global_version(version)
    except redis.RedisError:
        logger.exception("plane.not_published")
        return False
    note_published()
    return True


def write_plane() -> int:
    """Write the plane's values and return the version that they have at least.

    Keeps the publication's lock until the caller's transaction ends: raise the version before.
    """
    lock_publication()
    state = PlatformState.objects.first()
    plane = plane_snapshot()
    fields = {name: codec.to_json(getattr(plane, name)) for name in snapshots.PLANE_FIELDS}
    pipeline = redis_client().pipeline()
    for name, text in fields.items():
        pipeline.hset(keyspace.PLANE, name, text)
    pipeline.execute()
    return 1 if state is None else state.policy_version


def write_terms(tenants: Iterable[int]) -> int:
    """Write the terms of some tenants in one round trip; how many there were."""
    pipeline = redis_client().pipeline(transaction=False)
    terms = terms_of(tenants)
    for tenant, value in terms.items():
        pipeline.hset(keyspace.tenant_snapshot(tenant), TERMS_FIELD, codec.to_json(value))
    pipeline.execute()
    return len(terms)


def terms_of(tenants: Iterable[int]) -> dict[int, TenantTerms]:
    """The terms of tenants by number; those without a subscription have the smallest tier."""
    numbers = list(tenants)
    subscriptions = {
        row.tenant_id: row
        for row in Subscription.objects.filter(tenant__in=numbers).select_related("tier")
    }
    wallets = Wallet.objects.in_bulk(numbers)
    pending = pending_by_tenant(*numbers) if numbers else {}
    book = PriceBook.objects.filter(name=DEFAULT_BOOK).values_list("pk", flat=True).first()
    return {
        tenant: _terms(
            subscriptions.get(tenant),
            wallets.get(tenant),
            default_book=book or 0,
            pending=pending.get(tenant, 0),
        )
        for tenant in numbers
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class TierOfTenant:
    """A tenant's terms with the tier and the name of the book that they name."""

    terms: TenantTerms
    tier: TierSnapshot
    book_name: str


def tier_of_tenant(tenant: int) -> TierOfTenant:
    """What a tenant bought, as the data plane sees it. Raises NotFound before the first import."""
    terms = terms_of([tenant])[tenant]
    tier = Tier.objects.prefetch_related("group_limits").filter(code=terms.tier).first()
    book = PriceBook.objects.filter(pk=terms.book).first()
    if tier is None or book is None:
        raise NotFound("No tiers or prices are set up yet.")
    return TierOfTenant(terms=terms, tier=_tier(tier), book_name=book.name)


def tenants_after(last: int) -> list[int]:
    """The next tenants by number: one bounded batch."""
    rows = Tenant.objects.filter(pk__gt=last).order_by("pk")
    return list(rows.values_list("pk", flat=True)[:TENANTS_AT_ONCE_MAX])


def plane_snapshot() -> PlaneSnapshot:
    """What is sold, at what price, and who answers, as PostgreSQL has it now."""
    return PlaneSnapshot(
        tiers={tier.code: _tier(tier) for tier in Tier.objects.prefetch_related("group_limits")},
        models={model.model: model for model in list_models()},
        prices=tuple(_price_sets()),
        routes=_routes(),
        upstreams={
            str(row.pk): _upstream(row)
            for row in Upstream.objects.prefetch_related("credentials").order_by("pk")
        },
        switches=read_switches(),
    )


def read_switches() -> Switches:
    """What operators decided for the whole platform."""
    state = PlatformState.objects.first() or PlatformState()
    return Switches(
        is_claude_only=state.is_claude_only, allowed_features=tuple(state.allowed_features)
    )


def list_models() -> list[ModelSnapshot]:
    """The catalogue's models by name, as the data plane sees them."""
    rows = CatalogModel.objects.prefetch_related("aliases").order_by("model")
    return [_model(row) for row in rows]


def limits_of(values: Mapping[str, int | None]) -> Limits:
    """Stored overrides as limits; names that are not known are ignored."""
    return Limits(**{name: values.get(name) for name in snapshots.LIMIT_NAMES})


def _terms(
    subscription: Subscription | None, wallet: Wallet | None, *, default_book: int, pending: int
) -> TenantTerms:
    balance = 0 if wallet is None else wallet.balance_nano + wallet.credit_limit_nano - pending
    mode = Wallet.Mode.PREPAID if wallet is None else Wallet.Mode(wallet.mode)
    is_postpaid = mode == Wallet.Mode.POSTPAID
    shared = TenantTerms(
        tier=DEFAULT_TIER,
        book=default_book,
        mode=mode.value,
        currency="USD" if wallet is None else wallet.currency,
        is_in_good_standing=is_postpaid or balance > GOOD_STANDING_NANOS_MIN,
        balance_micro=money.micros_down(balance),
    )
    if subscription is None:
        return shared
    return TenantTerms(
        tier=subscription.tier.code,
        book=subscription.book_id or default_book,
        overrides=limits_of(subscription.overrides),
        group_overrides={
            group: limits_of(values) for group, values in subscription.group_overrides.items()
        },
        discount_bp=subscription.discount_bp,
        mode=shared.mode,
        currency=shared.currency,
        is_in_good_standing=shared.is_in_good_standing,
        on_disconnect=subscription.on_disconnect,
        drain_seconds=subscription.drain_seconds,
        balance_micro=shared.balance_micro,
    )


def _tier(tier: Tier) -> TierSnapshot:
    return TierSnapshot(
        tier=tier.code,
        name=tier.name,
        limits=tier.limits,
        group_limits={row.limit_group: row.limits for row in tier.group_limits.all()},
        output_reserve_max=tier.output_reserve_max,
        count_tokens_per_minute=tier.count_tokens_per_minute,
        denied_betas=tuple(tier.denied_betas),
        denied_models=tuple(tier.denied_models),
        allowed_features=tuple(tier.allowed_features),
    )


def _model(row: CatalogModel) -> ModelSnapshot:
    return ModelSnapshot(
        model=row.model,
        display_name=row.display_name,
        line=row.line,
        limit_group=row.limit_group,
        created_at=clock.rfc3339(row.released_at),
        lifecycle=row.lifecycle,
        deprecated_at=_time(row.deprecated_at),
        retires_at=_time(row.retires_at),
        max_input_tokens=row.max_input_tokens,
        max_tokens=row.max_tokens,
        aliases=tuple(sorted(alias.alias for alias in row.aliases.all())),
        capabilities=row.capabilities,
        successor=row.successor or None,
        is_successor_allowed=row.is_successor_allowed,
        is_enabled=row.is_enabled,
    )


def _time(at: datetime | None) -> str | None:
    return None if at is None else clock.rfc3339(at)


def _price_sets() -> Iterable[snapshots.PriceSet]:
    is_current = Q(effective__endswith=None) | Q(effective__endswith__gt=Now() - PAST_PRICES)
    sets = PriceSet.objects.filter(is_current, effective__isempty=False).select_related("book")
    for row in sets.prefetch_related("prices").order_by("book_id", "effective"):
        yield price_set_snapshot(row)


def price_set_snapshot(row: PriceSet) -> snapshots.PriceSet:
    """A price set as the rating takes it."""
    prices: dict[str, list[snapshots.Price]] = {}
    for price in sorted(row.prices.all(), key=_price_order):
        prices.setdefault(price.model, []).append(
            snapshots.Price(
                component=price.component,
                variant=price.variant,
                min_input=price.min_input,
                nano_per_mtok=price.nano_per_mtok,
                nano_per_unit=price.nano_per_unit,
            )
        )
    begins_at, ends_at = row.effective.lower, row.effective.upper
    return snapshots.PriceSet(
        price_set=row.pk,
        book=row.book_id,
        from_us=0 if begins_at is None else clock.us_of_datetime(begins_at.astimezone(UTC)),
        until_us=None if ends_at is None else clock.us_of_datetime(ends_at.astimezone(UTC)),
        currency=row.book.currency,
        prices={model: tuple(rows) for model, rows in prices.items()},
    )


def _price_order(price: Price) -> tuple[str, str, str, int]:
    return price.model, price.variant, price.component, price.min_input


def _routes() -> dict[str, tuple[Candidate, ...]]:
    routes: dict[str, list[Candidate]] = {}
    rows = Route.objects.filter(is_enabled=True, upstream__is_enabled=True, weight__gt=0)
    for row in rows.select_related("model").order_by("model__model", "priority", "upstream_id"):
        routes.setdefault(row.model.model, []).append(
            Candidate(
                upstream=row.upstream_id,
                upstream_model=row.upstream_model,
                weight=row.weight,
                priority=row.priority,
            )
        )
    return {model: tuple(candidates) for model, candidates in routes.items()}


def _upstream(row: Upstream) -> UpstreamSnapshot:
    credentials = sorted(row.credentials.all(), key=lambda credential: credential.pk)
    return UpstreamSnapshot(
        upstream=row.pk,
        name=row.name,
        kind=row.kind,
        base_url=row.base_url,
        credentials=tuple(
            CredentialSnapshot(
                credential=credential.pk,
                sealed=credential.sealed,
                requests_per_minute=credential.requests_per_minute,
                concurrency=credential.concurrency,
            )
            for credential in credentials
            if credential.is_enabled and credential.name != ADMIN_CREDENTIAL
        ),
        is_enabled=row.is_enabled,
        is_draining=row.is_draining,
        requests_per_minute=row.requests_per_minute,
        concurrency=row.concurrency,
        is_simulator=row.is_simulator,
        send_request_id=row.send_request_id,
        on_disconnect=row.on_disconnect,
        connect_timeout_seconds=row.connect_timeout_ms / 1_000,
        silence_timeout_seconds=row.silence_timeout_ms / 1_000,
        answer_timeout_seconds=row.answer_timeout_ms / 1_000,
    )
