"""suspend_debtor, lift_suspension: who has not paid for long is not served until it has paid.

Off unless an operator sets after how many days. What an operator suspended stays suspended, and
what an operator resumed is not suspended again for the same invoice.
"""

from datetime import datetime, timedelta

from accounts.models import Tenant, TenantStatus
from accounts.services.platform_settings import SUSPEND_OVERDUE_DAYS, read_setting
from accounts.services.policy import lock_tenant
from accounts.services.tenants import resume_tenant, suspend_tenant
from billing.models.invoices import Invoice, InvoiceReminder
from turnpike.control.caller import SYSTEM

Status = Invoice.Status


def overdue_since(at: datetime) -> datetime | None:
    """Invoices due until then are overdue for too long; None where nothing ever is."""
    days = read_setting(SUSPEND_OVERDUE_DAYS)
    return at - timedelta(days=days) if days else None


def suspend_debtor(invoice: Invoice) -> bool:
    """Serve its tenant no more; False where the tenant is not served anyway."""
    tenant = lock_tenant(invoice.tenant_id)
    if tenant.status != TenantStatus.ACTIVE:
        return False
    suspend_tenant(caller=SYSTEM, tenant=tenant, reason=_reason(invoice))
    return True


def lift_suspension(*, tenant: int, at: datetime) -> bool:
    """Serve a tenant again that was suspended for what it has paid; whether it is.

    Called under the locks of what was paid: takes the tenant's last.
    """
    row = lock_tenant(tenant)
    if row.status != TenantStatus.SUSPENDED or not _is_settled(row, at):
        return False
    resume_tenant(caller=SYSTEM, tenant=row, reason="The overdue invoice is settled.")
    return True


def _is_settled(tenant: Tenant, at: datetime) -> bool:
    """Whether it was we who suspended it, and nothing that it owes is overdue for too long."""
    steps = InvoiceReminder.objects.filter(tenant=tenant, step=InvoiceReminder.SUSPENDED)
    suspended_for = [step.invoice for step in steps.select_related("invoice")]
    cause = next((item for item in suspended_for if _reason(item) == tenant.status_reason), None)
    if cause is None or cause.status in (Status.OPEN, Status.UNCOLLECTIBLE):
        return False
    since = overdue_since(at)
    late = Invoice.objects.filter(tenant=tenant, kind=Invoice.Kind.INVOICE, status=Status.OPEN)
    return since is None or not late.filter(due_at__lte=since).exists()


def _reason(invoice: Invoice) -> str:
    return f"Invoice {invoice.number} is overdue."
