"""/operator/upstreams: who answers requests, for the platform's staff alone.

Secrets go in and never come out: what is shown of a credential is its last four characters.
"""

from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.fields import read
from accounts.models import REASON_LENGTH_MAX
from billing.models.upstreams import Upstream, UpstreamCredential
from billing.services import upstream_control as control
from billing.services.upstream_probe import probe_upstream
from turnpike.control.caller import Caller
from turnpike.control.drf import EffectiveSerializer, OperatorView, StrictSerializer
from turnpike.control.pages import PAGE_PARAMETERS, keyset_page, page_of

NAME_LENGTH_MAX = 100
SECRET_LENGTH_MAX = 4_096
MODELS_MAX = 1_000
WEIGHT_MAX = 1_000_000
PRIORITY_MAX = 1_000

STATES = ("enabled", "draining", "disabled")


class CredentialSerializer(serializers.Serializer[Any]):
    """A credential, without its secret."""

    name = serializers.CharField()
    last_four = serializers.CharField(help_text="Empty where the secret is short.")
    is_enabled = serializers.BooleanField()
    requests_per_minute = serializers.IntegerField(allow_null=True)
    concurrency = serializers.IntegerField(allow_null=True)


class UpstreamSerializer(serializers.Serializer[Any]):
    """An upstream."""

    id = serializers.CharField()
    name = serializers.CharField()
    kind = serializers.ChoiceField(Upstream.Kind.choices)
    base_url = serializers.CharField()
    state = serializers.ChoiceField(STATES)
    weight = serializers.IntegerField()
    priority = serializers.IntegerField()
    requests_per_minute = serializers.IntegerField(allow_null=True)
    concurrency = serializers.IntegerField(allow_null=True)
    on_disconnect = serializers.ChoiceField(Upstream.Disconnect.choices)
    has_batches = serializers.BooleanField()
    is_simulator = serializers.BooleanField()
    models = serializers.IntegerField(help_text="How many models are routed to it.")
    credentials = CredentialSerializer(many=True)


class ChangedUpstreamSerializer(UpstreamSerializer, EffectiveSerializer):
    """An upstream after a change."""


class UpstreamInput(StrictSerializer):
    """What can be changed of an upstream; null takes a cap away."""

    weight = serializers.IntegerField(required=False, min_value=1, max_value=WEIGHT_MAX)
    priority = serializers.IntegerField(required=False, min_value=0, max_value=PRIORITY_MAX)
    requests_per_minute = serializers.IntegerField(required=False, allow_null=True, min_value=0)
    concurrency = serializers.IntegerField(required=False, allow_null=True, min_value=0)
    on_disconnect = serializers.ChoiceField(Upstream.Disconnect.choices, required=False)
    has_batches = serializers.BooleanField(
        required=False, help_text="Message batches go to it as a whole; else request by request."
    )
    reason = serializers.CharField(max_length=REASON_LENGTH_MAX)


class NewUpstreamInput(UpstreamInput):
    """A new upstream. Without `models` it gets all that its kind serves."""

    name = serializers.CharField(max_length=NAME_LENGTH_MAX)
    kind = serializers.ChoiceField(Upstream.Kind.choices)
    base_url = serializers.URLField(max_length=500)
    models = serializers.ListField(
        child=serializers.CharField(max_length=200), required=False, max_length=MODELS_MAX
    )
    secret = serializers.CharField(required=False, max_length=SECRET_LENGTH_MAX, write_only=True)


class StateInput(StrictSerializer):
    """Why an operator changes an upstream's state."""

    reason = serializers.CharField(max_length=REASON_LENGTH_MAX)


class CredentialInput(StrictSerializer):
    """A credential's secret and caps. The secret is never shown again."""

    secret = serializers.CharField(max_length=SECRET_LENGTH_MAX, write_only=True)
    requests_per_minute = serializers.IntegerField(required=False, allow_null=True, min_value=0)
    concurrency = serializers.IntegerField(required=False, allow_null=True, min_value=0)
    reason = serializers.CharField(max_length=REASON_LENGTH_MAX)


class ChangedCredentialSerializer(CredentialSerializer, EffectiveSerializer):
    """A credential after a change."""


class ProbeSerializer(serializers.Serializer[Any]):
    """What came back for one credential."""

    credential = serializers.CharField()
    is_ok = serializers.BooleanField()
    http_status = serializers.IntegerField(allow_null=True)
    seconds = serializers.FloatField()
    detail = serializers.CharField()


class ProbesSerializer(serializers.Serializer[Any]):
    """What came back for each credential."""

    probes = ProbeSerializer(many=True)


class UpstreamsView(OperatorView):
    """All upstreams."""

    @extend_schema(
        operation_id="operator_upstreams_list",
        parameters=PAGE_PARAMETERS,
        responses=page_of(UpstreamSerializer),
    )
    def get(self, request: Request) -> Response:
        """All upstreams, newest first."""
        rows = Upstream.objects.prefetch_related("credentials", "routes")
        return Response(keyset_page(request, rows, write=_write))

    @extend_schema(
        operation_id="operator_upstreams_create",
        request=NewUpstreamInput,
        responses={201: ChangedUpstreamSerializer},
    )
    def post(self, request: Request) -> Response:
        """Add an upstream; it serves from the next request."""
        values = read(NewUpstreamInput, request.data)
        reason, secret = values.pop("reason"), values.pop("secret", None)
        row = control.create_upstream(
            caller=self.caller, values=values, secret=secret, reason=reason
        )
        return Response(_write(row), status=201)


class UpstreamView(OperatorView):
    """One upstream."""

    @extend_schema(operation_id="operator_upstreams_get", responses=UpstreamSerializer)
    def get(self, _request: Request, upstream_id: str) -> Response:
        """One upstream."""
        return Response(_write(control.get_upstream(upstream_id)))

    @extend_schema(
        operation_id="operator_upstreams_update",
        request=UpstreamInput,
        responses=ChangedUpstreamSerializer,
    )
    def patch(self, request: Request, upstream_id: str) -> Response:
        """Change weight, priority, caps or what happens when a client leaves."""
        values = read(UpstreamInput, request.data)
        reason = values.pop("reason")
        row = control.update_upstream(
            caller=self.caller, number=upstream_id, changes=values, reason=reason
        )
        return Response(_write(row))


class EnableUpstreamView(OperatorView):
    """Puts an upstream into service."""

    @extend_schema(
        operation_id="operator_upstreams_enable",
        request=StateInput,
        responses=ChangedUpstreamSerializer,
    )
    def post(self, request: Request, upstream_id: str) -> Response:
        """Serve from the next request, new conversations too."""
        changes = {"is_enabled": True, "is_draining": False}
        return _change_state(self.caller, request, upstream_id, changes)


class DisableUpstreamView(OperatorView):
    """Takes an upstream out of service."""

    @extend_schema(
        operation_id="operator_upstreams_disable",
        request=StateInput,
        responses=ChangedUpstreamSerializer,
    )
    def post(self, request: Request, upstream_id: str) -> Response:
        """Send nothing more from the next request; what runs there ends by itself."""
        changes = {"is_enabled": False}
        return _change_state(self.caller, request, upstream_id, changes)


class DrainUpstreamView(OperatorView):
    """Empties an upstream without anybody noticing."""

    @extend_schema(
        operation_id="operator_upstreams_drain",
        request=StateInput,
        responses=ChangedUpstreamSerializer,
    )
    def post(self, request: Request, upstream_id: str) -> Response:
        """Leave it the conversations that it has, and give it no new ones."""
        changes = {"is_draining": True}
        return _change_state(self.caller, request, upstream_id, changes)


class UpstreamCredentialView(OperatorView):
    """One credential of an upstream, by its name."""

    @extend_schema(
        operation_id="operator_upstreams_set_credential",
        request=CredentialInput,
        responses=ChangedCredentialSerializer,
    )
    def put(self, request: Request, upstream_id: str, name: str) -> Response:
        """Add the credential of that name, or replace its secret; used from the next request."""
        values = read(CredentialInput, request.data)
        row = control.replace_credential(
            caller=self.caller,
            number=upstream_id,
            name=name[:NAME_LENGTH_MAX],
            secret=values["secret"],
            caps={cap: values[cap] for cap in control.CAPS if cap in values},
            reason=values["reason"],
        )
        return Response(_write_credential(row))

    @extend_schema(
        operation_id="operator_upstreams_disable_credential",
        request=StateInput,
        responses=ChangedUpstreamSerializer,
    )
    def delete(self, request: Request, upstream_id: str, name: str) -> Response:
        """Use the credential no more, and throw its secret away."""
        reason = read(StateInput, request.data)["reason"]
        control.disable_credential(caller=self.caller, number=upstream_id, name=name, reason=reason)
        return Response(_write(control.get_upstream(upstream_id)))


class ProbeUpstreamView(OperatorView):
    """Asks an upstream something that costs nothing."""

    @extend_schema(operation_id="operator_upstreams_test", request=None, responses=ProbesSerializer)
    def post(self, _request: Request, upstream_id: str) -> Response:
        """Whether it can be reached and takes its credentials."""
        row = control.get_upstream(upstream_id)
        return Response({"probes": [asdict(probe) for probe in probe_upstream(row)]})


def _change_state(
    caller: Caller, request: Request, upstream_id: str, changes: dict[str, bool]
) -> Response:
    reason = read(StateInput, request.data)["reason"]
    row = control.update_upstream(caller=caller, number=upstream_id, changes=changes, reason=reason)
    return Response(_write(row))


def _write(row: Upstream) -> dict[str, Any]:
    state = "disabled" if not row.is_enabled else "draining" if row.is_draining else "enabled"
    credentials = sorted(row.credentials.all(), key=lambda item: item.name)
    return {
        "id": str(row.pk),
        "name": row.name,
        "kind": row.kind,
        "base_url": row.base_url,
        "state": state,
        "weight": row.default_weight,
        "priority": row.default_priority,
        "requests_per_minute": row.requests_per_minute,
        "concurrency": row.concurrency,
        "on_disconnect": row.on_disconnect,
        "has_batches": row.has_batches,
        "is_simulator": row.is_simulator,
        "models": len(row.routes.all()),
        "credentials": [_write_credential(item) for item in credentials],
    }


def _write_credential(row: UpstreamCredential) -> dict[str, Any]:
    return {
        "name": row.name,
        "last_four": row.hint[-control.SHOWN_TAIL :],
        "is_enabled": row.is_enabled,
        "requests_per_minute": row.requests_per_minute,
        "concurrency": row.concurrency,
    }
