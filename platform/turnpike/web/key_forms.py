"""Forms about keys: what a new one may do, and how long a replaced one lives on."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from accounts.console.limited import LIMITED, LimitedForm, limited_initial
from accounts.models import ApiKey
from turnpike.contracts.snapshots import SCOPES
from turnpike.control.forms import ConsoleForm
from turnpike.kernel import ids

GRACES = (
    ("0", _("None: it stops at once")),
    ("3600", _("1 hour")),
    ("86400", _("24 hours")),
    ("604800", _("7 days")),
)
EXPIRIES = (
    ("", _("Never")),
    ("30", _("In 30 days")),
    ("90", _("In 90 days")),
    ("365", _("In a year")),
    ("date", _("On a date")),
)
SCOPE_TITLES: Mapping[str, Any] = {
    "messages": _("Messages"),
    "count_tokens": _("Count tokens"),
    "models": _("List models"),
}
# The service's names of fields -> the form's.
COLUMNS = {"expires_at": "expiry", "models": "allowed_models"}


class OnceForm(ConsoleForm):
    """A form that does its work once, however often it is sent."""

    once = forms.CharField(widget=forms.HiddenInput, max_length=100)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["once"].initial = str(ids.uuid7())


class KeySettingsForm(LimitedForm):
    """What a key is called, and what it may do."""

    name = forms.CharField(
        label=_("Name"),
        max_length=100,
        help_text=_("What will use it, for example production-backend."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    scopes = forms.MultipleChoiceField(
        label=_("May call"),
        choices=[(scope, SCOPE_TITLES[scope]) for scope in SCOPES],
        initial=list(SCOPES),
        required=False,
        widget=forms.CheckboxSelectMultiple,
    )
    allowed_models = forms.MultipleChoiceField(
        label=_("Models"),
        required=False,
        help_text=_("None chosen: all of them."),
        widget=forms.SelectMultiple(attrs={"size": "5"}),
    )
    ip_ranges = forms.CharField(
        label=_("Addresses"),
        required=False,
        help_text=_("Addresses or ranges, one a line; empty: from anywhere."),
        widget=forms.Textarea(attrs={"rows": "2", "class": "input input--mono"}),
    )

    def __init__(self, *args: Any, models: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choose(self, "allowed_models", [(name, name) for name in models])


class KeyForm(OnceForm, KeySettingsForm):
    """A new key."""

    kind = forms.ChoiceField(
        label=_("Kind"),
        choices=(
            (ApiKey.Kind.API, _("Inference: calls models")),
            (ApiKey.Kind.MANAGEMENT, _("Management: calls the management API")),
        ),
        initial=ApiKey.Kind.API,
        required=False,
    )
    workspace = forms.ChoiceField(label=_("Workspace"))
    expiry = forms.ChoiceField(label=_("Expires"), choices=EXPIRIES, required=False)
    expires_on = forms.DateField(
        label=_("Date"),
        required=False,
        widget=forms.DateInput(attrs={"type": "date"}),
        help_text=_("The end of that day, UTC."),
    )

    def __init__(
        self, *args: Any, workspaces: list[tuple[str, str]], has_management: bool, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        choose(self, "workspace", workspaces)
        self.fields["name"].widget.attrs["autofocus"] = True
        self.fields["expiry"].widget.attrs["data-shows"] = "expiry"
        if not has_management:
            choose(self, "kind", [(ApiKey.Kind.API, _("Inference: calls models"))])

    def clean(self) -> dict[str, Any]:
        """A date where one was promised."""
        values = super().clean() or self.cleaned_data
        if values.get("expiry") == "date" and not values.get("expires_on"):
            self.add_error("expires_on", _("Choose a date."))
        values["kind"] = values.get("kind") or ApiKey.Kind.API
        return values

    def settings(self, *, now: datetime) -> dict[str, Any]:
        """What the service takes; what was left empty is left out."""
        values = self.cleaned_data
        is_api = values["kind"] == ApiKey.Kind.API
        chosen: dict[str, Any] = {
            "name": values["name"],
            "expires_at": _expiry(values, now),
            "ip_ranges": values["ip_ranges"].split(),
            **{name: values.get(name) for name in LIMITED},
        }
        if is_api:
            chosen["scopes"] = values["scopes"]
            chosen["allowed_models"] = values["allowed_models"] or None
        return {name: value for name, value in chosen.items() if value is not None}


class EditKeyForm(KeySettingsForm):
    """A key that exists; what is emptied is taken away."""

    expires_on = forms.DateField(
        label=_("Expires"),
        required=False,
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
        help_text=_("The end of that day, UTC; empty: never."),
    )

    @classmethod
    def of(cls, key: ApiKey, *, models: list[str], posted: Any = None) -> "EditKeyForm":
        """The form with the key's settings; models that are no longer sold stay choosable."""
        names = [*models, *(name for name in key.allowed_models or () if name not in models)]
        initial: dict[str, Any] = {
            "name": key.name,
            "expires_on": key.expires_at and key.expires_at.date(),
            "scopes": key.scopes,
            "allowed_models": key.allowed_models or [],
            "ip_ranges": "\n".join(key.ip_ranges),
            **limited_initial(key),
        }
        form = cls(posted, models=names, initial=initial)
        if key.kind == ApiKey.Kind.MANAGEMENT:
            for name in ("scopes", "allowed_models"):
                del form.fields[name]
        return form

    def changes(self, key: ApiKey) -> dict[str, Any]:
        """What differs from the key, as the service takes it."""
        values = dict(self.cleaned_data)
        day = values.pop("expires_on")
        if day != (key.expires_at and key.expires_at.date()):
            values["expires_at"] = day and _end_of(day)
        values["ip_ranges"] = values["ip_ranges"].split()
        if "allowed_models" in values:
            values["allowed_models"] = values["allowed_models"] or None
        return {name: value for name, value in values.items() if value != getattr(key, name)}


def choose(form: forms.Form, name: str, choices: list[tuple[Any, Any]]) -> None:
    """Give a field its choices."""
    field = form.fields[name]
    assert isinstance(field, forms.ChoiceField)
    field.choices = choices


class RotateForm(OnceForm):
    """How long the old key goes on working."""

    grace = forms.ChoiceField(choices=GRACES)

    def grace_chosen(self) -> timedelta:
        """The grace."""
        return timedelta(seconds=int(self.cleaned_data["grace"]))


def _expiry(values: Mapping[str, Any], now: datetime) -> datetime | None:
    if values["expiry"] == "date":
        return _end_of(values["expires_on"])
    return now + timedelta(days=int(values["expiry"])) if values["expiry"] else None


def _end_of(day: date) -> datetime:
    return datetime.combine(day, time(23, 59, 59), tzinfo=UTC)
