"""Who may open the operator console: the platform's staff, and nobody else."""

import re

import pytest
from django.test import Client, override_settings
from django.urls import URLPattern

from accounts.models import Role, User
from tests.accounts.factories import make_member, make_tenant
from tests.operator_console.operator_world import browser_of, make_operator
from turnpike.web.operator_urls import operator as routes


def addresses() -> list[str]:
    """An address of each route; what it is about need not exist."""
    found = []
    for route in routes:
        assert isinstance(route, URLPattern)
        text = str(route.pattern)
        for name in route.pattern.converters:
            text = re.sub(rf"<(str|path|int):{name}>", "1", text)
        found.append(f"/operator/{text}")
    return found


@pytest.mark.parametrize("role", [*Role, None])
def test_nobody_of_a_tenant_finds_it(db: None, role: Role | None) -> None:
    member = make_member(make_tenant(), role or Role.OWNER)
    client = browser_of(member.user)

    answers = {client.get(path).status_code for path in addresses()}
    answers |= {client.post(path).status_code for path in addresses()}

    assert answers == {404}
    assert "/operator" not in client.get("/console/").content.decode()


def test_a_visitor_is_led_to_the_sign_in(db: None) -> None:
    for path in addresses():
        for answer in (Client().get(path), Client().post(path)):
            assert answer.status_code == 302
            assert answer["location"].startswith("/accounts/login/?next=/operator/")


def test_an_operator_comes_in_and_their_start_is_here(browser: Client) -> None:
    assert browser.get("/operator/").status_code == 200
    assert browser.get("/console/")["location"] == "/operator/"


def test_an_operator_without_a_second_factor_sets_one_up_first(operator: User) -> None:
    with override_settings(REQUIRE_SECOND_FACTOR=True):
        answer = browser_of(operator).get("/operator/")

    assert answer["location"] == "/accounts/2fa/"


def test_changes_want_a_fresh_proof_and_a_token(db: None) -> None:
    operator = make_operator(password="a long enough password")
    unproved = browser_of(operator, is_proved=False)
    for path in addresses():
        answer = unproved.post(path)
        assert answer.status_code in {302, 405}
        if answer.status_code == 302 and not path.endswith("viewing/end"):
            assert answer["location"].startswith("/accounts/reauthenticate/?next=%2Foperator%2F")
    client = Client(enforce_csrf_checks=True)
    client.force_login(operator, backend="django.contrib.auth.backends.ModelBackend")
    assert {client.post(path).status_code for path in addresses()} == {403}
