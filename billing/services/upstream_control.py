"""What operators do with upstreams: create, update, drain, disable, replace a credential.

Each change is written to the platform's audit log with its reason, holds from the next request, and
never shows a secret.
"""

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from accounts.services.audit import record_audit
from accounts.services.settings import check_reason
from billing.models.upstreams import Route, Upstream, UpstreamCredential
from billing.services.publication import touch_plane
from billing.services.upstreams import add_upstream, set_credential
from turnpike.control.caller import Caller
from turnpike.kernel.errors import Conflict, InvalidInput, NotFound

CAP_MAX = 1_000_000_000
CAPS = ("requests_per_minute", "concurrency")
SHOWN_TAIL = 4
CHANGEABLE = frozenset(
    {"weight", "priority", *CAPS, "is_enabled", "is_draining", "on_disconnect", "has_batches"}
)
_COLUMNS = {"weight": "default_weight", "priority": "default_priority"}


def get_upstream(number: str, *, is_locked: bool = False) -> Upstream:
    """An upstream by its id. Raises NotFound."""
    rows = Upstream.objects.select_for_update() if is_locked else Upstream.objects.all()
    row = rows.filter(pk=int(number)).first() if number.isdecimal() and len(number) < 19 else None
    if row is None:
        raise NotFound("There is no such upstream.")
    return row


def create_upstream(
    *, caller: Caller, values: Mapping[str, Any], secret: str | None, reason: str
) -> Upstream:
    """Add an upstream with its routes, in service from the next request."""
    checked_reason = check_reason(reason)
    name, models = str(values["name"]), values.get("models", "*")
    with transaction.atomic():
        if Upstream.objects.filter(name=name).exists():
            raise Conflict(f"There is an upstream {name!r} already.")
        row = add_upstream(
            name=name,
            kind=str(values["kind"]),
            base_url=str(values["base_url"]),
            credential=secret,
            models=models,
            priority=int(values.get("priority", 0)),
        )
        changes = {key: value for key, value in values.items() if key in CHANGEABLE}
        _apply(row, changes)
        record_audit(
            actor=caller,
            tenant=None,
            action="upstream.created",
            target=_target(row),
            after={**_shown(row), "has_credential": secret is not None},
            reason=checked_reason,
        )
        touch_plane()
    return row


def update_upstream(
    *, caller: Caller, number: str, changes: Mapping[str, Any], reason: str
) -> Upstream:
    """Change weight, priority, caps or state; holds from the next request."""
    checked_reason = check_reason(reason)
    unknown = sorted(set(changes) - CHANGEABLE)
    if unknown or not changes:
        raise InvalidInput(f"These can be changed: {', '.join(sorted(CHANGEABLE))}.")
    with transaction.atomic():
        row = get_upstream(number, is_locked=True)
        before = _shown(row)
        _apply(row, changes)
        after = _shown(row)
        changed = [name for name in after if after[name] != before[name]]
        record_audit(
            actor=caller,
            tenant=None,
            action="upstream.updated",
            target=_target(row),
            before={name: before[name] for name in changed},
            after={name: after[name] for name in changed},
            reason=checked_reason,
        )
        touch_plane()
    return row


def replace_credential(
    *,
    caller: Caller,
    number: str,
    name: str,
    secret: str,
    caps: Mapping[str, int | None],
    reason: str,
) -> UpstreamCredential:
    """Add the credential of that name, or put another secret in its place."""
    checked_reason = check_reason(reason)
    if not secret.strip() or not secret.isprintable() or not secret.isascii():
        raise InvalidInput("A credential is printable ASCII without line breaks.", field="secret")
    with transaction.atomic():
        upstream = get_upstream(number, is_locked=True)
        before = UpstreamCredential.objects.filter(upstream=upstream, name=name).first()
        row = set_credential(upstream=upstream, secret=secret, name=name)
        _set_caps(row, caps)
        row.hint = secret[-SHOWN_TAIL:] if len(secret) >= 4 * SHOWN_TAIL else ""
        row.is_enabled = True
        row.save()
        record_audit(
            actor=caller,
            tenant=None,
            action="upstream.credential_replaced" if before else "upstream.credential_added",
            target=f"{_target(upstream)}/credentials/{name}",
            before=None if before is None else {"last_four": before.hint[-SHOWN_TAIL:]},
            after={"last_four": row.hint, **{cap: getattr(row, cap) for cap in CAPS}},
            reason=checked_reason,
        )
        touch_plane()
    return row


def disable_credential(*, caller: Caller, number: str, name: str, reason: str) -> None:
    """Use a credential no more, from the next request. Its secret is thrown away."""
    checked_reason = check_reason(reason)
    with transaction.atomic():
        upstream = get_upstream(number, is_locked=True)
        row = UpstreamCredential.objects.filter(upstream=upstream, name=name).first()
        if row is None:
            raise NotFound(f"There is no credential {name!r}.")
        row.is_enabled, row.sealed = False, ""
        row.save()
        record_audit(
            actor=caller,
            tenant=None,
            action="upstream.credential_disabled",
            target=f"{_target(upstream)}/credentials/{name}",
            before={"last_four": row.hint[-SHOWN_TAIL:]},
            reason=checked_reason,
        )
        touch_plane()


def _apply(row: Upstream, changes: Mapping[str, Any]) -> None:
    _set_caps(row, {name: changes[name] for name in CAPS if name in changes})
    for name in sorted(set(changes) - set(CAPS)):
        setattr(row, _COLUMNS.get(name, name), changes[name])
    if row.default_weight < 1:
        raise InvalidInput("weight is at least 1; disable or drain instead.", field="weight")
    row.save()
    routes = {key: changes[key] for key in ("weight", "priority") if key in changes}
    if routes:
        Route.objects.filter(upstream=row).update(**routes)


def _set_caps(row: Upstream | UpstreamCredential, caps: Mapping[str, int | None]) -> None:
    for name, value in caps.items():
        if value is not None and not 0 <= value <= CAP_MAX:
            raise InvalidInput(f"{name} is between 0 and {CAP_MAX}, or null.", field=name)
        setattr(row, name, value)


def _shown(row: Upstream) -> dict[str, Any]:
    return {
        "weight": row.default_weight,
        "priority": row.default_priority,
        "is_enabled": row.is_enabled,
        "is_draining": row.is_draining,
        "on_disconnect": row.on_disconnect,
        "has_batches": row.has_batches,
        **{cap: getattr(row, cap) for cap in CAPS},
    }


def _target(row: Upstream) -> str:
    return f"upstream/{row.pk}"
