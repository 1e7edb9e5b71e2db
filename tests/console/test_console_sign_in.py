"""Signing in, second factors, proofs of identity, invitations, and forms that are sent twice."""

import pytest
import redis
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, generate_totp_secret, hotp_value
from django.test import Client, override_settings

from accounts.models import ApiKey, Member, Role
from tests.accounts.factories import make_invite, make_member, make_tenant, make_user
from tests.console.console_world import World, client_for, key_form, make_world
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock

PASSWORD = "a long enough password"


@pytest.fixture
def world(redis_client: redis.Redis, db: None) -> World:
    return make_world(redis_client, days=1)


@pytest.fixture
def owner(db: None) -> Member:
    user = make_user("alice@example.com", password=PASSWORD)
    return make_member(make_tenant(), Role.OWNER, user)


def sign_in(client: Client, password: str = PASSWORD) -> str:
    """Send the form; where it leads, or nothing."""
    answer = client.post("/accounts/login/", {"login": "Alice@example.com", "password": password})
    return answer.headers.get("location", "")


def test_a_password_opens_the_console_and_a_wrong_one_does_not(owner: Member) -> None:
    client = Client()

    assert sign_in(client, "not the password") == ""
    assert client.get("/console/").status_code == 302
    assert sign_in(client) == "/console/"
    assert client.get("/console/").status_code == 200


def test_nobody_signs_up(db: None) -> None:
    answer = Client().post(
        "/accounts/signup/", {"email": "mallory@example.com", "password1": PASSWORD}
    )

    assert answer.status_code == 200
    assert b"mallory" not in answer.content


def test_a_second_factor_is_asked_for_and_its_secret_is_sealed(owner: Member) -> None:
    secret = generate_totp_secret()
    TOTP.activate(owner.user, secret)
    client = Client()

    assert sign_in(client) == "/accounts/2fa/authenticate/"
    assert client.get("/console/").status_code == 302
    code = format_hotp_value(hotp_value(secret, clock.now_ms() // 30_000))
    answer = client.post("/accounts/2fa/authenticate/", {"code": code})

    assert answer["location"] == "/console/"
    assert secret not in str(Authenticator.objects.get().data)


@override_settings(REQUIRE_SECOND_FACTOR=True)
def test_owners_need_a_second_factor_where_it_is_required(world: World) -> None:
    owner = client_for(world.members[Role.OWNER]).get("/console/")
    viewer = client_for(world.members[Role.VIEWER]).get("/console/")

    assert (owner.status_code, owner["location"]) == (302, "/accounts/2fa/")
    assert viewer.status_code == 200


def test_a_key_is_made_after_a_proof_of_identity_alone(world: World) -> None:
    member = world.members[Role.OWNER]
    member.user.set_password(PASSWORD)
    member.user.save()
    client = client_for(member, is_proved=False)

    asked = client.post("/console/keys", key_form(world, name="proved"))
    with platform_scope("tests"):
        assert ApiKey.objects.filter(name="proved").exists() is False
    answer = client.post(asked["location"], {"password": PASSWORD})

    assert asked["location"].startswith("/accounts/reauthenticate/")
    assert b"tpk_live_" in answer.content
    with platform_scope("tests"):
        assert ApiKey.objects.filter(name="proved").count() == 1


def test_a_form_sent_twice_makes_one_key_and_shows_it_once(world: World) -> None:
    client, form = client_for(world.members[Role.OWNER]), key_form(world, name="once")

    first, second = client.post("/console/keys", form), client.post("/console/keys", form)

    assert (first.status_code, second.status_code) == (200, 302)
    assert b"tpk_live_" in first.content
    with platform_scope("tests"):
        assert ApiKey.objects.filter(name="once").count() == 1


def test_a_form_with_a_mistake_says_where_and_makes_nothing(world: World) -> None:
    client = client_for(world.members[Role.OWNER])
    for changes in ({"ip_ranges": "nonsense"}, {"monthly_budget_nano": "-1"}, {"expiry": "date"}):
        answer = client.post("/console/keys", key_form(world, name="bad", **changes))

        assert answer.status_code == 400
        assert b"field__errors" in answer.content
    with platform_scope("tests"):
        assert ApiKey.objects.filter(name="bad").exists() is False


def test_an_invitation_becomes_an_account_and_works_once(world: World) -> None:
    sent = make_invite(world.shop.tenant, "new@example.com", Role.DEVELOPER)
    form = {"token": sent.token, "name": "New", "password": PASSWORD}
    client = Client()

    assert client.get(f"/accounts/invite?token={sent.token}").status_code == 200
    assert client.post("/accounts/invite", form)["location"] == "/console/"
    assert client.get("/console/keys").status_code == 200
    assert Client().post("/accounts/invite", form).status_code == 404


def test_what_changes_something_wants_a_csrf_token(world: World) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(
        world.members[Role.OWNER].user, backend="django.contrib.auth.backends.ModelBackend"
    )

    assert client.post("/console/keys", key_form(world)).status_code == 403
