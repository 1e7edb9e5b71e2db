"""/v1/organizations/users and invites: the Admin API's view of a tenant's people.

Roles are translated both ways. `admin` is read and never given, as at Anthropic; words that stand
for none of our roles are refused rather than taken for one with more or fewer rights.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import (
    access_invite,
    access_invites,
    access_member,
    access_members,
    access_tenant,
)
from accounts.api.fields import read
from accounts.models import EMAIL_LENGTH_MAX, Invite, InviteStatus, Member, Role
from accounts.queries import invites_of_status
from accounts.services import members
from turnpike.control.caller import Power
from turnpike.control.drf import StrictSerializer
from turnpike.control.organizations import ID_PAGE_PARAMETERS, OrganizationView, id_page
from turnpike.control.pages import read_list
from turnpike.kernel import clock, ids
from turnpike.kernel.errors import InvalidInput

ROLES: Mapping[str, str] = {
    Role.OWNER: "admin",
    Role.ADMIN: "admin",
    Role.DEVELOPER: "developer",
    Role.BILLING: "billing",
    Role.VIEWER: "user",
}
# What may be given by API -> our role.
GIVEN: Mapping[str, str] = {
    shown: role for role, shown in ROLES.items() if shown != ROLES[Role.ADMIN]
}
GIVEN_WORDS = sorted(GIVEN)
LISTED = (InviteStatus.PENDING, InviteStatus.ACCEPTED, InviteStatus.EXPIRED)
KEEP_KEYS, REVOKE_KEYS = "keep", "revoke"


class UserRoleInput(StrictSerializer):
    """A member's new role."""

    role = serializers.ChoiceField(GIVEN_WORDS)


class AdminInviteInput(UserRoleInput):
    """Whom to invite, as what."""

    email = serializers.EmailField(max_length=EMAIL_LENGTH_MAX)
    rbac_group_ids = serializers.ListField(
        child=serializers.CharField(), required=False, max_length=0
    )


class UsersView(OrganizationView):
    """The tenant's members."""

    powers: ClassVar = {"GET": Power.MEMBERS_READ}

    @extend_schema(
        operation_id="organization_users_list",
        parameters=ID_PAGE_PARAMETERS,
        responses=OpenApiTypes.OBJECT,
    )
    def get(self, request: Request) -> Response:
        """Members, newest first; `email` and `roles[]` narrow them."""
        rows = access_members(self.caller, power=Power.MEMBERS_READ)
        email = request.query_params.get("email")
        if email is not None:
            rows = rows.filter(user__email=email.strip().lower())
        roles = read_list(request, "roles")
        if roles:
            rows = rows.filter(role__in=_ours(roles))
        page = id_page(request, rows, prefix=ids.USER, write=_write_user, key="user__uuid")
        return Response(page)


class OneUserView(OrganizationView):
    """One member."""

    powers: ClassVar = {
        "GET": Power.MEMBERS_READ,
        "POST": Power.MEMBERS_WRITE,
        "DELETE": Power.MEMBERS_WRITE,
    }

    @extend_schema(operation_id="organization_users_get", responses=OpenApiTypes.OBJECT)
    def get(self, _request: Request, user_id: str) -> Response:
        """The member."""
        return Response(_write_user(access_member(self.caller, user_id, power=Power.MEMBERS_READ)))

    @extend_schema(
        operation_id="organization_users_update",
        request=UserRoleInput,
        responses=OpenApiTypes.OBJECT,
    )
    def post(self, request: Request, user_id: str) -> Response:
        """Give another role, up to the caller's own powers."""
        member = access_member(self.caller, user_id, power=Power.MEMBERS_WRITE)
        role = GIVEN[read(UserRoleInput, request.data)["role"]]
        if role != member.role:
            member = members.change_role(caller=self.caller, member=member, role=role)
        return Response(_write_user(member))

    @extend_schema(
        operation_id="organization_users_remove",
        parameters=[
            OpenApiParameter("keys", str, enum=(KEEP_KEYS, REVOKE_KEYS), default=KEEP_KEYS)
        ],
        responses=OpenApiTypes.OBJECT,
    )
    def delete(self, request: Request, user_id: str) -> Response:
        """End a membership. Keys belong to the organization and stay, unless `keys=revoke`."""
        member = access_member(self.caller, user_id, power=Power.MEMBERS_WRITE)
        keys = request.query_params.get("keys", KEEP_KEYS)
        if keys not in (KEEP_KEYS, REVOKE_KEYS):
            raise InvalidInput("keys: must be keep or revoke", field="keys")
        members.remove_member(
            caller=self.caller, member=member, is_revoking_keys=keys == REVOKE_KEYS
        )
        return Response({"id": member.user.public_id, "type": "user_deleted"})


class AdminInvitesView(OrganizationView):
    """The tenant's invitations."""

    powers: ClassVar = {"GET": Power.MEMBERS_READ, "POST": Power.MEMBERS_WRITE}

    @extend_schema(
        operation_id="organization_invites_list",
        parameters=ID_PAGE_PARAMETERS,
        responses=OpenApiTypes.OBJECT,
    )
    def get(self, request: Request) -> Response:
        """Invitations, newest first, deleted ones left out; narrowed by email, roles, statuses."""
        statuses = _read_statuses(request)
        rows = access_invites(self.caller, power=Power.MEMBERS_READ)
        rows = invites_of_status(rows, statuses, at=clock.utc_now())
        email = request.query_params.get("email")
        if email is not None:
            rows = rows.filter(email=email.strip().lower())
        roles = read_list(request, "roles")
        if roles:
            rows = rows.filter(role__in=_ours(roles))
        return Response(id_page(request, rows, prefix=ids.INVITE, write=_write_invite))

    @extend_schema(
        operation_id="organization_invites_create",
        request=AdminInviteInput,
        responses=OpenApiTypes.OBJECT,
    )
    def post(self, request: Request) -> Response:
        """Invite somebody by mail."""
        tenant = access_tenant(self.caller, power=Power.MEMBERS_WRITE)
        values = read(AdminInviteInput, request.data)
        sent = members.invite_member(
            caller=self.caller, tenant=tenant, email=values["email"], role=GIVEN[values["role"]]
        )
        return Response(_write_invite(sent.invite))


class AdminInviteView(OrganizationView):
    """One invitation."""

    powers: ClassVar = {"GET": Power.MEMBERS_READ, "DELETE": Power.MEMBERS_WRITE}

    @extend_schema(operation_id="organization_invites_get", responses=OpenApiTypes.OBJECT)
    def get(self, _request: Request, invite_id: str) -> Response:
        """The invitation."""
        invite = access_invite(self.caller, invite_id, power=Power.MEMBERS_READ)
        return Response(_write_invite(invite))

    @extend_schema(operation_id="organization_invites_delete", responses=OpenApiTypes.OBJECT)
    def delete(self, _request: Request, invite_id: str) -> Response:
        """Take it back: its link stops working; sent again, it is taken back still."""
        invite = access_invite(self.caller, invite_id, power=Power.MEMBERS_WRITE)
        if invite.revoked_at is None:
            members.revoke_invite(caller=self.caller, invite=invite)
        return Response({"id": invite.public_id, "type": "invite_deleted"})


def _write_user(member: Member) -> dict[str, Any]:
    return {
        "id": member.user.public_id,
        "type": "user",
        "name": member.user.name,
        "email": member.user.email,
        "role": ROLES[member.role],
        "added_at": clock.rfc3339(member.created_at),
    }


def _write_invite(invite: Invite) -> dict[str, Any]:
    accepted_at = invite.accepted_at
    return {
        "id": invite.public_id,
        "type": "invite",
        "email": invite.email,
        "role": ROLES[invite.role],
        "status": invite.status_at(clock.utc_now()),
        "invited_at": clock.rfc3339(invite.created_at),
        "expires_at": clock.rfc3339(invite.expires_at),
        "accepted_at": None if accepted_at is None else clock.rfc3339(accepted_at),
        "rbac_group_ids": [],
    }


def _ours(shown: Iterable[str]) -> list[str]:
    """Our roles behind the Admin API's; words for none of them match nobody."""
    wanted = set(shown)
    return [role for role, word in ROLES.items() if word in wanted]


def _read_statuses(request: Request) -> tuple[InviteStatus, ...]:
    named = read_list(request, "statuses")
    if not named:
        return LISTED
    try:
        found = tuple(InviteStatus(name) for name in named)
    except ValueError as error:
        raise InvalidInput(
            f"statuses: must be some of {', '.join(LISTED)}", field="statuses"
        ) from error
    if InviteStatus.DELETED in found:
        raise InvalidInput("statuses: deleted invites are not listed", field="statuses")
    return found
