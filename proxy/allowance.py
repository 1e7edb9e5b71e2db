"""What of a body's wants a tenant may have: features by tier and platform, models by name.

What is off, or can never be priced, is refused with a 400 that says so, before anything is held.
"""

from proxy.api_errors import ApiError
from proxy.routing import check_model_use
from proxy.snapshots import View
from turnpike.contracts.demand import OtherCalls
from turnpike.contracts.features import FEATURES, SHARED_OBJECTS, NotServed, Wants
from turnpike.contracts.naming import CLAUDE_PREFIX
from turnpike.contracts.snapshots import PriceSet

FEATURE_OFF = "feature_not_enabled"


def check_wants(wants: Wants, view: View, *, price_set: PriceSet) -> tuple[OtherCalls, ...]:
    """Refuse features that are off, and find the other models that may be called and billed.

    Raises ApiError: 400 for a feature, 403 or 404 for a model as if it were asked for itself.
    """
    if not (wants.features or wants.fallbacks or wants.advisors):
        return ()
    for name in sorted(wants.features):
        if not is_allowed(name, view):
            raise feature_off(name)
    named = [*((name, 1) for name in wants.fallbacks), *wants.advisors]
    return tuple(
        OtherCalls(check_model_use(view, name, price_set=price_set).model, calls)
        for name, calls in named
    )


def is_allowed(feature: str, view: View) -> bool:
    """Whether a feature that is off by default is on for this tenant."""
    switches = view.plane.snapshot.switches
    return feature in switches.allowed_features or feature in view.tier.allowed_features


def may_share_objects(view: View) -> bool:
    """Whether the tenant may name upstream objects that are not known to be its own."""
    return is_allowed(SHARED_OBJECTS, view)


def check_claude(view: View, name: str) -> None:
    """Refuse another maker's model where the operator serves none on /v1/messages."""
    if not view.plane.snapshot.switches.is_claude_only:
        return
    model = view.plane.find_model(name)
    if model is not None and not model.model.startswith(CLAUDE_PREFIX):
        raise ApiError(
            400,
            "invalid_request_error",
            f"model: {name[:200]} is served on /v1/chat/completions; /v1/messages serves Claude"
            " models alone",
            reason="claude_only",
            details={"error_code": "model_not_on_this_endpoint"},
        )


def feature_off(name: str) -> ApiError:
    """400: the feature exists, and this platform or tier does not have it on."""
    return ApiError(
        400,
        "invalid_request_error",
        f"`{name}` is not enabled for this account: {FEATURES[name]}.",
        reason="feature",
        details={"error_code": FEATURE_OFF, "feature": name},
    )


def not_served(error: NotServed) -> ApiError:
    """400: what is asked for cannot be priced, whatever an operator says."""
    return ApiError(400, "invalid_request_error", str(error), reason="feature")
