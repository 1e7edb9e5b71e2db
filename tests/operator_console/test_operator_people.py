"""Operators come and go, lost second factors are reset, and looking at a tenant changes nothing."""

import re
from datetime import timedelta

import pytest
import redis
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from allauth.usersessions.models import UserSession
from django.test import Client

from accounts.console.viewing import SESSION_VIEWING
from accounts.models import Role, User
from tests.accounts.factories import make_member
from tests.console.console_world import World, make_world
from tests.operator_console.operator_world import REASON, audited, browser_of, make_operator
from turnpike.kernel import clock

PASSWORD = "a long enough password"


@pytest.fixture
def world(redis_client: redis.Redis, db: None) -> World:
    return make_world(redis_client, days=1)


def test_an_operator_is_added_with_a_password_shown_once(browser: Client) -> None:
    form = {"email": "New@example.com", "name": "New", "reason": REASON}
    page = browser.post("/operator/users", form).content.decode()
    found = re.search(r'<code id="first-password">([^<]+)</code>', page)
    assert found is not None
    password = found.group(1)

    user = User.objects.get(email="new@example.com")
    assert user.is_staff
    assert not user.is_superuser
    assert user.check_password(password)
    assert password not in browser.get("/operator/users").content.decode()
    assert audited("operator.added")[0].target == user.public_id
    again = browser.post("/operator/users", form, follow=True).content.decode()
    assert "an operator already" in again


def test_an_operator_is_removed_and_signed_out_but_nobody_removes_themselves(
    browser: Client, operator: User
) -> None:
    other = make_operator(password=PASSWORD, email="other@example.com")
    theirs = Client()
    theirs.post("/accounts/login/", {"login": other.email, "password": PASSWORD})
    assert theirs.get("/operator/").status_code == 200
    form = {"action": "remove", "reason": REASON}

    own = browser.post(f"/operator/users/{operator.public_id}", form, follow=True)
    browser.post(f"/operator/users/{other.public_id}", form)

    assert "Nobody removes themselves" in own.content.decode()
    other.refresh_from_db()
    assert not other.is_staff
    assert theirs.get("/operator/").status_code == 302
    assert audited("operator.removed")[0].reason == REASON


def test_a_second_factor_is_reset_and_every_session_ends(world: World, browser: Client) -> None:
    person = world.members[Role.OWNER].user
    TOTP.activate(person, generate_totp_secret())
    UserSession.objects.create(user=person, ip="127.0.0.1", session_key="k" * 32, user_agent="x")
    path = f"/operator/users/{person.public_id}"

    browser.post(path, {"action": "reset", "reason": ""})
    assert Authenticator.objects.filter(user=person).exists()
    browser.post(path, {"action": "reset", "reason": REASON})

    assert not Authenticator.objects.filter(user=person).exists()
    assert not UserSession.objects.filter(user=person).exists()
    (event,) = audited("user.second_factor_reset")
    assert (event.before, event.reason) == ({"factors": ["totp"]}, REASON)


def test_sessions_of_a_person_are_ended(world: World, browser: Client) -> None:
    person = world.members[Role.VIEWER].user
    UserSession.objects.create(user=person, ip="127.0.0.1", session_key="s" * 32, user_agent="x")

    path = f"/operator/users/{person.public_id}"
    browser.post(path, {"action": "sessions", "reason": REASON})

    assert not UserSession.objects.filter(user=person).exists()
    assert audited("user.sessions_ended")[0].before == {"sessions": 1}


def look(client: Client, world: World, reason: str = REASON) -> int:
    """Begin to look at the tenant's console."""
    path = f"/operator/tenants/{world.shop.tenant.public_id}/view"
    return client.post(path, {"reason": reason}).status_code


def test_looking_at_a_tenant_shows_its_console_and_refuses_every_change(
    world: World, browser: Client
) -> None:
    tenant = world.shop.tenant
    assert look(browser, world, reason="") == 302
    assert "viewing" not in browser.session

    look(browser, world)
    page = browser.get("/console/").content.decode()

    assert "You look at the console of <b>Acme</b> as an operator." in page
    assert "Create key" not in page
    for path in ("keys", "usage", "logs", "billing", "members", "audit", "settings"):
        assert browser.get(f"/console/{path}").status_code == 200, path
    refused = {
        browser.post(path).status_code
        for path in (
            *("/console/keys", "/console/settings", "/console/members", "/operator/tenants"),
            *(f"/operator/tenants/{tenant.public_id}/change/suspend", "/api/v1/keys"),
        )
    }
    assert refused == {403}
    assert browser.delete(f"/api/v1/keys/{world.shop.key.public_id}").status_code == 403
    (event,) = audited("tenant.viewing_started", tenant=tenant.pk)
    assert event.reason == REASON


def test_looking_ends_by_the_button_and_after_half_an_hour(world: World, browser: Client) -> None:
    look(browser, world)
    ended = browser.post("/operator/viewing/end")
    assert ended["location"] == f"/operator/tenants/{world.shop.tenant.public_id}"
    assert browser.get("/console/")["location"] == "/operator/"
    assert audited("tenant.viewing_ended", tenant=world.shop.number) != []

    look(browser, world)
    session = browser.session
    kept = session[SESSION_VIEWING]
    left = kept["ends_at_ms"] - clock.now_ms()
    assert timedelta(minutes=29) < timedelta(milliseconds=left) <= timedelta(minutes=30)
    session[SESSION_VIEWING] = {**kept, "ends_at_ms": clock.now_ms() - 1}
    session.save()

    assert browser.get("/console/")["location"] == "/operator/"
    assert browser.post("/operator/tenants", {}).status_code == 400


def test_only_operators_look(world: World, browser: Client) -> None:
    stranger = make_member(world.shop.tenant, Role.VIEWER).user
    client = browser_of(stranger)
    session = client.session
    kept = {"tenant": world.shop.number + 1, "ends_at_ms": clock.now_ms() + 60_000}
    session[SESSION_VIEWING] = kept
    session.save()

    assert look(client, world) == 403
    assert "as an operator" not in client.get("/console/").content.decode()
