"""create_tenant, update_tenant, suspend_tenant, resume_tenant, close_tenant."""

from collections.abc import Mapping
from typing import Any

from accounts.models import ApiKey, Tenant, TenantStatus, Workspace
from accounts.services.audit import record_audit
from accounts.services.policy import lock_tenant, touch_tenant
from accounts.services.settings import (
    BUDGET_MODES,
    BUDGET_NAMES,
    apply_changes,
    check_changes,
    check_name,
    check_reason,
)
from turnpike.control.caller import Caller
from turnpike.control.scope import platform_scope
from turnpike.kernel.errors import Conflict

DEFAULT_WORKSPACE_NAME = "Default"
CHANGEABLE = frozenset({"name", *BUDGET_NAMES, *BUDGET_MODES})


def create_tenant(*, caller: Caller, name: str, reason: str = "") -> Tenant:
    """Make a tenant with its default workspace and publish it."""
    with platform_scope("accounts.create_tenant"):
        tenant = Tenant.objects.create(name=check_name(name))
        Workspace.objects.create(tenant=tenant, name=DEFAULT_WORKSPACE_NAME, is_default=True)
        record_audit(
            actor=caller,
            tenant=tenant.pk,
            action="tenant.created",
            target=tenant.public_id,
            after={"name": tenant.name},
            reason=reason,
        )
        touch_tenant(tenant.pk)
    return tenant


def update_tenant(*, caller: Caller, tenant: Tenant, changes: Mapping[str, Any]) -> Tenant:
    """Change a tenant's name or budgets; holds from the next request."""
    checked = check_changes(changes, allowed=CHANGEABLE)
    row = lock_tenant(tenant.pk)
    before, after = apply_changes(row, checked)
    record_audit(
        actor=caller,
        tenant=row.pk,
        action="tenant.updated",
        target=row.public_id,
        before=before,
        after=after,
    )
    touch_tenant(row.pk)
    return row


def suspend_tenant(*, caller: Caller, tenant: Tenant, reason: str) -> Tenant:
    """Refuse a tenant's requests with 403 until it is resumed."""
    return _change_status(
        caller,
        tenant,
        allowed=(TenantStatus.ACTIVE,),
        status=TenantStatus.SUSPENDED,
        action="tenant.suspended",
        reason=reason,
    )


def resume_tenant(*, caller: Caller, tenant: Tenant, reason: str) -> Tenant:
    """Serve a suspended tenant again."""
    return _change_status(
        caller,
        tenant,
        allowed=(TenantStatus.SUSPENDED,),
        status=TenantStatus.ACTIVE,
        action="tenant.resumed",
        reason=reason,
    )


def close_tenant(*, caller: Caller, tenant: Tenant, reason: str) -> Tenant:
    """End a tenant for good: its keys are unknown from the next request; its records stay."""
    return _change_status(
        caller,
        tenant,
        allowed=(TenantStatus.ACTIVE, TenantStatus.SUSPENDED),
        status=TenantStatus.CLOSED,
        action="tenant.closed",
        reason=reason,
    )


def _change_status(
    caller: Caller,
    tenant: Tenant,
    *,
    allowed: tuple[TenantStatus, ...],
    status: TenantStatus,
    action: str,
    reason: str,
) -> Tenant:
    checked_reason = check_reason(reason)
    row = lock_tenant(tenant.pk)
    if row.status not in allowed:
        raise Conflict(f"The tenant is {row.status}.")
    before, after = apply_changes(row, {"status": status.value, "status_reason": checked_reason})
    record_audit(
        actor=caller,
        tenant=row.pk,
        action=action,
        target=row.public_id,
        before=before,
        after=after,
        reason=checked_reason,
    )
    live = ApiKey.objects.filter(tenant=row, revoked_at__isnull=True)
    touch_tenant(row.pk, keys=list(live.values_list("pk", flat=True)))
    return row
