"""/v1/organizations/me and api_keys: the Admin API's view of a tenant and its inference keys.

Management keys are no part of it, as Anthropic's Admin keys are none: a program that archives all
keys does not shut itself out.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import access_key, access_keys, access_tenant
from accounts.api.fields import read
from accounts.models import NAME_LENGTH_MAX, ApiKey, ApiKeyStatus
from accounts.queries import keys_of_status
from accounts.services import keys
from turnpike.control.caller import Caller, Power
from turnpike.control.drf import StrictSerializer
from turnpike.control.organizations import ID_PAGE_PARAMETERS, OrganizationView, id_page
from turnpike.kernel import clock, ids
from turnpike.kernel.errors import InvalidInput, NotFound

# Our word for a key's state -> the Admin API's.
STATUSES: Mapping[ApiKeyStatus, str] = {
    ApiKeyStatus.ACTIVE: "active",
    ApiKeyStatus.DISABLED: "inactive",
    ApiKeyStatus.EXPIRED: "expired",
    ApiKeyStatus.REVOKED: "archived",
}
_OURS = {shown: status for status, shown in STATUSES.items()}
_CHANGES: Mapping[str, Callable[..., ApiKey]] = {
    "active": keys.enable_key,
    "inactive": keys.disable_key,
    "archived": keys.revoke_key,
}


class ApiKeyInput(StrictSerializer):
    """A key's new name or status; null leaves it as it is. `archived` is for good."""

    name = serializers.CharField(required=False, allow_null=True, max_length=NAME_LENGTH_MAX)
    status = serializers.ChoiceField(sorted(_CHANGES), required=False, allow_null=True)


class MeView(OrganizationView):
    """Whose key it is."""

    powers: ClassVar = {"GET": Power.TENANT_READ}

    @extend_schema(operation_id="organization_me", responses=OpenApiTypes.OBJECT)
    def get(self, _request: Request) -> Response:
        """The tenant of the management key."""
        tenant = access_tenant(self.caller, power=Power.TENANT_READ)
        return Response({"id": tenant.public_id, "type": "organization", "name": tenant.name})


class ApiKeysView(OrganizationView):
    """The tenant's inference keys."""

    powers: ClassVar = {"GET": Power.KEYS_READ}

    @extend_schema(
        operation_id="organization_api_keys_list",
        parameters=ID_PAGE_PARAMETERS,
        responses=OpenApiTypes.OBJECT,
    )
    def get(self, request: Request) -> Response:
        """Keys, newest first; `status`, `workspace_id` and `created_by_user_id` narrow them."""
        rows = access_keys(self.caller, power=Power.KEYS_READ).filter(kind=ApiKey.Kind.API)
        status = request.query_params.get("status")
        if status is not None:
            if status not in _OURS:
                raise InvalidInput(f"status: must be one of {', '.join(_OURS)}", field="status")
            rows = keys_of_status(rows, _OURS[status], at=clock.utc_now())
        for name, prefix, column in (
            ("workspace_id", ids.WORKSPACE, "workspace__uuid"),
            ("created_by_user_id", ids.USER, "created_by__uuid"),
        ):
            text = request.query_params.get(name)
            if text is not None:
                try:
                    rows = rows.filter(**{column: ids.parse_public_id(prefix, text)})
                except ValueError:
                    rows = rows.none()
        return Response(id_page(request, rows, prefix=ids.API_KEY, write=_write))


class OneApiKeyView(OrganizationView):
    """One inference key."""

    powers: ClassVar = {"GET": Power.KEYS_READ, "POST": Power.KEYS_WRITE}

    @extend_schema(operation_id="organization_api_keys_get", responses=OpenApiTypes.OBJECT)
    def get(self, _request: Request, api_key_id: str) -> Response:
        """The key without its secret."""
        return Response(_write(_get(self.caller, api_key_id, power=Power.KEYS_READ)))

    @extend_schema(
        operation_id="organization_api_keys_update",
        request=ApiKeyInput,
        responses=OpenApiTypes.OBJECT,
    )
    def post(self, request: Request, api_key_id: str) -> Response:
        """Rename it, switch it off or on, or archive it; holds from the next request."""
        key = _get(self.caller, api_key_id, power=Power.KEYS_WRITE)
        values = read(ApiKeyInput, request.data)
        name, status = values.get("name"), values.get("status")
        if name is not None and name != key.name:
            key = keys.update_key(caller=self.caller, key=key, changes={"name": name})
        if status is not None and status != STATUSES[key.status_at(clock.utc_now())]:
            key = _CHANGES[status](caller=self.caller, key=key)
        return Response(_write(key))


def _get(caller: Caller, api_key_id: str, *, power: Power) -> ApiKey:
    key = access_key(caller, api_key_id, power=power)
    if key.kind != ApiKey.Kind.API:
        raise NotFound("There is no such key.")
    return key


def _write(key: ApiKey) -> dict[str, Any]:
    workspace, made_by = key.workspace, key.created_by
    return {
        "id": key.public_id,
        "type": "api_key",
        "name": key.name,
        "partial_key_hint": key.hint,
        "status": STATUSES[key.status_at(clock.utc_now())],
        "created_at": clock.rfc3339(key.created_at),
        "created_by": None if made_by is None else {"id": made_by.public_id, "type": "user"},
        "expires_at": None if key.ends_at is None else clock.rfc3339(key.ends_at),
        "principal": None,
        "scope": {"type": "workspace", "workspace_id": workspace.public_id},
        "workspace_id": None if workspace.is_default else workspace.public_id,
    }
