"""/operator/features and /disconnect: switches of operators, and what a client's leaving means."""

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import access_any_tenant
from accounts.api.fields import read
from accounts.models import REASON_LENGTH_MAX
from billing.models.tiers import Subscription
from billing.services.features import set_switches, set_tier_features
from billing.services.tiers import DRAIN_SECONDS_MAX, set_disconnect
from billing.snapshots import read_switches
from turnpike.contracts.features import FEATURES
from turnpike.contracts.snapshots import ON_DISCONNECT_CANCEL, ON_DISCONNECT_DRAIN, Switches
from turnpike.control.caller import Caller, Power
from turnpike.control.drf import EffectiveSerializer, OperatorView, StrictSerializer, TenantView

OWN_REASON = "The tenant's own setting."
ON_DISCONNECT = ("", ON_DISCONNECT_CANCEL, ON_DISCONNECT_DRAIN)


class FeaturesSerializer(serializers.Serializer[Any]):
    """What holds for the whole platform."""

    is_claude_only = serializers.BooleanField(
        help_text="/v1/messages serves Claude models alone; others keep /v1/chat/completions."
    )
    allowed_features = serializers.ListField(child=serializers.CharField())
    known_features = serializers.DictField(
        child=serializers.CharField(), help_text="Each with the reason why it is off by default."
    )


class ChangedFeaturesSerializer(FeaturesSerializer, EffectiveSerializer):
    """The same after a change."""


class FeatureListInput(StrictSerializer):
    """Features to switch on; what is not named is off."""

    allowed_features = serializers.ListField(
        child=serializers.CharField(max_length=100), max_length=len(FEATURES)
    )
    reason = serializers.CharField(max_length=REASON_LENGTH_MAX)


class FeaturesInput(FeatureListInput):
    """What to change; absent: as it is."""

    allowed_features = serializers.ListField(
        child=serializers.CharField(max_length=100), max_length=len(FEATURES), required=False
    )
    is_claude_only = serializers.BooleanField(required=False)


class TierFeaturesSerializer(EffectiveSerializer):
    """The features of a tier."""

    tier = serializers.CharField()
    allowed_features = serializers.ListField(child=serializers.CharField())


class DisconnectSerializer(serializers.Serializer[Any]):
    """What happens when a client leaves its stream."""

    on_disconnect = serializers.ChoiceField(
        ON_DISCONNECT, help_text="cancel, drain (read on, and charge it), empty: the upstream's."
    )
    drain_seconds = serializers.IntegerField(
        allow_null=True, help_text="How long a drain reads on; null: to the end."
    )


class ChangedDisconnectSerializer(DisconnectSerializer, EffectiveSerializer):
    """The same after a change."""


class DisconnectInput(StrictSerializer):
    """The policy as a whole: what is absent goes back to its default."""

    on_disconnect = serializers.ChoiceField(ON_DISCONNECT)
    drain_seconds = serializers.IntegerField(
        required=False, allow_null=True, default=None, min_value=1, max_value=DRAIN_SECONDS_MAX
    )


class DisconnectOperatorInput(DisconnectInput):
    """The same with an operator's reason."""

    reason = serializers.CharField(max_length=REASON_LENGTH_MAX)


class FeaturesView(OperatorView):
    """Switches of the whole platform."""

    @extend_schema(operation_id="operator_features_get", responses=FeaturesSerializer)
    def get(self, _request: Request) -> Response:
        """What is on for everybody, and what there is."""
        return Response(_write_switches(read_switches()))

    @extend_schema(
        operation_id="operator_features_update",
        request=FeaturesInput,
        responses=ChangedFeaturesSerializer,
    )
    def patch(self, request: Request) -> Response:
        """Switch features on or off for every tier, and models of other makers on /v1/messages."""
        values = read(FeaturesInput, request.data)
        return Response(_write_switches(set_switches(caller=self.caller, **values)))


class TierFeaturesView(OperatorView):
    """What one tier has besides."""

    @extend_schema(
        operation_id="operator_tiers_set_features",
        request=FeatureListInput,
        responses=TierFeaturesSerializer,
    )
    def put(self, request: Request, tier: str) -> Response:
        """Replace the features that are on for a tier."""
        values = read(FeatureListInput, request.data)
        row = set_tier_features(caller=self.caller, tier=tier, **values)
        return Response({"tier": row.code, "allowed_features": row.allowed_features})


class DisconnectView(TenantView):
    """The tenant's own policy."""

    powers: ClassVar = {"GET": Power.TENANT_READ, "PUT": Power.TENANT_WRITE}

    @extend_schema(operation_id="disconnect_get", responses=DisconnectSerializer)
    def get(self, _request: Request) -> Response:
        """What happens when a client leaves its stream."""
        assert self.caller.tenant is not None
        row = Subscription.objects.filter(tenant_id=self.caller.tenant).first()
        return Response(_write_disconnect(row))

    @extend_schema(
        operation_id="disconnect_set",
        request=DisconnectInput,
        responses=ChangedDisconnectSerializer,
    )
    def put(self, request: Request) -> Response:
        """Cancel the model's answer, or read it to its end; what is read is charged."""
        values = read(DisconnectInput, request.data)
        assert self.caller.tenant is not None
        return _set(self.caller, self.caller.tenant, {**values, "reason": OWN_REASON})


class OperatorDisconnectView(OperatorView):
    """A tenant's policy, set by an operator."""

    @extend_schema(
        operation_id="operator_tenants_set_disconnect",
        request=DisconnectOperatorInput,
        responses=ChangedDisconnectSerializer,
    )
    def put(self, request: Request, tenant_id: str) -> Response:
        """Set what happens when a client of this tenant leaves its stream."""
        tenant = access_any_tenant(self.caller, tenant_id)
        return _set(self.caller, tenant.pk, read(DisconnectOperatorInput, request.data))


def _set(caller: Caller, tenant: int, values: dict[str, Any]) -> Response:
    return Response(_write_disconnect(set_disconnect(tenant=tenant, actor=caller, **values)))


def _write_disconnect(row: Subscription | None) -> dict[str, Any]:
    return {
        "on_disconnect": "" if row is None else row.on_disconnect,
        "drain_seconds": None if row is None else row.drain_seconds,
    }


def _write_switches(switches: Switches) -> dict[str, Any]:
    return {
        "is_claude_only": switches.is_claude_only,
        "allowed_features": list(switches.allowed_features),
        "known_features": dict(FEATURES),
    }
