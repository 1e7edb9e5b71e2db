"""The page behind an invitation's link: join with an account that exists, or make one."""

from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth import login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views import View

from accounts.console.pages import problem_of
from accounts.models import User
from accounts.services.members import accept_invite
from accounts.sign_in import note_password
from turnpike.control.caller import Caller
from turnpike.control.drf import client_address
from turnpike.control.forms import ConsoleForm
from turnpike.kernel.errors import InvalidInput, TurnpikeError

BACKEND = "django.contrib.auth.backends.ModelBackend"


class JoinForm(ConsoleForm):
    """The account of somebody who has none yet."""

    name = forms.CharField(label=gettext_lazy("Your name"), max_length=100)
    password = forms.CharField(
        label=gettext_lazy("Password"),
        help_text=gettext_lazy("At least ten characters."),
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )


class InvitationPage(View):
    """Accepting an invitation, signed in or not."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Ask."""
        return self._show(request, JoinForm())

    def post(self, request: HttpRequest) -> HttpResponse:
        """Join, and land in the console."""
        user = request.user if isinstance(request.user, User) else None
        form = JoinForm(request.POST)
        if user is None and not form.is_valid():
            return self._show(request, form, status=400)
        fields: dict[str, Any] = {} if user is not None else form.cleaned_data
        caller = Caller(
            actor="visitor" if user is None else user.public_id, address=client_address(request)
        )
        try:
            member = accept_invite(
                caller=caller, token=request.POST.get("token", ""), user=user, **fields
            )
        except InvalidInput as error:
            form.refuse(error)
            return self._show(request, form, status=400)
        except TurnpikeError as error:
            messages.error(request, f"{problem_of(error)} {error.message}")
            return self._show(request, form, status=error.status)
        if user is None:
            login(request, member.user, backend=BACKEND)
            note_password(request, member.user)
        request.session["tenant"] = member.tenant_id
        messages.success(request, _("Welcome. You are a member now."))
        return redirect("console")

    def _show(self, request: HttpRequest, form: JoinForm, *, status: int = 200) -> HttpResponse:
        token = request.POST.get("token") or request.GET.get("token", "")
        response = render(
            request, "accounts/invitation.html", {"form": form, "token": token}, status=status
        )
        response["cache-control"] = "no-store"
        # Nobody else learns the link. Stricter would take the origin from the form itself, which
        # is then refused as one of another site.
        response["referrer-policy"] = "same-origin"
        return response
