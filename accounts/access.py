"""access_*(): the only way an edge gets a tenant's row; checks the tenant and the power.

What belongs to another tenant is not found. The matrix says which role has which powers; a
management key has the powers that its scopes name.
"""

from collections.abc import Mapping
from typing import TypeVar

from django.db.models import Model, QuerySet

from accounts.models import (
    ApiKey,
    AuditEvent,
    Invite,
    Member,
    Role,
    Tenant,
    User,
    WebhookDelivery,
    WebhookEndpoint,
    Workspace,
)
from turnpike.control.caller import ALL_POWERS, Caller, Power
from turnpike.control.models import PublicModel
from turnpike.kernel.errors import NotFound, PermissionDenied

Row = TypeVar("Row", bound=Model)

_VIEWER = frozenset({Power.TENANT_READ, Power.WORKSPACES_READ, Power.USAGE_READ})
_DEVELOPER = _VIEWER | {
    Power.KEYS_READ,
    Power.KEYS_WRITE,
    Power.MEMBERS_READ,
    Power.REQUESTS_READ,
    Power.WEBHOOKS_READ,
}
_BILLING = _VIEWER | {Power.BILLING_READ, Power.BILLING_WRITE}

ROLE_POWERS: Mapping[str, frozenset[Power]] = {
    Role.OWNER: ALL_POWERS,
    Role.ADMIN: ALL_POWERS - {Power.OWNERS_WRITE},
    Role.DEVELOPER: _DEVELOPER,
    Role.BILLING: _BILLING,
    Role.VIEWER: _VIEWER,
}


def check_power(caller: Caller, power: Power) -> None:
    """Raise PermissionDenied unless the caller has the power."""
    if not caller.has_power(power):
        raise PermissionDenied(f"This needs the power {power}.")


def check_may_give(caller: Caller, powers: frozenset[Power]) -> None:
    """Raise PermissionDenied if the caller would give powers that they do not have."""
    missing = sorted(powers - caller.powers)
    if missing:
        raise PermissionDenied(f"You cannot give what you do not have: {', '.join(missing)}.")


def check_role(caller: Caller, role: str) -> None:
    """Raise PermissionDenied unless the caller may give or take this role."""
    check_may_give(caller, ROLE_POWERS[role])
    if role == Role.OWNER:
        check_power(caller, Power.OWNERS_WRITE)


def access_tenant(caller: Caller, *, power: Power) -> Tenant:
    """The caller's own tenant."""
    check_power(caller, power)
    tenant = Tenant.objects.filter(pk=_tenant_of(caller)).first()
    if tenant is None:
        raise NotFound("There is no such tenant.")
    return tenant


def access_any_tenant(caller: Caller, tenant_id: str) -> Tenant:
    """A tenant by its public id, for operators alone."""
    if not caller.is_operator:
        raise PermissionDenied("This is for operators of the platform.")
    return _found(Tenant.objects.all(), Tenant, tenant_id, noun="tenant")


def access_workspaces(caller: Caller, *, power: Power) -> QuerySet[Workspace]:
    """The workspaces of the caller's tenant."""
    check_power(caller, power)
    return Workspace.objects.filter(tenant_id=_tenant_of(caller))


def access_workspace(caller: Caller, workspace_id: str, *, power: Power) -> Workspace:
    """A workspace of the caller's tenant by its public id."""
    rows = access_workspaces(caller, power=power)
    return _found(rows, Workspace, workspace_id, noun="workspace")


def access_members(caller: Caller, *, power: Power) -> QuerySet[Member]:
    """The members of the caller's tenant, with their users."""
    check_power(caller, power)
    return Member.objects.filter(tenant_id=_tenant_of(caller)).select_related("user")


def access_member(caller: Caller, user_id: str, *, power: Power) -> Member:
    """A member of the caller's tenant by the user's public id."""
    rows = access_members(caller, power=power)
    return _found(rows, User, user_id, noun="member", field="user__uuid")


def access_invites(caller: Caller, *, power: Power) -> QuerySet[Invite]:
    """The invites of the caller's tenant."""
    check_power(caller, power)
    return Invite.objects.filter(tenant_id=_tenant_of(caller))


def access_invite(caller: Caller, invite_id: str, *, power: Power) -> Invite:
    """An invite of the caller's tenant by its public id."""
    rows = access_invites(caller, power=power)
    return _found(rows, Invite, invite_id, noun="invite")


def access_keys(caller: Caller, *, power: Power) -> QuerySet[ApiKey]:
    """The keys of the caller's tenant with what is shown beside them; none of a playground."""
    check_power(caller, power)
    rows = ApiKey.objects.filter(tenant_id=_tenant_of(caller), kind__in=ApiKey.Kind.values)
    return rows.select_related("workspace", "created_by", "replaced_by")


def access_key(caller: Caller, key_id: str, *, power: Power) -> ApiKey:
    """A key of the caller's tenant; to change a management key takes a power of its own."""
    key = _found(access_keys(caller, power=power), ApiKey, key_id, noun="key")
    if power == Power.KEYS_WRITE and key.kind == ApiKey.Kind.MANAGEMENT:
        check_power(caller, Power.MANAGEMENT_KEYS_WRITE)
    return key


def access_audit_events(caller: Caller, *, power: Power) -> QuerySet[AuditEvent]:
    """The audit log of the caller's tenant."""
    check_power(caller, power)
    return AuditEvent.objects.filter(tenant_id=_tenant_of(caller))


def access_webhooks(caller: Caller, *, power: Power) -> QuerySet[WebhookEndpoint]:
    """The webhook endpoints of the caller's tenant."""
    check_power(caller, power)
    return WebhookEndpoint.objects.filter(tenant_id=_tenant_of(caller))


def access_webhook(caller: Caller, webhook_id: str, *, power: Power) -> WebhookEndpoint:
    """A webhook endpoint of the caller's tenant by its public id."""
    rows = access_webhooks(caller, power=power)
    return _found(rows, WebhookEndpoint, webhook_id, noun="webhook endpoint")


def access_deliveries(caller: Caller, *, power: Power) -> QuerySet[WebhookDelivery]:
    """What was sent to the endpoints of the caller's tenant, or will be."""
    check_power(caller, power)
    rows = WebhookDelivery.objects.filter(tenant_id=_tenant_of(caller))
    return rows.select_related("event", "endpoint")


def access_delivery(caller: Caller, delivery_id: str, *, power: Power) -> WebhookDelivery:
    """A delivery of the caller's tenant by its public id."""
    rows = access_deliveries(caller, power=power)
    return _found(rows, WebhookDelivery, delivery_id, noun="delivery")


def _tenant_of(caller: Caller) -> int:
    if caller.tenant is None:
        raise PermissionDenied("This caller acts for no tenant.")
    return caller.tenant


def _found(
    rows: QuerySet[Row], named: type[PublicModel], text: str, *, noun: str, field: str = "uuid"
) -> Row:
    """The row with this public id of the named model; a text that is no id is not found."""
    try:
        row = rows.filter(**{field: named.parse_public_id(text)}).first()
    except ValueError:
        row = None
    if row is None:
        raise NotFound(f"There is no such {noun}.")
    return row
