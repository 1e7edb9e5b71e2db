"""Every periodic task and when it runs, in one table."""

from datetime import timedelta
from typing import Any

from celery.schedules import crontab

USAGE_QUEUE = "usage"
BATCH_QUEUE = "batches"
WEBHOOK_QUEUE = "webhooks"


def every(seconds: float, task: str, *, queue: str = "celery") -> dict[str, Any]:
    """An entry at fixed distances; a run that could not start before the next is dropped."""
    return {
        "task": task,
        "schedule": timedelta(seconds=seconds),
        "options": {"queue": queue, "expires": seconds},
    }


def daily(task: str, *, hour: int, minute: int) -> dict[str, Any]:
    """An entry that runs once a day, UTC."""
    return {
        "task": task,
        "schedule": crontab(hour=str(hour), minute=str(minute)),
        "options": {"expires": 3_600},
    }


def hourly(task: str, *, minute: int) -> dict[str, Any]:
    """An entry that runs once an hour."""
    return {
        "task": task,
        "schedule": crontab(minute=str(minute)),
        "options": {"expires": 1_800},
    }


BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    # Money and limits: short distances, so that a loss is seen and repaired soon.
    "ingest-usage": every(1, "billing.tasks.ingest_usage", queue=USAGE_QUEUE),
    "keep-warm": every(2, "billing.tasks.keep_warm"),
    "refresh-wallets": every(5, "billing.tasks.refresh_wallets"),
    "sweep-unposted": every(30, "billing.tasks.sweep_unposted"),
    "run-batches": every(2, "billing.tasks.run_batches", queue=BATCH_QUEUE),
    "end-key-grace": every(30, "accounts.tasks.end_key_grace"),
    "publish-everything": every(300, "billing.tasks.publish_everything"),
    "expire-grants": every(60, "billing.tasks.expire_grants"),
    "reload-credit": every(60, "billing.tasks.reload_credit"),
    "handle-payment-events": every(60, "billing.tasks.handle_payment_events"),
    "sweep-payments": hourly("billing.tasks.sweep_payments", minute=7),
    "dun-invoices": hourly("billing.tasks.dun_invoices", minute=37),
    "warn-of-low-credit": hourly("billing.tasks.warn_of_low_credit", minute=27),
    "watch-budgets": every(60, "billing.tasks.watch_budgets"),
    "close-periods": every(300, "billing.tasks.close_periods"),
    # Housekeeping.
    "deliver-webhooks": every(5, "accounts.tasks.deliver_webhooks", queue=WEBHOOK_QUEUE),
    "deliver-mail": every(30, "accounts.tasks.deliver_mail"),
    "reconcile-usage": hourly("billing.tasks.reconcile_usage", minute=17),
    "check-audit-chains": daily("accounts.tasks.check_audit_chains", hour=3, minute=10),
    "purge-answers": daily("accounts.tasks.purge_answers", hour=3, minute=40),
    "build-exports": every(60, "billing.tasks.build_exports"),
    "look-at-components": every(60, "billing.tasks.look_at_components"),
    "apply-retention": daily("billing.tasks.apply_retention", hour=4, minute=10),
    "archive-batches": hourly("billing.tasks.archive_batches", minute=47),
    "make-partitions": daily("billing.tasks.make_partitions", hour=2, minute=40),
}
