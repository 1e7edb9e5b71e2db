"""Rows of accounts for tests: valid and boring unless told otherwise."""

from typing import Any

from rest_framework.test import APIClient

from accounts.access import ROLE_POWERS
from accounts.models import ApiKey, Member, Role, Tenant, User, WebhookEndpoint, Workspace
from accounts.queries import get_default_workspace
from accounts.services.keys import IssuedKey, issue_key
from accounts.services.members import SentInvite, add_member, invite_member
from accounts.services.tenants import create_tenant
from accounts.services.webhooks import create_webhook, send_test
from accounts.services.workspaces import create_workspace
from turnpike.control.caller import SYSTEM, Caller, Power
from turnpike.control.scope import platform_scope
from turnpike.kernel import ids

REASON = "for a test"


def make_tenant(name: str = "Acme") -> Tenant:
    """A tenant with its default workspace."""
    return create_tenant(caller=SYSTEM, name=name)


def make_user(email: str = "", **fields: Any) -> User:
    """A person without a password."""
    address = email or f"{ids.uuid7().hex}@example.com"
    return User.objects.create_user(address, **fields)


def make_member(tenant: Tenant, role: str = Role.OWNER, user: User | None = None) -> Member:
    """A person in a tenant."""
    with platform_scope(REASON):
        person = user or make_user()
        return add_member(caller=SYSTEM, tenant=tenant, user=person, role=role)


def make_workspace(tenant: Tenant, name: str = "", **settings: Any) -> Workspace:
    """A workspace beside the default one."""
    with platform_scope(REASON):
        named = {"name": name or ids.uuid7().hex, **settings}
        return create_workspace(caller=SYSTEM, tenant=tenant, settings=named)


def make_key(
    tenant: Tenant,
    kind: str = ApiKey.Kind.API,
    workspace: Workspace | None = None,
    caller: Caller = SYSTEM,
    **settings: Any,
) -> IssuedKey:
    """A key in the default workspace."""
    with platform_scope(REASON):
        return issue_key(
            caller=caller,
            workspace=workspace or get_default_workspace(tenant),
            kind=kind,
            settings={"name": "a key", **settings},
        )


def make_invite(tenant: Tenant, email: str = "", role: str = Role.VIEWER) -> SentInvite:
    """An open invitation."""
    with platform_scope(REASON):
        address = email or f"{ids.uuid7().hex}@example.com"
        return invite_member(caller=SYSTEM, tenant=tenant, email=address, role=role)


def make_webhook(tenant: Tenant, url: str = "https://example.com/hooks") -> WebhookEndpoint:
    """An endpoint that wants everything, with a test event that waits."""
    with platform_scope(REASON):
        issued = create_webhook(caller=SYSTEM, tenant=tenant, url=url, description="")
        send_test(caller=SYSTEM, endpoint=issued.endpoint)
        return issued.endpoint


def caller_of(member: Member) -> Caller:
    """The caller that a member is."""
    return Caller(
        actor=member.user.public_id,
        tenant=member.tenant_id,
        powers=ROLE_POWERS[member.role],
        user=member.user_id,
    )


def signed_in(user: User) -> APIClient:
    """A client with a user's session."""
    client = APIClient()
    client.force_login(user)
    return client


def client_of(tenant: Tenant, role: str = Role.OWNER) -> APIClient:
    """A client signed in as a new member."""
    return signed_in(make_member(tenant, role).user)


def client_with_key(secret: str) -> APIClient:
    """A client that sends a key."""
    client = APIClient()
    client.credentials(HTTP_X_API_KEY=secret)
    return client


def management_client(tenant: Tenant, *powers: Power) -> APIClient:
    """A client with a new management key that has some powers (none named: all)."""
    scopes = list(powers or Power)
    return client_with_key(make_key(tenant, ApiKey.Kind.MANAGEMENT, scopes=scopes).secret)
