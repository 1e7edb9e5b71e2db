"""request_export, expire_exports: a copy of a tenant's data, for its owner, for a time."""

from datetime import timedelta

from accounts.models import DataExport, ExportPart, Tenant
from accounts.services.audit import record_audit
from accounts.services.policy import lock_tenant
from turnpike.control.caller import Caller
from turnpike.control.scope import platform_scope
from turnpike.control.tasks import enqueue_on_commit
from turnpike.kernel import clock
from turnpike.kernel.errors import Conflict, NotFound, PermissionDenied

BUILD = "billing.tasks.build_exports"
KEPT_MAX = 5
# A build that has not come to an end in this time never will.
BUILD_TIME_MAX = timedelta(hours=1)


def request_export(*, caller: Caller, tenant: Tenant) -> DataExport:
    """Ask for a copy of everything that the tenant has here; it is built in the background."""
    if caller.user is None:
        raise PermissionDenied("A person asks for an export, not a program.")
    lock_tenant(tenant.pk)
    rows = DataExport.objects.filter(tenant=tenant)
    if rows.filter(state=DataExport.State.PENDING).exists():
        raise Conflict("An export is being built.")
    if rows.filter(state=DataExport.State.READY).count() >= KEPT_MAX:
        raise Conflict(f"There are {KEPT_MAX} exports already; wait until one has expired.")
    export = DataExport.objects.create(tenant=tenant, requested_by_id=caller.user)
    _record(caller, export, "export.requested")
    enqueue_on_commit(BUILD)
    return export


def read_export(*, caller: Caller, export: DataExport) -> bytes:
    """The file, while it can be fetched; that it was is in the audit log."""
    is_open = export.expires_at is not None and export.expires_at > clock.utc_now()
    if export.state != DataExport.State.READY or not is_open:
        raise NotFound("There is no such export, or its time is over.")
    _record(caller, export, "export.fetched")
    parts = ExportPart.objects.filter(export=export).order_by("place")
    return b"".join(bytes(data) for data in parts.values_list("data", flat=True))


def expire_exports() -> int:
    """Drop the files whose time is over, and give up builds that never ended."""
    now = clock.utc_now()
    with platform_scope("accounts.expire_exports"):
        over = DataExport.objects.filter(state=DataExport.State.READY, expires_at__lte=now)
        numbers = list(over.values_list("pk", flat=True))
        ExportPart.objects.filter(export_id__in=numbers).delete()
        DataExport.objects.filter(pk__in=numbers).update(state=DataExport.State.EXPIRED)
        DataExport.objects.filter(
            state=DataExport.State.PENDING, created_at__lte=now - BUILD_TIME_MAX
        ).update(state=DataExport.State.FAILED, finished_at=now)
    return len(numbers)


def _record(caller: Caller, export: DataExport, action: str) -> None:
    record_audit(actor=caller, tenant=export.tenant_id, action=action, target=export.public_id)
