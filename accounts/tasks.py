"""Celery tasks: fetch by id, call one service, nothing else."""

from celery import shared_task

from accounts.services.audit import check_chains
from accounts.services.keys import end_graces
from accounts.services.mail import deliver_mail
from accounts.services.webhook_delivery import deliver_webhooks
from accounts.snapshots import publish_tenant
from turnpike.control.idempotency import purge_answers
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock


@shared_task(name="accounts.tasks.end_key_grace")
def end_key_grace_task() -> int:
    """Revoke replaced keys whose grace is over."""
    return end_graces(at=clock.utc_now())


@shared_task(name="accounts.tasks.publish_tenant")
def publish_tenant_task(tenant: int) -> bool:
    """Publish a tenant again, by hand or after Redis was away."""
    return publish_tenant(tenant)


@shared_task(name="accounts.tasks.check_audit_chains")
def check_audit_chains_task() -> int:
    """Count the audit logs that were tampered with."""
    return check_chains()


@shared_task(name="accounts.tasks.purge_answers")
def purge_answers_task() -> int:
    """Delete answers to Idempotency-Keys that are older than they are kept."""
    with platform_scope("accounts.purge_answers"):
        return purge_answers()


@shared_task(name="accounts.tasks.deliver_mail")
def deliver_mail_task() -> int:
    """Send the mail that is due."""
    return deliver_mail()


@shared_task(name="accounts.tasks.deliver_webhooks")
def deliver_webhooks_task() -> int:
    """Send the events that are due to the endpoints of tenants."""
    return deliver_webhooks()
