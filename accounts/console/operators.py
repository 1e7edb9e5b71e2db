"""OperatorPage: the base of the operator console's pages. For the platform's staff alone.

To everybody else the console does not exist: tenants are answered 404, visitors are led to the
sign-in. A page names the methods that it answers by having them. Changes want a fresh proof of
identity and a reason. Handlers see the rows of all tenants.
"""

from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlencode

from allauth.account.adapter import get_adapter
from allauth.core.exceptions import ReauthenticationRequired
from django import forms
from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.console.answering import AnsweringPage
from accounts.console.pages import lacks_second_factor, problem_of
from accounts.models import REASON_LENGTH_MAX, User
from accounts.queries import list_memberships
from accounts.sign_in import check_proof
from turnpike.control.caller import ALL_POWERS, Caller
from turnpike.control.drf import client_address
from turnpike.control.forms import ConsoleForm
from turnpike.control.publication import watch_publication
from turnpike.control.scope import platform_scope
from turnpike.kernel import ids
from turnpike.kernel.errors import NotFound, TurnpikeError

METHODS = ("GET", "POST")
ONCE_LENGTH = 36
READING_METHODS = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorVisit:
    """An operator on a page of the operator console; `request.operator_visit`."""

    caller: Caller
    is_member: bool


class OperatorPage(AnsweringPage):
    """One page of the operator console."""

    # Methods after which something is changed or shown that wants a fresh proof of identity.
    proved: ClassVar[frozenset[str]] = frozenset({"POST"})
    # A form with a secret is filled in again after such a proof: the session never keeps it.
    holds_secret: ClassVar[bool] = False
    visit: OperatorVisit
    user: User

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Let in operators, and run the handler where all tenants' rows are seen."""
        user = request.user
        if not isinstance(user, User) or not user.is_active:
            return redirect_to_login(request.get_full_path())
        if not user.is_staff:
            raise Http404
        self.user = user
        self.visit = request.operator_visit = visit_of(request, user)  # type: ignore[attr-defined]
        if lacks_second_factor(user, is_privileged=True):
            messages.warning(request, _("Your role needs a second factor. Set one up to go on."))
            return redirect("mfa_index")
        return self._answer(request, *args, **kwargs)

    @property
    def caller(self) -> Caller:
        """Who looks."""
        return self.visit.caller

    def refused(self, form: forms.Form) -> HttpResponse:
        """Say what is wrong with a form that has no page of its own, where one came from."""
        for name, errors in form.errors.items():
            label = "" if name == "__all__" else f"{form.fields[name].label}: "
            messages.error(self.request, f"{label}{' '.join(map(str, errors))}")
        return redirect(self.back())

    def _answer(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        method = "GET" if request.method == "HEAD" else str(request.method)
        if not hasattr(self, method.lower()):
            return HttpResponseNotAllowed([name for name in METHODS if hasattr(self, name.lower())])
        try:
            if method in self.proved:
                self._check_proof(request)
            with watch_publication(), platform_scope(f"operator console: {request.path}"):
                return super().dispatch(request, *args, **kwargs)
        except ReauthenticationRequired:
            if not self.holds_secret or request.method in READING_METHODS:
                raise
            return self._prove_first(request)
        except TurnpikeError as error:
            return self._failed(request, error)

    def _check_proof(self, request: HttpRequest) -> None:
        check_proof(request, self.user)

    def _prove_first(self, request: HttpRequest) -> HttpResponse:
        messages.info(request, _("Prove who you are first, then fill in the form again."))
        methods = get_adapter().get_reauthentication_methods(request.user)
        address = methods[0]["url"] if methods else reverse("account_login")
        return redirect(f"{address}?{urlencode({'next': self.back()})}")

    def _failed(self, request: HttpRequest, error: TurnpikeError) -> HttpResponse:
        if isinstance(error, NotFound) or request.method in READING_METHODS:
            return self.page(
                "operator/problem.html", {"problem": problem_of(error)}, status=error.status
            )
        messages.error(request, f"{problem_of(error)} {error.message}")
        return redirect(self.back())


class ReasonForm(ConsoleForm):
    """A form that says why; derive from it for what changes money or access."""

    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=REASON_LENGTH_MAX,
        help_text=gettext_lazy("Kept in the audit log. No secrets, no personal data."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The reason comes last, whatever a form adds.
        self.order_fields([name for name in self.fields if name != "reason"])


class OnceForm(ReasonForm):
    """A form that does its work once, however often it is sent."""

    once = forms.CharField(widget=forms.HiddenInput, max_length=ONCE_LENGTH)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["once"].initial = str(ids.uuid7())


def visit_of(request: HttpRequest, user: User) -> OperatorVisit:
    """Who looks, as services and the audit log know them."""
    with platform_scope("accounts.console.operators"):
        is_member = list_memberships(user.pk).exists()
    caller = Caller(
        actor=user.public_id,
        powers=ALL_POWERS,
        is_operator=True,
        user=user.pk,
        address=client_address(request),
        request_id=ids.public_id(ids.REQUEST, ids.uuid7()),
    )
    return OperatorVisit(caller=caller, is_member=is_member)
