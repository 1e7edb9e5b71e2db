"""/members and /invites: the people of a tenant."""

from typing import Any

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
from accounts.models import (
    EMAIL_LENGTH_MAX,
    NAME_LENGTH_MAX,
    Invite,
    InviteStatus,
    Member,
    Role,
    User,
)
from accounts.services import members
from turnpike.control.caller import Power
from turnpike.control.drf import PublicView, StrictSerializer, TenantView
from turnpike.control.pages import PAGE_PARAMETERS, keyset_page, page_of
from turnpike.kernel import clock
from turnpike.kernel.errors import InvalidInput

PASSWORD_LENGTH_MAX = 128
REVOKE_KEYS = "revoke"
KEYS_CHOICES = (REVOKE_KEYS, "keep")


class MemberSerializer(serializers.Serializer[Any]):
    """A person in a tenant."""

    user_id = serializers.CharField()
    email = serializers.CharField()
    name = serializers.CharField()
    role = serializers.ChoiceField(Role.choices)
    added_at = serializers.CharField()


class RoleInput(StrictSerializer):
    """A member's new role."""

    role = serializers.ChoiceField(Role.choices)


class InviteSerializer(serializers.Serializer[Any]):
    """An invitation."""

    id = serializers.CharField()
    email = serializers.CharField()
    role = serializers.ChoiceField(Role.choices)
    status = serializers.ChoiceField(InviteStatus.choices)
    invited_at = serializers.CharField()
    expires_at = serializers.CharField()
    accepted_at = serializers.CharField(allow_null=True)


class SentInviteSerializer(InviteSerializer):
    """An invitation with the token of its link, shown once."""

    token = serializers.CharField(allow_null=True)


class InviteInput(StrictSerializer):
    """Whom to invite, as what."""

    email = serializers.EmailField(max_length=EMAIL_LENGTH_MAX)
    role = serializers.ChoiceField(Role.choices)


class AcceptInput(StrictSerializer):
    """The token of a link; name and password where the address has no account yet."""

    token = serializers.CharField(max_length=members.TOKEN_LENGTH_MAX)
    name = serializers.CharField(required=False, max_length=NAME_LENGTH_MAX)
    password = serializers.CharField(
        required=False, max_length=PASSWORD_LENGTH_MAX, trim_whitespace=False
    )


class AcceptedSerializer(MemberSerializer):
    """The membership that an accepted invitation made."""

    tenant_id = serializers.CharField()


def _write_member(member: Member) -> dict[str, Any]:
    return {
        "user_id": member.user.public_id,
        "email": member.user.email,
        "name": member.user.name,
        "role": member.role,
        "added_at": clock.rfc3339(member.created_at),
    }


def _write_invite(invite: Invite) -> dict[str, Any]:
    accepted_at = invite.accepted_at
    return {
        "id": invite.public_id,
        "email": invite.email,
        "role": invite.role,
        "status": invite.status_at(clock.utc_now()),
        "invited_at": clock.rfc3339(invite.created_at),
        "expires_at": clock.rfc3339(invite.expires_at),
        "accepted_at": None if accepted_at is None else clock.rfc3339(accepted_at),
    }


class MembersView(TenantView):
    """The tenant's members."""

    powers = {"GET": Power.MEMBERS_READ}

    @extend_schema(
        operation_id="members_list",
        parameters=PAGE_PARAMETERS,
        responses=page_of(MemberSerializer),
    )
    def get(self, request: Request) -> Response:
        """All members, newest first."""
        rows = access_members(self.caller, power=Power.MEMBERS_READ)
        return Response(keyset_page(request, rows, write=_write_member))


class MemberView(TenantView):
    """One member."""

    powers = {
        "GET": Power.MEMBERS_READ,
        "PATCH": Power.MEMBERS_WRITE,
        "DELETE": Power.MEMBERS_WRITE,
    }

    @extend_schema(operation_id="members_get", responses=MemberSerializer)
    def get(self, _request: Request, user_id: str) -> Response:
        """One member."""
        member = access_member(self.caller, user_id, power=Power.MEMBERS_READ)
        return Response(_write_member(member))

    @extend_schema(operation_id="members_update", request=RoleInput, responses=MemberSerializer)
    def patch(self, request: Request, user_id: str) -> Response:
        """Give a member another role, up to the caller's own."""
        member = access_member(self.caller, user_id, power=Power.MEMBERS_WRITE)
        role = read(RoleInput, request.data)["role"]
        changed = members.change_role(caller=self.caller, member=member, role=role)
        return Response(_write_member(changed))

    @extend_schema(
        operation_id="members_remove",
        parameters=[OpenApiParameter("keys", str, enum=KEYS_CHOICES, default=REVOKE_KEYS)],
        responses={204: None},
    )
    def delete(self, request: Request, user_id: str) -> Response:
        """End a membership and revoke the keys that the person made; `keys=keep` leaves them."""
        member = access_member(self.caller, user_id, power=Power.MEMBERS_WRITE)
        keys = request.query_params.get("keys", REVOKE_KEYS)
        if keys not in KEYS_CHOICES:
            raise InvalidInput("keys must be revoke or keep.", field="keys")
        members.remove_member(
            caller=self.caller, member=member, is_revoking_keys=keys == REVOKE_KEYS
        )
        return Response(status=204)


class InvitesView(TenantView):
    """The tenant's invitations."""

    powers = {"GET": Power.MEMBERS_READ, "POST": Power.MEMBERS_WRITE}

    @extend_schema(
        operation_id="invites_list",
        parameters=PAGE_PARAMETERS,
        responses=page_of(InviteSerializer),
    )
    def get(self, request: Request) -> Response:
        """All invitations, newest first."""
        rows = access_invites(self.caller, power=Power.MEMBERS_READ)
        return Response(keyset_page(request, rows, write=_write_invite))

    @extend_schema(
        operation_id="invites_create", request=InviteInput, responses={201: SentInviteSerializer}
    )
    def post(self, request: Request) -> Response:
        """Invite somebody; the token of the link is in the answer, once."""
        tenant = access_tenant(self.caller, power=Power.MEMBERS_WRITE)
        values = read(InviteInput, request.data)
        sent = members.invite_member(caller=self.caller, tenant=tenant, **values)
        return Response({**_write_invite(sent.invite), "token": sent.token}, status=201)


class InviteView(TenantView):
    """One invitation."""

    powers = {"GET": Power.MEMBERS_READ, "DELETE": Power.MEMBERS_WRITE}

    @extend_schema(operation_id="invites_get", responses=InviteSerializer)
    def get(self, _request: Request, invite_id: str) -> Response:
        """One invitation."""
        invite = access_invite(self.caller, invite_id, power=Power.MEMBERS_READ)
        return Response(_write_invite(invite))

    @extend_schema(operation_id="invites_revoke", responses=InviteSerializer)
    def delete(self, _request: Request, invite_id: str) -> Response:
        """Take an invitation back."""
        invite = access_invite(self.caller, invite_id, power=Power.MEMBERS_WRITE)
        revoked = members.revoke_invite(caller=self.caller, invite=invite)
        return Response(_write_invite(revoked))


class ResendInviteView(TenantView):
    """A new link for an invitation."""

    powers = {"POST": Power.MEMBERS_WRITE}

    @extend_schema(operation_id="invites_resend", request=None, responses=SentInviteSerializer)
    def post(self, _request: Request, invite_id: str) -> Response:
        """Make a new link; the old one stops working."""
        invite = access_invite(self.caller, invite_id, power=Power.MEMBERS_WRITE)
        sent = members.resend_invite(caller=self.caller, invite=invite)
        return Response({**_write_invite(sent.invite), "token": sent.token})


class AcceptInviteView(PublicView):
    """Accepting an invitation."""

    @extend_schema(
        operation_id="invites_accept", request=AcceptInput, responses={201: AcceptedSerializer}
    )
    def post(self, request: Request) -> Response:
        """Become a member, once, with the token of a link."""
        values = read(AcceptInput, request.data)
        user = request.user if isinstance(request.user, User) else None
        member = members.accept_invite(caller=self.caller, user=user, **values)
        answer = {**_write_member(member), "tenant_id": member.tenant.public_id}
        return Response(answer, status=201)
