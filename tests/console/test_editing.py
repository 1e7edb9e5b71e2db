"""Changing keys and workspaces on their pages: what was set holds, what was emptied is gone."""

from typing import Any

import pytest
import redis
from django.test import Client

from accounts.models import ApiKey, AuditEvent, Role, Workspace
from tests.console.console_world import World, client_for, make_world
from turnpike.control.scope import platform_scope

DOLLARS = 1_000_000_000


@pytest.fixture
def world(redis_client: redis.Redis, db: None) -> World:
    return make_world(redis_client, days=1)


@pytest.fixture
def owner(world: World) -> Client:
    return client_for(world.members[Role.OWNER])


def key_of(world: World) -> ApiKey:
    with platform_scope("tests"):
        return ApiKey.objects.get(pk=world.shop.key.pk)


def save(client: Client, world: World, **fields: Any) -> int:
    form = {"action": "save", "name": "renamed", "scopes": ["messages"], **fields}
    return client.post(f"/console/keys/{world.shop.key.public_id}", form).status_code


def test_a_keys_settings_are_changed_and_taken_away(world: World, owner: Client) -> None:
    first = save(
        owner,
        world,
        monthly_budget_nano="12.50",
        requests_per_minute="60",
        ip_ranges="10.0.0.0/8\n192.0.2.7",
        expires_on="2031-01-02",
    )
    set_up = key_of(world)
    second = save(owner, world)
    emptied = key_of(world)

    assert (first, second) == (302, 302)
    assert (set_up.name, set_up.scopes) == ("renamed", ["messages"])
    assert set_up.monthly_budget_nano == 12_500_000_000
    assert set_up.requests_per_minute == 60
    assert set_up.ip_ranges == ["10.0.0.0/8", "192.0.2.7/32"]
    assert set_up.expires_at is not None
    assert set_up.expires_at.isoformat() == "2031-01-02T23:59:59+00:00"
    assert emptied.monthly_budget_nano is None
    assert emptied.requests_per_minute is None
    assert emptied.ip_ranges == []
    assert emptied.expires_at is None


def test_saving_what_is_there_changes_and_logs_nothing(world: World, owner: Client) -> None:
    save(owner, world, expires_on="2031-01-02")
    with platform_scope("tests"):
        before = AuditEvent.objects.count()

    assert save(owner, world, expires_on="2031-01-02") == 302

    with platform_scope("tests"):
        assert AuditEvent.objects.count() == before


@pytest.mark.parametrize(
    "fields",
    [{"ip_ranges": "nonsense"}, {"name": " "}, {"expires_on": "2001-01-01"}, {"scopes": []}],
)
def test_a_mistake_is_said_at_its_field_and_changes_nothing(
    world: World, owner: Client, fields: dict[str, Any]
) -> None:
    before = key_of(world).name

    answer = owner.post(
        f"/console/keys/{world.shop.key.public_id}",
        {"action": "save", "name": "renamed", "scopes": ["messages"], **fields},
    )

    assert answer.status_code == 400
    assert b"field__errors" in answer.content
    assert key_of(world).name == before


def test_a_revoked_key_is_shown_without_a_form(world: World, owner: Client) -> None:
    address = f"/console/keys/{world.shop.key.public_id}"
    owner.post(address, {"action": "revoke", "typed": key_of(world).name})

    page = owner.get(address).content.decode()

    assert 'value="save"' not in page
    assert save(owner, world) == 302
    assert key_of(world).name != "renamed"


def test_a_workspace_is_made_changed_and_archived_with_its_keys(
    world: World, owner: Client
) -> None:
    owner.post("/console/workspaces", {"name": "Research", "monthly_budget_nano": "5"})
    with platform_scope("tests"):
        made = Workspace.objects.get(name="Research")
    address = f"/console/workspaces/{made.public_id}"
    owner.post(address, {"name": "Lab", "concurrency": "3"})
    with platform_scope("tests"):
        changed = Workspace.objects.get(pk=made.pk)
        ApiKey.objects.filter(pk=world.shop.key.pk).update(workspace=made)

    wrong = owner.post(address, {"action": "archive", "typed": "lab?"})
    still = Workspace.objects
    owner.post(address, {"action": "archive", "typed": "Lab"})

    with platform_scope("tests"):
        archived = still.get(pk=made.pk)
    assert made.monthly_budget_nano == 5 * DOLLARS
    assert (changed.name, changed.concurrency, changed.monthly_budget_nano) == ("Lab", 3, None)
    assert (wrong.status_code, changed.archived_at) == (302, None)
    assert archived.archived_at is not None
    assert key_of(world).revoked_at is not None


def test_two_workspaces_in_use_never_share_a_name(world: World, owner: Client) -> None:
    owner.post("/console/workspaces", {"name": "Research"})

    answer = owner.post("/console/workspaces", {"name": "Research"})

    assert answer.status_code == 400
    with platform_scope("tests"):
        assert Workspace.objects.filter(name="Research").count() == 1


def test_the_default_workspace_stays(world: World, owner: Client) -> None:
    workspace = world.shop.workspace
    address = f"/console/workspaces/{workspace.public_id}"

    assert 'value="archive"' not in owner.get(address).content.decode()
    owner.post(address, {"action": "archive", "typed": workspace.name})

    with platform_scope("tests"):
        assert Workspace.objects.get(pk=workspace.pk).archived_at is None


def test_the_palette_finds_what_its_reader_may_open(world: World, owner: Client) -> None:
    viewer = client_for(world.members[Role.VIEWER])

    def found(client: Client, words: str) -> list[str]:
        items = client.get("/console/find", {"q": words}).json()["items"]
        return [item["href"] for item in items]

    name = key_of(world).name
    assert f"/console/keys/{world.shop.key.public_id}" in found(owner, name)
    assert found(owner, world.shop.key.public_id) == [f"/console/keys/{world.shop.key.public_id}"]
    assert found(owner, world.newest) == [f"/console/logs/{world.newest}"]
    assert found(viewer, world.newest) == []
    assert "/console/docs/limits" in found(viewer, "limits")
    assert found(owner, "") == []


def test_usage_moves_by_whole_periods(world: World, owner: Client) -> None:
    now = owner.get("/console/usage", {"period": "7d"}).content.decode()
    before = owner.get("/console/usage", {"period": "7d", "back": "1"}).content.decode()
    year = owner.get("/console/usage", {"period": "365d", "back": "nonsense"})

    assert "back=1" in now
    assert 'data-key="ArrowRight"' not in now
    assert 'data-key="ArrowRight"' in before
    assert "Nothing was used in this period." in before
    assert year.status_code == 200
