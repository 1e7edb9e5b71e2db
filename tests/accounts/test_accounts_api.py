"""What the management API answers: rows, pages, replays, and its own description."""

from datetime import timedelta

import pytest
from django.core.management import call_command
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema

from accounts.models import ApiKey, AuditEvent, IdempotentAnswer, Role, Tenant, Workspace
from accounts.tasks import purge_answers_task
from tests.accounts.factories import (
    REASON,
    client_of,
    make_key,
    make_member,
    make_user,
    signed_in,
)
from turnpike.control.idempotency import KEPT_FOR
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, hashing

NOW_AND_THEN = clock.utc_now() + timedelta(days=1)


def test_a_key_is_shown_whole_but_for_its_secret(tenant: Tenant) -> None:
    member = make_member(tenant, Role.DEVELOPER)
    body = {
        "name": " CI ",
        "scopes": ["models", "messages"],
        "models": ["claude-opus-4-1"],
        "ip_ranges": ["10.1.2.3/8"],
        "expires_at": clock.rfc3339(NOW_AND_THEN),
        "requests_per_minute": 5,
        "monthly_budget": "12.50",
    }

    made = signed_in(member.user).post("/api/v1/keys", body, format="json")
    shown = signed_in(member.user).get(f"/api/v1/keys/{made.json()['id']}")

    secret = made.json()["secret"]
    assert made.status_code == 201
    assert hashing.is_well_formed(secret)
    with platform_scope(REASON):
        key = ApiKey.objects.get()
    assert shown.json() == {
        "id": key.public_id,
        "kind": "api",
        "name": "CI",
        "hint": hashing.key_hint(secret),
        "status": "active",
        "workspace_id": shown.json()["workspace_id"],
        "created_by": member.user.public_id,
        "created_at": clock.rfc3339(key.created_at),
        "scopes": ["messages", "models"],
        "models": ["claude-opus-4-1"],
        "ip_ranges": ["10.0.0.0/8"],
        "expires_at": clock.rfc3339(NOW_AND_THEN),
        "grace_ends_at": None,
        "replaced_by": None,
        "last_used_at": None,
        "requests_per_minute": 5,
        "tokens_per_minute": None,
        "input_tokens_per_minute": None,
        "output_tokens_per_minute": None,
        "concurrency": None,
        "burst_seconds": None,
        "daily_budget": None,
        "monthly_budget": "12.500000000",
        "daily_budget_blocks": True,
        "monthly_budget_blocks": True,
        "currency": "USD",
    }


def test_pages_are_whole_in_order_and_without_repeats(tenant: Tenant) -> None:
    client, made = client_of(tenant), [make_key(tenant).key.public_id for _ in range(5)]
    found: list[str] = []
    sizes: list[int] = []
    cursor: str | None = ""

    while cursor is not None:
        page = client.get("/api/v1/keys", {"limit": "2", "cursor": cursor}).json()
        found += [row["id"] for row in page["data"]]
        sizes.append(len(page["data"]))
        cursor = page["next_cursor"]

    assert found == made[::-1]
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "101"},
        {"limit": "x"},
        {"limit": "-1"},
        {"limit": "1" * 30},
        {"limit": "²"},
        {"cursor": "!"},
        {"cursor": "eA"},
        {"cursor": "x" * 5_000},
        {"cursor": "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk"},
    ],
)
def test_a_bad_page_is_refused(tenant: Tenant, query: dict[str, str]) -> None:
    answer = client_of(tenant).get("/api/v1/keys", query)

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] in query


def test_the_audit_log_is_filtered_and_names_the_caller(tenant: Tenant) -> None:
    member = make_member(tenant)
    client = signed_in(member.user)
    made = client.post("/api/v1/keys", {"name": "k"}, format="json", REMOTE_ADDR="192.0.2.7")

    page = client.get("/api/v1/audit", {"action": "key.created"}).json()

    (event,) = page["data"]
    assert event["actor"] == member.user.public_id
    assert event["target"] == made.json()["id"]
    assert (event["address"], event["request_id"]) == ("192.0.2.7", made["request-id"])
    assert event["after"]["name"] == "k"
    assert client.get("/api/v1/audit", {"actor": "nobody"}).json()["data"] == []
    for bad in ("a\0", "x" * 65):
        assert client.get("/api/v1/audit", {"actor": bad}).status_code == 400


def test_an_operator_makes_a_tenant_and_its_owner_is_invited(db: None) -> None:
    operator = make_user(is_staff=True)
    body = {"name": "New", "owner_email": "boss@example.com", "reason": "signed"}
    client = signed_in(operator)

    made = client.post("/api/v1/operator/tenants", body, format="json")
    stopped = client.post(
        f"/api/v1/operator/tenants/{made.json()['id']}/suspend", {"reason": "abuse"}, format="json"
    )

    assert made.status_code == 201
    assert made.json()["token"]
    assert (stopped.json()["status"], stopped.json()["status_reason"]) == ("suspended", "abuse")
    with platform_scope(REASON):
        event = AuditEvent.objects.get(action="tenant.suspended")
    assert (event.actor, event.reason) == (operator.public_id, "abuse")


def test_one_key_with_another_request_is_a_conflict(tenant: Tenant) -> None:
    client, headers = client_of(tenant), {"idempotency-key": "one"}
    client.post("/api/v1/workspaces", {"name": "a"}, format="json", headers=headers)

    answers = [
        client.post("/api/v1/workspaces", {"name": "b"}, format="json", headers=headers),
        client.post("/api/v1/keys", {"name": "a"}, format="json", headers=headers),
    ]

    assert [answer.status_code for answer in answers] == [409, 409]
    assert answers[0].json()["code"] == "conflict"


def test_a_replay_does_nothing_again_and_belongs_to_its_caller(tenant: Tenant) -> None:
    first, second = client_of(tenant), client_of(tenant)
    headers, body = {"idempotency-key": "one"}, {"name": "a"}

    made = first.post("/api/v1/workspaces", body, format="json", headers=headers)
    again = first.post("/api/v1/workspaces", body, format="json", headers=headers)
    others = second.post("/api/v1/workspaces", body, format="json", headers=headers)

    assert again.status_code == made.status_code == 201
    assert again.json()["id"] == made.json()["id"]
    assert again["idempotency-replayed"] == "true"
    assert others.status_code == 409
    with platform_scope(REASON):
        assert Workspace.objects.filter(name="a").count() == 1


def test_a_refused_request_frees_its_key(tenant: Tenant) -> None:
    client, headers = client_of(tenant), {"idempotency-key": "one"}

    refused = client.post("/api/v1/workspaces", {"name": ""}, format="json", headers=headers)
    made = client.post("/api/v1/workspaces", {"name": "a"}, format="json", headers=headers)

    assert (refused.status_code, made.status_code) == (400, 201)


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
def test_a_malformed_key_is_refused(tenant: Tenant, key: str) -> None:
    answer = client_of(tenant).post(
        "/api/v1/workspaces", {"name": "a"}, format="json", headers={"idempotency-key": key}
    )

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "Idempotency-Key"


def test_old_answers_are_forgotten(tenant: Tenant) -> None:
    client, headers = client_of(tenant), {"idempotency-key": "one"}
    client.post("/api/v1/workspaces", {"name": "a"}, format="json", headers=headers)
    with platform_scope(REASON):
        past = clock.utc_now() - KEPT_FOR - timedelta(seconds=1)
        IdempotentAnswer.objects.update(created_at=past)

    made = client.post("/api/v1/workspaces", {"name": "b"}, format="json", headers=headers)

    assert made.status_code == 201
    assert purge_answers_task() == 0
    with platform_scope(REASON):
        IdempotentAnswer.objects.update(created_at=past)
    assert purge_answers_task() == 1


def test_the_schema_is_made_without_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("spectacular", "--fail-on-warn", "--validate")

    assert "openapi: 3.1.0" in capsys.readouterr().out


def test_the_schema_has_every_route_with_its_answer() -> None:
    schema = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    validate_schema(schema)  # type: ignore[no-untyped-call]

    ours = {path: item for path, item in schema["paths"].items() if path.startswith("/api/v1/")}
    operations = [operation for item in ours.values() for operation in item.values()]

    assert "/api/v1/keys/{key_id}/rotate" in ours
    assert all(operation["responses"] for operation in operations)
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
