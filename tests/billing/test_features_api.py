"""Operators switch features; tenants and operators choose what a client's leaving means."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts.models import AuditEvent, Role
from billing.services.catalog import import_catalog
from billing.services.tiers import ensure_tiers
from billing.snapshots import plane_snapshot, terms_of
from tests.accounts.factories import client_of, make_tenant, make_user, signed_in
from turnpike.contracts.features import FEATURES
from turnpike.control.scope import platform_scope

pytestmark = pytest.mark.django_db

PATH = "/api/v1/operator/features"
WHY = {"reason": "asked for"}


@pytest.fixture
def staff() -> APIClient:
    """An operator of the platform."""
    return signed_in(make_user(is_staff=True))


def last_audit() -> AuditEvent:
    with platform_scope("test"):
        return AuditEvent.objects.order_by("-pk")[0]


def test_everything_is_off_until_an_operator_says_so(staff: APIClient) -> None:
    shown = staff.get(PATH).data

    assert (shown["is_claude_only"], shown["allowed_features"]) == (False, [])
    assert shown["known_features"] == dict(FEATURES)


def test_a_switch_holds_from_the_next_request_and_is_audited(staff: APIClient) -> None:
    body = {"is_claude_only": True, "allowed_features": ["threads", "threads"], **WHY}

    changed = staff.patch(PATH, body, format="json")

    assert changed.status_code == 200
    assert changed.data["allowed_features"] == ["threads"]
    switches = plane_snapshot().switches
    assert (switches.is_claude_only, switches.allowed_features) == (True, ("threads",))
    event = last_audit()
    assert (event.action, event.reason) == ("platform.switches_changed", "asked for")
    assert event.before == {"is_claude_only": False, "allowed_features": [], "schema": 1}
    kept = staff.patch(PATH, {"is_claude_only": False, **WHY}, format="json")
    assert kept.data["allowed_features"] == ["threads"]


def test_a_tier_has_features_of_its_own(staff: APIClient) -> None:
    ensure_tiers()

    changed = staff.put(
        "/api/v1/operator/tiers/pro/features",
        {"allowed_features": ["code_execution"], **WHY},
        format="json",
    )

    assert changed.data["allowed_features"] == ["code_execution"]
    tiers = plane_snapshot().tiers
    assert tiers["pro"].allowed_features == ("code_execution",)
    assert tiers["basic"].allowed_features == ()
    assert last_audit().target == "tier/pro"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("patch", PATH, {"allowed_features": ["telepathy"], **WHY}, 400),
        ("patch", PATH, {"is_claude_only": True}, 400),
        ("patch", PATH, {"is_claude_only": True, "reason": " "}, 400),
        ("put", "/api/v1/operator/tiers/gold/features", {"allowed_features": [], **WHY}, 404),
    ],
)
def test_nonsense_changes_nothing(
    staff: APIClient, method: str, path: str, body: Any, status: int
) -> None:
    answer = getattr(staff, method)(path, body, format="json")

    assert answer.status_code == status
    assert plane_snapshot().switches.is_claude_only is False


def test_only_operators_switch_features() -> None:
    tenant = make_tenant()

    for role in Role:
        assert client_of(tenant, role).get(PATH).status_code in (401, 403)


def disconnect_of(tenant: Any) -> tuple[str, int | None]:
    with platform_scope("test"):
        terms = terms_of([tenant.pk])[tenant.pk]
    return terms.on_disconnect, terms.drain_seconds


def test_a_tenant_decides_what_its_clients_leaving_means() -> None:
    import_catalog()
    tenant = make_tenant()
    owner = client_of(tenant, Role.OWNER)

    before = owner.get("/api/v1/disconnect").data
    changed = owner.put(
        "/api/v1/disconnect", {"on_disconnect": "drain", "drain_seconds": 30}, format="json"
    )

    assert before == {"on_disconnect": "", "drain_seconds": None}
    assert (changed.status_code, changed.data["drain_seconds"]) == (200, 30)
    assert disconnect_of(tenant) == ("drain", 30)
    event = last_audit()
    assert (event.tenant_id, event.action) == (tenant.pk, "subscription.changed")
    assert event.actor.startswith("user_")


@pytest.mark.parametrize("role", [Role.DEVELOPER, Role.BILLING, Role.VIEWER])
def test_who_may_not_change_the_tenant_may_not_change_this(role: Role) -> None:
    client = client_of(make_tenant(), role)

    answer = client.put("/api/v1/disconnect", {"on_disconnect": "drain"}, format="json")

    assert answer.status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        {"on_disconnect": "never"},
        {"on_disconnect": "drain", "drain_seconds": 0},
        {"on_disconnect": "drain", "drain_seconds": 3_601},
        {"drain_seconds": 5},
    ],
)
def test_a_policy_that_does_not_exist_is_refused(body: Any) -> None:
    client = client_of(make_tenant(), Role.OWNER)

    assert client.put("/api/v1/disconnect", body, format="json").status_code == 400


def test_an_operator_sets_it_for_a_tenant_with_a_reason(staff: APIClient) -> None:
    import_catalog()
    tenant = make_tenant()
    path = f"/api/v1/operator/tenants/{tenant.public_id}/disconnect"

    refused = staff.put(path, {"on_disconnect": "cancel"}, format="json")
    changed = staff.put(path, {"on_disconnect": "cancel", **WHY}, format="json")

    assert (refused.status_code, changed.status_code) == (400, 200)
    assert disconnect_of(tenant) == ("cancel", None)
    assert last_audit().reason == "asked for"
