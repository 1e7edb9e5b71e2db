"""Every route, asked by every role, for its own and for another tenant's row.

The table is written by hand: a route that is missing in it fails, and so does one too many.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import transaction
from pytest_django import DjangoDbBlocker
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIClient, APIRequestFactory

from accounts.models import ApiKey, Role, Tenant
from accounts.urls import api
from tests.accounts.factories import (
    client_of,
    make_invite,
    make_key,
    make_member,
    make_tenant,
    make_user,
    make_webhook,
    make_workspace,
    management_client,
    signed_in,
)
from tests.support.module_rows import kept_rows
from turnpike.control.caller import Power
from turnpike.control.drf import TenantView
from turnpike.control.scope import platform_scope

METHODS = ("get", "post", "put", "patch", "delete")
ALL = {Role.OWNER, Role.ADMIN, Role.DEVELOPER, Role.BILLING, Role.VIEWER}
MANAGERS = {Role.OWNER, Role.ADMIN}
BUILDERS = {Role.OWNER, Role.ADMIN, Role.DEVELOPER}
REASON = {"reason": "because"}
EVERYBODY, STAFF = "everybody", "staff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Who may call a route, with which power, what is sent, and what a permitted caller gets."""

    roles: set[Role] | str
    power: Power | None = None
    body: Any = None
    status: int = 200


MATRIX: dict[tuple[str, str], Rule] = {
    ("get", "tenant"): Rule(roles=ALL, power=Power.TENANT_READ),
    ("patch", "tenant"): Rule(roles=MANAGERS, power=Power.TENANT_WRITE, body={"name": "New"}),
    ("get", "workspaces"): Rule(roles=ALL, power=Power.WORKSPACES_READ),
    ("post", "workspaces"): Rule(
        roles=MANAGERS, power=Power.WORKSPACES_WRITE, body={"name": "New"}, status=201
    ),
    ("get", "workspaces/<str:workspace_id>"): Rule(roles=ALL, power=Power.WORKSPACES_READ),
    ("patch", "workspaces/<str:workspace_id>"): Rule(
        roles=MANAGERS, power=Power.WORKSPACES_WRITE, body={"concurrency": 3}
    ),
    ("post", "workspaces/<str:workspace_id>/archive"): Rule(
        roles=MANAGERS, power=Power.WORKSPACES_WRITE
    ),
    ("get", "members"): Rule(roles=BUILDERS, power=Power.MEMBERS_READ),
    ("get", "members/<str:user_id>"): Rule(roles=BUILDERS, power=Power.MEMBERS_READ),
    ("patch", "members/<str:user_id>"): Rule(
        roles=MANAGERS, power=Power.MEMBERS_WRITE, body={"role": "viewer"}
    ),
    ("delete", "members/<str:user_id>"): Rule(
        roles=MANAGERS, power=Power.MEMBERS_WRITE, status=204
    ),
    ("get", "invites"): Rule(roles=BUILDERS, power=Power.MEMBERS_READ),
    ("post", "invites"): Rule(
        roles=MANAGERS,
        power=Power.MEMBERS_WRITE,
        body={"email": "new@example.com", "role": "viewer"},
        status=201,
    ),
    ("post", "invites/accept"): Rule(roles=EVERYBODY, body={"token": "x"}, status=404),
    ("get", "invites/<str:invite_id>"): Rule(roles=BUILDERS, power=Power.MEMBERS_READ),
    ("delete", "invites/<str:invite_id>"): Rule(roles=MANAGERS, power=Power.MEMBERS_WRITE),
    ("post", "invites/<str:invite_id>/resend"): Rule(roles=MANAGERS, power=Power.MEMBERS_WRITE),
    ("get", "keys"): Rule(roles=BUILDERS, power=Power.KEYS_READ),
    ("post", "keys"): Rule(
        roles=BUILDERS, power=Power.KEYS_WRITE, body={"name": "New"}, status=201
    ),
    ("get", "keys/<str:key_id>"): Rule(roles=BUILDERS, power=Power.KEYS_READ),
    ("patch", "keys/<str:key_id>"): Rule(
        roles=BUILDERS, power=Power.KEYS_WRITE, body={"concurrency": 3}
    ),
    ("post", "keys/<str:key_id>/disable"): Rule(roles=BUILDERS, power=Power.KEYS_WRITE),
    ("post", "keys/<str:key_id>/enable"): Rule(roles=BUILDERS, power=Power.KEYS_WRITE, status=409),
    ("post", "keys/<str:key_id>/rotate"): Rule(roles=BUILDERS, power=Power.KEYS_WRITE, status=201),
    ("post", "keys/<str:key_id>/revoke"): Rule(roles=BUILDERS, power=Power.KEYS_WRITE),
    ("get", "webhooks"): Rule(roles=BUILDERS, power=Power.WEBHOOKS_READ),
    ("post", "webhooks"): Rule(
        roles=MANAGERS,
        power=Power.WEBHOOKS_WRITE,
        body={"url": "https://example.com/other"},
        status=201,
    ),
    ("get", "webhooks/deliveries/<str:delivery_id>"): Rule(
        roles=BUILDERS, power=Power.WEBHOOKS_READ
    ),
    ("post", "webhooks/deliveries/<str:delivery_id>/replay"): Rule(
        roles=MANAGERS, power=Power.WEBHOOKS_WRITE, status=202
    ),
    ("get", "webhooks/<str:webhook_id>"): Rule(roles=BUILDERS, power=Power.WEBHOOKS_READ),
    ("patch", "webhooks/<str:webhook_id>"): Rule(
        roles=MANAGERS, power=Power.WEBHOOKS_WRITE, body={"is_enabled": False}
    ),
    ("delete", "webhooks/<str:webhook_id>"): Rule(
        roles=MANAGERS, power=Power.WEBHOOKS_WRITE, status=204
    ),
    ("post", "webhooks/<str:webhook_id>/rotate"): Rule(roles=MANAGERS, power=Power.WEBHOOKS_WRITE),
    ("post", "webhooks/<str:webhook_id>/test"): Rule(
        roles=MANAGERS, power=Power.WEBHOOKS_WRITE, status=202
    ),
    ("get", "webhooks/<str:webhook_id>/deliveries"): Rule(
        roles=BUILDERS, power=Power.WEBHOOKS_READ
    ),
    ("get", "audit"): Rule(roles=MANAGERS, power=Power.AUDIT_READ),
    ("get", "operator/tenants"): Rule(roles=STAFF),
    ("post", "operator/tenants"): Rule(roles=STAFF, body={"name": "N", **REASON}, status=201),
    ("get", "operator/tenants/<str:tenant_id>"): Rule(roles=STAFF),
    ("post", "operator/tenants/<str:tenant_id>/suspend"): Rule(roles=STAFF, body=REASON),
    ("post", "operator/tenants/<str:tenant_id>/resume"): Rule(roles=STAFF, body=REASON, status=409),
    ("post", "operator/tenants/<str:tenant_id>/close"): Rule(roles=STAFF, body=REASON),
}
ROUTES = sorted(MATRIX)
TENANT_ROUTES = [route for route in ROUTES if isinstance(MATRIX[route].roles, set)]


def _routes_in_code() -> set[tuple[str, str]]:
    return {
        (method, str(pattern.pattern))
        for pattern in api
        for method in METHODS
        if hasattr(pattern.callback.view_class, method)  # type: ignore[attr-defined]
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Two tenants with a row of each kind, and everybody who asks; each request is undone."""

    tenant: Tenant
    stranger: Tenant
    own: Mapping[str, str]
    foreign: Mapping[str, str]
    members: Mapping[Role, APIClient]
    staff: APIClient
    inference: APIClient


@pytest.fixture(scope="module")
def rows(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[World]:
    """Made once: to make them is most of what a request here would cost."""
    with kept_rows(django_db_blocker):
        with django_db_blocker.unblock():
            tenant, stranger = make_tenant(), make_tenant("Stranger")
            inference = APIClient()
            inference.credentials(HTTP_X_API_KEY=make_key(tenant, ApiKey.Kind.API).secret)
            world = World(
                tenant=tenant,
                stranger=stranger,
                own=_objects_of(tenant),
                foreign=_objects_of(stranger),
                members={role: client_of(tenant, role) for role in Role},
                staff=signed_in(make_user(is_staff=True)),
                inference=inference,
            )
        yield world


@pytest.fixture
def world(rows: World, db: None) -> World:
    """The module's rows, as they were made."""
    return rows


def _objects_of(tenant: Tenant) -> dict[str, str]:
    """An id of each kind that belongs to a tenant."""
    make_member(tenant, Role.OWNER)
    webhook = make_webhook(tenant)
    with platform_scope("tests"):
        delivery = webhook.deliveries.get()
    return {
        "webhook_id": webhook.public_id,
        "delivery_id": delivery.public_id,
        "workspace_id": make_workspace(tenant).public_id,
        "user_id": make_member(tenant, Role.DEVELOPER).user.public_id,
        "invite_id": make_invite(tenant).invite.public_id,
        "key_id": make_key(tenant).key.public_id,
        "tenant_id": tenant.public_id,
    }


def _path(route: str, objects: Mapping[str, str]) -> str:
    for name, value in objects.items():
        route = route.replace(f"<str:{name}>", value)
    assert "<" not in route
    return f"/api/v1/{route}"


@contextmanager
def _undone() -> Iterator[None]:
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def _status(client: APIClient, method: str, path: str, body: Any) -> int:
    with _undone():
        send = getattr(client, method)
        arguments = () if method in ("get", "delete") else (body or {},)
        response = send(path, *arguments, **({"format": "json"} if arguments else {}))
        if response.status_code >= 400:
            assert response["content-type"] == "application/problem+json"
            assert response.json()["request_id"] == response["request-id"]
        return int(response.status_code)


def test_the_matrix_names_every_route_and_no_other() -> None:
    assert set(MATRIX) == _routes_in_code()


@pytest.mark.parametrize(("method", "route"), TENANT_ROUTES)
def test_each_role_may_do_what_the_matrix_says_with_its_own(
    world: World, method: str, route: str
) -> None:
    rule, path = MATRIX[method, route], _path(route, world.own)

    found = {role: _status(world.members[role], method, path, rule.body) for role in ALL}

    assert found == {role: rule.status if role in rule.roles else 403 for role in ALL}


@pytest.mark.parametrize(("method", "route"), [item for item in TENANT_ROUTES if "<" in item[1]])
def test_another_tenants_row_is_not_found_by_any_role(
    world: World, method: str, route: str
) -> None:
    rule, path = MATRIX[method, route], _path(route, world.foreign)

    found = {role: _status(world.members[role], method, path, rule.body) for role in ALL}

    assert found == {role: 404 if role in rule.roles else 403 for role in ALL}


@pytest.mark.parametrize(("method", "route"), TENANT_ROUTES)
def test_a_management_key_needs_exactly_the_power_of_the_route(
    world: World, method: str, route: str
) -> None:
    rule = MATRIX[method, route]
    assert rule.power is not None
    own, foreign = _path(route, world.own), _path(route, world.foreign)
    # Giving a role takes the role's own powers too, so that nobody gives more than they have.
    given = (
        set(Power) - {Power.OWNERS_WRITE}
        if "role" in str(rule.body) or "user_id" in route or "resend" in route
        else {rule.power}
    )
    holder = management_client(world.tenant, *given)
    others = management_client(world.tenant, *(set(Power) - {rule.power}))

    assert _status(holder, method, own, rule.body) == rule.status
    assert _status(others, method, own, rule.body) == 403
    if "<" in route:
        assert _status(holder, method, foreign, rule.body) == 404


@pytest.mark.parametrize(("method", "route"), ROUTES)
def test_nobody_comes_in_without_a_credential(world: World, method: str, route: str) -> None:
    rule, path = MATRIX[method, route], _path(route, world.own)

    status = _status(APIClient(), method, path, rule.body)

    assert status == (rule.status if rule.roles == EVERYBODY else 401)


@pytest.mark.parametrize(
    ("method", "route"), [item for item in ROUTES if MATRIX[item].roles == STAFF]
)
def test_operator_routes_are_for_staff_alone(world: World, method: str, route: str) -> None:
    rule, path = MATRIX[method, route], _path(route, world.own)
    key = management_client(world.tenant)

    assert _status(world.staff, method, path, rule.body) == rule.status
    members = world.members.values()
    assert {_status(member, method, path, rule.body) for member in members} == {403}
    assert _status(key, method, path, rule.body) == 401


@pytest.mark.parametrize(("method", "route"), TENANT_ROUTES)
def test_staff_without_a_membership_and_inference_keys_stay_outside(
    world: World, method: str, route: str
) -> None:
    rule, path = MATRIX[method, route], _path(route, world.own)

    assert _status(world.staff, method, path, rule.body) == 403
    assert _status(world.inference, method, path, rule.body) == 403


class _OpenHandler(TenantView):
    """A view whose handler checks nothing itself."""

    powers = {"GET": Power.AUDIT_READ}

    def get(self, _request: Request) -> Response:
        """Answer whoever comes in."""
        return Response({})

    def post(self, _request: Request) -> Response:
        """A method for which no power was named."""
        return Response({})


def test_a_view_denies_by_default_before_its_handler_runs(tenant: Tenant) -> None:
    found = {}
    for role in (Role.OWNER, Role.DEVELOPER):
        for method in ("get", "post"):
            request = getattr(APIRequestFactory(), method)("/")
            request.user, request.session = make_member(tenant, role).user, {}
            request._dont_enforce_csrf_checks = True
            found[role, method] = _OpenHandler.as_view()(request).status_code

    assert found == {
        (Role.OWNER, "get"): 200,
        (Role.OWNER, "post"): 403,
        (Role.DEVELOPER, "get"): 403,
        (Role.DEVELOPER, "post"): 403,
    }
