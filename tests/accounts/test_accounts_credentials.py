"""Who gets in, and that secrets do not get out."""

import io
import ipaddress
import json
import logging
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from pytest_django import Settings
from redis.backoff import NoBackoff
from redis.retry import Retry
from rest_framework.test import APIClient, APIRequestFactory

from accounts.api.auth import FAILURES_MAX
from accounts.models import ApiKey, Tenant
from tests.accounts.factories import (
    REASON,
    client_of,
    client_with_key,
    make_key,
    make_member,
    management_client,
)
from turnpike.control import drf
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, hashing, ids, logs


def test_a_session_changes_nothing_without_its_csrf_token(tenant: Tenant) -> None:
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(make_member(tenant).user)

    assert client.get("/api/v1/tenant").status_code == 200
    assert client.patch("/api/v1/tenant", {"name": "X"}, format="json").status_code == 403


def test_either_header_carries_a_management_key(tenant: Tenant) -> None:
    secret, other = (make_key(tenant, ApiKey.Kind.MANAGEMENT).secret for _ in range(2))
    cases = [
        ({"x-api-key": secret}, 200),
        ({"authorization": f"Bearer {secret}"}, 200),
        ({"authorization": f"bearer {secret}"}, 200),
        ({"x-api-key": secret, "authorization": f"Bearer {secret}"}, 200),
        ({"x-api-key": secret, "authorization": f"Bearer {other}"}, 401),
        ({"authorization": f"Basic {secret}"}, 401),
        ({"x-api-key": ""}, 401),
        ({"x-api-key": "garbage"}, 401),
        ({"x-api-key": secret[:-1] + ("A" if secret[-1] != "A" else "B")}, 401),
        ({"x-api-key": hashing.new_key(hashing.MANAGEMENT_KEY_PREFIX)}, 401),
    ]

    found = [APIClient().get("/api/v1/tenant", headers=headers) for headers, _ in cases]

    assert [answer.status_code for answer in found] == [status for _, status in cases]
    assert found[-1]["www-authenticate"] == "Bearer"
    assert found[-1].json()["code"] == "not_authenticated"


def test_a_bad_key_beside_a_good_session_is_refused(tenant: Tenant) -> None:
    client = client_of(tenant)

    assert client.get("/api/v1/tenant", headers={"x-api-key": "garbage"}).status_code == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"disabled_at": clock.utc_now()},
        {"revoked_at": clock.utc_now()},
        {"expires_at": clock.utc_now()},
    ],
)
def test_a_stopped_management_key_is_not_known(tenant: Tenant, changes: dict[str, Any]) -> None:
    issued = make_key(tenant, ApiKey.Kind.MANAGEMENT)
    with platform_scope(REASON):
        ApiKey.objects.filter(pk=issued.key.pk).update(**changes)

    assert client_with_key(issued.secret).get("/api/v1/tenant").status_code == 401


def test_a_closed_tenant_lets_nobody_in(tenant: Tenant) -> None:
    key, member = management_client(tenant), client_of(tenant)
    with platform_scope(REASON):
        Tenant.objects.filter(pk=tenant.pk).update(status="closed")

    assert key.get("/api/v1/tenant").status_code == 401
    assert member.get("/api/v1/tenant").status_code == 403


def test_a_key_with_ranges_works_from_them_alone(tenant: Tenant) -> None:
    issued = make_key(tenant, ApiKey.Kind.MANAGEMENT, ip_ranges=["192.0.2.0/24", "2001:db8::/32"])
    client = client_with_key(issued.secret)

    found = {
        address: client.get("/api/v1/tenant", REMOTE_ADDR=address).status_code
        for address in ("192.0.2.9", "192.0.3.9", "2001:db8::1", "2001:db9::1", "", "junk")
    }

    assert found == {
        "192.0.2.9": 200,
        "192.0.3.9": 403,
        "2001:db8::1": 200,
        "2001:db9::1": 403,
        "": 403,
        "junk": 403,
    }


def test_a_forged_forwarded_header_moves_nobody(tenant: Tenant) -> None:
    issued = make_key(tenant, ApiKey.Kind.MANAGEMENT, ip_ranges=["192.0.2.0/24"])
    headers = {"x-forwarded-for": "192.0.2.9"}

    answer = client_with_key(issued.secret).get(
        "/api/v1/tenant", headers=headers, REMOTE_ADDR="198.51.100.1"
    )

    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", "192.0.2.9", "192.0.2.9"),
        ("10.0.0.1", "192.0.2.9, 10.0.0.2", "192.0.2.9"),
        ("10.0.0.1", "198.51.100.1, 192.0.2.9", "192.0.2.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.3", "10.0.0.3"),
        ("10.0.0.1", "junk", ""),
        ("198.51.100.7", "192.0.2.9", "198.51.100.7"),
    ],
)
def test_trusted_proxies_name_the_client(
    monkeypatch: pytest.MonkeyPatch, peer: str, forwarded: str, client: str
) -> None:
    networks = (ipaddress.ip_network("10.0.0.0/8"),)
    monkeypatch.setattr(drf, "_trusted_networks", lambda: networks)
    request = APIRequestFactory().get("/", REMOTE_ADDR=peer, HTTP_X_FORWARDED_FOR=forwarded)

    assert drf.client_address(request) == client


def test_without_the_cache_keys_are_still_known_and_unknown(
    tenant: Tenant, settings: Settings
) -> None:
    secret = make_key(tenant, ApiKey.Kind.MANAGEMENT).secret
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": "redis://127.0.0.1:1/0",
            "OPTIONS": {"retry": Retry(NoBackoff(), 0)},
        }
    }

    statuses = [
        client_with_key(key).get("/api/v1/tenant").status_code for key in (secret, "garbage")
    ]

    assert statuses == [200, 401]


def test_keys_made_under_an_older_pepper_work_on(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = make_key(tenant, ApiKey.Kind.MANAGEMENT)
    older = b"an-older-pepper-an-older-pepper-0000"
    with platform_scope(REASON):
        digest = hashing.digest_key(issued.secret, pepper=older)
        ApiKey.objects.filter(pk=issued.key.pk).update(digest=digest, pepper_id="p0")
    client = client_with_key(issued.secret)

    before = client.get("/api/v1/tenant").status_code
    _use_peppers(monkeypatch, older)

    assert (before, client.get("/api/v1/tenant").status_code) == (401, 200)


def _use_peppers(monkeypatch: pytest.MonkeyPatch, older: bytes) -> None:
    from turnpike.env import env

    peppers = f"{env().key_peppers},p0:{older.decode()}"
    changed = env().model_copy(update={"key_peppers": peppers})
    monkeypatch.setattr("accounts.api.auth.env", lambda: changed)


def test_use_is_noted_at_most_once_a_minute(tenant: Tenant) -> None:
    issued = make_key(tenant, ApiKey.Kind.MANAGEMENT)
    client, key = client_with_key(issued.secret), issued.key
    client.get("/api/v1/tenant")
    with platform_scope(REASON):
        first = ApiKey.objects.get(pk=key.pk).last_used_at

    client.get("/api/v1/tenant")

    with platform_scope(REASON):
        assert ApiKey.objects.get(pk=key.pk).last_used_at == first
        assert first is not None


def test_guessing_from_one_address_is_slowed_down(tenant: Tenant) -> None:
    secret = make_key(tenant, ApiKey.Kind.MANAGEMENT).secret
    guess = {"x-api-key": "garbage"}
    for _ in range(FAILURES_MAX):
        APIClient().get("/api/v1/tenant", headers=guess, REMOTE_ADDR="192.0.2.1")

    limited = APIClient().get("/api/v1/tenant", headers=guess, REMOTE_ADDR="192.0.2.1")
    elsewhere = client_with_key(secret).get("/api/v1/tenant", REMOTE_ADDR="192.0.2.2")

    assert (limited.status_code, limited.json()["code"]) == (429, "rate_limited")
    assert int(limited["retry-after"]) > 0
    assert elsewhere.status_code == 200


def test_a_secret_is_nowhere_but_in_the_answer_that_made_it(tenant: Tenant) -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.set_up_logs(level="DEBUG", is_json=True, stream=stream)
    try:
        client = client_of(tenant)
        headers = {"idempotency-key": "one"}
        made = client.post("/api/v1/keys", {"name": "k"}, format="json", headers=headers).json()
        secret, path = made["secret"], f"/api/v1/keys/{made['id']}"
        rotated = client.post(f"{path}/rotate", {"grace_seconds": 9}, format="json").json()
        APIClient().get("/api/v1/tenant", headers={"x-api-key": secret})
        again = client.post("/api/v1/keys", {"name": "k"}, format="json", headers=headers)
        pages = [client.get("/api/v1/keys"), client.get("/api/v1/audit"), client.get(path), again]
        logging.getLogger("test").info("planted", extra={"key": secret})
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)

    texts = [stream.getvalue(), *(page.content.decode() for page in pages), _whole_database()]
    for leaked in (secret, rotated["secret"]):
        assert hashing.is_well_formed(leaked)
        assert [leaked in text for text in texts] == [False] * len(texts)
    assert "tpk_live_***" in stream.getvalue()


def _whole_database() -> str:
    with platform_scope(REASON), connection.cursor() as cursor:
        cursor.execute(
            "SELECT tablename FROM pg_tables"
            " WHERE schemaname = 'public' AND tablename LIKE 'accounts\\_%'"
        )
        rows = []
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT t::text FROM "{table}" t')
            rows += [text for (text,) in cursor.fetchall()]
    return "\n".join(rows)


@pytest.mark.django_db(transaction=True)
def test_issue_key_makes_a_tenant_once_and_keys_each_time(redis_client: Any) -> None:
    first, second = (
        _issue_key("--tenant-name", "Acme", "--tier", "Pro", "--credit", "2.5") for _ in range(2)
    )

    assert set(first) == {"tenant", "api_key", "management_key"}
    assert first["tenant"] == second["tenant"]
    assert ids.parse_public_id(ids.TENANT, first["tenant"]).version == 7
    assert len({*first.values(), *second.values()}) == 5
    client = client_with_key(first["management_key"])
    assert client.get("/api/v1/tenant").json()["name"] == "Acme"
    assert len(list(redis_client.scan_iter("tp:key:*"))) == 4


def _issue_key(*arguments: str) -> dict[str, str]:
    out = io.StringIO()
    call_command("issue_key", *arguments, "--json", stdout=out)
    (line,) = out.getvalue().splitlines()
    answer: dict[str, str] = json.loads(line)
    return answer
