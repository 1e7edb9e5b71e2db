"""Global changes, and full publications: how a lost Redis comes back.

A shard is cold while its policy lacks the global version, or has an epoch older than PostgreSQL's.
The first publication of an installation opens at once; every later one means that data was lost,
and opens behind a fence in which gateways report what they have under way.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import connection, transaction
from django.db.models import F

from accounts import snapshots as account_snapshots
from billing import snapshots
from billing.locks import PUBLICATION_LOCKS, lock_publication, lock_state
from billing.models.state import STATE_ID, PlatformState
from billing.services.posting import publish_wallet
from turnpike.control import policy
from turnpike.control.publication import note_planned
from turnpike.control.scope import platform_scope
from turnpike.kernel import keyspace

logger = logging.getLogger(__name__)

FULL_PUBLICATION_LOCK = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What a full publication did."""

    tenants: int
    epoch: int
    opened_shards: tuple[int, ...]
    is_fenced: bool


def touch_plane() -> int:
    """Raise the global version in the caller's transaction and publish the plane after it."""
    with transaction.atomic():
        state = lock_state()
        PlatformState.objects.filter(pk=STATE_ID).update(policy_version=F("policy_version") + 1)
        note_planned()
        transaction.on_commit(snapshots.publish_plane)
        return state.policy_version + 1


def publish_everything() -> Publication | None:
    """Write everything that the data plane reads, then open the shards that were cold.

    None where another process is at it. Raises redis.RedisError where Redis is away.
    """
    with _alone() as is_alone:
        return _publish_everything() if is_alone else None


def check_cold() -> bool:
    """Publish in full if a shard is cold or lags behind; whether it was necessary."""
    with platform_scope("billing.check_cold"):
        state = PlatformState.objects.filter(pk=STATE_ID).first()
    shards = [policy.read_policy(shard) for shard in range(keyspace.SHARDS)]
    if state is not None and all(
        shard.version is not None
        and shard.version >= state.policy_version
        and shard.epoch >= state.epoch
        for shard in shards
    ):
        return False
    return publish_everything() is not None


def _publish_everything() -> Publication:
    epoch, cold, is_fenced = _begin_epoch()
    if cold:
        logger.warning("publication.cold", extra={"shards": len(cold), "epoch": epoch})
    # Terms and wallets go before `publish_all`, which raises the tenants' versions.
    for tenants in _tenant_batches():
        with platform_scope("billing.publish_everything"):
            for tenant in tenants:
                lock_publication(tenant=tenant)
            snapshots.write_terms(tenants)
        for tenant in tenants:
            publish_wallet(tenant=tenant)
    count = account_snapshots.publish_all()
    with platform_scope("billing.publish_everything"):
        version = snapshots.write_plane()
        for shard in range(keyspace.SHARDS):
            fence_ms = policy.FENCE_MS if is_fenced and shard in cold else 0
            policy.open_shard(shard, version=version, epoch=epoch, fence_ms=fence_ms)
    return Publication(
        tenants=count, epoch=epoch, opened_shards=tuple(sorted(cold)), is_fenced=is_fenced
    )


def _begin_epoch() -> tuple[int, set[int], bool]:
    """The epoch to publish under, the shards that are cold, and whether their data was lost.

    A new epoch is committed before anything is published: a process that dies half-way leaves
    shards that look lost, never lost ones that look new.
    """
    with platform_scope("billing.begin_epoch"):
        state = lock_state()
        cold = set()
        for shard in range(keyspace.SHARDS):
            seen = policy.read_policy(shard)
            if seen.version is None or seen.epoch < state.epoch:
                cold.add(shard)
        if cold:
            PlatformState.objects.filter(pk=STATE_ID).update(epoch=state.epoch + 1)
        return state.epoch + bool(cold), cold, bool(cold) and state.epoch > 0


def _tenant_batches() -> Iterator[list[int]]:
    last = 0
    while True:
        with platform_scope("billing.list_tenants"):
            batch = snapshots.tenants_after(last)
        if not batch:
            return
        yield batch
        last = batch[-1]


@contextmanager
def _alone() -> Iterator[bool]:
    """True for one process at a time; an ended connection gives the lock back."""
    with connection.cursor() as cursor:
        names = [PUBLICATION_LOCKS, FULL_PUBLICATION_LOCK]
        cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", names)
        (is_alone,) = cursor.fetchone()
        try:
            yield is_alone
        finally:
            if is_alone:
                cursor.execute("SELECT pg_advisory_unlock(%s, %s)", names)
