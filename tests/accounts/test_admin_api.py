"""/v1/organizations: keys, workspaces and people in the Admin API's shapes."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts.models import ApiKey, Role, Tenant, Workspace
from accounts.services.workspaces import TAGS_MAX
from accounts.urls import organization
from tests.accounts.admin_world import BASE, audited, default_of, ok, send
from tests.accounts.factories import (
    caller_of,
    client_of,
    client_with_key,
    make_invite,
    make_key,
    make_member,
    make_workspace,
    management_client,
)
from turnpike.control.caller import Power
from turnpike.control.scope import platform_scope

METHODS = ("get", "post", "delete")
ROLE = {"role": "developer"}
SAME = {"workspace_role": "workspace_admin"}
# Method and route -> the power that it needs and what is sent.
ROUTES: dict[tuple[str, str], tuple[Power, Any]] = {
    ("get", "me"): (Power.TENANT_READ, None),
    ("get", "api_keys"): (Power.KEYS_READ, None),
    ("get", "api_keys/<str:api_key_id>"): (Power.KEYS_READ, None),
    ("post", "api_keys/<str:api_key_id>"): (Power.KEYS_WRITE, {"name": "new"}),
    ("get", "workspaces"): (Power.WORKSPACES_READ, None),
    ("post", "workspaces"): (Power.WORKSPACES_WRITE, {"name": "new"}),
    ("get", "workspaces/<str:workspace_id>"): (Power.WORKSPACES_READ, None),
    ("post", "workspaces/<str:workspace_id>"): (Power.WORKSPACES_WRITE, {"name": "new"}),
    ("post", "workspaces/<str:workspace_id>/archive"): (Power.WORKSPACES_WRITE, None),
    ("get", "workspaces/<str:workspace_id>/members"): (Power.MEMBERS_READ, None),
    ("post", "workspaces/<str:workspace_id>/members"): (Power.MEMBERS_WRITE, None),
    ("get", "workspaces/<str:workspace_id>/members/<str:user_id>"): (Power.MEMBERS_READ, None),
    ("post", "workspaces/<str:workspace_id>/members/<str:user_id>"): (Power.MEMBERS_WRITE, SAME),
    ("delete", "workspaces/<str:workspace_id>/members/<str:user_id>"): (Power.MEMBERS_WRITE, None),
    ("get", "users"): (Power.MEMBERS_READ, None),
    ("get", "users/<str:user_id>"): (Power.MEMBERS_READ, None),
    ("post", "users/<str:user_id>"): (Power.MEMBERS_WRITE, ROLE),
    ("delete", "users/<str:user_id>"): (Power.MEMBERS_WRITE, None),
    ("get", "invites"): (Power.MEMBERS_READ, None),
    ("post", "invites"): (Power.MEMBERS_WRITE, {"email": "new@example.com", **ROLE}),
    ("get", "invites/<str:invite_id>"): (Power.MEMBERS_READ, None),
    ("delete", "invites/<str:invite_id>"): (Power.MEMBERS_WRITE, None),
}


def ids_of_objects(tenant: Tenant) -> dict[str, str]:
    """An id of each kind that belongs to a tenant."""
    make_member(tenant, Role.OWNER)
    return {
        "api_key_id": make_key(tenant).key.public_id,
        "workspace_id": make_workspace(tenant).public_id,
        "user_id": make_member(tenant, Role.DEVELOPER).user.public_id,
        "invite_id": make_invite(tenant).invite.public_id,
    }


def path_of(route: str, objects: dict[str, str]) -> str:
    for name, value in objects.items():
        route = route.replace(f"<str:{name}>", value)
    return route


def test_every_route_has_its_row() -> None:
    found = {
        (method, str(pattern.pattern))
        for pattern in organization
        for method in METHODS
        if hasattr(pattern.callback.view_class, method)  # type: ignore[attr-defined]
    }

    assert found == set(ROUTES)


def test_each_call_needs_the_scope_of_what_it_does(tenant: Tenant) -> None:
    objects = ids_of_objects(tenant)
    inference = client_with_key(make_key(tenant).secret)
    without = {
        power: management_client(tenant, *(set(Power) - {power}))
        for power in {power for power, _body in ROUTES.values()}
    }
    before = audited(tenant)

    for (method, route), (power, body) in ROUTES.items():
        path = path_of(route, objects)
        clients = (without[power], APIClient(), inference)
        found = [send(client, method, path, body).status_code for client in clients]
        assert found == [403, 401, 403], (method, route)
    assert audited(tenant) == before


def test_another_tenants_things_are_not_found(tenant: Tenant, stranger: Tenant) -> None:
    theirs, own = ids_of_objects(stranger), ids_of_objects(tenant)
    mallory = management_client(tenant)
    before = audited(stranger)

    for (method, route), (_power, body) in ROUTES.items():
        for name in (name for name in theirs if name in route):
            for stranger_id in (theirs[name], "x"):
                path = path_of(route, {**own, name: stranger_id})
                assert send(mallory, method, path, body).status_code == 404, (method, route)
    assert audited(stranger) == before


def test_who_asks_learns_whose_key_it_is(tenant: Tenant) -> None:
    said = ok(management_client(tenant), "get", "me")

    assert said == {"id": tenant.public_id, "type": "organization", "name": tenant.name}


def test_a_key_as_the_admin_api_writes_it(tenant: Tenant) -> None:
    member = make_member(tenant, Role.OWNER)
    workspace = make_workspace(tenant)
    key = make_key(tenant, workspace=workspace, caller=caller_of(member)).key
    api = management_client(tenant)

    said = ok(api, "get", f"api_keys/{key.public_id}")

    assert said.pop("created_at").endswith("Z")
    assert said == {
        "id": key.public_id,
        "type": "api_key",
        "name": "a key",
        "partial_key_hint": key.hint,
        "status": "active",
        "created_by": {"id": member.user.public_id, "type": "user"},
        "expires_at": None,
        "principal": None,
        "scope": {"type": "workspace", "workspace_id": workspace.public_id},
        "workspace_id": workspace.public_id,
    }
    plain = make_key(tenant).key
    said = ok(api, "get", f"api_keys/{plain.public_id}")
    assert (said["created_by"], said["workspace_id"]) == (None, None)
    assert said["scope"]["workspace_id"] == default_of(tenant)


def test_a_key_is_renamed_switched_and_archived(tenant: Tenant) -> None:
    key = make_key(tenant).key
    api, where = management_client(tenant), f"api_keys/{key.public_id}"
    before = len(audited(tenant))

    assert ok(api, "post", where, {"name": "named", "status": None})["name"] == "named"
    for status in ("inactive", "inactive", "active", "archived", "archived"):
        assert ok(api, "post", where, {"status": status})["status"] == status

    again = send(api, "post", where, {"status": "active"})
    assert (again.status_code, "revoked" in again.json()["error"]["message"]) == (400, True)
    assert audited(tenant)[before:] == ["key.updated", "key.disabled", "key.enabled", "key.revoked"]
    wrongs: list[Any] = [{"status": "expired"}, {"name": ""}, {"scopes": []}, {"name": "x" * 101}]
    for wrong in wrongs:
        assert send(api, "post", where, wrong).status_code == 400


def test_keys_are_listed_by_what_they_are(tenant: Tenant) -> None:
    workspace = make_workspace(tenant)
    keys = [make_key(tenant).key for _ in range(3)]
    elsewhere = make_key(tenant, workspace=workspace).key
    api = management_client(tenant)
    ok(api, "post", f"api_keys/{keys[0].public_id}", {"status": "inactive"})
    ok(api, "post", f"api_keys/{keys[1].public_id}", {"status": "archived"})

    def listed(**query: Any) -> list[str]:
        return [item["id"] for item in ok(api, "get", "api_keys", **query)["data"]]

    assert set(listed()) == {key.public_id for key in (*keys, elsewhere)}
    assert listed(status="inactive") == [keys[0].public_id]
    assert listed(status="archived") == [keys[1].public_id]
    assert set(listed(status="active")) == {keys[2].public_id, elsewhere.public_id}
    assert listed(status="expired") == []
    assert listed(workspace_id=workspace.public_id) == [elsewhere.public_id]
    assert listed(workspace_id="wrkspc_x") == []
    assert listed(created_by_user_id=make_member(tenant).user.public_id) == []
    assert send(api, "get", "api_keys", status="good").status_code == 400


def test_pages_go_forwards_and_backwards_and_survive_deletions(tenant: Tenant) -> None:
    people = [make_member(tenant, Role.VIEWER).user.public_id for _ in range(7)][::-1]
    api = management_client(tenant)

    first = ok(api, "get", "users", limit=3)
    assert [item["id"] for item in first["data"]] == people[:3]
    assert (first["first_id"], first["last_id"]) == (people[0], people[2])
    assert first["has_more"]
    ok(api, "delete", f"users/{people[2]}")
    second = ok(api, "get", "users", limit=3, after_id=people[2])
    assert [item["id"] for item in second["data"]] == people[3:6]
    last = ok(api, "get", "users", limit=3, after_id=second["last_id"])
    assert ([item["id"] for item in last["data"]], last["has_more"]) == (people[6:], False)
    back = ok(api, "get", "users", limit=2, before_id=people[5])
    assert ([item["id"] for item in back["data"]], back["has_more"]) == (people[3:5], True)
    front = ok(api, "get", "users", limit=20, before_id=people[3])
    assert ([item["id"] for item in front["data"]], front["has_more"]) == (people[:2], False)
    nothing = ok(api, "get", "users", after_id=people[6])
    assert nothing == {"data": [], "has_more": False, "first_id": None, "last_id": None}

    for wrong in (
        {"limit": 0},
        {"limit": 1001},
        {"after_id": "wrkspc_x"},
        {"after_id": people[0], "before_id": people[1]},
    ):
        assert send(api, "get", "users", **wrong).status_code == 400


def test_a_workspace_is_made_changed_and_archived(tenant: Tenant) -> None:
    api = management_client(tenant)
    before = len(audited(tenant))

    made = ok(
        api, "post", "workspaces", {"name": "Lab", "tags": {"team": "a"}, "display_color": None}
    )
    where = f"workspaces/{made['id']}"
    assert (made["type"], made["name"], made["tags"]) == ("workspace", "Lab", {"team": "a"})
    assert made["archived_at"] is None
    assert ok(api, "get", where) == made
    changed = ok(
        api, "post", where, {"display_color": "#12abEF", "tags": {"team": None, "cost": "7"}}
    )
    assert (changed["display_color"], changed["tags"]) == ("#12abEF", {"cost": "7"})
    assert ok(api, "post", where, {}) == changed
    with platform_scope("tests"):
        lab = Workspace.objects.get(name="Lab")
    key = make_key(tenant, workspace=lab).key
    ended = ok(api, "post", f"{where}/archive")
    assert ended["archived_at"] is not None
    assert ok(api, "post", f"{where}/archive") == ended
    assert ok(api, "get", f"api_keys/{key.public_id}")["status"] == "archived"
    assert send(api, "post", where, {"name": "Late"}).status_code == 400

    assert audited(tenant)[before:] == [
        "workspace.created",
        "workspace.updated",
        "key.created",
        "workspace.archived",
    ]


def test_workspaces_are_listed_as_asked(tenant: Tenant) -> None:
    made = [make_workspace(tenant).public_id for _ in range(3)]
    api = management_client(tenant)
    ok(api, "post", f"workspaces/{made[1]}/archive")
    default = default_of(tenant)

    def listed(**query: Any) -> list[str]:
        return [item["id"] for item in ok(api, "get", "workspaces", **query)["data"]]

    assert listed() == [made[2], made[0]]
    assert listed(include_archived="true") == made[::-1]
    assert listed(include_default="true") == [made[2], made[0], default]
    assert listed(**{"ids[]": [made[0], made[1], "wrkspc_x"]}) == [made[0]]
    assert send(api, "get", "workspaces", include_default="maybe").status_code == 400
    assert send(api, "get", "workspaces", ids=["x"] * 101).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": None},
        {"name": "x", "display_color": "red"},
        {"name": "x", "external_key_id": "key"},
        {"name": "x", "tags": {"anthropic_x": "1"}},
        {"name": "x", "tags": {"": "1"}},
        {"name": "x", "tags": {"a": "1" * 257}},
        {"name": "x", "tags": {f"tag {n}": "1" for n in range(TAGS_MAX + 1)}},
    ],
)
def test_a_workspace_that_cannot_be_is_refused(tenant: Tenant, body: dict[str, Any]) -> None:
    assert send(management_client(tenant), "post", "workspaces", body).status_code == 400


def test_members_of_the_console_may_use_it_with_their_roles_powers(tenant: Tenant) -> None:
    viewer = client_of(tenant, Role.VIEWER)

    assert ok(viewer, "get", "me")["id"] == tenant.public_id
    assert send(viewer, "get", "users").status_code == 403


def test_management_keys_are_no_part_of_it(tenant: Tenant) -> None:
    key = make_key(tenant, ApiKey.Kind.MANAGEMENT).key
    api = management_client(tenant)

    assert ok(api, "get", "api_keys")["data"] == []
    for method in ("get", "post"):
        answer = send(api, method, f"api_keys/{key.public_id}", None if method == "get" else {})
        assert answer.status_code == 404


def test_a_repeated_order_with_its_key_is_one(tenant: Tenant) -> None:
    api = management_client(tenant)
    headers = {"idempotency-key": "once"}

    first, again = (
        api.post(f"{BASE}/workspaces", {"name": "Lab"}, "json", headers=headers) for _ in range(2)
    )

    assert (first.status_code, first.json()) == (200, again.json())
    assert "effective" not in first.json()
    assert again["idempotency-replayed"] == "true"
    other = api.post(f"{BASE}/workspaces", {"name": "Other"}, "json", headers=headers)
    assert other.status_code == 400


@pytest.mark.django_db(transaction=True)
def test_a_change_says_in_a_header_that_it_holds(live_tenant: Tenant) -> None:
    api = management_client(live_tenant)

    answer = api.post(f"{BASE}/workspaces", {"name": "Lab"}, "json")

    assert answer["turnpike-effective"] == "true"
