"""Every page there is, from the url confs, with the id of a real object where one is needed.

Run by the platform's own interpreter, which prints ``{"pages": [...], "lacking": [...]}``: a page
that an object is missing for is named, so that nobody forgets to give it one.
"""

import json
from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.urls import URLPattern, URLResolver, get_resolver

from accounts.models import Tenant
from turnpike.control.models import PublicModel
from turnpike.control.scope import platform_scope
from turnpike.web.handbook import SLUGS

FOLDERS = ("console", "operator", "accounts")
# What a page's own module reads, downloads, addresses that only lead on, and forms of a moment.
NO_PAGES = {
    *("console-playground-stream", "console-playground-receipt", "console-find", "account_logout"),
    *("mfa_download_recovery_codes", "account_signup", "openid_connect_login"),
    *("openid_connect_callback", "mfa_authenticate", "mfa_login_webauthn", "account_inactive"),
    *("mfa_reauthenticate", "mfa_reauthenticate_webauthn", "account_set_password"),
    *("mfa_deactivate_totp", "mfa_generate_recovery_codes", "mfa_view_recovery_codes"),
    *("socialaccount_signup", "mfa_edit_webauthn", "mfa_remove_webauthn"),
}
FILES = ("-pdf", "-csv", "-download", "-export", "-export-file")
# Arguments that are no public id, or whose model has another name.
MODELS = {"key_id": "apikey", "invite_id": "invite", "user_id": "user"}


def main(tenant_id: str, request_id: str) -> None:
    """Print them."""
    pages, lacking = [], []
    with platform_scope("tests"):
        tenant = Tenant.objects.get(uuid=Tenant.parse_public_id(tenant_id))
        for path, route in sorted(_routes(get_resolver().url_patterns, ""), key=lambda r: r[0]):
            arguments = list(route.pattern.converters)
            values = {name: _value(name, tenant, request_id) for name in arguments}
            address = f"/{path}"
            for name, value in values.items():
                kinds = ("str", "slug", "int", "uuid", "path")
                for text in (f"<{name}>", *(f"<{kind}:{name}>" for kind in kinds)):
                    address = address.replace(text, str(value))
            if None in values.values():
                lacking.append(f"/{path}")
            else:
                pages.append(address)
    pages += [f"/console/docs/{slug}" for slug in SLUGS]
    print(json.dumps({"pages": sorted(set(pages)), "lacking": lacking}))  # noqa: T201


def _routes(patterns: Any, before: str) -> Iterator[tuple[str, URLPattern]]:
    for entry in patterns:
        path = before + str(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from _routes(entry.url_patterns, path)
        elif path.split("/")[0] in FOLDERS and _is_page(entry):
            yield path, entry


def _is_page(route: URLPattern) -> bool:
    name = str(route.name)
    view = getattr(route.callback, "view_class", None)
    methods = getattr(view, "powers", None)
    is_read = methods is None or "GET" in methods
    has_get = view is None or hasattr(view, "get")
    return is_read and has_get and name not in NO_PAGES and not name.endswith(FILES)


def _value(name: str, tenant: Tenant, request_id: str) -> str | int | None:
    if name == "request_id":
        return request_id
    if name == "tenant_id":
        return tenant.public_id
    if name == "slug":
        return "quickstart"
    wanted = MODELS.get(name, name.removesuffix("_id").replace("_", ""))
    for model in apps.get_models():
        if model.__name__.lower() != wanted:
            continue
        rows = model._default_manager.order_by("-pk")
        if any(field.name == "tenant" for field in model._meta.get_fields()):
            rows = rows.filter(tenant=tenant)
        row = rows.first()
        if row is not None:
            return row.public_id if isinstance(row, PublicModel) else row.pk
    return None
