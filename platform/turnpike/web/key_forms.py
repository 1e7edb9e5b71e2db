"""Forms about keys: what a new one may do, and how long a replaced one lives on."""

from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from accounts.models import ApiKey
from turnpike.contracts.snapshots import SCOPES
from turnpike.control.forms import AmountField, ConsoleForm
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
NUMBERS = ("requests_per_minute", "tokens_per_minute", "concurrency")


class OnceForm(ConsoleForm):
    """A form that does its work once, however often it is sent."""

    once = forms.CharField(widget=forms.HiddenInput, max_length=100)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["once"].initial = str(ids.uuid7())


class KeyForm(OnceForm):
    """What a new key is called, and what it may do."""

    name = forms.CharField(
        label=_("Name"),
        max_length=100,
        help_text=_("What will use it, for example production-backend."),
        widget=forms.TextInput(attrs={"autocomplete": "off", "autofocus": True}),
    )
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
    monthly_budget_nano = AmountField(
        label=_("Monthly limit"),
        required=False,
        help_text=_("In dollars; empty: only the organization's own."),
    )
    requests_per_minute = forms.IntegerField(
        label=_("Requests per minute"), required=False, min_value=1
    )
    tokens_per_minute = forms.IntegerField(
        label=_("Tokens per minute"), required=False, min_value=1
    )
    concurrency = forms.IntegerField(label=_("At once"), required=False, min_value=1)
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

    def __init__(
        self,
        *args: Any,
        workspaces: list[tuple[str, str]],
        models: list[str],
        has_management: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        choices: Mapping[str, list[tuple[str, str]]] = {
            "workspace": workspaces,
            "allowed_models": [(name, name) for name in models],
        }
        for name, values in choices.items():
            field = self.fields[name]
            assert isinstance(field, forms.ChoiceField)
            field.choices = values
        self.fields["expiry"].widget.attrs["data-shows"] = "expiry"
        if not has_management:
            kind = self.fields["kind"]
            assert isinstance(kind, forms.ChoiceField)
            kind.choices = [(ApiKey.Kind.API, _("Inference: calls models"))]

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
            "monthly_budget_nano": values["monthly_budget_nano"],
            "ip_ranges": values["ip_ranges"].split(),
            **{name: values[name] for name in NUMBERS},
        }
        if is_api:
            chosen["scopes"] = values["scopes"]
            chosen["allowed_models"] = values["allowed_models"] or None
        return {name: value for name, value in chosen.items() if value is not None}


class RotateForm(OnceForm):
    """How long the old key goes on working."""

    grace = forms.ChoiceField(choices=GRACES)

    def grace_chosen(self) -> timedelta:
        """The grace."""
        return timedelta(seconds=int(self.cleaned_data["grace"]))


def _expiry(values: Mapping[str, Any], now: datetime) -> datetime | None:
    if values["expiry"] == "date":
        return datetime.combine(values["expires_on"], time(23, 59, 59), tzinfo=UTC)
    return now + timedelta(days=int(values["expiry"])) if values["expiry"] else None
