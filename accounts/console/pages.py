"""TenantPage: the base of the tenant console's pages. Who looks, whose rows, which power.

A page names the power that each method needs in `powers`; a method without one is open to nobody.
Its handlers run in the tenant's scope and render there, so that no page sees another's rows.
Expected failures become pages or, after a POST, a message on the page one came from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from allauth.mfa.utils import is_mfa_enabled
from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _

from accounts.access import ROLE_POWERS
from accounts.api.auth import SESSION_TENANT
from accounts.console.answering import AnsweringPage
from accounts.console.viewing import READING, Viewing, find_viewing
from accounts.console.words import ROLES
from accounts.models import Member, Role, Tenant, User
from accounts.queries import list_memberships
from accounts.services.platform_settings import is_second_factor_required
from accounts.sign_in import check_proof
from turnpike.control.caller import Caller, Power
from turnpike.control.drf import client_address
from turnpike.control.publication import watch_publication
from turnpike.control.scope import platform_scope, tenant_scope
from turnpike.kernel import ids
from turnpike.kernel.errors import NotFound, PermissionDenied, TurnpikeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A signed-in member on a page of the tenant console; `request.visit`."""

    caller: Caller
    member: Member
    memberships: tuple[Member, ...]
    # Set while an operator looks at somebody else's console.
    viewing: Viewing | None = None

    @property
    def tenant(self) -> Tenant:
        """Whose console it is."""
        return self.member.tenant

    @property
    def role_title(self) -> Any:
        """What the member's role is called."""
        return _("Seen by an operator") if self.viewing else ROLES[self.member.role]


class TenantPage(AnsweringPage):
    """One page of the tenant console."""

    powers: ClassVar[Mapping[str, Power]] = {}
    # Methods after which something is shown or changed that wants a fresh proof of identity.
    proved: ClassVar[frozenset[str]] = frozenset()
    visit: Visit
    user: User

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Let in whom the page is for, and run its handler in the tenant's scope."""
        user = request.user
        if not isinstance(user, User) or not user.is_active:
            return redirect_to_login(request.get_full_path())
        visit = find_visit(request, user)
        if visit is None and user.is_staff:
            return redirect("operator")
        if visit is None:
            return render(request, "console/no_tenant.html", status=403)
        self.user = user
        self.visit = request.visit = visit  # type: ignore[attr-defined]
        if lacks_second_factor(user, is_privileged=visit.member.role == Role.OWNER):
            messages.warning(request, _("Your role needs a second factor. Set one up to go on."))
            return redirect("mfa_index")
        return self._answer(request, *args, **kwargs)

    @property
    def caller(self) -> Caller:
        """Who looks."""
        return self.visit.caller

    @property
    def tenant(self) -> int:
        """The number of the tenant whose console it is."""
        return int(self.visit.tenant.pk)

    def _answer(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        method = "GET" if request.method == "HEAD" else str(request.method)
        if method not in self.powers:
            return HttpResponseNotAllowed(sorted(self.powers))
        try:
            if not self.caller.has_power(self.powers[method]):
                raise PermissionDenied(f"This needs the power {self.powers[method]}.")
            if method in self.proved:
                check_proof(request, self.user)
            with watch_publication(), tenant_scope(self.tenant):
                return super().dispatch(request, *args, **kwargs)
        except TurnpikeError as error:
            return self._failed(request, error)

    def _failed(self, request: HttpRequest, error: TurnpikeError) -> HttpResponse:
        if isinstance(error, NotFound | PermissionDenied) or request.method != "POST":
            with tenant_scope(self.tenant):
                return self.page(
                    "console/problem.html", {"problem": problem_of(error)}, status=error.status
                )
        messages.error(request, f"{problem_of(error)} {error.message}")
        return redirect(self.back())


def problem_of(error: TurnpikeError) -> str:
    """What kind of failure it was, in the reader's language."""
    return {
        "invalid_input": _("Something that was entered cannot be accepted."),
        "permission_denied": _("Your role does not allow this."),
        "not_found": _("There is no such thing, or it is not yours."),
        "conflict": _("This is not possible now."),
        "unavailable": _("A part that this needs is away. Try again soon."),
    }.get(error.code, _("That did not work."))


def find_visit(request: HttpRequest, user: User) -> Visit | None:
    """The membership chosen in the session, else the first; None for who belongs nowhere.

    An operator who looks at a tenant's console visits that one, and reads.
    """
    viewing = find_viewing(request, user)
    if viewing is not None:
        return _view(request, user, viewing)
    with platform_scope("accounts.console"):
        memberships = tuple(list_memberships(user.pk))
    if not memberships:
        return None
    chosen = request.session.get(SESSION_TENANT)
    member = next((row for row in memberships if row.tenant_id == chosen), memberships[0])
    caller = Caller(
        actor=user.public_id,
        tenant=member.tenant_id,
        powers=ROLE_POWERS[member.role],
        user=user.pk,
        address=client_address(request),
        request_id=ids.public_id(ids.REQUEST, ids.uuid7()),
    )
    return Visit(caller=caller, member=member, memberships=memberships)


def _view(request: HttpRequest, user: User, viewing: Viewing) -> Visit:
    with platform_scope("accounts.console.viewing"):
        tenant = Tenant.objects.get(pk=viewing.tenant)
    # Never saved: the console asks a member for tenant and role.
    member = Member(tenant=tenant, user=user, role=Role.VIEWER)
    caller = Caller(
        actor=user.public_id,
        tenant=viewing.tenant,
        powers=READING,
        user=user.pk,
        address=client_address(request),
        request_id=ids.public_id(ids.REQUEST, ids.uuid7()),
    )
    return Visit(caller=caller, member=member, memberships=(member,), viewing=viewing)


def lacks_second_factor(user: User, *, is_privileged: bool) -> bool:
    """Whether somebody must set up a second factor before they go on."""
    if not (is_privileged or user.is_staff):
        return False
    return is_second_factor_required() and not is_mfa_enabled(user)
