"""Publishes key and tenant snapshots to Redis in the call that changed them.

A publication reads what it writes under a lock of its own, so that an older reader can never
overwrite a newer one; values go first, the tenant's version last. What Redis does not take now is
repaired by the next full publication.
"""

import logging
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import redis
from django.db import connection
from django.db.models import QuerySet

from accounts.models import ApiKey, ApiKeyStatus, Tenant, TenantStatus, Workspace
from turnpike.contracts.snapshots import KeySnapshot, TenantWho, WorkspaceSnapshot
from turnpike.control import policy
from turnpike.control.publication import note_published
from turnpike.control.redis import redis_client, text_of
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, codec, keyspace

if TYPE_CHECKING:
    from redis.client import Pipeline

logger = logging.getLogger(__name__)

WHO_FIELD = "who"
# Numbers of advisory locks: two publishers of one tenant take turns.
PUBLICATION_LOCKS = 7_102
BATCH_MAX = 500


def publish_tenant(tenant: int, *, version: int | None = None, keys: Collection[int] = ()) -> bool:
    """Write a tenant's `who` and some of its keys, then raise its version (None: the present one).

    Keys that are not in force are deleted. Returns whether Redis took it; never raises for Redis.
    """
    try:
        with platform_scope("accounts.publish_tenant"):
            _lock_publication(tenant)
            row = Tenant.objects.get(pk=tenant)
            pipeline = redis_client().pipeline(transaction=False)
            _write_who(pipeline, row)
            _write_keys(pipeline, ApiKey.objects.filter(tenant=row, pk__in=list(keys)))
            pipeline.execute()
            policy.raise_tenant_version(tenant, version or row.policy_version)
    except redis.RedisError:
        logger.exception("accounts.not_published", extra={"tenant": tenant})
        return False
    note_published()
    return True


def publish_key(key: int) -> bool:
    """Write one key, or delete it if it is not in force, and raise its tenant's version."""
    with platform_scope("accounts.publish_key"):
        tenant = ApiKey.objects.values_list("tenant_id", flat=True).get(pk=key)
    return publish_tenant(tenant, keys=[key])


def delete_key(digest: str) -> bool:
    """Take a key out of Redis by its digest. Returns whether Redis took it."""
    try:
        redis_client().delete(keyspace.key_snapshot(digest))
    except redis.RedisError:
        logger.exception("key.not_deleted")
        return False
    return True


def publish_all() -> int:
    """Write every tenant and key with its version, and delete keys that nobody has.

    Returns how many tenants there were. Raises redis.RedisError where Redis does not take it: the
    caller, who opens shards afterwards, must know.
    """
    # What is in Redis before the database is read was committed before it was read.
    found = set(_published_digests())
    count, published = 0, set[str]()
    for tenant in _tenants():
        published |= _publish_whole(tenant)
        count += 1
    for digest in found - published:
        _repair(digest)
    return count


def who_of(tenant: Tenant) -> TenantWho:
    """A tenant as the data plane reads it."""
    workspaces = Workspace.objects.filter(tenant=tenant).order_by("pk")
    return TenantWho(
        tenant_id=tenant.public_id,
        status=tenant.status,
        workspaces={str(workspace.pk): _workspace(workspace) for workspace in workspaces},
        budgets=tenant.budgets,
    )


def key_of(key: ApiKey) -> KeySnapshot:
    """A key as the data plane reads it; a key in grace expires when its grace ends."""
    ends_at = key.ends_at
    return KeySnapshot(
        key=key.pk,
        key_id=key.public_id,
        tenant=key.tenant_id,
        workspace=key.workspace_id,
        kind=key.kind,
        scopes=tuple(key.scopes),
        models=None if key.allowed_models is None else tuple(key.allowed_models),
        ip_ranges=tuple(key.ip_ranges),
        expires_at_us=None if ends_at is None else clock.us_of_datetime(ends_at),
        member=None if key.created_by is None else key.created_by.public_id,
        limits=key.limits,
        budgets=key.budgets,
    )


def is_in_force(key: ApiKey, now: datetime) -> bool:
    """Whether the data plane may know the key: if not, its holder gets 401."""
    return (
        key.status_at(now) == ApiKeyStatus.ACTIVE
        and key.workspace.archived_at is None
        and key.tenant.status != TenantStatus.CLOSED
    )


def _workspace(workspace: Workspace) -> WorkspaceSnapshot:
    return WorkspaceSnapshot(
        workspace_id=workspace.public_id,
        is_active=workspace.archived_at is None,
        limits=workspace.limits,
        budgets=workspace.budgets,
    )


def _lock_publication(tenant: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(%s, hashint8(%s))", [PUBLICATION_LOCKS, tenant]
        )


def _write_who(pipeline: "Pipeline", tenant: Tenant) -> None:
    name = keyspace.tenant_snapshot(tenant.pk)
    pipeline.hset(name, WHO_FIELD, codec.to_json(who_of(tenant)))


def _write_keys(pipeline: "Pipeline", keys: QuerySet[ApiKey]) -> set[str]:
    now, published = clock.utc_now(), set[str]()
    for key in keys.select_related("tenant", "workspace", "created_by"):
        name = keyspace.key_snapshot(key.digest)
        if is_in_force(key, now):
            # Redis forgets the key by itself at its end, should nobody come to delete it.
            ends_at = key.ends_at
            pipeline.set(name, codec.to_json(key_of(key)), pxat=ends_at and _ms_up(ends_at))
            published.add(key.digest)
        else:
            pipeline.delete(name)
    return published


def _ms_up(at: datetime) -> int:
    return -(-clock.us_of_datetime(at) // 1_000)


def _publish_whole(tenant: int) -> set[str]:
    """One tenant with all keys that may be in force; the digests that were written."""
    with platform_scope("accounts.publish_all"):
        _lock_publication(tenant)
        row = Tenant.objects.get(pk=tenant)
        pipeline = redis_client().pipeline(transaction=False)
        _write_who(pipeline, row)
        live = ApiKey.objects.filter(tenant=row, revoked_at__isnull=True, disabled_at__isnull=True)
        published = _write_keys(pipeline, live)
        pipeline.execute()
        policy.raise_tenant_version(tenant, row.policy_version)
    return published


def _repair(digest: str) -> None:
    """A digest that is in Redis and was not just written: gone, ended, or changed a moment ago."""
    with platform_scope("accounts.publish_all"):
        key = ApiKey.objects.filter(digest=digest).values_list("pk", flat=True).first()
    if key is None:
        redis_client().delete(keyspace.key_snapshot(digest))
    else:
        publish_key(key)


def _tenants() -> Iterator[int]:
    last = 0
    while True:
        with platform_scope("accounts.publish_all"):
            rows = Tenant.objects.filter(pk__gt=last).order_by("pk")
            batch = list(rows.values_list("pk", flat=True)[:BATCH_MAX])
        yield from batch
        if len(batch) < BATCH_MAX:
            return
        last = batch[-1]


def _published_digests() -> Iterator[str]:
    prefix = keyspace.key_snapshot("")
    for name in redis_client().scan_iter(match=f"{prefix}*", count=1_000):
        yield text_of(name).removeprefix(prefix)
