"""The platform's settings that are data: what they are, what they say, and how they change."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from accounts.models import PlatformSetting
from accounts.services.audit import record_audit
from accounts.services.settings import check_reason
from turnpike.control.caller import Caller
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock
from turnpike.kernel.errors import InvalidInput

SECOND_FACTOR_REQUIRED = "second_factor_required"
SUPPORT_CONTACT = "support_contact"
KEEP_EVENTS_DAYS = "keep_events_days"
KEEP_AUDIT_DAYS = "keep_audit_days"
KEEP_MAIL_DAYS = "keep_mail_days"
KEEP_INVITES_DAYS = "keep_invites_days"
KEEP_EXPORTS_DAYS = "keep_exports_days"
KEEP_CLOSED_DAYS = "keep_closed_days"
SUSPEND_OVERDUE_DAYS = "suspend_overdue_days"
TEXT_LENGTH_MAX = 200
FOREVER = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One setting: its default, and the span of a number; 0 is always allowed where `or_never`."""

    default: Any
    minimum: int = 0
    maximum: int = 0
    or_never: bool = False


SETTINGS: Mapping[str, Known] = {
    SECOND_FACTOR_REQUIRED: Known(default=False),
    SUPPORT_CONTACT: Known(default=""),
    KEEP_EVENTS_DAYS: Known(default=400, minimum=93, maximum=3_650, or_never=True),
    KEEP_AUDIT_DAYS: Known(default=730, minimum=90, maximum=3_650, or_never=True),
    KEEP_MAIL_DAYS: Known(default=30, minimum=1, maximum=365),
    KEEP_INVITES_DAYS: Known(default=30, minimum=1, maximum=365),
    KEEP_EXPORTS_DAYS: Known(default=7, minimum=1, maximum=30),
    KEEP_CLOSED_DAYS: Known(default=30, minimum=7, maximum=365),
    # Later than the first reminders, so that nobody is suspended who was not told.
    SUSPEND_OVERDUE_DAYS: Known(default=0, minimum=10, maximum=365, or_never=True),
}


def read_settings() -> dict[str, Any]:
    """All settings as they are now."""
    stored = dict(PlatformSetting.objects.values_list("name", "value"))
    return {name: stored.get(name, known.default) for name, known in SETTINGS.items()}


def read_setting(name: str) -> Any:
    """One setting as it is now."""
    stored = PlatformSetting.objects.filter(name=name).values_list("value", flat=True).first()
    return SETTINGS[name].default if stored is None else stored


def is_second_factor_required() -> bool:
    """Whether owners and staff need a second factor: the environment's word or the operator's."""
    return bool(settings.REQUIRE_SECOND_FACTOR or read_setting(SECOND_FACTOR_REQUIRED))


def change_settings(*, caller: Caller, changes: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """Change some settings; what stays the same is left alone. Returns what changed."""
    checked_reason = check_reason(reason)
    checked = {name: _check(name, value) for name, value in changes.items()}
    with platform_scope("accounts.change_settings"):
        before = read_settings()
        changed = {name: value for name, value in checked.items() if before[name] != value}
        for name, value in changed.items():
            PlatformSetting.objects.update_or_create(
                name=name,
                defaults={
                    "value": value,
                    "changed_at": clock.utc_now(),
                    "changed_by": caller.actor,
                },
            )
        if changed:
            record_audit(
                actor=caller,
                tenant=None,
                action="platform.settings_changed",
                target="platform",
                before={name: before[name] for name in changed},
                after=changed,
                reason=checked_reason,
            )
    return changed


def _check(name: str, value: Any) -> Any:
    known = SETTINGS.get(name)
    if known is None:
        raise InvalidInput(f"There is no setting {name}.", field=name)
    if isinstance(known.default, bool):
        return bool(value)
    if isinstance(known.default, str):
        return str(value).strip()[:TEXT_LENGTH_MAX]
    number = int(value)
    if number == 0 and known.or_never:
        return number
    if not known.minimum <= number <= known.maximum:
        raise InvalidInput(
            f"{name} must be from {known.minimum} to {known.maximum} days.", field=name
        )
    return number
