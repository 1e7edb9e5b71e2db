"""Invitations, roles and the last owner; races against the real database."""

from datetime import timedelta

import pytest
from django.db import connection
from rest_framework.test import APIClient

from accounts.models import AuditEvent, Invite, Member, Role, Tenant, User
from accounts.services import members
from tests.accounts.factories import (
    REASON,
    caller_of,
    client_of,
    make_invite,
    make_member,
    make_tenant,
    make_user,
    management_client,
    signed_in,
)
from tests.accounts.side_by_side import side_by_side
from turnpike.control.caller import SYSTEM, Caller, Power
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock
from turnpike.kernel.errors import Conflict, NotAuthenticated, NotFound, PermissionDenied

VISITOR = Caller(actor="visitor")
PASSWORD = "a long enough phrase 4711"


def test_an_invited_person_joins_with_a_new_account(tenant: Tenant) -> None:
    sent = make_invite(tenant, "New@Example.com", Role.DEVELOPER)
    body = {"token": sent.token, "name": "New Person", "password": PASSWORD}

    answer = APIClient().post("/api/v1/invites/accept", body, format="json")

    assert answer.status_code == 201
    assert answer.json()["role"] == "developer"
    assert answer.json()["tenant_id"] == tenant.public_id
    user = User.objects.get(email="new@example.com")
    assert user.check_password(PASSWORD)
    assert signed_in(user).get("/api/v1/keys").status_code == 200
    with platform_scope(REASON):
        assert Invite.objects.get().status_at(clock.utc_now()) == "accepted"
        assert AuditEvent.objects.filter(action="invite.accepted", actor=user.public_id).exists()


def test_an_account_joins_only_when_it_is_signed_in(tenant: Tenant) -> None:
    user = make_user("known@example.com")
    sent = make_invite(tenant, user.email)
    body = {"token": sent.token, "name": "Thief", "password": PASSWORD}

    statuses = [
        client.post("/api/v1/invites/accept", body, format="json").status_code
        for client in (APIClient(), signed_in(make_user()), signed_in(user), signed_in(user))
    ]

    assert statuses == [401, 401, 201, 404]


@pytest.mark.parametrize("password", ["", "short", "12345678901", "password1234"])
def test_a_weak_password_joins_nobody(tenant: Tenant, password: str) -> None:
    sent = make_invite(tenant)
    body = {"token": sent.token, "name": "New", "password": password}

    answer = APIClient().post("/api/v1/invites/accept", body, format="json")

    assert answer.status_code == 400
    with platform_scope(REASON):
        assert Member.objects.count() == 0


def test_links_that_are_not_open_are_all_answered_alike(tenant: Tenant) -> None:
    user = make_user("a@example.com")
    resent, revoked, expired = (make_invite(tenant, f"{name}@example.com") for name in "bcd")
    with platform_scope(REASON):
        members.resend_invite(caller=SYSTEM, invite=resent.invite)
        members.revoke_invite(caller=SYSTEM, invite=revoked.invite)
        Invite.objects.filter(pk=expired.invite.pk).update(expires_at=clock.utc_now())
    tokens = [resent.token, revoked.token, expired.token, "garbage", "x" * 200, "a:b"]

    answers = {
        signed_in(user)
        .post("/api/v1/invites/accept", {"token": token}, format="json")
        .json()["detail"]
        for token in tokens
    }

    assert answers == {"This invitation does not exist or is no longer open."}


def test_the_link_of_a_resent_invite_works(tenant: Tenant) -> None:
    user = make_user()
    invite = make_invite(tenant, user.email).invite
    client = client_of(tenant, Role.ADMIN)

    token = client.post(f"/api/v1/invites/{invite.public_id}/resend").json()["token"]

    member = members.accept_invite(caller=VISITOR, token=token, user=user)
    assert member.user_id == user.pk


def test_only_a_hash_of_a_token_is_kept(tenant: Tenant) -> None:
    sent = make_invite(tenant)

    with connection.cursor() as cursor, platform_scope(REASON):
        for table in ("accounts_invite", "accounts_auditevent"):
            cursor.execute(
                f"SELECT count(*) FROM {table} t WHERE t::text LIKE %s",
                [f"%{sent.token.split(':')[0]}%"],
            )
            assert cursor.fetchone() == (0,)
    assert sent.token not in repr(sent)


def test_an_address_has_one_open_invite_and_an_expired_one_makes_room(tenant: Tenant) -> None:
    first = make_invite(tenant, "a@example.com")

    with pytest.raises(Conflict, match="open invite"):
        make_invite(tenant, "A@example.com")
    with platform_scope(REASON):
        past = clock.utc_now() - timedelta(seconds=1)
        Invite.objects.filter(pk=first.invite.pk).update(expires_at=past)

    assert make_invite(tenant, "a@example.com").token != first.token


def test_a_member_is_not_invited_again(tenant: Tenant) -> None:
    member = make_member(tenant)

    with pytest.raises(Conflict, match="member already"):
        make_invite(tenant, member.user.email)


@pytest.mark.django_db(transaction=True)
def test_of_twenty_that_accept_one_link_one_becomes_a_member(live_tenant: Tenant) -> None:
    user = make_user()
    sent = make_invite(live_tenant, user.email)

    outcomes = side_by_side(
        20, lambda _: members.accept_invite(caller=VISITOR, token=sent.token, user=user)
    )

    assert sum(isinstance(outcome, Member) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, NotFound) for outcome in outcomes) == 19
    with platform_scope(REASON):
        assert Member.objects.filter(tenant=live_tenant).count() == 1


@pytest.mark.django_db(transaction=True)
def test_owners_who_demote_each_other_at_once_leave_one_owner(live_tenant: Tenant) -> None:
    owners = [make_member(live_tenant, Role.OWNER) for _ in range(4)]

    def demote_next(number: int) -> Member:
        caller, victim = caller_of(owners[number]), owners[(number + 1) % 4]
        with platform_scope(REASON):
            return members.change_role(caller=caller, member=victim, role=Role.VIEWER)

    outcomes = side_by_side(4, demote_next)

    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 1
    with platform_scope(REASON):
        assert Member.objects.filter(tenant=live_tenant, role=Role.OWNER).count() == 1


def test_the_last_owner_can_neither_leave_nor_step_down(tenant: Tenant) -> None:
    owner = make_member(tenant, Role.OWNER)
    client, path = signed_in(owner.user), f"/api/v1/members/{owner.user.public_id}"

    refused = [client.delete(path), client.patch(path, {"role": "admin"}, format="json")]
    make_member(tenant, Role.OWNER)
    allowed = client.delete(path)

    assert [answer.status_code for answer in (*refused, allowed)] == [409, 409, 204]
    assert client.get("/api/v1/tenant").status_code == 403


@pytest.mark.parametrize("role", [Role.OWNER])
def test_an_admin_neither_makes_nor_touches_owners(tenant: Tenant, role: str) -> None:
    make_member(tenant, Role.OWNER)
    owner, viewer = make_member(tenant, Role.OWNER), make_member(tenant, Role.VIEWER)
    client = client_of(tenant, Role.ADMIN)
    member_path = "/api/v1/members/{}"

    answers = [
        client.patch(member_path.format(viewer.user.public_id), {"role": role}, format="json"),
        client.patch(member_path.format(owner.user.public_id), {"role": "viewer"}, format="json"),
        client.delete(member_path.format(owner.user.public_id)),
        client.post("/api/v1/invites", {"email": "x@y.com", "role": role}, format="json"),
    ]

    assert [answer.status_code for answer in answers] == [403, 403, 403, 403]
    with platform_scope(REASON):
        assert Member.objects.filter(tenant=tenant, role=Role.OWNER).count() == 2
        assert Invite.objects.count() == 0


def test_a_management_key_gives_no_role_above_its_own_scopes(tenant: Tenant) -> None:
    client = management_client(tenant, Power.MEMBERS_WRITE, Power.MEMBERS_READ)

    answer = client.post("/api/v1/invites", {"email": "x@y.com", "role": "viewer"}, format="json")

    assert answer.status_code == 403
    assert "tenant:read" in answer.json()["detail"]


def test_a_viewer_may_not_leave_through_the_api_of_managers(tenant: Tenant) -> None:
    viewer = make_member(tenant, Role.VIEWER)

    answer = signed_in(viewer.user).delete(f"/api/v1/members/{viewer.user.public_id}")

    assert answer.status_code == 403


def test_a_closed_tenants_links_are_not_open(tenant: Tenant) -> None:
    user = make_user()
    sent = make_invite(tenant, user.email)
    with platform_scope(REASON):
        Tenant.objects.filter(pk=tenant.pk).update(status="closed")

    with pytest.raises(NotFound):
        members.accept_invite(caller=VISITOR, token=sent.token, user=user)


def test_a_person_of_two_tenants_chooses_by_header(tenant: Tenant, stranger: Tenant) -> None:
    user = make_user()
    make_member(tenant, Role.OWNER, user)
    make_member(stranger, Role.VIEWER, user)
    third = make_tenant("Third")
    client = signed_in(user)

    found = [
        client.get("/api/v1/tenant", headers={"turnpike-tenant": name})
        for name in (tenant.public_id, stranger.public_id, third.public_id, "garbage")
    ]

    assert [answer.json().get("id") for answer in found[:2]] == [
        tenant.public_id,
        stranger.public_id,
    ]
    assert [answer.status_code for answer in found[2:]] == [404, 404]
    assert client.get("/api/v1/tenant").json()["id"] == tenant.public_id


def test_errors_of_services_are_the_expected_kinds(tenant: Tenant) -> None:
    admin = caller_of(make_member(tenant, Role.ADMIN))
    sent = make_invite(tenant, make_user().email)

    with pytest.raises(NotAuthenticated):
        members.accept_invite(caller=VISITOR, token=sent.token, user=None)
    with pytest.raises(PermissionDenied), platform_scope(REASON):
        members.invite_member(caller=admin, tenant=tenant, email="z@y.com", role=Role.OWNER)
