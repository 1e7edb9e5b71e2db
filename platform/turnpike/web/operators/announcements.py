"""Announcements: what all tenants should know, from when, until when, in three languages."""

from datetime import UTC, datetime
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.console.operators import OperatorPage, ReasonForm
from billing.models.upkeep import TEXT_LENGTH_MAX, TITLE_LENGTH_MAX, Announcement
from billing.services.announcements import (
    LANGUAGES,
    Words,
    announce,
    end_announcement,
    withdraw_announcement,
    words_of,
)
from billing.services.standing import API, CONSOLE, USAGE
from turnpike.control.forms import ConsoleForm
from turnpike.kernel import clock
from turnpike.kernel.errors import InvalidInput, NotFound

SHOWN = 50
KINDS: dict[str, Any] = {
    Announcement.Kind.NOTICE: gettext_lazy("Notice"),
    Announcement.Kind.MAINTENANCE: gettext_lazy("Maintenance"),
    Announcement.Kind.INCIDENT: gettext_lazy("Incident"),
}
SEVERITIES: dict[str, Any] = {
    Announcement.Severity.INFO: gettext_lazy("For information"),
    Announcement.Severity.WARN: gettext_lazy("Something is worse than usual"),
    Announcement.Severity.DANGER: gettext_lazy("Something does not work"),
}
COMPONENTS: dict[str, Any] = {
    "": gettext_lazy("None in particular"),
    API: gettext_lazy("API"),
    CONSOLE: gettext_lazy("Console"),
    USAGE: gettext_lazy("Usage processing"),
}
LANGUAGE_TITLES = {"en": "English", "zh-hans": "简体中文", "ru": "Русский"}


class AnnouncementForm(ConsoleForm):
    """A new announcement; a language without a title falls back to English."""

    kind = forms.ChoiceField(label=gettext_lazy("Kind"), choices=list(KINDS.items()))
    severity = forms.ChoiceField(label=gettext_lazy("How bad"), choices=list(SEVERITIES.items()))
    component = forms.ChoiceField(
        label=gettext_lazy("Component"), choices=list(COMPONENTS.items()), required=False
    )
    starts_at = forms.DateTimeField(
        label=gettext_lazy("From, in UTC"),
        required=False,
        help_text=gettext_lazy("Empty: from now."),
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}),
    )
    ends_at = forms.DateTimeField(
        label=gettext_lazy("Until, in UTC"),
        required=False,
        help_text=gettext_lazy("Empty: until somebody ends it."),
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for code in LANGUAGES:
            name = LANGUAGE_TITLES[code]
            self.fields[f"title_{code}"] = forms.CharField(
                label=_("Title, %(language)s") % {"language": name},
                max_length=TITLE_LENGTH_MAX,
                required=code == LANGUAGES[0],
                widget=forms.TextInput(attrs={"class": "input", "lang": code}),
            )
            self.fields[f"text_{code}"] = forms.CharField(
                label=_("Text, %(language)s") % {"language": name},
                max_length=TEXT_LENGTH_MAX,
                required=False,
                widget=forms.Textarea(attrs={"class": "input", "rows": 3, "lang": code}),
            )

    def plain_fields(self) -> list[Any]:
        """What is no text."""
        return [self[name] for name in ("kind", "severity", "component", "starts_at", "ends_at")]

    def text_fields(self) -> list[tuple[Any, Any]]:
        """Title and text of each language."""
        return [(self[f"title_{code}"], self[f"text_{code}"]) for code in LANGUAGES]

    def words(self) -> dict[str, Words]:
        """What was written, by language."""
        return {
            code: Words(
                title=self.cleaned_data[f"title_{code}"], text=self.cleaned_data[f"text_{code}"]
            )
            for code in LANGUAGES
        }


class WithdrawForm(ReasonForm):
    """Why it is taken back."""


class AnnouncementsPage(OperatorPage):
    """What was, is and will be said."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """All of it, the newest first."""
        return self._show(request, AnnouncementForm())

    def post(self, request: HttpRequest) -> HttpResponse:
        """Say something."""
        form = AnnouncementForm(request.POST)
        if not form.is_valid():
            return self._show(request, form, status=400)
        chosen = form.cleaned_data
        try:
            announce(
                caller=self.caller,
                kind=chosen["kind"],
                severity=chosen["severity"],
                component=chosen["component"],
                words=form.words(),
                starts_at=chosen["starts_at"] or clock.utc_now(),
                ends_at=chosen["ends_at"],
            )
        except InvalidInput as error:
            form.refuse(error)
            return self._show(request, form, status=400)
        return self.done(_("It was announced."))

    def _show(
        self, request: HttpRequest, form: AnnouncementForm, *, status: int = 200
    ) -> HttpResponse:
        now = clock.utc_now()
        rows = Announcement.objects.order_by("-starts_at", "-pk")[:SHOWN]
        return self.page(
            "operator/announcements.html",
            {
                "announcements": [_row(row, now) for row in rows],
                "form": form,
                "is_form_open": status != 200 or "new" in request.GET,
            },
            status=status,
        )


class AnnouncementPage(OperatorPage):
    """Ending one, or taking it back."""

    def back(self) -> str:
        """The list."""
        return reverse("operator-announcements")

    def post(self, request: HttpRequest, note_id: str) -> HttpResponse:
        """Do it."""
        row = _find(note_id)
        if request.POST.get("action") == "end":
            end_announcement(caller=self.caller, row=row)
            return self.done(_("It has ended."))
        form = WithdrawForm(request.POST)
        if not form.is_valid():
            return self.refused(form)
        withdraw_announcement(caller=self.caller, row=row, reason=form.cleaned_data["reason"])
        return self.done(_("It was taken back."))


def _find(note_id: str) -> Announcement:
    try:
        row = Announcement.objects.filter(uuid=Announcement.parse_public_id(note_id)).first()
    except ValueError:
        row = None
    if row is None:
        raise NotFound("There is no such announcement.")
    return row


def _row(row: Announcement, now: datetime) -> dict[str, Any]:
    state, tone = _state(row, now)
    return {
        "row": row,
        "words": words_of(row),
        "kind": KINDS[row.kind],
        "languages": [LANGUAGE_TITLES[code] for code in LANGUAGES if code in row.texts],
        "state": state,
        "tone": tone,
        "is_running": tone == "info",
        "can_withdraw": row.withdrawn_at is None,
        "form": WithdrawForm(auto_id=f"{row.public_id}-%s"),
    }


def _state(row: Announcement, now: datetime) -> tuple[str, str]:
    if row.withdrawn_at is not None:
        return _("Taken back"), ""
    if row.starts_at > now:
        return _("To come"), "warn"
    if (row.ends_at or datetime.max.replace(tzinfo=UTC)) <= now:
        return _("Over"), "ok"
    return _("Shown now"), "info"
