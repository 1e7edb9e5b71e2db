"""/workspaces: parts of a tenant with limits and budgets of their own."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import access_tenant, access_workspace, access_workspaces
from accounts.api.fields import LimitsAnswer, LimitsInput, columns_of, read, write_limits
from accounts.models import NAME_LENGTH_MAX, Workspace
from accounts.services import workspaces
from turnpike.control.caller import Power
from turnpike.control.drf import EffectiveSerializer, TenantView
from turnpike.control.pages import PAGE_PARAMETERS, keyset_page, page_of
from turnpike.kernel import clock


class WorkspaceSerializer(LimitsAnswer):
    """A workspace."""

    id = serializers.CharField()
    name = serializers.CharField()
    is_default = serializers.BooleanField()
    created_at = serializers.CharField()
    archived_at = serializers.CharField(allow_null=True)


class ChangedWorkspaceSerializer(WorkspaceSerializer, EffectiveSerializer):
    """A workspace after a change."""


class WorkspaceInput(LimitsInput):
    """Changes of a workspace."""

    name = serializers.CharField(required=False, max_length=NAME_LENGTH_MAX)


class NewWorkspaceInput(LimitsInput):
    """A new workspace."""

    name = serializers.CharField(max_length=NAME_LENGTH_MAX)


def _write(workspace: Workspace) -> dict[str, Any]:
    archived_at = workspace.archived_at
    return {
        "id": workspace.public_id,
        "name": workspace.name,
        "is_default": workspace.is_default,
        "created_at": clock.rfc3339(workspace.created_at),
        "archived_at": None if archived_at is None else clock.rfc3339(archived_at),
        **write_limits(workspace),
    }


class WorkspacesView(TenantView):
    """The tenant's workspaces."""

    powers = {"GET": Power.WORKSPACES_READ, "POST": Power.WORKSPACES_WRITE}

    @extend_schema(
        operation_id="workspaces_list",
        parameters=PAGE_PARAMETERS,
        responses=page_of(WorkspaceSerializer),
    )
    def get(self, request: Request) -> Response:
        """All workspaces, archived ones included, newest first."""
        rows = access_workspaces(self.caller, power=Power.WORKSPACES_READ)
        return Response(keyset_page(request, rows, write=_write))

    @extend_schema(
        operation_id="workspaces_create",
        request=NewWorkspaceInput,
        responses={201: ChangedWorkspaceSerializer},
    )
    def post(self, request: Request) -> Response:
        """Make a workspace."""
        tenant = access_tenant(self.caller, power=Power.WORKSPACES_WRITE)
        settings = columns_of(read(NewWorkspaceInput, request.data))
        made = workspaces.create_workspace(caller=self.caller, tenant=tenant, settings=settings)
        return Response(_write(made), status=201)


class WorkspaceView(TenantView):
    """One workspace."""

    powers = {"GET": Power.WORKSPACES_READ, "PATCH": Power.WORKSPACES_WRITE}

    @extend_schema(operation_id="workspaces_get", responses=WorkspaceSerializer)
    def get(self, _request: Request, workspace_id: str) -> Response:
        """One workspace."""
        row = access_workspace(self.caller, workspace_id, power=Power.WORKSPACES_READ)
        return Response(_write(row))

    @extend_schema(
        operation_id="workspaces_update",
        request=WorkspaceInput,
        responses=ChangedWorkspaceSerializer,
    )
    def patch(self, request: Request, workspace_id: str) -> Response:
        """Change a workspace's name, limits or budgets."""
        row = access_workspace(self.caller, workspace_id, power=Power.WORKSPACES_WRITE)
        changes = columns_of(read(WorkspaceInput, request.data))
        changed = workspaces.update_workspace(caller=self.caller, workspace=row, changes=changes)
        return Response(_write(changed))


class ArchiveWorkspaceView(TenantView):
    """Archiving a workspace."""

    powers = {"POST": Power.WORKSPACES_WRITE}

    @extend_schema(
        operation_id="workspaces_archive", request=None, responses=ChangedWorkspaceSerializer
    )
    def post(self, _request: Request, workspace_id: str) -> Response:
        """End a workspace for good and revoke its keys."""
        row = access_workspace(self.caller, workspace_id, power=Power.WORKSPACES_WRITE)
        return Response(_write(workspaces.archive_workspace(caller=self.caller, workspace=row)))
