"""Settings of the platform that are data: who needs a second factor, and how long what is kept."""

from typing import Any

from django import forms
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.console.operators import OperatorPage, ReasonForm
from accounts.models import PlatformSetting
from accounts.services.platform_settings import (
    KEEP_AUDIT_DAYS,
    KEEP_CLOSED_DAYS,
    KEEP_EVENTS_DAYS,
    KEEP_EXPORTS_DAYS,
    KEEP_INVITES_DAYS,
    KEEP_MAIL_DAYS,
    SECOND_FACTOR_REQUIRED,
    SETTINGS,
    SUPPORT_CONTACT,
    SUSPEND_OVERDUE_DAYS,
    change_settings,
    read_settings,
)
from turnpike.kernel.errors import InvalidInput

_FOREVER = gettext_lazy("Days; 0 keeps them for good.")
_DAYS = gettext_lazy("Days.")


class SettingsForm(ReasonForm):
    """All settings and one reason."""

    second_factor_required = forms.BooleanField(
        label=gettext_lazy("Owners and operators need a second factor"), required=False
    )
    support_contact = forms.CharField(
        label=gettext_lazy("Where tenants ask for help"),
        max_length=200,
        required=False,
        help_text=gettext_lazy("An address or a link; shown on the status page."),
    )
    suspend_overdue_days = forms.IntegerField(
        label=gettext_lazy("Suspend tenants with an invoice overdue for so many days"),
        help_text=gettext_lazy("10 or more; 0 suspends nobody. Their payment resumes them."),
    )
    keep_events_days = forms.IntegerField(
        label=gettext_lazy("Requests, one by one"), help_text=_FOREVER
    )
    keep_audit_days = forms.IntegerField(label=gettext_lazy("Audit logs"), help_text=_FOREVER)
    keep_mail_days = forms.IntegerField(label=gettext_lazy("Envelopes of mail"), help_text=_DAYS)
    keep_invites_days = forms.IntegerField(
        label=gettext_lazy("Addresses of invitations that came to nothing"), help_text=_DAYS
    )
    keep_exports_days = forms.IntegerField(label=gettext_lazy("Data exports"), help_text=_DAYS)
    keep_closed_days = forms.IntegerField(
        label=gettext_lazy("Personal data of closed organizations"), help_text=_DAYS
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in (SUSPEND_OVERDUE_DAYS, *DAYS):
            known, field = SETTINGS[name], self.fields[name]
            field.widget.attrs["min"] = 0 if known.or_never else known.minimum
            field.widget.attrs["max"] = known.maximum

    def day_fields(self) -> list[Any]:
        """How long what is kept."""
        return [self[name] for name in DAYS]


DAYS = (
    KEEP_EVENTS_DAYS,
    KEEP_AUDIT_DAYS,
    KEEP_MAIL_DAYS,
    KEEP_INVITES_DAYS,
    KEEP_EXPORTS_DAYS,
    KEEP_CLOSED_DAYS,
)


class SettingsPage(OperatorPage):
    """The platform's settings."""

    def get(self, _request: HttpRequest) -> HttpResponse:
        """What is set."""
        return self._show(SettingsForm(initial=read_settings()))

    def post(self, request: HttpRequest) -> HttpResponse:
        """Change it."""
        form = SettingsForm(request.POST)
        if not form.is_valid():
            return self._show(form, status=400)
        names = (SECOND_FACTOR_REQUIRED, SUPPORT_CONTACT, SUSPEND_OVERDUE_DAYS, *DAYS)
        try:
            changed = change_settings(
                caller=self.caller,
                changes={name: form.cleaned_data[name] for name in names},
                reason=form.cleaned_data["reason"],
            )
        except InvalidInput as error:
            form.refuse(error)
            return self._show(form, status=400)
        return self.done(_("The settings were saved.") if changed else _("Nothing was different."))

    def _show(self, form: SettingsForm, *, status: int = 200) -> HttpResponse:
        return self.page(
            "operator/settings.html",
            {
                "form": form,
                "is_forced": settings.REQUIRE_SECOND_FACTOR,
                "last": PlatformSetting.objects.order_by("-changed_at").first(),
            },
            status=status,
        )
