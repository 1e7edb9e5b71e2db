"""Bad input and powers that are not there: refused by the field, and nothing happens."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_framework.test import APIClient

from accounts.models import ApiKey, Role, Tenant, Workspace
from accounts.services.keys import GRACE_MAX, KEYS_MAX
from tests.accounts.factories import (
    REASON,
    client_of,
    make_key,
    make_member,
    make_workspace,
    management_client,
)
from turnpike.control.caller import Power
from turnpike.control.scope import platform_scope

WRITES: dict[tuple[str, str], dict[str, Any]] = {
    ("patch", "tenant"): {"name": "New"},
    ("post", "workspaces"): {"name": "New"},
    ("patch", "workspaces/{workspace}"): {"name": "New"},
    ("patch", "members/{user}"): {"role": "viewer"},
    ("post", "invites"): {"email": "a@b.com", "role": "viewer"},
    ("post", "invites/accept"): {"token": "x"},
    ("post", "keys"): {"name": "New"},
    ("patch", "keys/{key}"): {"name": "New"},
    ("post", "keys/{key}/rotate"): {"grace_seconds": 1},
}
FORBIDDEN: dict[str, Any] = {
    "id": "ten_x",
    "tenant": 1,
    "tenant_id": 1,
    "status": "active",
    "policy_version": 99,
    "is_default": True,
    "is_staff": True,
    "digest": "0" * 64,
    "tier": "enterprise",
    "balance": "1000000",
    "daily_budget_nano": 1,
    "allowed_models": [],
    "created_by": "user_x",
    "revoked_at": None,
    "effective": True,
}


@pytest.mark.parametrize(("method", "route"), sorted(WRITES))
def test_a_property_that_is_not_known_is_refused(tenant: Tenant, method: str, route: str) -> None:
    make_member(tenant)
    ids_of = {
        "workspace": make_workspace(tenant).public_id,
        "user": make_member(tenant, Role.DEVELOPER).user.public_id,
        "key": make_key(tenant).key.public_id,
    }
    client, path = client_of(tenant), f"/api/v1/{route.format(**ids_of)}"

    for name, value in FORBIDDEN.items():
        body = {**WRITES[method, route], name: value}
        answer = getattr(client, method)(path, body, format="json")

        assert answer.status_code == 400, name
        assert answer.json()["errors"] == [
            {"field": name, "message": "This property is not known here."}
        ]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "k", "scopes": []}, "scopes"),
        ({"name": "k", "scopes": ["keys:write"]}, "scopes"),
        ({"name": "k", "scopes": ["messages"] * 33}, "scopes"),
        ({"name": "k", "models": []}, "models"),
        ({"name": "k", "models": ["m"] * 65}, "models"),
        ({"name": "k", "models": ["m" * 129]}, "models.0"),
        ({"name": "k", "ip_ranges": ["nowhere"]}, "ip_ranges"),
        ({"name": "k", "ip_ranges": ["10.0.0.0/33"]}, "ip_ranges"),
        ({"name": "k", "ip_ranges": ["10.0.0.1"] * 33}, "ip_ranges"),
        ({"name": "k", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "k", "expires_at": "soon"}, "expires_at"),
        ({"name": "k", "requests_per_minute": 0}, "requests_per_minute"),
        ({"name": "k", "requests_per_minute": 2**31}, "requests_per_minute"),
        ({"name": "k", "burst_seconds": 3_601}, "burst_seconds"),
        ({"name": "k", "concurrency": "many"}, "concurrency"),
        ({"name": "k", "daily_budget": "-1"}, "daily_budget"),
        ({"name": "k", "daily_budget": 1.5}, "daily_budget"),
        ({"name": "k", "daily_budget": "0.0000000001"}, "daily_budget"),
        ({"name": "k", "daily_budget": "9223372037"}, "daily_budget"),
        ({"name": "k", "kind": "playground"}, "kind"),
    ],
)
def test_a_bad_key_is_refused_by_the_field(
    tenant: Tenant, body: dict[str, Any], field: str
) -> None:
    answer = client_of(tenant).post("/api/v1/keys", body, format="json")

    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_input"
    assert [error["field"] for error in answer.json()["errors"]][:1] == [field]
    with platform_scope(REASON):
        assert ApiKey.objects.count() == 0


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["name", "scopes", "models", "ip_ranges", "kind", "daily_budget"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=8,
    )
)
def test_no_json_breaks_the_making_of_a_key(tenant: Tenant, body: Any) -> None:
    client = getattr(tenant, "client", None) or client_of(tenant)
    tenant.client = client  # type: ignore[attr-defined]

    answer = client.post("/api/v1/keys", json.dumps(body), content_type="application/json")

    assert answer.status_code in {201, 400}


@pytest.mark.parametrize(
    ("content", "content_type", "status", "code"),
    [
        (b"{", "application/json", 400, "invalid_json"),
        (b"\xff", "application/json", 400, "invalid_json"),
        (b"[]", "application/json", 400, "invalid_input"),
        (b"name=x", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
    ],
)
def test_a_body_that_is_no_json_object_is_a_problem(
    tenant: Tenant, content: bytes, content_type: str, status: int, code: str
) -> None:
    answer = client_of(tenant).post("/api/v1/keys", content, content_type=content_type)

    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_method_that_a_route_does_not_have_is_named(tenant: Tenant) -> None:
    answers = [client_of(tenant).put("/api/v1/keys"), client_of(tenant).options("/api/v1/keys")]

    assert [answer.status_code for answer in answers] == [405, 405]
    assert answers[0].json()["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "key_id",
    ["x", "apikey_01", "apikey_01" + "1" * 22, "apikey_01" + "z" * 22, "user_01" + "1" * 22],
)
def test_ids_of_nothing_are_not_found(tenant: Tenant, key_id: str) -> None:
    assert client_of(tenant).get(f"/api/v1/keys/{key_id}").status_code == 404


def test_a_management_key_gets_no_scope_that_its_creator_lacks(tenant: Tenant) -> None:
    body = {"name": "m", "kind": "management"}
    admin, developer = client_of(tenant, Role.ADMIN), client_of(tenant, Role.DEVELOPER)
    narrow = management_client(
        tenant, Power.KEYS_WRITE, Power.MANAGEMENT_KEYS_WRITE, Power.USAGE_READ
    )

    def make(client: APIClient, *scopes: str) -> int:
        asked = {**body, **({"scopes": list(scopes)} if scopes else {})}
        return int(client.post("/api/v1/keys", asked, format="json").status_code)

    assert make(admin, "owners:write") == 403
    assert make(admin, "usage:read") == 201
    assert make(admin) == 201
    assert make(developer, "usage:read") == 403
    assert make(narrow, "usage:read") == 201
    assert make(narrow, "tenant:write") == 403
    assert make(narrow, "messages") == 400
    with platform_scope(REASON):
        whole = ApiKey.objects.filter(kind="management").order_by("pk")[2]
    assert set(whole.scopes) == set(Power) - {Power.OWNERS_WRITE}


def test_a_developer_touches_no_management_key(tenant: Tenant) -> None:
    key = make_key(tenant, ApiKey.Kind.MANAGEMENT).key
    client, path = client_of(tenant, Role.DEVELOPER), f"/api/v1/keys/{key.public_id}"

    answers = [
        client.patch(path, {"name": "X"}, format="json"),
        *(client.post(f"{path}/{verb}") for verb in ("disable", "enable", "rotate", "revoke")),
    ]

    assert {answer.status_code for answer in answers} == {403}
    assert client.get(path).status_code == 200


def test_a_rotation_gives_no_scopes_that_the_caller_lacks(tenant: Tenant) -> None:
    whole = make_key(tenant, ApiKey.Kind.MANAGEMENT).key

    answer = client_of(tenant, Role.ADMIN).post(f"/api/v1/keys/{whole.public_id}/rotate")

    assert answer.status_code == 403
    with platform_scope(REASON):
        assert ApiKey.objects.count() == 1


@pytest.mark.parametrize("seconds", [-1, int(GRACE_MAX.total_seconds()) + 1, 10**30])
def test_a_grace_has_bounds(tenant: Tenant, seconds: int) -> None:
    key = make_key(tenant).key

    answer = client_of(tenant).post(
        f"/api/v1/keys/{key.public_id}/rotate", {"grace_seconds": seconds}, format="json"
    )

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "grace_seconds"


def test_ended_keys_take_no_change(tenant: Tenant) -> None:
    client, key = client_of(tenant), make_key(tenant).key
    path = f"/api/v1/keys/{key.public_id}"
    rotated = client.post(f"{path}/rotate", {"grace_seconds": 60}, format="json")
    again = client.post(f"{path}/rotate")
    client.post(f"{path}/revoke")

    answers = [
        client.patch(path, {"name": "X"}, format="json"),
        *(client.post(f"{path}/{verb}") for verb in ("disable", "enable", "rotate", "revoke")),
    ]

    assert (rotated.status_code, again.status_code) == (201, 409)
    assert {answer.status_code for answer in answers} == {409}
    assert answers[0].json()["detail"] == "The key is revoked."


def test_a_key_goes_into_no_archived_workspace(tenant: Tenant) -> None:
    workspace, client = make_workspace(tenant), client_of(tenant)
    path = f"/api/v1/workspaces/{workspace.public_id}"
    client.post(f"{path}/archive")

    answers = [
        client.post(
            "/api/v1/keys", {"name": "k", "workspace_id": workspace.public_id}, format="json"
        ),
        client.patch(path, {"name": "X"}, format="json"),
        client.post(f"{path}/archive"),
    ]

    assert {answer.status_code for answer in answers} == {409}


def test_the_default_workspace_stays_and_names_are_unique_while_in_use(tenant: Tenant) -> None:
    client = client_of(tenant)
    default = client.get("/api/v1/workspaces").json()["data"][0]["id"]
    twin = make_workspace(tenant, "twin")

    answers = [
        client.post(f"/api/v1/workspaces/{default}/archive"),
        client.post("/api/v1/workspaces", {"name": "twin"}, format="json"),
        client.patch(f"/api/v1/workspaces/{default}", {"name": "twin"}, format="json"),
    ]
    client.post(f"/api/v1/workspaces/{twin.public_id}/archive")
    freed = client.post("/api/v1/workspaces", {"name": "twin"}, format="json")

    assert {answer.status_code for answer in answers} == {409}
    assert freed.status_code == 201


def test_a_tenant_has_bounds_on_keys_and_workspaces(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accounts.services.keys.KEYS_MAX", 1)
    monkeypatch.setattr("accounts.services.workspaces.WORKSPACES_MAX", 1)
    client = client_of(tenant)
    make_key(tenant)

    assert KEYS_MAX == 1_000
    assert client.post("/api/v1/keys", {"name": "k"}, format="json").status_code == 409
    assert client.post("/api/v1/workspaces", {"name": "w"}, format="json").status_code == 409
    with platform_scope(REASON):
        assert (ApiKey.objects.count(), Workspace.objects.count()) == (1, 1)
