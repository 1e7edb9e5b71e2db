"""create_tier, set_tier, overrides: what a tenant may use and how much of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.db import transaction

from accounts.services.audit import record_audit
from accounts.services.policy import touch_tenant
from billing.models.catalog import DEFAULT_BOOK, PriceBook
from billing.models.tiers import DEFAULT_TIER, Subscription, Tier, TierGroupLimit
from billing.services.posting import publish_wallet
from billing.services.publication import touch_plane
from billing.snapshots import publish_terms
from turnpike.contracts.snapshots import (
    LIMIT_NAMES,
    ON_DISCONNECT_CANCEL,
    ON_DISCONNECT_DRAIN,
    Limits,
)
from turnpike.control.caller import Caller
from turnpike.control.publication import note_planned
from turnpike.control.scope import platform_scope
from turnpike.kernel.errors import InvalidInput, NotFound

DISCOUNT_BP_MAX = 10_000
DRAIN_SECONDS_MAX = 3_600


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippedTier:
    """A tier that every installation starts with."""

    code: str
    name: str
    limits: Limits


SHIPPED_TIERS = (
    ShippedTier(
        code=DEFAULT_TIER,
        name="Basic",
        limits=Limits(
            requests_per_minute=50, tokens_per_minute=100_000, concurrency=10, burst_seconds=60
        ),
    ),
    ShippedTier(
        code="pro",
        name="Pro",
        limits=Limits(
            requests_per_minute=200, tokens_per_minute=400_000, concurrency=40, burst_seconds=60
        ),
    ),
    # By contract: what a contract limits stands in the tenant's overrides.
    ShippedTier(
        code="enterprise",
        name="Enterprise",
        limits=Limits(
            requests_per_minute=4_000,
            tokens_per_minute=8_000_000,
            concurrency=400,
            burst_seconds=60,
        ),
    ),
)


def ensure_tiers() -> int:
    """Make the shipped tiers that are missing; an operator's changes to others stay."""
    known = set(Tier.objects.values_list("code", flat=True))
    missing = [shipped for shipped in SHIPPED_TIERS if shipped.code not in known]
    for shipped in missing:
        create_tier(code=shipped.code, name=shipped.name, limits=shipped.limits)
    return len(missing)


def create_tier(*, code: str, name: str, limits: Limits, **settings: Any) -> Tier:
    """Make a tier, or change the one of that code; holds from the next request."""
    _check_limits(limits)
    with transaction.atomic():
        tier, _ = Tier.objects.update_or_create(
            code=code, defaults={"name": name, **_columns(limits), **settings}
        )
        touch_plane()
    return tier


def set_group_limits(*, tier: str, limit_group: str, limits: Limits) -> TierGroupLimit:
    """Limit one group of models within a tier."""
    _check_limits(limits)
    with transaction.atomic():
        row, _ = TierGroupLimit.objects.update_or_create(
            tier=_get_tier(tier), limit_group=limit_group, defaults=_columns(limits)
        )
        touch_plane()
    return row


def set_tier(*, tenant: int, tier: str, actor: Caller | str, reason: str) -> Subscription:
    """Put a tenant on a tier; holds from the next request."""
    ensure_tiers()
    return _change(
        tenant, {"tier": _get_tier(tier)}, actor=actor, reason=reason, details={"tier": tier}
    )


def set_overrides(
    *,
    tenant: int,
    limits: Limits,
    group_limits: Mapping[str, Limits] | None = None,
    actor: Caller | str,
    reason: str,
) -> Subscription:
    """Replace a tenant's own limits, which stand above its tier's where they are set."""
    groups = dict(group_limits or {})
    for item in (limits, *groups.values()):
        _check_limits(item)
    values = {
        "overrides": _set_limits(limits),
        "group_overrides": {group: _set_limits(item) for group, item in groups.items()},
    }
    return _change(tenant, values, actor=actor, reason=reason, details=values)


def set_prices(
    *, tenant: int, book: str = DEFAULT_BOOK, discount_bp: int = 0, actor: Caller | str, reason: str
) -> Subscription:
    """Give a tenant a price book and a discount in basis points."""
    if not 0 <= discount_bp <= DISCOUNT_BP_MAX:
        raise InvalidInput(
            f"A discount is 0 to {DISCOUNT_BP_MAX} basis points, not {discount_bp}.",
            field="discount_bp",
        )
    row = PriceBook.objects.filter(name=book).first()
    if row is None:
        raise NotFound(f"There is no price book {book!r}.")
    return _change(
        tenant,
        {"book": row, "discount_bp": discount_bp},
        actor=actor,
        reason=reason,
        details={"book": book, "discount_bp": discount_bp},
    )


def set_disconnect(
    *,
    tenant: int,
    on_disconnect: str,
    drain_seconds: int | None = None,
    actor: Caller | str,
    reason: str,
) -> Subscription:
    """What happens when a tenant's client leaves its stream: `cancel`, `drain`, or so long.

    Empty: as each upstream has it. What a drain reads on is billed to the tenant as usual.
    """
    if on_disconnect not in {"", ON_DISCONNECT_CANCEL, ON_DISCONNECT_DRAIN}:
        raise InvalidInput("on_disconnect is cancel, drain or empty.", field="on_disconnect")
    if drain_seconds is not None and not 1 <= drain_seconds <= DRAIN_SECONDS_MAX:
        raise InvalidInput(
            f"drain_seconds is between 1 and {DRAIN_SECONDS_MAX}, or null.", field="drain_seconds"
        )
    values = {"on_disconnect": on_disconnect, "drain_seconds": drain_seconds}
    return _change(tenant, values, actor=actor, reason=reason, details=values)


def _change(
    tenant: int,
    values: dict[str, Any],
    *,
    actor: Caller | str,
    reason: str,
    details: Mapping[str, Any],
) -> Subscription:
    with platform_scope("billing.change_subscription"):
        row = Subscription.objects.select_for_update().filter(tenant_id=tenant).first()
        if row is None:
            ensure_tiers()
            row = Subscription(tenant_id=tenant, tier=_get_tier(DEFAULT_TIER))
        for name, value in values.items():
            setattr(row, name, value)
        row.save()
        record_audit(
            actor=actor,
            tenant=tenant,
            action="subscription.changed",
            target=row.tenant.public_id,
            after=details,
            reason=reason,
        )
        note_planned()
        # Terms and wallet go out before the version, which touch_tenant publishes after the commit.
        # A tenant without a cent has a wallet too: its requests lack credit, not a wallet.
        transaction.on_commit(partial(publish_terms, tenant))
        transaction.on_commit(partial(publish_wallet, tenant=tenant))
        touch_tenant(tenant)
    return row


def _get_tier(code: str) -> Tier:
    tier = Tier.objects.filter(code=code).first()
    if tier is None:
        raise NotFound(f"There is no tier {code!r}.")
    return tier


def _columns(limits: Limits) -> dict[str, int | None]:
    return {name: getattr(limits, name) for name in LIMIT_NAMES}


def _set_limits(limits: Limits) -> dict[str, int]:
    return {name: value for name, value in _columns(limits).items() if value is not None}


def _check_limits(limits: Limits) -> None:
    for name, value in _columns(limits).items():
        if value is not None and value < 1:
            raise InvalidInput(f"The limit {name} is at least 1, not {value}.", field=name)
