"""/v1/organizations/workspaces: the Admin API's view of workspaces and of who is in them.

Every member of a tenant is in each of its workspaces, with the role that they have in the tenant:
so workspaces' members can be read here, and are changed among the users.
"""

import uuid
from collections.abc import Mapping
from typing import Any, ClassVar

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import (
    access_member,
    access_members,
    access_tenant,
    access_workspace,
    access_workspaces,
)
from accounts.api.fields import read
from accounts.models import NAME_LENGTH_MAX, Member, Role, Workspace
from accounts.services import workspaces
from turnpike.control.caller import Power
from turnpike.control.drf import StrictSerializer
from turnpike.control.organizations import ID_PAGE_PARAMETERS, OrganizationView, id_page
from turnpike.control.pages import read_list
from turnpike.kernel import clock, ids
from turnpike.kernel.errors import Conflict, InvalidInput

IDS_MAX = 100
WORKSPACE_ROLES: Mapping[str, str] = {
    Role.OWNER: "workspace_admin",
    Role.ADMIN: "workspace_admin",
    Role.DEVELOPER: "workspace_developer",
    Role.BILLING: "workspace_billing",
    Role.VIEWER: "workspace_user",
}
# Where nobody chose one, the id chooses: it stays the same for good.
COLORS = ("#6C5BB9", "#2F7F79", "#B0562A", "#3B6FB6", "#8A5A83", "#5E7F2D", "#A6476B", "#7A6A4F")
# We keep nothing apart by place; programs of the Admin API expect the field.
RESIDENCY = {
    "workspace_geo": "us",
    "default_inference_geo": "global",
    "allowed_inference_geos": "unrestricted",
}
_TRUE, _FALSE = ("true", "1"), ("false", "0")


class AdminWorkspaceInput(StrictSerializer):
    """What changes; null leaves it as it is. A tag that is null is taken away."""

    name = serializers.CharField(required=False, allow_null=True, max_length=NAME_LENGTH_MAX)
    display_color = serializers.CharField(required=False, allow_null=True, max_length=7)
    tags = serializers.DictField(
        child=serializers.CharField(allow_null=True, allow_blank=True),
        required=False,
        allow_null=True,
    )


class NewAdminWorkspaceInput(AdminWorkspaceInput):
    """A new workspace."""

    name = serializers.CharField(max_length=NAME_LENGTH_MAX)


class WorkspaceRoleInput(StrictSerializer):
    """A role in a workspace."""

    workspace_role = serializers.ChoiceField(
        [*dict.fromkeys(WORKSPACE_ROLES.values()), "workspace_restricted_developer"]
    )


class NewWorkspaceMemberInput(WorkspaceRoleInput):
    """Whom to add to a workspace."""

    user_id = serializers.CharField(max_length=64)


class AdminWorkspacesView(OrganizationView):
    """The tenant's workspaces."""

    powers: ClassVar = {"GET": Power.WORKSPACES_READ, "POST": Power.WORKSPACES_WRITE}

    @extend_schema(
        operation_id="organization_workspaces_list",
        parameters=ID_PAGE_PARAMETERS,
        responses=OpenApiTypes.OBJECT,
    )
    def get(self, request: Request) -> Response:
        """Workspaces, newest first, without archived ones and the default one unless asked for."""
        rows = access_workspaces(self.caller, power=Power.WORKSPACES_READ)
        if not _read_flag(request, "include_archived"):
            rows = rows.filter(archived_at__isnull=True)
        if not _read_flag(request, "include_default"):
            rows = rows.filter(is_default=False)
        named = read_list(request, "ids")
        if len(named) > IDS_MAX:
            raise InvalidInput(f"ids: at most {IDS_MAX} may be named", field="ids")
        if named:
            rows = rows.filter(uuid__in=_uuids(named))
        return Response(id_page(request, rows, prefix=ids.WORKSPACE, write=_write))

    @extend_schema(
        operation_id="organization_workspaces_create",
        request=NewAdminWorkspaceInput,
        responses=OpenApiTypes.OBJECT,
    )
    def post(self, request: Request) -> Response:
        """Make a workspace."""
        tenant = access_tenant(self.caller, power=Power.WORKSPACES_WRITE)
        settings = _given(read(NewAdminWorkspaceInput, request.data))
        made = workspaces.create_workspace(caller=self.caller, tenant=tenant, settings=settings)
        return Response(_write(made))


class AdminWorkspaceView(OrganizationView):
    """One workspace."""

    powers: ClassVar = {"GET": Power.WORKSPACES_READ, "POST": Power.WORKSPACES_WRITE}

    @extend_schema(operation_id="organization_workspaces_get", responses=OpenApiTypes.OBJECT)
    def get(self, _request: Request, workspace_id: str) -> Response:
        """The workspace."""
        return Response(
            _write(access_workspace(self.caller, workspace_id, power=Power.WORKSPACES_READ))
        )

    @extend_schema(
        operation_id="organization_workspaces_update",
        request=AdminWorkspaceInput,
        responses=OpenApiTypes.OBJECT,
    )
    def post(self, request: Request, workspace_id: str) -> Response:
        """Change its name, color or tags."""
        row = access_workspace(self.caller, workspace_id, power=Power.WORKSPACES_WRITE)
        changes = _given(read(AdminWorkspaceInput, request.data))
        if changes:
            row = workspaces.update_workspace(caller=self.caller, workspace=row, changes=changes)
        return Response(_write(row))


class ArchiveAdminWorkspaceView(OrganizationView):
    """Archiving a workspace."""

    powers: ClassVar = {"POST": Power.WORKSPACES_WRITE}

    @extend_schema(
        operation_id="organization_workspaces_archive",
        request=None,
        responses=OpenApiTypes.OBJECT,
    )
    def post(self, _request: Request, workspace_id: str) -> Response:
        """End it for good and revoke its keys; sent again, it is ended still."""
        row = access_workspace(self.caller, workspace_id, power=Power.WORKSPACES_WRITE)
        if row.archived_at is None:
            row = workspaces.archive_workspace(caller=self.caller, workspace=row)
        return Response(_write(row))


class WorkspaceMembersView(OrganizationView):
    """Who is in a workspace."""

    powers: ClassVar = {"GET": Power.MEMBERS_READ, "POST": Power.MEMBERS_WRITE}

    @extend_schema(
        operation_id="organization_workspace_members_list",
        parameters=ID_PAGE_PARAMETERS,
        responses=OpenApiTypes.OBJECT,
    )
    def get(self, request: Request, workspace_id: str) -> Response:
        """All of the tenant's members, newest first."""
        workspace = access_workspace(self.caller, workspace_id, power=Power.MEMBERS_READ)
        page = id_page(
            request,
            access_members(self.caller, power=Power.MEMBERS_READ),
            prefix=ids.USER,
            write=lambda member: _write_member(member, workspace),
            key="user__uuid",
            shown="user_id",
        )
        return Response(page)

    @extend_schema(
        operation_id="organization_workspace_members_add",
        request=NewWorkspaceMemberInput,
        responses=OpenApiTypes.OBJECT,
    )
    def post(self, request: Request, workspace_id: str) -> Response:
        """Refused: who is a member is in every workspace already."""
        access_workspace(self.caller, workspace_id, power=Power.MEMBERS_WRITE)
        user_id = read(NewWorkspaceMemberInput, request.data)["user_id"]
        access_member(self.caller, user_id, power=Power.MEMBERS_WRITE)
        raise Conflict(
            "Every member of the organization is in each workspace already.",
            error_code="already_member",
        )


class WorkspaceMemberView(OrganizationView):
    """One member of a workspace."""

    powers: ClassVar = {
        "GET": Power.MEMBERS_READ,
        "POST": Power.MEMBERS_WRITE,
        "DELETE": Power.MEMBERS_WRITE,
    }

    @extend_schema(operation_id="organization_workspace_members_get", responses=OpenApiTypes.OBJECT)
    def get(self, _request: Request, workspace_id: str, user_id: str) -> Response:
        """The member's role there: what their role in the organization comes to."""
        workspace = access_workspace(self.caller, workspace_id, power=Power.MEMBERS_READ)
        member = access_member(self.caller, user_id, power=Power.MEMBERS_READ)
        return Response(_write_member(member, workspace))

    @extend_schema(
        operation_id="organization_workspace_members_update",
        request=WorkspaceRoleInput,
        responses=OpenApiTypes.OBJECT,
    )
    def post(self, request: Request, workspace_id: str, user_id: str) -> Response:
        """Accepted where it changes nothing: roles are the organization's."""
        workspace = access_workspace(self.caller, workspace_id, power=Power.MEMBERS_WRITE)
        member = access_member(self.caller, user_id, power=Power.MEMBERS_WRITE)
        answer = _write_member(member, workspace)
        if read(WorkspaceRoleInput, request.data)["workspace_role"] != answer["workspace_role"]:
            raise Conflict(
                "Roles hold in all workspaces of the organization: change it at"
                f" /v1/organizations/users/{member.user.public_id}."
            )
        return Response(answer)

    @extend_schema(
        operation_id="organization_workspace_members_remove", responses=OpenApiTypes.OBJECT
    )
    def delete(self, _request: Request, workspace_id: str, user_id: str) -> Response:
        """Refused: who leaves, leaves the organization."""
        access_workspace(self.caller, workspace_id, power=Power.MEMBERS_WRITE)
        member = access_member(self.caller, user_id, power=Power.MEMBERS_WRITE)
        raise Conflict(
            "Every member of the organization is in each workspace: remove them at"
            f" /v1/organizations/users/{member.user.public_id}."
        )


def _write(row: Workspace) -> dict[str, Any]:
    archived_at = row.archived_at
    return {
        "id": row.public_id,
        "type": "workspace",
        "name": row.name,
        "display_color": row.display_color or COLORS[row.uuid.int % len(COLORS)],
        "created_at": clock.rfc3339(row.created_at),
        "archived_at": None if archived_at is None else clock.rfc3339(archived_at),
        "tags": row.tags,
        "data_residency": RESIDENCY,
        "compartment_id": row.public_id,
        "external_key_id": None,
        "user_profile_id": None,
    }


def _write_member(member: Member, workspace: Workspace) -> dict[str, Any]:
    return {
        "type": "workspace_member",
        "user_id": member.user.public_id,
        "workspace_id": workspace.public_id,
        "workspace_role": WORKSPACE_ROLES[member.role],
    }


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _read_flag(request: Request, name: str) -> bool:
    text = request.query_params.get(name, "false").lower()
    if text not in (*_TRUE, *_FALSE):
        raise InvalidInput(f"{name}: must be true or false", field=name)
    return text in _TRUE


def _uuids(public: tuple[str, ...]) -> list[uuid.UUID]:
    found = []
    for text in public:
        try:
            found.append(ids.parse_public_id(ids.WORKSPACE, text))
        except ValueError:
            continue
    return found
