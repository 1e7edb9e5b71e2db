"""Calls of the Admin API, and what they leave in the audit log."""

from typing import Any

from rest_framework.test import APIClient

from accounts.models import AuditEvent, Tenant
from accounts.queries import get_default_workspace
from turnpike.control.scope import platform_scope

BASE = "/v1/organizations"
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
}


def send(api: APIClient, method: str, path: str, body: Any = None, **query: Any) -> Any:
    """One call; a refusal has Anthropic's shape and the id of its header."""
    where = f"{BASE}/{path}"
    answer: Any = (
        api.get(where, query) if method == "get" else getattr(api, method)(where, body, "json")
    )
    if answer.status_code >= 400:
        said = answer.json()
        assert set(said) == {"type", "error", "request_id"}
        assert said["error"]["type"] == ERROR_TYPES[answer.status_code]
        assert said["request_id"] == answer["request-id"]
    return answer


def ok(api: APIClient, method: str, path: str, body: Any = None, **query: Any) -> dict[str, Any]:
    """The body of a call that is accepted."""
    answer = send(api, method, path, body, **query)
    assert answer.status_code == 200, answer.content
    found: dict[str, Any] = answer.json()
    return found


def default_of(tenant: Tenant) -> str:
    """The id of the workspace that every tenant has."""
    with platform_scope("tests"):
        return get_default_workspace(tenant).public_id


def audited(tenant: Tenant) -> list[str]:
    """What was done in a tenant, the oldest first."""
    with platform_scope("tests"):
        rows = AuditEvent.objects.filter(tenant=tenant).order_by("pk")
        return list(rows.values_list("action", flat=True))
