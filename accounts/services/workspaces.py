"""create_workspace, update_workspace, archive_workspace."""

import re
from collections.abc import Mapping
from typing import Any

from accounts.models import ApiKey, Tenant, Workspace
from accounts.services.audit import record_audit
from accounts.services.keys import tell_of_key
from accounts.services.policy import lock_tenant, touch_tenant
from accounts.services.settings import LIMITED_FIELDS, apply_changes, check_changes
from accounts.services.webhook_events import KEY_REVOKED
from turnpike.control.caller import Caller
from turnpike.kernel import clock
from turnpike.kernel.errors import Conflict, InvalidInput

WORKSPACES_MAX = 100
TAGS_MAX = 50
TAG_NAME_LENGTH_MAX = 64
TAG_VALUE_LENGTH_MAX = 256
CHANGEABLE = frozenset({"name", "display_color", "tags", *LIMITED_FIELDS})
_COLOR = re.compile(r"#[0-9A-Fa-f]{6}")


def create_workspace(*, caller: Caller, tenant: Tenant, settings: Mapping[str, Any]) -> Workspace:
    """Make a workspace: `name`, and limits and budgets below the tenant's if given."""
    checked = _check_look(check_changes(settings, allowed=CHANGEABLE), known={})
    lock_tenant(tenant.pk)
    in_use = Workspace.objects.filter(tenant=tenant, archived_at__isnull=True)
    if in_use.count() >= WORKSPACES_MAX:
        raise Conflict(f"A tenant has at most {WORKSPACES_MAX} workspaces in use.")
    _check_name_is_free(tenant.pk, checked["name"])
    workspace = Workspace.objects.create(tenant=tenant, **checked)
    record_audit(
        actor=caller,
        tenant=tenant.pk,
        action="workspace.created",
        target=workspace.public_id,
        after=checked,
    )
    touch_tenant(tenant.pk)
    return workspace


def update_workspace(
    *, caller: Caller, workspace: Workspace, changes: Mapping[str, Any]
) -> Workspace:
    """Change a workspace's name, limits, budgets or look; holds from the next request.

    Tags are added to those that there are; a tag of None is taken away.
    """
    checked = check_changes(changes, allowed=CHANGEABLE)
    row = _lock_in_use(workspace)
    checked = _check_look(checked, known=row.tags)
    if checked.get("name", row.name) != row.name:
        _check_name_is_free(row.tenant_id, checked["name"])
    before, after = apply_changes(row, checked)
    record_audit(
        actor=caller,
        tenant=row.tenant_id,
        action="workspace.updated",
        target=row.public_id,
        before=before,
        after=after,
    )
    touch_tenant(row.tenant_id)
    return row


def archive_workspace(*, caller: Caller, workspace: Workspace) -> Workspace:
    """End a workspace for good and revoke its keys. The default one cannot be archived."""
    row, now = _lock_in_use(workspace), clock.utc_now()
    if row.is_default:
        raise Conflict("The default workspace cannot be archived.")
    apply_changes(row, {"archived_at": now})
    live = ApiKey.objects.filter(workspace=row, revoked_at__isnull=True)
    ended = list(live.order_by("pk"))
    keys = [key.pk for key in ended]
    ApiKey.objects.filter(pk__in=keys).update(revoked_at=now)
    record_audit(
        actor=caller,
        tenant=row.tenant_id,
        action="workspace.archived",
        target=row.public_id,
        after={"archived_at": clock.rfc3339(now), "revoked_keys": len(keys)},
    )
    for key in ended:
        tell_of_key(KEY_REVOKED, key, caller)
    touch_tenant(row.tenant_id, keys=keys)
    return row


def _check_look(changes: dict[str, Any], *, known: Mapping[str, str]) -> dict[str, Any]:
    color = changes.get("display_color")
    if color is not None and not _COLOR.fullmatch(color):
        raise InvalidInput("display_color must look like #6C5BB9.", field="display_color")
    if "tags" not in changes:
        return changes
    given = changes["tags"]
    for name, value in given.items():
        is_named = 0 < len(name) <= TAG_NAME_LENGTH_MAX and name.isprintable()
        if not is_named or name.lower().startswith("anthropic"):
            raise InvalidInput(
                f"tags: a name has 1 to {TAG_NAME_LENGTH_MAX} printable characters and does not"
                " begin with anthropic.",
                field="tags",
            )
        if value is not None and len(value) > TAG_VALUE_LENGTH_MAX:
            raise InvalidInput(
                f"tags: a value has at most {TAG_VALUE_LENGTH_MAX} characters.", field="tags"
            )
    merged = {name: value for name, value in {**known, **given}.items() if value is not None}
    if len(merged) > TAGS_MAX:
        raise InvalidInput(f"tags: a workspace has at most {TAGS_MAX}.", field="tags")
    return {**changes, "tags": merged}


def _lock_in_use(workspace: Workspace) -> Workspace:
    lock_tenant(workspace.tenant_id)
    row = Workspace.objects.select_for_update().get(pk=workspace.pk)
    if row.archived_at is not None:
        raise Conflict("The workspace is archived.")
    return row


def _check_name_is_free(tenant: int, name: str) -> None:
    if Workspace.objects.filter(tenant_id=tenant, name=name, archived_at__isnull=True).exists():
        raise Conflict("Another workspace has this name.")
