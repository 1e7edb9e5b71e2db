"""/tenant for the tenant itself, /operator/tenants for the platform's staff."""

from collections.abc import Callable
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import access_any_tenant, access_tenant
from accounts.api.fields import BudgetsAnswer, BudgetsInput, columns_of, read, write_budgets
from accounts.models import (
    EMAIL_LENGTH_MAX,
    NAME_LENGTH_MAX,
    REASON_LENGTH_MAX,
    Role,
    Tenant,
    TenantStatus,
)
from accounts.services import members, tenants
from turnpike.control.caller import Caller, Power
from turnpike.control.drf import EffectiveSerializer, OperatorView, StrictSerializer, TenantView
from turnpike.control.pages import PAGE_PARAMETERS, keyset_page, page_of
from turnpike.kernel import clock


class TenantSerializer(BudgetsAnswer):
    """A tenant."""

    id = serializers.CharField()
    name = serializers.CharField()
    status = serializers.ChoiceField(TenantStatus.choices)
    created_at = serializers.CharField()


class ChangedTenantSerializer(TenantSerializer, EffectiveSerializer):
    """A tenant after a change."""


class TenantInput(BudgetsInput):
    """What a tenant may change of itself."""

    name = serializers.CharField(required=False, max_length=NAME_LENGTH_MAX)


class OperatorTenantSerializer(TenantSerializer):
    """A tenant as operators see it."""

    status_reason = serializers.CharField()
    policy_version = serializers.IntegerField()


class ChangedOperatorTenantSerializer(OperatorTenantSerializer, EffectiveSerializer):
    """A tenant after an operator changed it."""


class CreatedTenantSerializer(ChangedOperatorTenantSerializer):
    """A new tenant, with the token of its owner's invitation, shown once."""

    owner_invite = serializers.CharField(allow_null=True)
    token = serializers.CharField(allow_null=True)


class NewTenantInput(StrictSerializer):
    """A new tenant; its owner is invited if an address is given."""

    name = serializers.CharField(max_length=NAME_LENGTH_MAX)
    owner_email = serializers.EmailField(required=False, max_length=EMAIL_LENGTH_MAX)
    reason = serializers.CharField(max_length=REASON_LENGTH_MAX)


class ReasonInput(StrictSerializer):
    """Why an operator does something."""

    reason = serializers.CharField(max_length=REASON_LENGTH_MAX)


def write_tenant(tenant: Tenant) -> dict[str, Any]:
    """A tenant for an answer."""
    return {
        "id": tenant.public_id,
        "name": tenant.name,
        "status": tenant.status,
        "created_at": clock.rfc3339(tenant.created_at),
        **write_budgets(tenant),
    }


def _write_for_operator(tenant: Tenant) -> dict[str, Any]:
    return {
        **write_tenant(tenant),
        "status_reason": tenant.status_reason,
        "policy_version": tenant.policy_version,
    }


class OwnTenantView(TenantView):
    """The caller's tenant."""

    powers = {"GET": Power.TENANT_READ, "PATCH": Power.TENANT_WRITE}

    @extend_schema(operation_id="tenant_get", responses=TenantSerializer)
    def get(self, _request: Request) -> Response:
        """The caller's tenant."""
        return Response(write_tenant(access_tenant(self.caller, power=Power.TENANT_READ)))

    @extend_schema(
        operation_id="tenant_update", request=TenantInput, responses=ChangedTenantSerializer
    )
    def patch(self, request: Request) -> Response:
        """Change the tenant's name or budgets."""
        tenant = access_tenant(self.caller, power=Power.TENANT_WRITE)
        changes = columns_of(read(TenantInput, request.data))
        changed = tenants.update_tenant(caller=self.caller, tenant=tenant, changes=changes)
        return Response(write_tenant(changed))


class OperatorTenantsView(OperatorView):
    """All tenants."""

    @extend_schema(
        operation_id="operator_tenants_list",
        parameters=PAGE_PARAMETERS,
        responses=page_of(OperatorTenantSerializer),
    )
    def get(self, request: Request) -> Response:
        """All tenants, newest first."""
        return Response(keyset_page(request, Tenant.objects.all(), write=_write_for_operator))

    @extend_schema(
        operation_id="operator_tenants_create",
        request=NewTenantInput,
        responses={201: CreatedTenantSerializer},
    )
    def post(self, request: Request) -> Response:
        """Make a tenant with its default workspace, and invite its owner."""
        values = read(NewTenantInput, request.data)
        tenant = tenants.create_tenant(
            caller=self.caller, name=values["name"], reason=values["reason"]
        )
        answer = {**_write_for_operator(tenant), "owner_invite": None, "token": None}
        if "owner_email" in values:
            sent = members.invite_member(
                caller=self.caller, tenant=tenant, email=values["owner_email"], role=Role.OWNER
            )
            answer |= {"owner_invite": sent.invite.public_id, "token": sent.token}
        return Response(answer, status=201)


class OperatorTenantView(OperatorView):
    """One tenant."""

    @extend_schema(operation_id="operator_tenants_get", responses=OperatorTenantSerializer)
    def get(self, _request: Request, tenant_id: str) -> Response:
        """One tenant."""
        return Response(_write_for_operator(access_any_tenant(self.caller, tenant_id)))


class SuspendTenantView(OperatorView):
    """Suspending a tenant."""

    @extend_schema(
        operation_id="operator_tenants_suspend",
        request=ReasonInput,
        responses=ChangedOperatorTenantSerializer,
    )
    def post(self, request: Request, tenant_id: str) -> Response:
        """Refuse the tenant's requests with 403 until it is resumed."""
        return _change(self.caller, request, tenant_id, tenants.suspend_tenant)


class ResumeTenantView(OperatorView):
    """Resuming a tenant."""

    @extend_schema(
        operation_id="operator_tenants_resume",
        request=ReasonInput,
        responses=ChangedOperatorTenantSerializer,
    )
    def post(self, request: Request, tenant_id: str) -> Response:
        """Serve a suspended tenant again."""
        return _change(self.caller, request, tenant_id, tenants.resume_tenant)


class CloseTenantView(OperatorView):
    """Closing a tenant."""

    @extend_schema(
        operation_id="operator_tenants_close",
        request=ReasonInput,
        responses=ChangedOperatorTenantSerializer,
    )
    def post(self, request: Request, tenant_id: str) -> Response:
        """End a tenant for good; its records stay."""
        return _change(self.caller, request, tenant_id, tenants.close_tenant)


def _change(
    caller: Caller, request: Request, tenant_id: str, change: Callable[..., Tenant]
) -> Response:
    tenant = access_any_tenant(caller, tenant_id)
    reason = read(ReasonInput, request.data)["reason"]
    return Response(_write_for_operator(change(caller=caller, tenant=tenant, reason=reason)))
