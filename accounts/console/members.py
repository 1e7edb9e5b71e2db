"""Members: who belongs to the organization, in which role, and who is invited."""

from collections.abc import Mapping
from typing import Any

from allauth.mfa.models import Authenticator
from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from accounts.access import (
    access_invite,
    access_invites,
    access_member,
    access_members,
    access_tenant,
)
from accounts.console.pages import TenantPage
from accounts.console.words import INVITE_STATES, ROLE_NOTES, ROLES
from accounts.models import Invite, InviteStatus, Member, Role
from accounts.queries import count_keys_by_maker
from accounts.services import members
from accounts.services.invite_letters import invitation_address
from accounts.services.members import SentInvite
from turnpike.control.caller import Power
from turnpike.control.forms import ConsoleForm
from turnpike.kernel import clock
from turnpike.kernel.errors import InvalidInput

INVITES_SHOWN_MAX = 50
SECOND_FACTORS = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)


class InviteForm(ConsoleForm):
    """Who is invited, and as what."""

    email = forms.EmailField(
        label=gettext_lazy("Email address"), widget=forms.EmailInput(attrs={"autocomplete": "off"})
    )
    role = forms.ChoiceField(label=gettext_lazy("Role"), initial=Role.DEVELOPER)

    def __init__(self, *args: Any, is_owner: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["role"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = _roles(is_owner=is_owner)


class MembersPage(TenantPage):
    """The members and the open invitations."""

    powers = {"GET": Power.MEMBERS_READ, "POST": Power.MEMBERS_WRITE}
    proved = frozenset({"POST"})

    def get(self, _request: HttpRequest) -> HttpResponse:
        """The list."""
        return self._show()

    def post(self, request: HttpRequest) -> HttpResponse:
        """Invite somebody; the link is shown once."""
        form = InviteForm(request.POST, is_owner=self._is_owner())
        if not form.is_valid():
            return self._show(form=form, status=400)
        tenant = access_tenant(self.caller, power=Power.MEMBERS_WRITE)
        try:
            sent = members.invite_member(caller=self.caller, tenant=tenant, **form.cleaned_data)
        except InvalidInput as error:
            form.refuse(error)
            return self._show(form=form, status=400)
        return self._show(sent=sent)

    def _is_owner(self) -> bool:
        return self.caller.has_power(Power.OWNERS_WRITE)

    def _show(
        self, *, form: InviteForm | None = None, sent: SentInvite | None = None, status: int = 200
    ) -> HttpResponse:
        rows = list(access_members(self.caller, power=Power.MEMBERS_READ).order_by("pk"))
        owners = sum(row.role == Role.OWNER for row in rows)
        return self.page(
            "accounts/members.html",
            {
                "members": [self._row(row, owners=owners) for row in rows],
                "invites": self._invites(),
                "form": form or InviteForm(is_owner=self._is_owner()),
                "sent": sent,
                "link": invitation_address(sent.token) if sent is not None else "",
                "can_write": self.caller.has_power(Power.MEMBERS_WRITE),
            },
            status=status,
        )

    def _row(self, member: Member, *, owners: int) -> dict[str, Any]:
        is_owner = member.role == Role.OWNER
        can_write = self.caller.has_power(
            Power.OWNERS_WRITE if is_owner else Power.MEMBERS_WRITE
        ) and not (is_owner and owners == 1)
        return {
            "member": member,
            "keys": self._keys().get(member.user_id, 0),
            "role": ROLES[member.role],
            "roles": _roles(is_owner=self._is_owner()),
            "can_write": can_write,
            "has_second_factor": member.user_id in self._second_factors(),
        }

    def _second_factors(self) -> frozenset[int]:
        if not hasattr(self, "_users"):
            users = access_members(self.caller, power=Power.MEMBERS_READ).values("user")
            found = Authenticator.objects.filter(user__in=users, type__in=SECOND_FACTORS)
            self._users = frozenset(found.values_list("user_id", flat=True))
        return self._users

    def _keys(self) -> Mapping[int, int]:
        """How many keys in force each person made."""
        if not hasattr(self, "_counted"):
            self._counted = count_keys_by_maker(self.tenant)
        return self._counted

    def _invites(self) -> list[dict[str, Any]]:
        now = clock.utc_now()
        rows = access_invites(self.caller, power=Power.MEMBERS_READ).order_by("-pk")
        return [_invite(row, row.status_at(now)) for row in rows[:INVITES_SHOWN_MAX]]


class MemberPage(TenantPage):
    """Changing one member."""

    powers = {"POST": Power.MEMBERS_WRITE}
    proved = frozenset({"POST"})

    def back(self) -> str:
        """The list."""
        return reverse("console-members")

    def post(self, request: HttpRequest, user_id: str) -> HttpResponse:
        """Give another role, or end the membership."""
        member = access_member(self.caller, user_id, power=Power.MEMBERS_WRITE)
        if request.POST.get("action") == "remove":
            revoked = members.remove_member(
                caller=self.caller, member=member, is_revoking_keys="revoke" in request.POST
            )
            return self.done(_removed(revoked))
        role = request.POST.get("role", "")
        if role not in Role.values:
            raise InvalidInput("role is not known.", field="role")
        members.change_role(
            caller=self.caller,
            member=member,
            role=role,
            is_revoking_keys="revoke_now" in request.POST,
        )
        return self.done(_("The role was changed; it holds from the next page on."))


class InvitePage(MembersPage):
    """Changing one invitation."""

    powers = {"POST": Power.MEMBERS_WRITE}
    proved = frozenset()

    def back(self) -> str:
        """The list."""
        return reverse("console-members")

    def post(self, request: HttpRequest, invite_id: str = "") -> HttpResponse:
        """Send it again under a new link, or take it back: its link stops working."""
        invite = access_invite(self.caller, invite_id, power=Power.MEMBERS_WRITE)
        if request.POST.get("action") == "resend":
            return self._show(sent=members.resend_invite(caller=self.caller, invite=invite))
        members.revoke_invite(caller=self.caller, invite=invite)
        return self.done(_("The invitation was taken back."))


class ChooseTenant(TenantPage):
    """Which of one's organizations the console shows."""

    powers = {"POST": Power.TENANT_READ}

    def post(self, request: HttpRequest) -> HttpResponse:
        """Keep the choice in the session."""
        chosen = request.POST.get("tenant", "")
        for membership in self.visit.memberships:
            if membership.tenant.public_id == chosen:
                request.session["tenant"] = membership.tenant_id
        return redirect("console")


def _removed(revoked: int) -> str:
    if not revoked:
        return _("The member was removed. The keys that they made go on working.")
    return ngettext(
        "The member was removed, and %(count)s key that they made was revoked.",
        "The member was removed, and %(count)s keys that they made were revoked.",
        revoked,
    ) % {"count": revoked}


def _roles(*, is_owner: bool) -> list[tuple[str, str]]:
    return [
        (role, f"{title} – {ROLE_NOTES[role]}")
        for role, title in ROLES.items()
        if is_owner or role != Role.OWNER
    ]


def _invite(row: Invite, status: InviteStatus) -> dict[str, Any]:
    title, tone = INVITE_STATES[status]
    return {
        "invite": row,
        "role": ROLES[row.role],
        "status": title,
        "tone": tone,
        "is_open": status in (InviteStatus.PENDING, InviteStatus.EXPIRED),
    }
