"""Operators, their factors and sessions; and people of tenants who lost their second factor."""

from typing import Any

from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django import forms
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from accounts.console.operators import OperatorPage, ReasonForm
from accounts.console.words import ROLES
from accounts.models import EMAIL_LENGTH_MAX, NAME_LENGTH_MAX, Member, User
from accounts.services import operators
from accounts.services.operators import AddedOperator
from turnpike.kernel.errors import InvalidInput, NotFound
from turnpike.web.operators.tiers import history_of

OPERATORS_SHOWN_MAX = 200
FOUND_SHOWN_MAX = 25
SESSIONS_SHOWN_MAX = 50
SEARCH_LENGTH_MAX = 254
FACTORS = {
    Authenticator.Type.TOTP: gettext_lazy("Authenticator app"),
    Authenticator.Type.RECOVERY_CODES: gettext_lazy("Recovery codes"),
    Authenticator.Type.WEBAUTHN: gettext_lazy("Passkey"),
}


class OperatorForm(ReasonForm):
    """Who becomes an operator."""

    email = forms.EmailField(
        label=gettext_lazy("Email address"),
        max_length=EMAIL_LENGTH_MAX,
        widget=forms.EmailInput(attrs={"autocomplete": "off"}),
    )
    name = forms.CharField(label=gettext_lazy("Name"), max_length=NAME_LENGTH_MAX, required=False)


class UsersPage(OperatorPage):
    """The operators, and a search for everybody else."""

    def get(self, _request: HttpRequest) -> HttpResponse:
        """The list."""
        return self._show()

    def post(self, request: HttpRequest) -> HttpResponse:
        """Make somebody an operator; a first password is shown once."""
        form = OperatorForm(request.POST)
        if not form.is_valid():
            return self._show(form=form, status=400)
        try:
            added = operators.add_operator(caller=self.caller, **form.cleaned_data)
        except InvalidInput as error:
            form.refuse(error)
            return self._show(form=form, status=400)
        return self._show(added=added)

    def _show(
        self,
        *,
        form: OperatorForm | None = None,
        added: AddedOperator | None = None,
        status: int = 200,
    ) -> HttpResponse:
        staff = User.objects.filter(is_staff=True).order_by("email")
        searched = self.request.GET.get("q", "").strip()[:SEARCH_LENGTH_MAX]
        found = User.objects.none()
        if searched and searched.isprintable():
            found = User.objects.filter(is_staff=False, email__icontains=searched).order_by("email")
        return self.page(
            "operator/users.html",
            {
                "operators": describe(list(staff[:OPERATORS_SHOWN_MAX])),
                "people": describe(list(found[:FOUND_SHOWN_MAX])),
                "searched": searched,
                "form": form or OperatorForm(),
                "is_new": form is not None,
                "added": added,
            },
            status=status,
        )


class UserPage(OperatorPage):
    """One person."""

    def get(self, _request: HttpRequest, user_id: str) -> HttpResponse:
        """Their factors, sessions and places."""
        person = find_person(user_id)
        sessions = UserSession.objects.filter(user=person).order_by("-last_seen_at")
        places = Member.objects.filter(user=person).select_related("tenant").order_by("pk")
        return self.page(
            "operator/user.html",
            {
                "person": person,
                "section": "operator-users",
                "factors": [
                    {"title": FACTORS.get(row.type, row.type), "row": row}
                    for row in Authenticator.objects.filter(user=person).order_by("pk")
                ],
                "sessions": sessions[:SESSIONS_SHOWN_MAX],
                "places": [{"row": row, "role": ROLES[row.role]} for row in places],
                "is_oneself": person.pk == self.user.pk,
                "reset_form": ReasonForm(auto_id="reset_%s"),
                "sessions_form": ReasonForm(auto_id="sessions_%s"),
                "remove_form": ReasonForm(auto_id="remove_%s"),
                "events": history_of(person.public_id),
            },
        )

    def post(self, request: HttpRequest, user_id: str) -> HttpResponse:
        """Do what the form says."""
        person = find_person(user_id)
        form = ReasonForm(request.POST)
        if not form.is_valid():
            return self.refused(form)
        reason = form.cleaned_data["reason"]
        action = request.POST.get("action")
        if action == "remove":
            operators.remove_operator(caller=self.caller, user=person, reason=reason)
            return self.done(_("They are no operator any more, and are signed out."))
        if action == "reset":
            operators.reset_second_factor(caller=self.caller, user=person, reason=reason)
            return self.done(_("Their second factor is gone. They set up a new one."))
        if action == "sessions":
            count = operators.end_sessions(caller=self.caller, user=person, reason=reason)
            text = ngettext("%(count)d session was ended.", "%(count)d sessions were ended.", count)
            return self.done(text % {"count": count})
        raise InvalidInput("action is not known.", field="action")


def find_person(user_id: str) -> User:
    """A person by the public id. Raises NotFound."""
    try:
        uuid = User.parse_public_id(user_id)
    except ValueError as error:
        raise NotFound("There is no such person.") from error
    person = User.objects.filter(uuid=uuid).first()
    if person is None:
        raise NotFound("There is no such person.")
    return person


def describe(rows: list[User]) -> list[dict[str, Any]]:
    """People as lists show them: two queries whatever their number."""
    factors: dict[int, list[Any]] = {}
    for row in Authenticator.objects.filter(user__in=rows).order_by("pk"):
        factors.setdefault(row.user_id, []).append(FACTORS.get(row.type, row.type))
    counts = UserSession.objects.filter(user__in=rows).order_by("user").values("user")
    sessions = {row["user"]: row["count"] for row in counts.annotate(count=Count("pk"))}
    return [
        {"row": row, "factors": factors.get(row.pk, []), "sessions": sessions.get(row.pk, 0)}
        for row in rows
    ]
