"""Celery tasks: the edges of what runs by time. All of them may run twice, and at once."""

import logging

from celery import shared_task
from django.core.cache import cache

from billing.ingest.consumer import Consumer, consumer_name
from billing.services import (
    batch_records,
    budget_alerts,
    closing,
    export_files,
    invoices,
    partitions,
    publication,
    retention,
    standing,
    upkeep,
    wallet,
)
from billing.services.batch_running import run_parts
from billing.services.budget_letters import tell_alerts
from billing.services.payments import dunning
from billing.services.payments.intake import handle_waiting
from billing.services.payments.low_balance import warn_low_balances
from billing.services.payments.reload import run_auto_reloads
from billing.services.payments.sweep import sweep_payments as sweep
from billing.services.reconciliation import reconcile_and_keep
from turnpike.control.redis import redis_client
from turnpike.kernel import clock

logger = logging.getLogger(__name__)

INGEST_SECONDS_MAX = 25.0
# While a run renews this, others of the same second end at once; a killed run blocks no longer.
INGEST_LEASE_SECONDS = 5
INGEST_LEASE = "billing.ingest_usage"
# After this long no further part is begun; one turn waits for an upstream at most so much longer.
BATCH_SECONDS_MAX = 20.0
BATCH_TURN_SECONDS_MAX = 1_800


@shared_task(name="billing.tasks.ingest_usage")
def ingest_usage() -> int:
    """Post what the streams hold, until they are empty or the time is over."""
    if not cache.add(INGEST_LEASE, consumer_name(), timeout=INGEST_LEASE_SECONDS):
        return 0
    try:
        return Consumer(redis_client(), name=consumer_name()).drain(
            until_seconds=clock.monotonic_seconds() + INGEST_SECONDS_MAX, keep_on=_renew_lease
        )
    finally:
        cache.delete(INGEST_LEASE)


@shared_task(name="billing.tasks.keep_warm")
def keep_warm() -> bool:
    """Publish everything where a shard is cold."""
    return publication.check_cold()


@shared_task(name="billing.tasks.publish_everything")
def publish_everything() -> bool:
    """Publish all that the data plane reads; False where somebody else is at it."""
    return publication.publish_everything() is not None


@shared_task(name="billing.tasks.sweep_unposted")
def sweep_unposted() -> int:
    """Repair missed publications and lost stream entries."""
    swept = upkeep.sweep_unposted()
    return swept.published + swept.appended


@shared_task(name="billing.tasks.refresh_wallets")
def refresh_wallets() -> int:
    """Publish the wallets that Redis lacks or has an old version of."""
    return upkeep.refresh_wallets()


@shared_task(name="billing.tasks.make_partitions")
def make_partitions() -> int:
    """Keep three months of partitions ahead."""
    return partitions.make_partitions()


@shared_task(name="billing.tasks.expire_grants")
def expire_grants() -> int:
    """Take back granted credit whose time is over; returns how many grants ended."""
    return wallet.expire_grants(at=clock.utc_now())


@shared_task(name="billing.tasks.handle_payment_events")
def handle_payment_events() -> int:
    """Act upon messages of payment providers that had to wait."""
    return handle_waiting(at=clock.utc_now())


@shared_task(name="billing.tasks.sweep_payments")
def sweep_payments() -> int:
    """Find payments whose message never came; returns how many there were."""
    return sweep(at=clock.utc_now())


@shared_task(name="billing.tasks.reload_credit")
def reload_credit() -> int:
    """Charge saved cards where the balance is low and its owner wants that."""
    return run_auto_reloads(at=clock.utc_now())


@shared_task(name="billing.tasks.dun_invoices")
def dun_invoices() -> int:
    """Announce invoices, remind of those that are overdue, charge cards that pay them."""
    return dunning.dun_invoices(at=clock.utc_now())


@shared_task(name="billing.tasks.warn_of_low_credit")
def warn_of_low_credit() -> int:
    """Write to tenants whose credit ends soon."""
    return warn_low_balances(at=clock.utc_now())


@shared_task(name="billing.tasks.watch_budgets")
def watch_budgets() -> int:
    """Note what budgets reached, and tell it; returns how many thresholds were told."""
    now = clock.utc_now()
    budget_alerts.watch_budgets(at=now)
    return tell_alerts(at=now)


@shared_task(name="billing.tasks.close_periods")
def close_periods() -> int:
    """Close months that are over and draw up their documents; returns how many were drawn up."""
    now = clock.utc_now()
    closing.close_due_periods(at=now)
    drawn_up = closing.draft_documents(at=now)
    invoices.finalize_due_drafts(at=now)
    return drawn_up


@shared_task(name="billing.tasks.reconcile_usage")
def reconcile_usage() -> int:
    """Compare every sum with what it sums; returns how many differences there are."""
    run = reconcile_and_keep(actor="system")
    for finding in run.findings:
        if finding["differences"]:
            logger.error(
                "reconcile.differences",
                extra={
                    "check": finding["check"],
                    "count": finding["differences"],
                    "examples": finding["examples"],
                },
            )
    return run.differences


@shared_task(name="billing.tasks.build_exports")
def build_exports() -> int:
    """Build the copies of their data that tenants asked for."""
    return export_files.build_exports()


@shared_task(name="billing.tasks.apply_retention")
def apply_retention() -> int:
    """Remove what is over, kind by kind; returns how many rows went."""
    run = retention.apply_retention(at=clock.utc_now())
    return sum(run.removed.values())


@shared_task(name="billing.tasks.look_at_components")
def look_at_components() -> int:
    """Note which parts of the platform answer; returns how many do not."""
    return standing.look_at_components(at=clock.utc_now())


@shared_task(name="billing.tasks.run_batches", time_limit=BATCH_TURN_SECONDS_MAX)
def run_batches() -> int:
    """Carry on the parts of message batches that are due; returns how many turns that took."""
    return run_parts(until_seconds=clock.monotonic_seconds() + BATCH_SECONDS_MAX)


@shared_task(name="billing.tasks.archive_batches")
def archive_batches() -> int:
    """Delete the results of batches whose time is over; returns how many batches."""
    return batch_records.archive_batches(now=clock.utc_now())


def _renew_lease() -> bool:
    cache.touch(INGEST_LEASE, INGEST_LEASE_SECONDS)
    return True
