"""View as tenant: an operator looks at a tenant's console for a while, and changes nothing.

What one looks at stands in the session and ends by itself. The audit log of the tenant says who
looked, why and until when. A middleware refuses every other method than reading meanwhile.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.http import HttpRequest

from accounts.models import Tenant, User
from accounts.services.audit import record_audit
from accounts.services.settings import check_reason
from turnpike.control.caller import Caller, Power
from turnpike.kernel import clock

SESSION_VIEWING = "viewing"
VIEWING_LASTS = timedelta(minutes=30)
READING = frozenset(power for power in Power if power.endswith(":read"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewing:
    """Whose console an operator looks at, and until when."""

    tenant: int
    ends_at: datetime


def start_viewing(request: HttpRequest, *, caller: Caller, tenant: Tenant, reason: str) -> Viewing:
    """Look at a tenant's console from the next page on. Raises InvalidInput without a reason."""
    viewing = Viewing(tenant=tenant.pk, ends_at=clock.utc_now() + VIEWING_LASTS)
    record_audit(
        actor=caller,
        tenant=tenant.pk,
        action="tenant.viewing_started",
        target=tenant.public_id,
        after={"ends_at": clock.rfc3339(viewing.ends_at)},
        reason=check_reason(reason),
    )
    request.session[SESSION_VIEWING] = {
        "tenant": viewing.tenant,
        "ends_at_ms": int(viewing.ends_at.timestamp() * 1_000),
    }
    return viewing


def end_viewing(request: HttpRequest, *, caller: Caller) -> Tenant | None:
    """Look no more; whose console it was, or None if nobody's."""
    viewing = viewing_in(request.session.pop(SESSION_VIEWING, None))
    tenant = None if viewing is None else Tenant.objects.filter(pk=viewing.tenant).first()
    if tenant is not None:
        record_audit(
            actor=caller,
            tenant=tenant.pk,
            action="tenant.viewing_ended",
            target=tenant.public_id,
        )
    return tenant


def find_viewing(request: HttpRequest, user: User) -> Viewing | None:
    """What an operator looks at now; None for everybody else, and when the time is over."""
    return viewing_in(request.session.get(SESSION_VIEWING)) if user.is_staff else None


def viewing_in(kept: object) -> Viewing | None:
    """What a session keeps, as long as it lasts."""
    if not isinstance(kept, dict):
        return None
    ends_at = clock.datetime_of_us(int(kept["ends_at_ms"]) * 1_000)
    if ends_at <= clock.utc_now():
        return None
    return Viewing(tenant=int(kept["tenant"]), ends_at=ends_at)
