"""Every page of the tenant console, for every role, of one's own and of another organization."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import redis
from django.test import Client
from django.urls import URLPattern

from accounts.models import Role
from accounts.services.tenants import suspend_tenant
from tests.accounts.factories import make_invite, make_user, make_webhook
from tests.billing.export_world import joined
from tests.console.console_world import World, client_for, key_form, make_document, make_world
from turnpike.control.caller import SYSTEM
from turnpike.control.scope import platform_scope
from turnpike.web.console_urls import console

ALL = frozenset(Role)
BUILDERS = frozenset({Role.OWNER, Role.ADMIN, Role.DEVELOPER})
OWNERS = frozenset({Role.OWNER})
MANAGERS = frozenset({Role.OWNER, Role.ADMIN})
PAYERS = frozenset({Role.OWNER, Role.ADMIN, Role.BILLING})
LANGUAGES = ("en", "zh-hans", "ru")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Who may send this method to a route, and what a permitted sender is answered."""

    roles: frozenset[Role]
    status: int = 200


# By hand: a route that is missing here fails, and so does one too many.
MATRIX: dict[tuple[str, str], Rule] = {
    ("GET", "console"): Rule(roles=ALL),
    ("GET", "console-start"): Rule(roles=BUILDERS),
    ("GET", "console-playground"): Rule(roles=BUILDERS),
    ("POST", "console-playground-stream"): Rule(roles=BUILDERS),
    ("GET", "console-playground-receipt"): Rule(roles=BUILDERS),
    ("GET", "console-models"): Rule(roles=ALL),
    ("GET", "console-find"): Rule(roles=ALL),
    ("GET", "console-docs"): Rule(roles=ALL),
    ("GET", "console-doc"): Rule(roles=ALL),
    ("GET", "console-keys"): Rule(roles=BUILDERS),
    ("POST", "console-keys"): Rule(roles=BUILDERS),
    ("GET", "console-key"): Rule(roles=BUILDERS),
    ("GET", "console-workspaces"): Rule(roles=ALL),
    ("POST", "console-workspaces"): Rule(roles=MANAGERS, status=302),
    ("GET", "console-workspace"): Rule(roles=ALL),
    ("POST", "console-workspace"): Rule(roles=MANAGERS, status=302),
    ("POST", "console-key"): Rule(roles=BUILDERS, status=302),
    ("POST", "console-key-rotate"): Rule(roles=BUILDERS),
    ("GET", "console-limits"): Rule(roles=ALL),
    ("GET", "console-usage"): Rule(roles=ALL),
    ("GET", "console-logs"): Rule(roles=BUILDERS),
    ("GET", "console-log"): Rule(roles=BUILDERS),
    ("GET", "console-billing"): Rule(roles=PAYERS),
    ("POST", "console-billing-top_up"): Rule(roles=PAYERS, status=302),
    ("POST", "console-billing-reload"): Rule(roles=PAYERS, status=302),
    ("POST", "console-billing-redeem"): Rule(roles=PAYERS, status=302),
    ("GET", "console-billing-details"): Rule(roles=PAYERS),
    ("POST", "console-billing-details"): Rule(roles=PAYERS, status=302),
    ("GET", "console-entries"): Rule(roles=PAYERS),
    ("GET", "console-ledger-export"): Rule(roles=PAYERS),
    ("GET", "console-usage-export"): Rule(roles=BUILDERS),
    ("GET", "console-invoices-export"): Rule(roles=PAYERS),
    ("GET", "console-invoice"): Rule(roles=PAYERS),
    ("GET", "console-invoice-line"): Rule(roles=PAYERS),
    ("GET", "console-invoice-pdf"): Rule(roles=PAYERS),
    ("GET", "console-invoice-print"): Rule(roles=PAYERS),
    ("POST", "console-invoice-pay"): Rule(roles=PAYERS, status=302),
    ("GET", "console-members"): Rule(roles=BUILDERS),
    ("POST", "console-members"): Rule(roles=MANAGERS),
    ("POST", "console-member"): Rule(roles=MANAGERS, status=302),
    ("POST", "console-invite"): Rule(roles=MANAGERS, status=302),
    ("POST", "console-tenant"): Rule(roles=ALL, status=302),
    ("GET", "console-webhooks"): Rule(roles=BUILDERS),
    ("POST", "console-webhooks"): Rule(roles=MANAGERS),
    ("GET", "console-webhook"): Rule(roles=BUILDERS),
    ("POST", "console-webhook"): Rule(roles=MANAGERS, status=302),
    ("POST", "console-webhook-rotate"): Rule(roles=MANAGERS),
    ("GET", "console-delivery"): Rule(roles=BUILDERS),
    ("POST", "console-delivery"): Rule(roles=MANAGERS, status=302),
    ("GET", "console-audit"): Rule(roles=MANAGERS),
    ("GET", "console-status"): Rule(roles=ALL),
    ("GET", "console-data"): Rule(roles=OWNERS),
    ("POST", "console-data"): Rule(roles=OWNERS, status=302),
    ("GET", "console-export"): Rule(roles=OWNERS, status=404),
    ("POST", "console-close"): Rule(roles=OWNERS, status=400),
    ("GET", "console-settings"): Rule(roles=ALL),
    ("POST", "console-settings"): Rule(roles=MANAGERS, status=302),
    ("GET", "console-mail"): Rule(roles=ALL),
    ("POST", "console-mail"): Rule(roles=ALL, status=302),
}
# What a page's module reads, and no page.
FILES = {f"console-{table}-export" for table in ("ledger", "usage", "invoices")}
DATA = {
    *("console-export", "console-playground-receipt", "console-invoice-pdf", "console-find"),
    *FILES,
}
PAGES = sorted(name for method, name in MATRIX if method == "GET" and name not in DATA)
ABOUT_A_ROW = {
    "console-log",
    "console-key",
    "console-key-rotate",
    "console-workspace",
    "console-member",
    "console-invite",
    "console-webhook",
    "console-webhook-rotate",
    "console-delivery",
    "console-entries",
    "console-invoice",
    "console-invoice-line",
    "console-invoice-print",
    "console-invoice-pay",
    "console-invoice-pdf",
    "console-playground-stream",
}


@pytest.fixture
def world(redis_client: redis.Redis, db: None) -> World:
    return make_world(redis_client)


def routes() -> Iterator[tuple[str, str]]:
    """Each route of the console with each method that its page answers."""
    for route in console:
        assert isinstance(route, URLPattern)
        for method in route.callback.view_class.powers:  # type: ignore[attr-defined]
            yield method, str(route.name)


def address(world: World, name: str) -> str:
    """The address of a page, about a row of this world where it is about a row."""
    if name.startswith("console-webhook-") or name in {"console-webhook", "console-delivery"}:
        webhook = make_webhook(world.shop.tenant)
        with platform_scope("tests"):
            delivery = webhook.deliveries.get()
        if name == "console-delivery":
            return f"/console/webhooks/deliveries/{delivery.public_id}"
        tail = name.removeprefix("console-webhook").replace("-", "/")
        return f"/console/webhooks/{webhook.public_id}{tail}"
    viewer = world.members[Role.VIEWER].user.public_id
    if name in FILES:
        span = "?starting_at=2026-10-01T00:00:00Z&ending_at=2026-11-01T00:00:00Z"
        return f"/console/exports/{name.split('-')[1]}{span}"
    if name.startswith("console-invoice"):
        part = {"console-invoice-line": "/lines/1"}.get(name, name.removeprefix("console-invoice"))
        return f"/console/billing/invoices/{make_document(world)}{part.replace('-', '/')}"
    tails = {
        "console": "",
        "console-playground-stream": "playground/stream",
        "console-playground-receipt": f"playground/receipts/{world.newest}",
        "console-doc": "docs/errors",
        "console-close": "data/close",
        "console-export": "data/export_1",
        "console-billing-details": "billing/details",
        "console-billing-top_up": "billing/top_up",
        "console-billing-reload": "billing/reload",
        "console-billing-redeem": "billing/redeem",
        "console-entries": f"billing/requests/{world.newest}",
        "console-log": f"logs/{world.newest}",
        "console-key": f"keys/{world.shop.key.public_id}",
        "console-key-rotate": f"keys/{world.shop.key.public_id}/rotate",
        "console-workspace": f"workspaces/{world.shop.workspace.public_id}",
        "console-member": f"members/{viewer}",
    }
    return f"/console/{tails.get(name, name.removeprefix('console-'))}"


def body(world: World, name: str) -> dict[str, object]:
    """What the page's form sends."""
    once = key_form(world)["once"]
    return {
        "console-billing-details": {"name": "Acme Ltd", "country": "de", "language": "ru"},
        "console-keys": key_form(world),
        "console-key": {"action": "disable"},
        "console-key-rotate": {"once": once, "grace": "3600"},
        "console-workspaces": {"name": f"Research {once}"},
        "console-workspace": {"name": "Production"},
        "console-members": {"email": "new@example.com", "role": Role.VIEWER},
        "console-webhooks": {"url": "https://example.com/hooks"},
        "console-webhook": {"action": "test"},
        "console-webhook-rotate": {"overlap": "3600"},
        "console-member": {"role": Role.DEVELOPER},
        "console-tenant": {"tenant": world.shop.tenant.public_id},
        "console-settings": {"name": "Acme & Sons"},
        "console-mail": {},
        "console-invoice-pay": {"once": once},
    }.get(name, {})


def ask(client: Client, world: World, method: str, name: str) -> int:
    """The status of one request."""
    where = address(world, name)
    if name == "console-invite":
        where = f"/console/invites/{make_invite(world.shop.tenant).invite.public_id}"
    if name == "console-playground-stream":
        asked = {"workspace": world.shop.workspace.public_id, "request": {}}
        return client.post(where, asked, content_type="application/json").status_code
    answer = client.get(where) if method == "GET" else client.post(where, body(world, name))
    assert not answer.streaming or joined(answer)
    return answer.status_code


def test_the_matrix_names_every_route() -> None:
    assert set(routes()) == set(MATRIX)


@pytest.mark.parametrize("role", list(Role))
def test_a_role_reaches_what_it_may_and_nothing_else(world: World, role: Role) -> None:
    client = client_for(world.members[role])
    answers = {
        (method, name): ask(client, world, method, name)
        for method, name in sorted(MATRIX, key=lambda item: item != ("POST", "console-key-rotate"))
    }

    expected = {route: rule.status if role in rule.roles else 403 for route, rule in MATRIX.items()}
    assert answers == expected


def test_rows_of_another_organization_are_not_there(
    world: World, redis_client: redis.Redis
) -> None:
    other = make_world(redis_client, name="Other", days=1)
    client = client_for(world.members[Role.OWNER])

    statuses = {
        name: ask(client, other, method, name) for method, name in MATRIX if name in ABOUT_A_ROW
    }

    assert set(statuses.values()) == {404}
    with platform_scope("tests"):
        other.shop.key.refresh_from_db()
    assert other.shop.key.disabled_at is None
    for name in PAGES:
        if name not in ABOUT_A_ROW:
            page = client.get(address(world, name)).content.decode()
            assert other.shop.tenant.public_id not in page
            assert other.shop.key.public_id not in page


def test_a_visitor_is_led_to_the_sign_in(world: World) -> None:
    for name in PAGES:
        answer = Client().get(address(world, name))

        assert answer.status_code == 302
        assert answer["location"].startswith("/accounts/login/?next=/console/")


def test_who_belongs_nowhere_is_told_so(db: None) -> None:
    client = Client()
    client.force_login(make_user(), backend="django.contrib.auth.backends.ModelBackend")

    assert client.get("/console/").status_code == 403


def test_who_is_suspended_is_told_so_on_every_page(world: World) -> None:
    owner, words = client_for(world.members[Role.OWNER]), "This organization is suspended"
    assert words not in owner.get("/console/").content.decode()
    with platform_scope("tests"):
        suspend_tenant(caller=SYSTEM, tenant=world.shop.tenant, reason="They know why.")

    pages = [owner.get(path).content.decode() for path in ("/console/", "/console/billing")]

    assert [words in page for page in pages] == [True, True]
    assert [page for page in pages if "They know why." in page] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_pages_render_in_every_language_without_leftovers(world: World, language: str) -> None:
    client = client_for(world.members[Role.OWNER])
    client.cookies["turnpike_language"] = language
    for name in PAGES:
        answer = client.get(address(world, name))
        page = answer.content.decode()

        assert answer.status_code == 200, name
        assert f'<html lang="{language}"' in page
        assert [mark for mark in ("<c-", "{{", "{%", ' style="', "onclick=") if mark in page] == []
        policy = answer["content-security-policy"]
        assert {"default-src 'none'", "script-src 'self'"} <= set(policy.split("; "))
        assert "unsafe" not in policy
        assert answer["cache-control"] == "no-store"


def test_queries_do_not_grow_with_requests(
    world: World, redis_client: redis.Redis, django_assert_max_num_queries: object
) -> None:
    client = client_for(world.members[Role.OWNER])
    for name in PAGES:
        where = address(world, name)
        with django_assert_max_num_queries(60):  # type: ignore[operator]
            client.get(where)
