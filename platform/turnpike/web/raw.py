"""Django's stock admin as a view of raw rows: for superusers, to look and never to write.

What changes goes through services, which keep the audit log, publish, and know the rules. To
everybody else the address does not exist. Columns with secrets are left out, sealed ones too.
"""

from typing import Any

from django.apps import apps
from django.contrib import admin
from django.db.models import BinaryField, CompositePrimaryKey, Model
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.template.response import SimpleTemplateResponse
from django.utils.translation import gettext_lazy as _

from accounts.console.pages import lacks_second_factor
from accounts.models import User
from turnpike.control.scope import platform_scope

APPS = ("accounts", "billing")
SECRET_WORDS = ("password", "secret", "sealed", "token_hash", "digest", "fingerprint")
COLUMNS_MAX = 7
ROWS = 50


class RawRows(admin.ModelAdmin):  # type: ignore[type-arg]
    """A table as it is."""

    list_per_page = ROWS
    list_max_show_all = ROWS
    # Counting a large table for a heading is not worth a scan of it.
    show_full_result_count = False
    actions = None
    ordering = ("-pk",)

    def get_list_display(self, request: HttpRequest) -> Any:
        """The key and the first columns."""
        names = [field.name for field in _shown(self.model)]
        return ["pk", *[name for name in names if name != self.opts.pk.name]][:COLUMNS_MAX]

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        """Every column without a secret."""
        return [field.name for field in _shown(self.model)]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        """All of them."""
        return self.get_fields(request, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody adds a row here."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody changes one."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody removes one."""
        return False

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Whoever came in may look."""
        return self.admin_site.has_permission(request)


class RawSite(admin.AdminSite):
    """The admin for superusers, in the scope of all tenants; for others it is not there."""

    site_header = _("Turnpike: raw rows")
    site_title = "Turnpike"
    index_title = _("Tables")
    enable_nav_sidebar = False

    def has_permission(self, request: HttpRequest) -> bool:
        """Superusers alone."""
        return bool(request.user.is_active and request.user.is_superuser)

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:  # noqa: FBT001, FBT002
        """Guard a page of the admin, and render it while all rows are seen."""
        inner = super().admin_view(view, cacheable)

        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not self.has_permission(request):
                raise Http404
            assert isinstance(request.user, User)
            if lacks_second_factor(request.user, is_privileged=True):
                return redirect("mfa_index")
            with platform_scope(f"admin: {request.path}"):
                response: HttpResponseBase = inner(request, *args, **kwargs)
                if isinstance(response, SimpleTemplateResponse) and not response.is_rendered:
                    response.render()
            return response

        return guarded

    def login(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """There is one sign-in, and it is elsewhere."""
        raise Http404


def make_site() -> RawSite:
    """The site with every table that has a key of one column."""
    made = RawSite(name="admin")
    for app in APPS:
        for model in apps.get_app_config(app).get_models():
            if not isinstance(model._meta.pk, CompositePrimaryKey):
                made.register(model, RawRows)
    return made


def _shown(model: type[Model]) -> list[Any]:
    return [
        field
        for field in model._meta.concrete_fields
        if not isinstance(field, BinaryField)
        and not any(word in field.name for word in SECRET_WORDS)
    ]


site = make_site()
