"""Every page there is, from the url confs, with the id of a real object where one is needed.

Run by the platform's own interpreter, which prints ``{"pages": [...], "lacking": [...]}``: a page
that an object is missing for is named, so that nobody forgets to give it one.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.urls import URLPattern, URLResolver, get_resolver

from accounts.models import Tenant, User, WebhookEndpoint
from accounts.services.webhooks import create_webhook, send_test
from billing.models.catalog import DEFAULT_BOOK, PriceBook
from billing.models.invoices import Invoice
from tests.pages import samples
from turnpike.control.caller import SYSTEM
from turnpike.control.mail_backend import list_messages
from turnpike.control.models import PublicModel
from turnpike.control.scope import platform_scope
from turnpike.web.handbook import SLUGS
from turnpike.web.operators.tenant import TABS

FOLDERS = ("console", "operator", "accounts")
MODEL = "claude-sonnet-4-5-20250929"
# What a page's own module reads, downloads, addresses that only lead on, and forms of a moment.
NO_PAGES = {
    *("console-playground-stream", "console-playground-receipt", "console-find", "account_logout"),
    *("mfa_download_recovery_codes", "account_signup", "openid_connect_login"),
    *("openid_connect_callback", "mfa_authenticate", "mfa_login_webauthn", "account_inactive"),
    *("mfa_reauthenticate", "mfa_reauthenticate_webauthn", "account_set_password"),
    *("mfa_deactivate_totp", "mfa_generate_recovery_codes", "mfa_view_recovery_codes"),
    *(
        "socialaccount_login_error",
        "socialaccount_signup",
        "mfa_edit_webauthn",
        "mfa_remove_webauthn",
    ),
}
FILES = ("-pdf", "-csv", "-download", "-export", "-export-file")
# Arguments whose model has another name.
MODELS = {"key_id": "apikey", "invite_id": "invite", "user_id": "user"}
KINDS = ("str", "slug", "int", "uuid", "path")
# Forms that open on their pages.
OPEN = (
    *("/console/keys?new=1", "/operator/tenants?new=1", "/operator/upstreams?new=1"),
    *("/operator/announcements?new=1", "/operator/users?q=demo", "/operator/ledger?new=1"),
    *("/operator/codes?new=1", "/operator/codes?state=open"),
)


def main(tenant_id: str, request_id: str) -> None:
    """Print them."""
    samples.make(tenant_id)
    pages, lacking = find_pages(tenant_id, request_id)
    print(json.dumps({"pages": pages, "lacking": lacking}))  # noqa: T201


def find_pages(tenant_id: str, request_id: str) -> tuple[list[str], list[str]]:
    """Every page's address, and the routes that an object is missing for."""
    pages, lacking = [*OPEN], []
    with platform_scope("tests"):
        tenant = Tenant.objects.get(uuid=Tenant.parse_public_id(tenant_id))
        _give_webhook(tenant)
        for path, route in sorted(_routes(get_resolver().url_patterns, ""), key=lambda r: r[0]):
            names = list(route.pattern.converters)
            choices = [_values(name, tenant, request_id) for name in names]
            found = [_filled(path, dict(zip(names, row, strict=True))) for row in product(*choices)]
            pages += found
            lacking += [] if found else [f"/{path}"]
    return sorted(set(pages)), lacking


def _give_webhook(tenant: Tenant) -> None:
    if WebhookEndpoint.objects.filter(tenant=tenant).exists():
        return
    issued = create_webhook(
        caller=SYSTEM, tenant=tenant, url="https://hooks.example/turnpike", description="Pages"
    )
    send_test(caller=SYSTEM, endpoint=issued.endpoint)


def _routes(patterns: Any, before: str) -> Iterator[tuple[str, URLPattern]]:
    for entry in patterns:
        path = before + str(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from _routes(entry.url_patterns, path)
        elif path.split("/")[0] in FOLDERS and _is_page(entry):
            yield path, entry


def _filled(path: str, values: dict[str, object]) -> str:
    address = f"/{path}"
    for name, value in values.items():
        for text in (f"<{name}>", *(f"<{kind}:{name}>" for kind in KINDS)):
            address = address.replace(text, str(value))
    return address


def _is_page(route: URLPattern) -> bool:
    name = str(route.name)
    view = getattr(route.callback, "view_class", None)
    methods = getattr(view, "powers", None)
    is_read = methods is None or "GET" in methods
    has_get = view is None or hasattr(view, "get")
    return is_read and has_get and name not in NO_PAGES and not name.endswith(FILES)


def _values(name: str, tenant: Tenant, request_id: str) -> Sequence[object]:
    """What an argument can be; one object stands for all of its kind."""
    if name in ("request_id", "tenant_id"):
        return [request_id if name == "request_id" else tenant.public_id]
    known: dict[str, Callable[[], Sequence[object]]] = {
        "slug": lambda: list(SLUGS),
        "tab": lambda: list(TABS),
        "line": lambda: [1],
        "code": lambda: ["pro"],
        "invoice_id": lambda: _documents(tenant),
        "model": lambda: [MODEL],
        "book": lambda: [PriceBook.objects.get(name=DEFAULT_BOOK).pk],
        "name": lambda: [m.name for m in list_messages(Path(settings.EMAIL_FILE_PATH), limit=1)],
    }
    return known[name]() if name in known else _newest(name, tenant)


def _documents(tenant: Tenant) -> Sequence[object]:
    """The newest document of each kind."""
    rows = Invoice.objects.filter(tenant=tenant).order_by("kind", "-pk").distinct("kind")
    return [row.public_id for row in rows]


def _newest(name: str, tenant: Tenant) -> Sequence[object]:
    wanted = MODELS.get(name, name.removesuffix("_id").replace("_", ""))
    for model in apps.get_models():
        if model.__name__.lower() != wanted:
            continue
        rows = model._default_manager.order_by("-pk")
        if any(field.name == "tenant" for field in model._meta.get_fields()):
            rows = rows.filter(tenant=tenant)
        elif model is User:
            rows = rows.filter(memberships__tenant=tenant)
        row = rows.first()
        if row is not None:
            return [row.public_id if isinstance(row, PublicModel) else row.pk]
    return []
