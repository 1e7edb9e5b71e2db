"""Your data: a copy of it for the owner, and the end of the organization."""

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.access import access_tenant
from accounts.console.pages import TenantPage
from accounts.models import REASON_LENGTH_MAX, DataExport
from accounts.services.closing import close_account
from accounts.services.exports import read_export, request_export
from accounts.services.platform_settings import KEEP_CLOSED_DAYS, KEEP_EXPORTS_DAYS, read_settings
from turnpike.control.caller import Power
from turnpike.control.forms import ConsoleForm
from turnpike.kernel.errors import InvalidInput, NotFound

SHOWN = 10
STATES = {
    DataExport.State.PENDING: (gettext_lazy("Being built"), "info"),
    DataExport.State.READY: (gettext_lazy("Ready"), "ok"),
    DataExport.State.FAILED: (gettext_lazy("Failed"), "danger"),
    DataExport.State.EXPIRED: (gettext_lazy("Expired"), ""),
}


class ClosingForm(ConsoleForm):
    """The name, typed once more, and why."""

    typed_name = forms.CharField(
        label=gettext_lazy("Type the organization's name"),
        max_length=100,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    reason = forms.CharField(label=gettext_lazy("Why"), max_length=REASON_LENGTH_MAX)


class DataPage(TenantPage):
    """Exports, and closing."""

    powers = {"GET": Power.OWNERS_WRITE, "POST": Power.OWNERS_WRITE}
    proved = frozenset({"POST"})

    def get(self, _request: HttpRequest) -> HttpResponse:
        """What there is."""
        return self._show(ClosingForm())

    def post(self, _request: HttpRequest) -> HttpResponse:
        """Ask for a copy."""
        tenant = access_tenant(self.caller, power=Power.OWNERS_WRITE)
        request_export(caller=self.caller, tenant=tenant)
        return self.done(_("It is being built. You get a message when it is ready."))

    def _show(self, form: ClosingForm, *, status: int = 200) -> HttpResponse:
        tenant = access_tenant(self.caller, power=Power.OWNERS_WRITE)
        rows = DataExport.objects.filter(tenant_id=self.tenant).order_by("-pk")[:SHOWN]
        days = read_settings()
        return self.page(
            "accounts/data.html",
            {
                "tenant": tenant,
                "exports": [
                    {"row": row, "state": STATES[DataExport.State(row.state)]} for row in rows
                ],
                "has_pending": any(row.state == DataExport.State.PENDING for row in rows),
                "form": form,
                "export_days": days[KEEP_EXPORTS_DAYS],
                "closed_days": days[KEEP_CLOSED_DAYS],
            },
            status=status,
        )


class ExportPage(TenantPage):
    """Fetching a copy."""

    powers = {"GET": Power.OWNERS_WRITE}
    proved = frozenset({"GET"})

    def back(self) -> str:
        """The list."""
        return reverse("console-data")

    def get(self, _request: HttpRequest, export_id: str) -> HttpResponse:
        """The file."""
        try:
            uuid = DataExport.parse_public_id(export_id)
        except ValueError as error:
            raise NotFound("There is no such export.") from error
        export = DataExport.objects.filter(tenant_id=self.tenant, uuid=uuid).first()
        if export is None:
            raise NotFound("There is no such export.")
        data = read_export(caller=self.caller, export=export)
        response = HttpResponse(data, content_type="application/zip")
        name = f"turnpike-{export.created_at:%Y-%m-%d}.zip"
        response["content-disposition"] = f'attachment; filename="{name}"'
        response["cache-control"] = "no-store"
        return response


class ClosingPage(DataPage):
    """Closing the organization for good."""

    powers = {"POST": Power.OWNERS_WRITE}

    def back(self) -> str:
        """The page where it was asked for."""
        return reverse("console-data")

    def post(self, request: HttpRequest) -> HttpResponse:
        """Close it, if its name was typed."""
        form = ClosingForm(request.POST)
        if not form.is_valid():
            return self._show(form, status=400)
        tenant = access_tenant(self.caller, power=Power.OWNERS_WRITE)
        try:
            close_account(caller=self.caller, tenant=tenant, **form.cleaned_data)
        except InvalidInput as error:
            form.refuse(error)
            return self._show(form, status=400)
        return redirect("start")
