"""/v1/organizations: users, invites and members of workspaces, roles translated both ways."""

from typing import Any

import pytest

from accounts.models import Invite, Member, Role, Tenant, User
from tests.accounts.admin_world import BASE, audited, ok, send
from tests.accounts.factories import (
    caller_of,
    make_invite,
    make_key,
    make_member,
    make_workspace,
    management_client,
)
from turnpike.control.caller import Power
from turnpike.control.scope import platform_scope

MEMBER_POWERS = (Power.MEMBERS_READ, Power.MEMBERS_WRITE)
ROLE = {"role": "developer"}
SAME = {"workspace_role": "workspace_admin"}


def test_roles_are_translated_both_ways(tenant: Tenant) -> None:
    shown = {
        Role.OWNER: ("admin", "workspace_admin"),
        Role.ADMIN: ("admin", "workspace_admin"),
        Role.DEVELOPER: ("developer", "workspace_developer"),
        Role.BILLING: ("billing", "workspace_billing"),
        Role.VIEWER: ("user", "workspace_user"),
    }
    people = {role: make_member(tenant, role).user.public_id for role in Role}
    api = management_client(tenant)
    workspace = make_workspace(tenant).public_id

    for role, person in people.items():
        there = ok(api, "get", f"workspaces/{workspace}/members/{person}")
        assert ok(api, "get", f"users/{person}")["role"] == shown[role][0]
        assert there == {
            "type": "workspace_member",
            "user_id": person,
            "workspace_id": workspace,
            "workspace_role": shown[role][1],
        }
    listed = ok(api, "get", f"workspaces/{workspace}/members")
    assert {item["user_id"] for item in listed["data"]} == set(people.values())
    assert listed["first_id"] == people[Role.VIEWER]
    found = ok(api, "get", "users", **{"roles[]": ["admin", "nobody"]})["data"]
    assert {item["id"] for item in found} == {people[Role.OWNER], people[Role.ADMIN]}

    viewer = people[Role.VIEWER]
    for given, ours in (("developer", "developer"), ("billing", "billing"), ("user", "viewer")):
        assert ok(api, "post", f"users/{viewer}", {"role": given})["role"] == given
        with platform_scope("tests"):
            uuid = User.parse_public_id(viewer)
            assert Member.objects.get(user__uuid=uuid).role == ours
    for refused in ("admin", "owner", "claude_code_user", "managed", "viewer"):
        assert send(api, "post", f"users/{viewer}", {"role": refused}).status_code == 400


def test_people_leave_the_organization_and_its_keys_stay(tenant: Tenant) -> None:
    owner, leaver, other = (
        make_member(tenant, role) for role in ("owner", "developer", "developer")
    )
    keys = [make_key(tenant, caller=caller_of(member)).key for member in (leaver, other)]
    api = management_client(tenant)
    user_id = leaver.user.public_id

    assert ok(api, "delete", f"users/{user_id}") == {"id": user_id, "type": "user_deleted"}
    assert send(api, "get", f"users/{user_id}").status_code == 404
    answer = api.delete(f"{BASE}/users/{other.user.public_id}?keys=revoke")
    assert answer.status_code == 200
    assert [ok(api, "get", f"api_keys/{key.public_id}")["status"] for key in keys] == [
        "active",
        "archived",
    ]
    last = send(api, "delete", f"users/{owner.user.public_id}")
    assert last.status_code == 400
    assert last.json()["error"]["details"] == {"error_code": "cannot_remove_last_member"}
    assert audited(tenant).count("member.removed") == 2
    assert api.delete(f"{BASE}/users/{owner.user.public_id}?keys=all").status_code == 400


def test_a_key_gives_no_role_with_more_than_it_has(tenant: Tenant) -> None:
    make_member(tenant, Role.OWNER)
    person = make_member(tenant, Role.VIEWER).user.public_id
    narrow = management_client(tenant, *MEMBER_POWERS)

    assert send(narrow, "post", f"users/{person}", {"role": "developer"}).status_code == 403
    assert send(narrow, "post", "invites", {"email": "a@example.com", **ROLE}).status_code == 403


def test_members_of_workspaces_are_those_of_the_organization(tenant: Tenant) -> None:
    member = make_member(tenant, Role.OWNER)
    where = f"workspaces/{make_workspace(tenant).public_id}/members"
    api, person = management_client(tenant), member.user.public_id
    body = {"user_id": person, "workspace_role": "workspace_developer"}
    before = audited(tenant)

    added = send(api, "post", where, body)
    assert added.status_code == 400
    assert added.json()["error"]["details"] == {"error_code": "already_member"}
    assert send(api, "post", where, {**body, "user_id": "user_x"}).status_code == 404
    assert ok(api, "post", f"{where}/{person}", SAME)["workspace_role"] == "workspace_admin"
    other = {"workspace_role": "workspace_user"}
    assert send(api, "post", f"{where}/{person}", other).status_code == 400
    assert person in send(api, "delete", f"{where}/{person}").json()["error"]["message"]
    assert audited(tenant) == before


def test_invites_are_sent_listed_and_taken_back(tenant: Tenant) -> None:
    api = management_client(tenant)
    before = len(audited(tenant))

    made = ok(api, "post", "invites", {"email": "New@Example.com", "role": "user"})
    where = f"invites/{made['id']}"
    assert (made["email"], made["role"], made["status"]) == ("new@example.com", "user", "pending")
    assert made["rbac_group_ids"] == []
    assert not {"token", "secret", "url"} & set(made)
    assert ok(api, "get", where) == made
    again = send(api, "post", "invites", {"email": "new@example.com", "role": "user"})
    assert again.status_code == 400
    assert again.json()["error"]["details"] == {"error_code": "invite_already_exists"}

    def listed(**query: Any) -> list[str]:
        return [item["id"] for item in ok(api, "get", "invites", **query)["data"]]

    late = make_invite(tenant, role=Role.BILLING).invite
    with platform_scope("tests"):
        Invite.objects.filter(pk=late.pk).update(expires_at=late.created_at)
    assert listed() == [late.public_id, made["id"]]
    assert listed(**{"statuses[]": ["expired"]}) == [late.public_id]
    assert listed(statuses=["pending", "accepted"]) == [made["id"]]
    assert listed(email="NEW@example.com") == [made["id"]]
    assert listed(**{"roles[]": ["billing"]}) == [late.public_id]
    for wrong in ("deleted", "open"):
        assert send(api, "get", "invites", statuses=wrong).status_code == 400
    for _ in range(2):
        assert ok(api, "delete", where) == {"id": made["id"], "type": "invite_deleted"}
    assert ok(api, "get", where)["status"] == "deleted"
    assert listed() == [late.public_id]
    assert audited(tenant)[before:] == ["invite.created", "invite.created", "invite.revoked"]


@pytest.mark.parametrize(
    "body",
    [
        {"email": "nobody", "role": "user"},
        {"email": "a@example.com", "role": "admin"},
        {"email": "a@example.com", "role": "claude_code_user"},
        {"email": "a@example.com"},
        {"email": "a@example.com", "role": "user", "rbac_group_ids": ["g"]},
    ],
)
def test_an_invite_that_cannot_be_is_refused(tenant: Tenant, body: dict[str, Any]) -> None:
    assert send(management_client(tenant), "post", "invites", body).status_code == 400
