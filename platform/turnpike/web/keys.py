"""API keys: the list with what each spent, making one, and what can be done to it."""

import contextlib
from datetime import datetime, timedelta
from typing import Any

from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from accounts.access import access_key, access_keys, access_workspace, access_workspaces
from accounts.console.pages import TenantPage
from accounts.console.words import KEY_STATES, ROTATING
from accounts.models import ApiKey, ApiKeyStatus
from accounts.services import keys
from accounts.services.keys import IssuedKey
from billing.models import CatalogModel
from billing.queries.usage import last_used_at, sum_span
from turnpike.control.caller import Power
from turnpike.control.pages import parse_bigint
from turnpike.kernel import clock
from turnpike.kernel.errors import Conflict, InvalidInput
from turnpike.web.key_forms import COLUMNS, GRACES, KeyForm, RotateForm

SHOWN = 50
EXPIRES_SOON = timedelta(days=7)
UNUSED_AFTER = timedelta(days=30)
LOOK_BACK = timedelta(days=90)
FORM_LASTS_SECONDS = 86_400
ENDED = (ApiKeyStatus.REVOKED, ApiKeyStatus.EXPIRED)


class KeysPage(TenantPage):
    """The organization's keys."""

    powers = {"GET": Power.KEYS_READ, "POST": Power.KEYS_WRITE}
    proved = frozenset({"POST"})

    def get(self, _request: HttpRequest) -> HttpResponse:
        """The list."""
        return self.show()

    def post(self, request: HttpRequest) -> HttpResponse:
        """Make a key; its secret is on the answer and nowhere else."""
        form = self._form(request.POST)
        if not form.is_valid():
            return self.show(form=form, status=400)
        claim_form(form.cleaned_data["once"])
        workspace = access_workspace(
            self.caller, form.cleaned_data["workspace"], power=Power.KEYS_WRITE
        )
        try:
            issued = keys.issue_key(
                caller=self.caller,
                workspace=workspace,
                kind=form.cleaned_data["kind"],
                settings=form.settings(now=clock.utc_now()),
            )
        except InvalidInput as error:
            form.refuse(error, columns=COLUMNS)
            return self.show(form=form, status=400)
        return self.show(issued=issued)

    def show(
        self,
        *,
        form: KeyForm | None = None,
        issued: IssuedKey | None = None,
        grace: timedelta | None = None,
        status: int = 200,
    ) -> HttpResponse:
        """The list; with a form that was refused or a key that was just made, in a dialog."""
        wanted = self.request.GET.get("state", "")
        now = clock.utc_now()
        spent = self._spent()
        used = last_used_at(tenant=self.tenant, since=now - LOOK_BACK)
        rows = access_keys(self.caller, power=Power.KEYS_READ).order_by("-pk")
        shown = [
            describe(key, now, spent_nano=spent.get(key.pk, 0), used_at=used.get(key.pk))
            for key in rows
        ]
        ended = [row for row in shown if row["state"] in ENDED]
        alive = [row for row in shown if row["state"] not in ENDED]
        can_write = self.caller.has_power(Power.KEYS_WRITE)
        page, older = self._page(ended if wanted == "ended" else alive)
        return self.page(
            "turnpike/keys.html",
            {
                "keys": page,
                "next": older,
                "wanted": wanted,
                "alive": len(alive),
                "ended": len(ended),
                "form": form or (self._form() if can_write else None),
                "is_refused": form is not None,
                "issued": issued,
                "grace": grace,
                "graces": GRACES,
                "can_write": can_write,
                "can_write_management": self.caller.has_power(Power.MANAGEMENT_KEYS_WRITE),
                "can_read_requests": self.caller.has_power(Power.REQUESTS_READ),
                "model": example_model(),
                "section": "console-keys",
            },
            status=status,
        )

    def _page(self, rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int | None]:
        """The rows of one page, and the number before which the next one begins."""
        with contextlib.suppress(KeyError, ValueError):
            before = parse_bigint(self.request.GET["before"])
            rows = [row for row in rows if row["key"].pk < before]
        shown = rows[:SHOWN]
        return shown, shown[-1]["key"].pk if len(rows) > SHOWN else None

    def _form(self, posted: Any = None) -> KeyForm:
        rows = access_workspaces(self.caller, power=Power.WORKSPACES_READ)
        rows = rows.filter(archived_at=None).order_by("pk")
        return KeyForm(
            posted,
            workspaces=[(row.public_id, row.name) for row in rows],
            models=list_models(),
            has_management=self.caller.has_power(Power.MANAGEMENT_KEYS_WRITE),
        )

    def _spent(self) -> dict[int, int]:
        now = clock.utc_now()
        month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        rows = sum_span(tenant=self.tenant, since=month, until=now, group_by=("api_key_id",))
        return {row.words["api_key_id"]: row.sums["amount_nano"] for row in rows}


class RotateKeyPage(KeysPage):
    """Replacing a key; the old one works until its grace ends."""

    powers = {"POST": Power.KEYS_WRITE}

    def back(self) -> str:
        """The list."""
        return reverse("console-keys")

    def post(self, request: HttpRequest, key_id: str = "") -> HttpResponse:
        """Show the new secret once."""
        key = access_key(self.caller, key_id, power=Power.KEYS_WRITE)
        form = RotateForm(request.POST)
        if not form.is_valid():
            raise InvalidInput(_("Choose how long the old key goes on working."), field="grace")
        claim_form(form.cleaned_data["once"])
        grace = form.grace_chosen()
        issued = keys.rotate_key(caller=self.caller, key=key, grace=grace)
        return self.show(issued=issued, grace=grace)


def describe(
    key: ApiKey, now: datetime, *, spent_nano: int, used_at: datetime | None
) -> dict[str, Any]:
    """A key as the list shows it: its state in words, and what is worth a warning."""
    state = key.status_at(now)
    title, tone = KEY_STATES[state]
    if state == ApiKeyStatus.ACTIVE and key.replaced_by_id is not None:
        title, tone = ROTATING
    last_used = max((at for at in (used_at, key.last_used_at) if at is not None), default=None)
    return {
        "key": key,
        "last_used_at": last_used,
        "state": state,
        "title": title,
        "tone": tone,
        "spent_nano": spent_nano,
        "warnings": _warnings(key, state, now, last_used),
        "is_rotating": key.replaced_by_id is not None,
        "can_rotate": state == ApiKeyStatus.ACTIVE and key.replaced_by_id is None,
    }


def _warnings(
    key: ApiKey, state: ApiKeyStatus, now: datetime, last_used: datetime | None
) -> list[str]:
    if state != ApiKeyStatus.ACTIVE:
        return []
    found = []
    if key.ends_at is not None and key.ends_at - now <= EXPIRES_SOON:
        found.append(_("Ends within 7 days"))
    if now - max(key.created_at, last_used or key.created_at) >= UNUSED_AFTER:
        found.append(_("Not used in 30 days"))
    return found


def claim_form(once: str) -> None:
    """Raise Conflict when a form that makes a secret is sent a second time."""
    if not cache.add(f"form:{once}", 1, timeout=FORM_LASTS_SECONDS):
        raise Conflict(_("This form was sent before; the key was shown then."))


def list_models() -> list[str]:
    """The models that can be called."""
    rows = CatalogModel.objects.filter(is_enabled=True).order_by("-released_at", "model")
    return list(rows.values_list("model", flat=True))


def example_model() -> str:
    """A model for examples: the newest of the middle line, else any."""
    names = list_models()
    return next((name for name in names if "sonnet" in name), names[0] if names else "")
