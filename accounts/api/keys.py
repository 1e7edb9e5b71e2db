"""/keys: inference and management keys; a secret is in the answer that made it and nowhere else."""

from datetime import timedelta
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import (
    access_key,
    access_keys,
    access_workspace,
    access_workspaces,
    check_power,
)
from accounts.api.fields import LimitsAnswer, LimitsInput, columns_of, read, write_limits
from accounts.models import (
    IP_RANGES_MAX,
    MODEL_NAME_LENGTH_MAX,
    MODELS_MAX,
    NAME_LENGTH_MAX,
    SCOPES_MAX,
    ApiKey,
    ApiKeyStatus,
    Workspace,
)
from accounts.services import keys
from accounts.services.keys import IssuedKey
from turnpike.control.caller import Caller, Power
from turnpike.control.drf import EffectiveSerializer, StrictSerializer, TenantView
from turnpike.control.pages import PAGE_PARAMETERS, keyset_page, page_of
from turnpike.kernel import clock


class KeySerializer(LimitsAnswer):
    """A key without its secret."""

    id = serializers.CharField()
    kind = serializers.ChoiceField(ApiKey.Kind.choices)
    name = serializers.CharField()
    hint = serializers.CharField(help_text="The first 13 and last 4 characters.")
    status = serializers.ChoiceField(ApiKeyStatus.choices)
    workspace_id = serializers.CharField()
    created_by = serializers.CharField(allow_null=True)
    created_at = serializers.CharField()
    scopes = serializers.ListField(child=serializers.CharField())
    models = serializers.ListField(child=serializers.CharField(), allow_null=True)
    ip_ranges = serializers.ListField(child=serializers.CharField())
    expires_at = serializers.CharField(allow_null=True)
    grace_ends_at = serializers.CharField(allow_null=True)
    replaced_by = serializers.CharField(allow_null=True)
    last_used_at = serializers.CharField(allow_null=True)


class ChangedKeySerializer(KeySerializer, EffectiveSerializer):
    """A key after a change."""


class IssuedKeySerializer(ChangedKeySerializer):
    """A new key with its secret, shown once; null when the answer is replayed."""

    secret = serializers.CharField(allow_null=True)


class KeyInput(LimitsInput):
    """Changes of a key."""

    name = serializers.CharField(required=False, max_length=NAME_LENGTH_MAX)
    scopes = serializers.ListField(
        child=serializers.CharField(max_length=32), required=False, max_length=SCOPES_MAX
    )
    models = serializers.ListField(
        child=serializers.CharField(max_length=MODEL_NAME_LENGTH_MAX),
        required=False,
        allow_null=True,
        max_length=MODELS_MAX,
    )
    ip_ranges = serializers.ListField(
        child=serializers.CharField(max_length=49), required=False, max_length=IP_RANGES_MAX
    )
    expires_at = serializers.DateTimeField(required=False, allow_null=True)


class NewKeyInput(KeyInput):
    """A new key; in the default workspace if none is named."""

    name = serializers.CharField(max_length=NAME_LENGTH_MAX)
    kind = serializers.ChoiceField(ApiKey.Kind.choices, default=ApiKey.Kind.API)
    workspace_id = serializers.CharField(required=False, max_length=64)


class RotateInput(StrictSerializer):
    """How long the old key goes on working."""

    grace_seconds = serializers.IntegerField(
        default=0, min_value=0, max_value=int(keys.GRACE_MAX.total_seconds())
    )


def _time(at: Any) -> str | None:
    return None if at is None else clock.rfc3339(at)


def _write(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.public_id,
        "kind": key.kind,
        "name": key.name,
        "hint": key.hint,
        "status": key.status_at(clock.utc_now()),
        "workspace_id": key.workspace.public_id,
        "created_by": None if key.created_by is None else key.created_by.public_id,
        "created_at": clock.rfc3339(key.created_at),
        "scopes": list(key.scopes),
        "models": None if key.allowed_models is None else list(key.allowed_models),
        "ip_ranges": list(key.ip_ranges),
        "expires_at": _time(key.expires_at),
        "grace_ends_at": _time(key.grace_ends_at),
        "replaced_by": None if key.replaced_by is None else key.replaced_by.public_id,
        "last_used_at": _time(key.last_used_at),
        **write_limits(key),
    }


def _write_issued(issued: IssuedKey) -> dict[str, Any]:
    return {**_write(issued.key), "secret": issued.secret}


def _workspace_of(caller: Caller, workspace_id: str | None) -> Workspace:
    if workspace_id is not None:
        return access_workspace(caller, workspace_id, power=Power.KEYS_WRITE)
    return access_workspaces(caller, power=Power.KEYS_WRITE).get(is_default=True)


class KeysView(TenantView):
    """The tenant's keys."""

    powers = {"GET": Power.KEYS_READ, "POST": Power.KEYS_WRITE}

    @extend_schema(
        operation_id="keys_list", parameters=PAGE_PARAMETERS, responses=page_of(KeySerializer)
    )
    def get(self, request: Request) -> Response:
        """All keys, ended ones included, newest first."""
        rows = access_keys(self.caller, power=Power.KEYS_READ)
        return Response(keyset_page(request, rows, write=_write))

    @extend_schema(
        operation_id="keys_create", request=NewKeyInput, responses={201: IssuedKeySerializer}
    )
    def post(self, request: Request) -> Response:
        """Make a key; its secret is in this answer alone."""
        values = read(NewKeyInput, request.data)
        kind, workspace_id = values.pop("kind"), values.pop("workspace_id", None)
        if kind == ApiKey.Kind.MANAGEMENT:
            check_power(self.caller, Power.MANAGEMENT_KEYS_WRITE)
        workspace = _workspace_of(self.caller, workspace_id)
        issued = keys.issue_key(
            caller=self.caller, workspace=workspace, kind=kind, settings=columns_of(values)
        )
        return Response(_write_issued(issued), status=201)


class KeyView(TenantView):
    """One key."""

    powers = {"GET": Power.KEYS_READ, "PATCH": Power.KEYS_WRITE}

    @extend_schema(operation_id="keys_get", responses=KeySerializer)
    def get(self, _request: Request, key_id: str) -> Response:
        """One key."""
        return Response(_write(access_key(self.caller, key_id, power=Power.KEYS_READ)))

    @extend_schema(operation_id="keys_update", request=KeyInput, responses=ChangedKeySerializer)
    def patch(self, request: Request, key_id: str) -> Response:
        """Change a key's settings."""
        key = access_key(self.caller, key_id, power=Power.KEYS_WRITE)
        changes = columns_of(read(KeyInput, request.data))
        return Response(_write(keys.update_key(caller=self.caller, key=key, changes=changes)))


class DisableKeyView(TenantView):
    """Disabling a key."""

    powers = {"POST": Power.KEYS_WRITE}

    @extend_schema(operation_id="keys_disable", request=None, responses=ChangedKeySerializer)
    def post(self, _request: Request, key_id: str) -> Response:
        """Stop a key until it is enabled again."""
        key = access_key(self.caller, key_id, power=Power.KEYS_WRITE)
        return Response(_write(keys.disable_key(caller=self.caller, key=key)))


class EnableKeyView(TenantView):
    """Enabling a key."""

    powers = {"POST": Power.KEYS_WRITE}

    @extend_schema(operation_id="keys_enable", request=None, responses=ChangedKeySerializer)
    def post(self, _request: Request, key_id: str) -> Response:
        """Let a disabled key work again."""
        key = access_key(self.caller, key_id, power=Power.KEYS_WRITE)
        return Response(_write(keys.enable_key(caller=self.caller, key=key)))


class RotateKeyView(TenantView):
    """Rotating a key."""

    powers = {"POST": Power.KEYS_WRITE}

    @extend_schema(
        operation_id="keys_rotate", request=RotateInput, responses={201: IssuedKeySerializer}
    )
    def post(self, request: Request, key_id: str) -> Response:
        """Replace a key; the old one works until the grace ends. The answer is the new one."""
        key = access_key(self.caller, key_id, power=Power.KEYS_WRITE)
        grace = timedelta(seconds=read(RotateInput, request.data)["grace_seconds"])
        issued = keys.rotate_key(caller=self.caller, key=key, grace=grace)
        return Response(_write_issued(issued), status=201)


class RevokeKeyView(TenantView):
    """Revoking a key."""

    powers = {"POST": Power.KEYS_WRITE}

    @extend_schema(operation_id="keys_revoke", request=None, responses=ChangedKeySerializer)
    def post(self, _request: Request, key_id: str) -> Response:
        """Stop a key for good."""
        key = access_key(self.caller, key_id, power=Power.KEYS_WRITE)
        return Response(_write(keys.revoke_key(caller=self.caller, key=key)))
