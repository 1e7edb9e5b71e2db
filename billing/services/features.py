"""What operators switch on: features that are off by default, and which models /v1/messages serves.

Each change is written to the platform's audit log with its reason and holds from the next request.
"""

from collections.abc import Collection
from dataclasses import asdict

from django.db import transaction

from accounts.services.audit import record_audit
from accounts.services.settings import check_reason
from billing.locks import lock_state
from billing.models.tiers import Tier
from billing.services.publication import touch_plane
from billing.snapshots import read_switches
from turnpike.contracts.features import FEATURES
from turnpike.contracts.snapshots import Switches
from turnpike.control.caller import Caller
from turnpike.kernel.errors import InvalidInput, NotFound


def set_switches(
    *,
    caller: Caller,
    is_claude_only: bool | None = None,
    allowed_features: Collection[str] | None = None,
    reason: str,
) -> Switches:
    """Change what holds for the whole platform; None leaves a switch as it is."""
    checked_reason = check_reason(reason)
    with transaction.atomic():
        before, state = read_switches(), lock_state()
        if is_claude_only is not None:
            state.is_claude_only = is_claude_only
        if allowed_features is not None:
            state.allowed_features = _checked(allowed_features)
        state.save(update_fields=["is_claude_only", "allowed_features"])
        after = read_switches()
        record_audit(
            actor=caller,
            tenant=None,
            action="platform.switches_changed",
            target="platform",
            before=asdict(before),
            after=asdict(after),
            reason=checked_reason,
        )
        touch_plane()
    return after


def set_tier_features(
    *, caller: Caller, tier: str, allowed_features: Collection[str], reason: str
) -> Tier:
    """Replace the features that a tier has besides the platform's."""
    checked_reason = check_reason(reason)
    with transaction.atomic():
        row = Tier.objects.select_for_update().filter(code=tier).first()
        if row is None:
            raise NotFound(f"There is no tier {tier!r}.")
        before, row.allowed_features = row.allowed_features, _checked(allowed_features)
        row.save(update_fields=["allowed_features"])
        record_audit(
            actor=caller,
            tenant=None,
            action="tier.features_changed",
            target=f"tier/{row.code}",
            before={"allowed_features": before},
            after={"allowed_features": row.allowed_features},
            reason=checked_reason,
        )
        touch_plane()
    return row


def _checked(features: Collection[str]) -> list[str]:
    unknown = sorted(set(features) - set(FEATURES))
    if unknown:
        raise InvalidInput(
            f"There is no feature {unknown[0]!r}; there are {', '.join(sorted(FEATURES))}.",
            field="allowed_features",
        )
    return sorted(set(features))
