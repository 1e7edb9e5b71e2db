"""One key: its settings, and disabling, enabling and revoking it."""

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from accounts.access import access_key
from accounts.console.pages import TenantPage
from accounts.models import ApiKey, ApiKeyStatus
from accounts.services import keys
from billing.queries.usage import last_used_at, sum_span
from turnpike.control.caller import Power
from turnpike.kernel import clock
from turnpike.kernel.errors import InvalidInput
from turnpike.web.key_forms import COLUMNS, EditKeyForm
from turnpike.web.keys import LOOK_BACK, describe, list_models

# The service's names of fields -> the form's.
EDIT_COLUMNS = {**COLUMNS, "expires_at": "expires_on", "models": "allowed_models"}
CHANGEABLE = (ApiKeyStatus.ACTIVE, ApiKeyStatus.DISABLED)


class KeyPage(TenantPage):
    """A key's settings."""

    powers = {"GET": Power.KEYS_READ, "POST": Power.KEYS_WRITE}
    proved = frozenset({"POST"})

    def back(self) -> str:
        """The list."""
        return reverse("console-keys")

    def get(self, _request: HttpRequest, key_id: str) -> HttpResponse:
        """What is set, in a form for those who may change it."""
        return self._show(access_key(self.caller, key_id, power=Power.KEYS_READ))

    def post(self, request: HttpRequest, key_id: str) -> HttpResponse:
        """Do what the button says; it holds from the next request."""
        key = access_key(self.caller, key_id, power=Power.KEYS_WRITE)
        action = request.POST.get("action")
        if action == "save":
            return self._save(request, key)
        if action == "disable":
            keys.disable_key(caller=self.caller, key=key)
            return self.done(_("The key is disabled. Its next request is refused."))
        if action == "enable":
            keys.enable_key(caller=self.caller, key=key)
            return self.done(_("The key works again."))
        if action == "revoke" and request.POST.get("typed", "").strip() == key.name:
            keys.revoke_key(caller=self.caller, key=key)
            return self.done(_("The key is revoked for good."))
        raise InvalidInput(_("Type the key's name to revoke it."), field="typed")

    def _save(self, request: HttpRequest, key: ApiKey) -> HttpResponse:
        form = EditKeyForm.of(key, models=list_models(), posted=request.POST)
        if not form.is_valid():
            return self._show(key, form=form, status=400)
        try:
            changes = form.changes(key)
            if changes:
                keys.update_key(caller=self.caller, key=key, changes=changes)
        except InvalidInput as error:
            form.refuse(error, columns=EDIT_COLUMNS)
            return self._show(key, form=form, status=400)
        here = reverse("console-key", args=[key.public_id])
        return self.done(_("The key was changed. It holds from the next request on."), to=here)

    def _show(
        self, key: ApiKey, *, form: EditKeyForm | None = None, status: int = 200
    ) -> HttpResponse:
        now = clock.utc_now()
        month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        sums = sum_span(tenant=self.tenant, since=month, until=now, only={"api_key_id": (key.pk,)})
        used = last_used_at(tenant=self.tenant, since=now - LOOK_BACK)
        row = describe(
            key,
            now,
            spent_nano=sum(item.sums["amount_nano"] for item in sums),
            used_at=used.get(key.pk),
        )
        is_managed = key.kind == ApiKey.Kind.MANAGEMENT
        power = Power.MANAGEMENT_KEYS_WRITE if is_managed else Power.KEYS_WRITE
        return self.page(
            "turnpike/key.html",
            {
                "row": row,
                "key": key,
                "form": form or EditKeyForm.of(key, models=list_models()),
                "can_write": self.caller.has_power(power) and row["state"] in CHANGEABLE,
                "can_read_requests": self.caller.has_power(Power.REQUESTS_READ),
                "section": "console-keys",
            },
            status=status,
        )
