"""Signing in through an identity provider: people who are here, and nobody else."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import Client, override_settings

from accounts.models import Member, Role, User
from tests.accounts.factories import make_member, make_tenant, make_user
from turnpike.env import Env


class Provider(BaseHTTPRequestHandler):
    """An OpenID Connect provider that knows one person."""

    person: dict[str, Any] = {}

    def do_GET(self) -> None:
        """What it can do, and who the person is."""
        base = f"http://{self.headers['host']}"
        if self.path == "/userinfo":
            self._answer(Provider.person)
            return
        self._answer(
            {
                "issuer": base,
                "authorization_endpoint": f"{base}/authorize",
                "token_endpoint": f"{base}/token",
                "userinfo_endpoint": f"{base}/userinfo",
                "jwks_uri": f"{base}/jwks",
            }
        )

    def do_POST(self) -> None:
        """A token for every code."""
        self.rfile.read(int(self.headers["content-length"]))
        self._answer({"access_token": "token", "token_type": "Bearer"})

    def _answer(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: Any) -> None:
        """Silence."""


@pytest.fixture
def issuer() -> Iterator[str]:
    """The provider's address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def owner(db: None) -> Member:
    return make_member(make_tenant(), Role.OWNER, make_user("alice@example.com"))


def sign_in(issuer: str, **person: Any) -> Client:
    """A browser that went to the provider and came back."""
    Provider.person = {"sub": "1", **person}
    chosen = Env(oidc_issuer=issuer, oidc_client_id="turnpike", oidc_client_secret="secret")
    client = Client()
    with override_settings(
        SOCIALACCOUNT_PROVIDERS={"openid_connect": {"APPS": chosen.identity_providers}}
    ):
        page = client.get("/accounts/login/").content.decode()
        assert "Go on with SSO" in page
        there = client.post("/accounts/oidc/sso/login/?process=login")
        asked = parse_qs(urlsplit(there["location"]).query)
        assert there["location"].startswith(f"{issuer}/authorize?")
        assert asked["code_challenge_method"] == ["S256"]
        client.get(
            "/accounts/oidc/sso/login/callback/", {"code": "code", "state": asked["state"][0]}
        )
    return client


def test_a_member_with_a_verified_address_is_signed_in(owner: Member, issuer: str) -> None:
    client = sign_in(issuer, email="alice@example.com", email_verified=True)

    assert client.get("/console/").status_code == 200


def test_an_address_that_the_provider_did_not_verify_signs_in_nobody(
    owner: Member, issuer: str
) -> None:
    client = sign_in(issuer, email="alice@example.com", email_verified=False)

    assert client.get("/console/").status_code == 302


def test_a_stranger_is_not_let_in_and_no_account_is_made(owner: Member, issuer: str) -> None:
    client = sign_in(issuer, email="mallory@example.com", email_verified=True)

    assert client.get("/console/").status_code == 302
    assert User.objects.filter(email="mallory@example.com").exists() is False


def test_without_a_provider_there_is_no_button_and_no_way(db: None) -> None:
    client = Client()

    page = client.get("/accounts/login/")

    assert b"Go on with" not in page.content
    assert client.post("/accounts/oidc/sso/login/").status_code == 404
    assert "form-action 'self';" in page["content-security-policy"] + ";"


def test_a_form_may_lead_to_the_provider_that_is_set_and_nowhere_else() -> None:
    chosen = Env(oidc_issuer="https://id.example.com/realm/one")

    assert chosen.identity_origins == ("https://id.example.com",)
    assert Env(oidc_issuer="").identity_origins == ()
