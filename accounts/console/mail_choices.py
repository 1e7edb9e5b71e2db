"""Mail you get: which notices a member wants, and what is always sent."""

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.console.pages import TenantPage
from accounts.models import Member
from accounts.services.notices import NOTICES, choose_notices, muted_of, notices_for
from turnpike.control.caller import Power
from turnpike.control.forms import ConsoleForm

NOTES: dict[str, Any] = {
    "budgets": gettext_lazy("For the organization, workspaces and keys, by UTC day and month."),
    "balance": gettext_lazy("When it lasts for fewer days than you chose on the billing page."),
    "webhooks": gettext_lazy("After days without a success, or when it answered 410."),
}
# What nobody can do without, and to whom it goes.
ALWAYS = (
    (
        gettext_lazy("Your account"),
        gettext_lazy("Sign-in, password and second factor. They tell you if somebody else tries."),
    ),
    (
        gettext_lazy("Invitations and the end of an organization"),
        gettext_lazy("To those whom they are about."),
    ),
    (
        gettext_lazy("Invoices, reminders and refused payments"),
        gettext_lazy("To the address for invoices, or to the owners where there is none."),
    ),
)


class ChoicesForm(ConsoleForm):
    """The notices that concern a role."""

    wanted = forms.MultipleChoiceField(required=False, widget=forms.CheckboxSelectMultiple)

    def __init__(self, *args: Any, role: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["wanted"]
        assert isinstance(field, forms.MultipleChoiceField)
        field.choices = [(name, NOTICES[name][0]) for name in notices_for(role)]


class MailChoicesPage(TenantPage):
    """A member's own choice of mails. Each has one, whatever their role."""

    powers = {"GET": Power.TENANT_READ, "POST": Power.TENANT_READ}

    def get(self, _request: HttpRequest) -> HttpResponse:
        """What they get now."""
        return self._show()

    def post(self, request: HttpRequest) -> HttpResponse:
        """Keep the choice."""
        member = self._member()
        form = ChoicesForm(request.POST, role=member.role)
        if not form.is_valid():
            return self._show(status=400)
        choose_notices(member=member, wanted=form.cleaned_data["wanted"])
        return self.done(_("Your choice was saved."))

    def _member(self) -> Member:
        """The member as they are now; for an operator who looks, one that is kept nowhere."""
        member = self.visit.member
        if self.visit.viewing is not None:
            return member
        return Member.objects.select_related("notices").get(pk=member.pk)

    def _show(self, *, status: int = 200) -> HttpResponse:
        member = self._member()
        muted = () if self.visit.viewing is not None else muted_of(member)
        return self.page(
            "accounts/mail_choices.html",
            {
                "choices": [
                    {
                        "name": name,
                        "title": NOTICES[name][0],
                        "note": NOTES[name],
                        "is_wanted": name not in muted,
                    }
                    for name in notices_for(member.role)
                ],
                "always": ALWAYS,
                "address": self.user.email,
                "section": "console-settings",
            },
            status=status,
        )
