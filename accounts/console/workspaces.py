"""Workspaces: parts of the organization with keys, limits and budgets of their own."""

from typing import Any

from django import forms
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.access import access_tenant, access_workspace, access_workspaces
from accounts.console.limited import LimitedForm, limited_initial
from accounts.console.pages import TenantPage
from accounts.models import ApiKey, Workspace
from accounts.services import workspaces
from turnpike.control.caller import Power
from turnpike.kernel.errors import Conflict, InvalidInput


class WorkspaceForm(LimitedForm):
    """What a workspace is called, and its limits below the organization's."""

    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=100,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )


class WorkspacesPage(TenantPage):
    """All workspaces."""

    powers = {"GET": Power.WORKSPACES_READ, "POST": Power.WORKSPACES_WRITE}
    proved = frozenset({"POST"})

    def get(self, _request: HttpRequest) -> HttpResponse:
        """The list."""
        return self._show()

    def post(self, request: HttpRequest) -> HttpResponse:
        """Make one."""
        form = WorkspaceForm(request.POST)
        if not form.is_valid():
            return self._show(form=form, status=400)
        tenant = access_tenant(self.caller, power=Power.WORKSPACES_WRITE)
        settings = {name: value for name, value in form.cleaned_data.items() if value is not None}
        try:
            workspaces.create_workspace(caller=self.caller, tenant=tenant, settings=settings)
        except InvalidInput as error:
            form.refuse(error)
            return self._show(form=form, status=400)
        except Conflict as error:
            form.add_error("name", error.message)
            return self._show(form=form, status=400)
        return self.done(_("The workspace is ready."))

    def _show(self, *, form: WorkspaceForm | None = None, status: int = 200) -> HttpResponse:
        live = Q(api_keys__kind__in=ApiKey.Kind.values, api_keys__revoked_at=None)
        rows = access_workspaces(self.caller, power=Power.WORKSPACES_READ)
        return self.page(
            "accounts/workspaces.html",
            {
                "workspaces": rows.annotate(keys=Count("api_keys", filter=live)).order_by(
                    "archived_at", "pk"
                ),
                "form": form or WorkspaceForm(),
                "is_refused": form is not None,
                "can_write": self.caller.has_power(Power.WORKSPACES_WRITE),
            },
            status=status,
        )


class WorkspacePage(TenantPage):
    """One workspace: its name, its limits, its end."""

    powers = {"GET": Power.WORKSPACES_READ, "POST": Power.WORKSPACES_WRITE}
    proved = frozenset({"POST"})

    def back(self) -> str:
        """The list."""
        return reverse("console-workspaces")

    def get(self, _request: HttpRequest, workspace_id: str) -> HttpResponse:
        """What is set."""
        return self._show(access_workspace(self.caller, workspace_id, power=Power.WORKSPACES_READ))

    def post(self, request: HttpRequest, workspace_id: str) -> HttpResponse:
        """Save it, or archive it; both hold from the next request."""
        workspace = access_workspace(self.caller, workspace_id, power=Power.WORKSPACES_WRITE)
        if request.POST.get("action") == "archive":
            if request.POST.get("typed", "").strip() != workspace.name:
                raise InvalidInput(_("Type the workspace's name to archive it."), field="typed")
            workspaces.archive_workspace(caller=self.caller, workspace=workspace)
            return self.done(_("The workspace is archived, and its keys are revoked."))
        form = WorkspaceForm(request.POST)
        if not form.is_valid():
            return self._show(workspace, form=form, status=400)
        try:
            workspaces.update_workspace(
                caller=self.caller, workspace=workspace, changes=_changes(form, workspace)
            )
        except InvalidInput as error:
            form.refuse(error)
            return self._show(workspace, form=form, status=400)
        return self.done(_("The workspace was changed. It holds from the next request on."))

    def _show(
        self, workspace: Workspace, *, form: WorkspaceForm | None = None, status: int = 200
    ) -> HttpResponse:
        initial = {"name": workspace.name, **limited_initial(workspace)}
        is_in_use = workspace.archived_at is None
        return self.page(
            "accounts/workspace.html",
            {
                "workspace": workspace,
                "form": form or WorkspaceForm(initial=initial),
                "can_write": is_in_use and self.caller.has_power(Power.WORKSPACES_WRITE),
                "section": "console-workspaces",
            },
            status=status,
        )


def _changes(form: WorkspaceForm, workspace: Workspace) -> dict[str, Any]:
    values = form.cleaned_data.items()
    return {name: value for name, value in values if value != getattr(workspace, name)}
