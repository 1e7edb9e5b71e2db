"""Changes at the same time: what is published, logged and answered afterwards is one truth."""

from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import redis
from django.db import connection

from accounts import snapshots
from accounts.models import ApiKey, Tenant, Workspace
from accounts.services.audit import find_broken_event
from accounts.services.keys import update_key
from tests.accounts.factories import REASON, make_key, make_member, signed_in
from tests.accounts.side_by_side import side_by_side
from turnpike.contracts.snapshots import KeySnapshot, TenantWho
from turnpike.control.caller import SYSTEM
from turnpike.control.scope import platform_scope
from turnpike.kernel import codec, keyspace

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_last_of_many_changes_is_what_is_published(
    redis_client: redis.Redis, live_tenant: Tenant
) -> None:
    key = make_key(live_tenant).key

    def change(number: int) -> ApiKey:
        with platform_scope(REASON):
            return update_key(caller=SYSTEM, key=key, changes={"concurrency": number + 1})

    outcomes = side_by_side(12, change)

    assert all(isinstance(outcome, ApiKey) for outcome in outcomes)
    with platform_scope(REASON):
        stored = ApiKey.objects.select_related("tenant").get(pk=key.pk)
        assert find_broken_event(tenant=live_tenant.pk) is None
    text = redis_client.get(keyspace.key_snapshot(key.digest))
    assert text is not None
    assert codec.from_json(KeySnapshot, text).limits.concurrency == stored.concurrency
    policy = keyspace.policy(keyspace.shard_of(live_tenant.pk))
    assert int(redis_client.hget(policy, str(live_tenant.pk)) or 0) == stored.tenant.policy_version
    assert stored.tenant.policy_version == 2 + 1 + 12


def test_a_publisher_reads_only_when_nobody_else_publishes_the_tenant(
    redis_client: redis.Redis, live_tenant: Tenant
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with platform_scope(REASON):
            snapshots._lock_publication(live_tenant.pk)
            waiting = pool.submit(_publish, live_tenant.pk)
            assert _is_blocked_by_us(waiting)
            Tenant.objects.filter(pk=live_tenant.pk).update(status="suspended")
        assert waiting.result(timeout=30) is True

    text = redis_client.hget(keyspace.tenant_snapshot(live_tenant.pk), "who")
    assert text is not None
    assert codec.from_json(TenantWho, text).status == "suspended"


def _publish(tenant: int) -> bool:
    try:
        return snapshots.publish_tenant(tenant)
    finally:
        connection.close()


def _is_blocked_by_us(waiting: Future[bool]) -> bool:
    """Whether another connection comes to wait for one of our locks before it is done."""
    while not waiting.done():
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_locks"
                " WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
            )
            if cursor.fetchone() != (0,):
                return True
    return False


def test_one_idempotency_key_sent_at_once_does_one_thing(
    redis_client: redis.Redis, live_tenant: Tenant
) -> None:
    user = make_member(live_tenant).user
    clients = [signed_in(user) for _ in range(6)]

    answers = side_by_side(
        6,
        lambda number: clients[number].post(
            "/api/v1/workspaces",
            {"name": "one"},
            format="json",
            headers={"idempotency-key": "same"},
        ),
    )

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer for answer in answers) == 1
    with platform_scope(REASON):
        assert Workspace.objects.filter(tenant=live_tenant, name="one").count() == 1
