"""issue_key, update_key, disable_key, enable_key, rotate_key, revoke_key, end_graces.

The secret is returned once and never stored; what is stored is its HMAC under the first pepper.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from accounts.access import check_may_give
from accounts.models import (
    IP_RANGES_MAX,
    MODEL_NAME_LENGTH_MAX,
    MODELS_MAX,
    ApiKey,
    ApiKeyStatus,
    Workspace,
)
from accounts.queries import list_ended_graces, list_live_keys
from accounts.services import webhook_events
from accounts.services.audit import record_audit
from accounts.services.policy import lock_tenant, touch_tenant
from accounts.services.settings import LIMITED_FIELDS, apply_changes, check_changes, plain
from turnpike.contracts.snapshots import SCOPES
from turnpike.control.caller import SYSTEM, Caller, Power
from turnpike.control.scope import platform_scope
from turnpike.env import env
from turnpike.kernel import clock, hashing
from turnpike.kernel.errors import Conflict, InvalidInput

KEYS_MAX = 1_000
GRACE_MAX = timedelta(days=30)
CHANGEABLE = frozenset(
    {"name", "scopes", "allowed_models", "ip_ranges", "expires_at", *LIMITED_FIELDS}
)
# What a rotated key inherits.
_COPIED = (*sorted(CHANGEABLE), "kind", "workspace", "tenant")


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedKey:
    """A new key and its secret, which nobody can read again."""

    key: ApiKey
    secret: str

    def __repr__(self) -> str:
        return f"IssuedKey({self.key.public_id})"


def issue_key(
    *,
    caller: Caller,
    workspace: Workspace,
    kind: str = ApiKey.Kind.API,
    settings: Mapping[str, Any],
) -> IssuedKey:
    """Make a key. `settings`: `name`, `scopes` (all of the kind's if missing) and other settings.

    Raises PermissionDenied where a management key would have powers that the caller does not have.
    """
    defaults: dict[str, Any] = {"scopes": None, "ip_ranges": []}
    checked = _check_settings(caller, kind, {**defaults, **settings})
    lock_tenant(workspace.tenant_id)
    if workspace.archived_at is not None:
        raise Conflict("The workspace is archived.")
    issued = _create(caller, {**checked, "kind": kind, "workspace": workspace})
    record_audit(
        actor=caller,
        tenant=workspace.tenant_id,
        action="key.created",
        target=issued.key.public_id,
        after=describe_key(issued.key),
    )
    tell_of_key(webhook_events.KEY_CREATED, issued.key, caller)
    touch_tenant(workspace.tenant_id, keys=[issued.key.pk])
    return issued


def update_key(*, caller: Caller, key: ApiKey, changes: Mapping[str, Any]) -> ApiKey:
    """Change a key's settings; holds from the next request."""
    checked = _check_settings(caller, key.kind, changes)
    row = _lock(key, allowed=(ApiKeyStatus.ACTIVE, ApiKeyStatus.DISABLED))
    return _change(caller, row, checked, action="key.updated")


def disable_key(*, caller: Caller, key: ApiKey) -> ApiKey:
    """Stop a key until it is enabled again: its next request gets 401."""
    row = _lock(key, allowed=(ApiKeyStatus.ACTIVE,))
    return _change(caller, row, {"disabled_at": clock.utc_now()}, action="key.disabled")


def enable_key(*, caller: Caller, key: ApiKey) -> ApiKey:
    """Let a disabled key work again."""
    row = _lock(key, allowed=(ApiKeyStatus.DISABLED,))
    return _change(caller, row, {"disabled_at": None}, action="key.enabled")


def revoke_key(*, caller: Caller, key: ApiKey) -> ApiKey:
    """Stop a key for good: its next request gets 401."""
    row = _lock(key, allowed=(ApiKeyStatus.ACTIVE, ApiKeyStatus.DISABLED, ApiKeyStatus.EXPIRED))
    return _change(caller, row, {"revoked_at": clock.utc_now()}, action="key.revoked")


def rotate_key(*, caller: Caller, key: ApiKey, grace: timedelta) -> IssuedKey:
    """Replace a key by a new one with the same settings; the old one works until the grace ends."""
    if not timedelta(0) <= grace <= GRACE_MAX:
        raise InvalidInput(
            f"grace_seconds must be from 0 to {int(GRACE_MAX.total_seconds())}.",
            field="grace_seconds",
        )
    row, now = _lock(key, allowed=(ApiKeyStatus.ACTIVE,)), clock.utc_now()
    if row.replaced_by is not None:
        raise Conflict("The key was rotated before; rotate its successor.")
    _check_settings(caller, row.kind, {"scopes": list(row.scopes)})
    issued = _create(caller, {name: getattr(row, name) for name in _COPIED})
    changes: dict[str, Any] = {"replaced_by": issued.key, "grace_ends_at": now + grace}
    if not grace:
        changes["revoked_at"] = now
    apply_changes(row, changes)
    record_audit(
        actor=caller,
        tenant=row.tenant_id,
        action="key.rotated",
        target=row.public_id,
        after={
            "replaced_by": issued.key.public_id,
            "grace_ends_at": clock.rfc3339(changes["grace_ends_at"]),
        },
    )
    tell_of_key(
        webhook_events.KEY_ROTATED,
        row,
        caller,
        replaced_by=issued.key.public_id,
        grace_ends_at=clock.rfc3339(changes["grace_ends_at"]),
    )
    touch_tenant(row.tenant_id, keys=[row.pk, issued.key.pk])
    return issued


def revoke_keys_of(*, caller: Caller, tenant: int, user: int | None = None) -> int:
    """Revoke what one person made, or all keys of a tenant, in one change; returns how many."""
    lock_tenant(tenant)
    rows = ApiKey.objects.filter(tenant_id=tenant, revoked_at__isnull=True)
    if user is not None:
        rows = rows.filter(created_by_id=user)
    keys = list(rows.select_related("workspace").order_by("pk"))
    now = clock.utc_now()
    for key in keys:
        before, after = apply_changes(key, {"revoked_at": now})
        record_audit(
            actor=caller,
            tenant=tenant,
            action="key.revoked",
            target=key.public_id,
            before=before,
            after=after,
        )
        tell_of_key(webhook_events.KEY_REVOKED, key, caller)
    if keys:
        touch_tenant(tenant, keys=[key.pk for key in keys])
    return len(keys)


def end_graces(*, at: datetime) -> int:
    """Revoke replaced keys whose grace is over at a time; how many there were."""
    with platform_scope("accounts.end_graces"):
        ended = list(list_ended_graces(at))
    for key in ended:
        with platform_scope("accounts.end_graces"):
            lock_tenant(key.tenant_id)
            row = ApiKey.objects.select_for_update().get(pk=key.pk)
            if row.revoked_at is None:
                now = clock.utc_now()
                _change(SYSTEM, row, {"revoked_at": now}, action="key.grace_ended")
    return len(ended)


def describe_key(key: ApiKey) -> dict[str, Any]:
    """A key's settings for the audit log: nothing of its secret but the hint."""
    values = {name: plain(getattr(key, name)) for name in sorted(CHANGEABLE)}
    return {"kind": key.kind, "hint": key.hint, "workspace": key.workspace.public_id, **values}


def tell_of_key(kind: str, key: ApiKey, caller: Caller, **more: str) -> None:
    """Emit an event about a key; its workspace is read where it is not there."""
    webhook_events.emit_event(
        tenant=key.tenant_id,
        kind=kind,
        data={
            "key": key.public_id,
            "name": key.name,
            "hint": key.hint,
            "kind": key.kind,
            "workspace": key.workspace.public_id,
            "actor": caller.actor,
            **more,
        },
    )


def _create(caller: Caller, values: Mapping[str, Any]) -> IssuedKey:
    workspace: Workspace = values["workspace"]
    if list_live_keys(workspace.tenant_id, clock.utc_now()).count() >= KEYS_MAX:
        raise Conflict(f"A tenant has at most {KEYS_MAX} keys in force.")
    is_management = values["kind"] == ApiKey.Kind.MANAGEMENT
    secret = hashing.new_key(
        hashing.MANAGEMENT_KEY_PREFIX if is_management else hashing.API_KEY_PREFIX
    )
    pepper_id, pepper = next(iter(env().peppers.items()))
    key = ApiKey.objects.create(
        **{
            **values,
            "tenant_id": workspace.tenant_id,
            "digest": hashing.digest_key(secret, pepper=pepper),
            "pepper_id": pepper_id,
            "hint": hashing.key_hint(secret),
            "created_by_id": caller.user,
        }
    )
    return IssuedKey(key=key, secret=secret)


def _lock(key: ApiKey, *, allowed: tuple[ApiKeyStatus, ...]) -> ApiKey:
    lock_tenant(key.tenant_id)
    row = ApiKey.objects.select_for_update(of=("self",)).select_related("workspace").get(pk=key.pk)
    status = row.status_at(clock.utc_now())
    if status not in allowed:
        raise Conflict(f"The key is {status}.")
    return row


def _change(caller: Caller, row: ApiKey, changes: Mapping[str, Any], *, action: str) -> ApiKey:
    before, after = apply_changes(row, changes)
    record_audit(
        actor=caller,
        tenant=row.tenant_id,
        action=action,
        target=row.public_id,
        before=before,
        after=after,
    )
    if "revoked_at" in changes:
        tell_of_key(webhook_events.KEY_REVOKED, row, caller)
    touch_tenant(row.tenant_id, keys=[row.pk])
    return row


def _check_settings(caller: Caller, kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    checked = check_changes(settings, allowed=CHANGEABLE)
    if "scopes" in checked:
        checked["scopes"] = _check_scopes(caller, kind, checked["scopes"])
    if checked.get("allowed_models") is not None:
        checked["allowed_models"] = _check_models(checked["allowed_models"])
    if "ip_ranges" in checked:
        checked["ip_ranges"] = _check_ip_ranges(checked["ip_ranges"])
    _check_expiry(checked.get("expires_at"))
    return checked


def _check_scopes(caller: Caller, kind: str, scopes: Sequence[str] | None) -> list[str]:
    if kind == ApiKey.Kind.API:
        known: tuple[str, ...] = SCOPES
        chosen = set(SCOPES if scopes is None else scopes)
    else:
        known = tuple(Power)
        chosen = set(caller.powers if scopes is None else scopes)
    unknown = sorted(chosen - set(known))
    if unknown or not chosen:
        raise InvalidInput(f"scopes must be some of: {', '.join(known)}.", field="scopes")
    if kind == ApiKey.Kind.MANAGEMENT:
        check_may_give(caller, frozenset(Power(scope) for scope in chosen))
    return [scope for scope in known if scope in chosen]


def _check_models(names: Sequence[str]) -> list[str]:
    chosen = list(dict.fromkeys(names))
    is_bounded = 0 < len(chosen) <= MODELS_MAX
    if not is_bounded or not all(0 < len(name) <= MODEL_NAME_LENGTH_MAX for name in chosen):
        raise InvalidInput(
            f"models must be null or 1 to {MODELS_MAX} names of at most"
            f" {MODEL_NAME_LENGTH_MAX} characters.",
            field="models",
        )
    return chosen


def _check_ip_ranges(texts: Sequence[str]) -> list[str]:
    if len(texts) > IP_RANGES_MAX:
        raise InvalidInput(f"ip_ranges has at most {IP_RANGES_MAX} entries.", field="ip_ranges")
    ranges = []
    for text in texts:
        try:
            ranges.append(str(ipaddress.ip_network(text, strict=False)))
        except ValueError as error:
            raise InvalidInput(
                f"Not an address or range: {text[:50]!r}.", field="ip_ranges"
            ) from error
    return list(dict.fromkeys(ranges))


def _check_expiry(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= clock.utc_now():
        raise InvalidInput("expires_at must be in the future.", field="expires_at")
