"""`client.organization.*` of the official SDK with a management key, on the running platform."""

import uuid
from datetime import timedelta

import anthropic
import httpx
import pytest
from anthropic.types.organization.already_member_error import AlreadyMemberError
from anthropic.types.organization.invite_already_exists_error import InviteAlreadyExistsError

from tests.sdk.conftest import ClientFor
from tests.support.running import Platform
from turnpike.control.exports import STREAMS_MAX
from turnpike.kernel import clock


@pytest.fixture(scope="module")
def issued(platform: Platform) -> dict[str, str]:
    """A tenant of its own with both kinds of keys."""
    made: dict[str, str] = platform.issue_key(tenant=f"sdk-{uuid.uuid4().hex[:8]}")
    return made


@pytest.fixture
def admin(client_for: ClientFor, issued: dict[str, str]) -> anthropic.Anthropic:
    """A client with the management key."""
    return client_for(issued["management_key"])


def test_the_organization_and_its_keys(admin: anthropic.Anthropic, issued: dict[str, str]) -> None:
    organization = admin.organization

    assert organization.retrieve().id == issued["tenant"]
    (key,) = organization.api_keys.list(status="active")
    assert issued["api_key"].startswith(key.partial_key_hint.split("...")[0])  # type: ignore[union-attr]
    assert key.scope.type == "workspace"
    assert organization.api_keys.update(key.id, name="renamed").name == "renamed"
    assert organization.api_keys.update(key.id, status="inactive").status == "inactive"
    assert [found.id for found in organization.api_keys.list(status="inactive")] == [key.id]
    assert organization.api_keys.retrieve(key.id).name == "renamed"
    with pytest.raises(anthropic.NotFoundError):
        organization.api_keys.retrieve("apikey_01unknown")
    with pytest.raises(anthropic.BadRequestError):
        organization.api_keys.update(key.id, status="lost")  # type: ignore[arg-type]


def test_workspaces_in_pages(admin: anthropic.Anthropic) -> None:
    workspaces = admin.organization.workspaces
    made = [workspaces.create(name=f"ws {n}", tags={"n": str(n)}).id for n in range(5)]

    assert [found.id for found in workspaces.list(limit=2)] == made[::-1]
    # Backwards, page by page: the two next to it first, then what is before those.
    before = [found.id for found in workspaces.list(limit=2, before_id=made[1])]
    assert before == [made[3], made[2], made[4]]
    assert [found.id for found in workspaces.list(ids=made[:2])] == made[1::-1]
    changed = workspaces.update(made[0], name="changed", tags={"n": None})
    assert (changed.name, changed.tags) == ("changed", {})
    assert workspaces.archive(made[0]).archived_at is not None
    assert made[0] not in [found.id for found in workspaces.list()]
    assert made[0] in [found.id for found in workspaces.list(include_archived=True)]
    assert workspaces.retrieve(made[1]).data_residency.default_inference_geo == "global"


def test_people_and_invitations(admin: anthropic.Anthropic) -> None:
    organization = admin.organization
    address = f"{uuid.uuid4().hex}@example.com"

    invite = organization.invites.create(email=address, role="developer")
    assert (invite.status, invite.role) == ("pending", "developer")
    with pytest.raises(InviteAlreadyExistsError):
        organization.invites.create(email=address, role="developer")
    assert [found.id for found in organization.invites.list(statuses=["pending"])] == [invite.id]
    assert organization.invites.delete(invite.id).type == "invite_deleted"
    assert list(organization.users.list(roles=["admin"])) == []
    workspace = organization.workspaces.create(name="people").id
    assert list(organization.workspaces.members.list(workspace)) == []
    with pytest.raises(anthropic.NotFoundError):
        organization.workspaces.members.add(
            workspace, user_id="user_01x", workspace_role="workspace_user"
        )
    assert issubclass(AlreadyMemberError, anthropic.BadRequestError)


def test_a_strangers_key_sees_nothing_of_it(
    admin: anthropic.Anthropic, client_for: ClientFor, platform: Platform
) -> None:
    workspace = admin.organization.workspaces.create(name="hidden").id
    other = client_for(platform.issue_key(tenant="sdk-stranger")["management_key"])

    with pytest.raises(anthropic.NotFoundError) as refused:
        other.organization.workspaces.retrieve(workspace)

    assert refused.value.request_id is not None
    assert refused.value.request_id.startswith("req_01")


def test_reports_and_files_come_over_the_wire(base_url: str, issued: dict[str, str]) -> None:
    headers = {"x-api-key": issued["management_key"]}
    query = {"starting_at": clock.rfc3339(clock.utc_now() - timedelta(days=1))}
    with httpx.Client(base_url=base_url, headers=headers, params=query, timeout=30) as wire:
        costs = wire.get("/v1/organizations/cost_report").json()
        assert [bucket["results"] for bucket in costs["data"]] == [[], []]
        for form, start in (("csv", b"posting_id,line,"), ("parquet", b"PAR1")):
            answer = wire.get("/api/v1/exports/ledger", params={"format": form})
            assert answer.headers["transfer-encoding"] == "chunked"
            assert answer.content.startswith(start)
        # Who does not read a file to its end leaves room for others.
        for _ in range(3 * STREAMS_MAX):
            with wire.stream("GET", "/api/v1/exports/usage") as left:
                assert left.status_code == 200


def test_an_api_key_has_no_say_in_it(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.PermissionDeniedError):
        client.organization.retrieve()
