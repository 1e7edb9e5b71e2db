"""An owner takes a copy of the data, and closes the organization; keys leave with members."""

import io
import zipfile

import pytest
import redis
from django.core import mail as outbox

from accounts.models import ApiKey, DataExport, Role, TenantStatus
from accounts.services.mail import deliver_mail
from billing.services.export_files import build_exports
from tests.accounts.factories import caller_of, make_invite, make_key
from tests.console.console_world import World, client_for, make_world
from turnpike.control.scope import platform_scope


@pytest.fixture
def world(redis_client: redis.Redis, db: None) -> World:
    return make_world(redis_client, days=1)


def test_an_export_is_asked_for_built_and_fetched_by_its_owner_alone(
    world: World, redis_client: redis.Redis
) -> None:
    owner = client_for(world.members[Role.OWNER])
    owner.post("/console/data")
    assert build_exports() == 1
    with platform_scope("tests"):
        export = DataExport.objects.get()
    address = f"/console/data/{export.public_id}"

    file = owner.get(address)
    assert file["content-type"] == "application/zip"
    assert file["cache-control"] == "no-store"
    with zipfile.ZipFile(io.BytesIO(file.content)) as archive:
        assert world.newest in archive.read("requests.csv").decode()
    assert address in owner.get("/console/data").content.decode()

    unproved = client_for(world.members[Role.OWNER], is_proved=False)
    assert unproved.get(address).status_code == 302
    assert client_for(world.members[Role.ADMIN]).get(address).status_code == 403
    stranger = make_world(redis_client, name="Other", days=1).members[Role.OWNER]
    assert client_for(stranger).get(address).status_code == 404
    deliver_mail()
    assert outbox.outbox[0].to == [world.members[Role.OWNER].user.email]


def test_an_organization_is_closed_by_typing_its_name(world: World) -> None:
    owner = client_for(world.members[Role.OWNER])

    wrong = owner.post("/console/data/close", {"typed_name": "Acne", "reason": "x"})
    assert wrong.status_code == 400
    done = owner.post("/console/data/close", {"typed_name": "Acme", "reason": "moving on"})

    assert done["location"] == "/"
    assert owner.get("/console/").status_code == 403
    with platform_scope("tests"):
        world.shop.tenant.refresh_from_db()
    assert world.shop.tenant.status == TenantStatus.CLOSED


def revoked(key: ApiKey) -> bool:
    with platform_scope("tests"):
        key.refresh_from_db()
    return key.revoked_at is not None


@pytest.mark.parametrize("is_ticked", [True, False])
def test_the_box_beside_removal_decides_about_keys(world: World, is_ticked: bool) -> None:
    member = world.members[Role.DEVELOPER]
    key = make_key(member.tenant, caller=caller_of(member)).key
    owner = client_for(world.members[Role.OWNER])
    page = owner.get("/console/members").content.decode()
    assert "This person made 1 key that still works." in page

    form = {"action": "remove"} | ({"revoke": "on"} if is_ticked else {})
    owner.post(f"/console/members/{member.user.public_id}", form)

    assert revoked(key) is is_ticked


def test_an_invitation_is_sent_again_under_a_new_link(world: World) -> None:
    invite = make_invite(world.shop.tenant, "new@example.com").invite
    owner = client_for(world.members[Role.OWNER])

    answer = owner.post(f"/console/invites/{invite.public_id}", {"action": "resend"})
    deliver_mail()

    assert answer.status_code == 200
    assert b"/accounts/invite?token=" in answer.content
    assert [message.to for message in outbox.outbox] == [["new@example.com"]] * 2
    assert outbox.outbox[0].body != outbox.outbox[1].body
