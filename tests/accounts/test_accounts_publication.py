"""What the data plane reads after each change, with real commits and the real Redis."""

from datetime import timedelta

import pytest
import redis
from django.db import transaction
from redis.backoff import NoBackoff
from redis.retry import Retry
from rest_framework.test import APIClient

from accounts import snapshots
from accounts.models import ApiKey, Role, Tenant
from accounts.queries import get_default_workspace
from accounts.services import keys, tenants, workspaces
from accounts.tasks import end_key_grace_task, publish_tenant_task
from tests.accounts.factories import (
    REASON,
    caller_of,
    client_of,
    make_key,
    make_member,
    make_tenant,
    make_workspace,
)
from turnpike.contracts.snapshots import (
    Budget,
    KeySnapshot,
    Limits,
    TenantWho,
    WorkspaceSnapshot,
)
from turnpike.control.caller import SYSTEM, Power
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, codec, keyspace

pytestmark = pytest.mark.django_db(transaction=True)


def read_key(client: redis.Redis, key: ApiKey) -> KeySnapshot | None:
    """The published snapshot of a key."""
    text = client.get(keyspace.key_snapshot(key.digest))
    return None if text is None else codec.from_json(KeySnapshot, text)


def read_who(client: redis.Redis, tenant: Tenant) -> TenantWho:
    """The published `who` of a tenant."""
    text = client.hget(keyspace.tenant_snapshot(tenant.pk), "who")
    assert text is not None
    return codec.from_json(TenantWho, text)


def read_version(client: redis.Redis, tenant: Tenant) -> int:
    """The tenant's version that admissions compare with."""
    return int(client.hget(keyspace.policy(keyspace.shard_of(tenant.pk)), str(tenant.pk)) or 0)


def stored_version(tenant: Tenant) -> int:
    """The tenant's version in the database."""
    with platform_scope(REASON):
        return Tenant.objects.get(pk=tenant.pk).policy_version


def test_a_new_tenant_is_published_with_its_default_workspace(
    redis_client: redis.Redis, live_tenant: Tenant
) -> None:
    with platform_scope(REASON):
        workspace = get_default_workspace(live_tenant)

    assert read_who(redis_client, live_tenant) == TenantWho(
        tenant_id=live_tenant.public_id,
        workspaces={str(workspace.pk): WorkspaceSnapshot(workspace_id=workspace.public_id)},
    )
    assert read_version(redis_client, live_tenant) == stored_version(live_tenant) == 2


def test_a_key_is_published_with_all_that_it_may(
    redis_client: redis.Redis, live_tenant: Tenant
) -> None:
    member = make_member(live_tenant, Role.DEVELOPER)
    workspace = make_workspace(live_tenant, concurrency=5, monthly_budget_nano=7_000_000_999)
    expires_at = clock.utc_now() + timedelta(days=3)

    issued = make_key(
        live_tenant,
        workspace=workspace,
        caller=caller_of(member),
        scopes=["models", "messages"],
        allowed_models=["claude-opus-4-1", "claude-opus-4-1"],
        ip_ranges=["10.0.0.1/8", "2001:db8::1"],
        expires_at=expires_at,
        requests_per_minute=3,
        daily_budget_nano=1_999,
    )

    assert read_key(redis_client, issued.key) == KeySnapshot(
        key=issued.key.pk,
        key_id=issued.key.public_id,
        tenant=live_tenant.pk,
        workspace=workspace.pk,
        kind="api",
        scopes=("messages", "models"),
        models=("claude-opus-4-1",),
        ip_ranges=("10.0.0.0/8", "2001:db8::1/128"),
        expires_at_us=clock.us_of_datetime(expires_at),
        member=member.user.public_id,
        limits=Limits(requests_per_minute=3),
        budgets=(Budget(period="day", limit_micro=1),),
    )
    assert read_who(redis_client, live_tenant).workspaces[str(workspace.pk)] == WorkspaceSnapshot(
        workspace_id=workspace.public_id,
        limits=Limits(concurrency=5),
        budgets=(Budget(period="month", limit_micro=7_000_000),),
    )
    ends_ms = redis_client.pexpiretime(keyspace.key_snapshot(issued.key.digest))
    assert ends_ms == -(-clock.us_of_datetime(expires_at) // 1_000)


def test_a_management_key_is_published_as_one(
    redis_client: redis.Redis, live_tenant: Tenant
) -> None:
    issued = make_key(live_tenant, ApiKey.Kind.MANAGEMENT, scopes=[Power.USAGE_READ])

    snapshot = read_key(redis_client, issued.key)

    assert snapshot is not None
    assert (snapshot.kind, snapshot.scopes) == ("management", ("usage:read",))


@pytest.mark.parametrize("verb", ["disable", "revoke"])
def test_a_stopped_key_is_gone_before_the_answer(
    redis_client: redis.Redis, live_tenant: Tenant, verb: str
) -> None:
    client, issued = client_of(live_tenant), make_key(live_tenant)
    before = read_version(redis_client, live_tenant)

    answer = client.post(f"/api/v1/keys/{issued.key.public_id}/{verb}")

    assert answer.status_code == 200
    assert answer.json()["effective"] is True
    assert read_key(redis_client, issued.key) is None
    assert read_version(redis_client, live_tenant) == before + 1


def test_an_enabled_key_is_back(redis_client: redis.Redis, live_tenant: Tenant) -> None:
    client, issued = client_of(live_tenant), make_key(live_tenant)
    before = read_key(redis_client, issued.key)
    client.post(f"/api/v1/keys/{issued.key.public_id}/disable")

    answer = client.post(f"/api/v1/keys/{issued.key.public_id}/enable")

    assert answer.json()["status"] == "active"
    assert read_key(redis_client, issued.key) == before


def test_a_rotated_key_lives_on_until_its_grace_ends(
    redis_client: redis.Redis, live_tenant: Tenant
) -> None:
    issued = make_key(live_tenant, concurrency=4)
    with platform_scope(REASON):
        new = keys.rotate_key(caller=SYSTEM, key=issued.key, grace=timedelta(hours=1))
        old = ApiKey.objects.get(pk=issued.key.pk)
    assert old.grace_ends_at is not None

    old_snapshot, new_snapshot = read_key(redis_client, old), read_key(redis_client, new.key)

    assert old_snapshot is not None
    assert new_snapshot is not None
    assert old_snapshot.expires_at_us == clock.us_of_datetime(old.grace_ends_at)
    assert new_snapshot.expires_at_us is None
    assert new_snapshot.limits == old_snapshot.limits == Limits(concurrency=4)
    assert new.secret != issued.secret
    assert old.replaced_by_id == new.key.pk


def test_a_rotation_without_grace_ends_the_old_key_at_once(
    redis_client: redis.Redis, live_tenant: Tenant
) -> None:
    issued = make_key(live_tenant)

    with platform_scope(REASON):
        new = keys.rotate_key(caller=SYSTEM, key=issued.key, grace=timedelta(0))

    assert read_key(redis_client, issued.key) is None
    assert read_key(redis_client, new.key) is not None


def test_the_end_of_a_grace_is_cleaned_up_once(
    redis_client: redis.Redis, live_tenant: Tenant
) -> None:
    issued = make_key(live_tenant)
    with platform_scope(REASON):
        keys.rotate_key(caller=SYSTEM, key=issued.key, grace=timedelta(hours=1))
        past = clock.utc_now() - timedelta(seconds=1)
        ApiKey.objects.filter(pk=issued.key.pk).update(grace_ends_at=past)

    assert [end_key_grace_task(), end_key_grace_task()] == [1, 0]

    assert read_key(redis_client, issued.key) is None
    with platform_scope(REASON):
        assert ApiKey.objects.get(pk=issued.key.pk).status_at(clock.utc_now()) == "revoked"


def test_an_expired_key_is_not_published_again(
    redis_client: redis.Redis, live_tenant: Tenant
) -> None:
    issued = make_key(live_tenant)
    with platform_scope(REASON):
        past = clock.utc_now() - timedelta(seconds=1)
        ApiKey.objects.filter(pk=issued.key.pk).update(expires_at=past)

    assert snapshots.publish_key(issued.key.pk)

    assert read_key(redis_client, issued.key) is None


def test_suspension_and_resumption_reach_who_and_leave_the_keys(
    redis_client: redis.Redis, live_tenant: Tenant
) -> None:
    issued, version = make_key(live_tenant), stored_version(live_tenant)

    with platform_scope(REASON):
        tenants.suspend_tenant(caller=SYSTEM, tenant=live_tenant, reason="unpaid")
    suspended = read_who(redis_client, live_tenant).status, read_version(redis_client, live_tenant)
    with platform_scope(REASON):
        tenants.resume_tenant(caller=SYSTEM, tenant=live_tenant, reason="paid")

    assert suspended == ("suspended", version + 1)
    assert read_who(redis_client, live_tenant).status == "active"
    assert read_key(redis_client, issued.key) is not None


def test_a_closed_tenant_has_no_keys(redis_client: redis.Redis, live_tenant: Tenant) -> None:
    issued = make_key(live_tenant)

    with platform_scope(REASON):
        tenants.close_tenant(caller=SYSTEM, tenant=live_tenant, reason="left")

    assert read_key(redis_client, issued.key) is None
    assert read_who(redis_client, live_tenant).status == "closed"


def test_an_archived_workspace_takes_its_keys_with_it(
    redis_client: redis.Redis, live_tenant: Tenant
) -> None:
    workspace = make_workspace(live_tenant)
    inside, outside = make_key(live_tenant, workspace=workspace), make_key(live_tenant)

    with platform_scope(REASON):
        workspaces.archive_workspace(caller=SYSTEM, workspace=workspace)

    assert read_key(redis_client, inside.key) is None
    assert read_key(redis_client, outside.key) is not None
    who = read_who(redis_client, live_tenant)
    assert who.workspaces[str(workspace.pk)].is_active is False


def test_lower_limits_are_published_with_a_newer_version(
    redis_client: redis.Redis, live_tenant: Tenant
) -> None:
    client, issued = client_of(live_tenant), make_key(live_tenant)
    before = read_version(redis_client, live_tenant)

    answer = client.patch(
        f"/api/v1/keys/{issued.key.public_id}",
        {"requests_per_minute": 1, "monthly_budget": "0.5"},
        format="json",
    )

    assert answer.json()["monthly_budget"] == "0.500000000"
    assert answer.json()["effective"] is True
    snapshot = read_key(redis_client, issued.key)
    assert snapshot is not None
    assert snapshot.limits == Limits(requests_per_minute=1)
    assert snapshot.budgets == (Budget(period="month", limit_micro=500_000),)
    assert read_version(redis_client, live_tenant) == before + 1


def test_a_change_that_is_rolled_back_publishes_nothing(
    redis_client: redis.Redis, live_tenant: Tenant
) -> None:
    version = read_version(redis_client, live_tenant)

    with platform_scope(REASON):
        tenants.suspend_tenant(caller=SYSTEM, tenant=live_tenant, reason="oops")
        transaction.set_rollback(True)

    assert read_who(redis_client, live_tenant).status == "active"
    assert read_version(redis_client, live_tenant) == version == stored_version(live_tenant)


def test_several_changes_in_one_transaction_raise_a_version_each(
    redis_client: redis.Redis, live_tenant: Tenant
) -> None:
    version = read_version(redis_client, live_tenant)

    with platform_scope(REASON):
        tenants.suspend_tenant(caller=SYSTEM, tenant=live_tenant, reason="one")
        tenants.resume_tenant(caller=SYSTEM, tenant=live_tenant, reason="two")

    assert read_version(redis_client, live_tenant) == stored_version(live_tenant) == version + 2


def test_a_full_publication_restores_a_lost_redis_and_removes_what_nobody_has(
    redis_client: redis.Redis, live_tenant: Tenant
) -> None:
    other = make_tenant("Other")
    live, revoked = make_key(live_tenant), make_key(other)
    with platform_scope(REASON):
        keys.revoke_key(caller=SYSTEM, key=revoked.key)
    redis_client.flushdb()
    unknown = "0" * 64
    redis_client.set(keyspace.key_snapshot(unknown), "{}")
    redis_client.set(keyspace.key_snapshot(revoked.key.digest), "{}")

    assert snapshots.publish_all() == 2

    assert {name.decode() for name in redis_client.scan_iter("tp:key:*")} == {
        keyspace.key_snapshot(live.key.digest)
    }
    for tenant in (live_tenant, other):
        assert read_who(redis_client, tenant).tenant_id == tenant.public_id
        assert read_version(redis_client, tenant) == stored_version(tenant)


def test_the_repairing_task_writes_a_tenant_again(
    redis_client: redis.Redis, live_tenant: Tenant
) -> None:
    redis_client.flushdb()

    assert publish_tenant_task(live_tenant.pk) is True

    assert read_who(redis_client, live_tenant).tenant_id == live_tenant.public_id


def test_without_redis_a_change_is_kept_and_says_that_it_is_not_effective(
    redis_client: redis.Redis, live_tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, issued = client_of(live_tenant), make_key(live_tenant)
    nowhere = redis.Redis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0))
    monkeypatch.setattr(snapshots, "redis_client", lambda: nowhere)
    path = f"/api/v1/keys/{issued.key.public_id}/revoke"

    answer = client.post(path, headers={"idempotency-key": "one"})
    again = client.post(path, headers={"idempotency-key": "one"})

    assert answer.status_code == 200
    assert answer.json()["effective"] is False
    assert answer.json()["status"] == "revoked"
    assert again.json() == answer.json()
    assert snapshots.delete_key(issued.key.digest) is False


def test_a_deleted_digest_is_gone(redis_client: redis.Redis, live_tenant: Tenant) -> None:
    issued = make_key(live_tenant)

    assert snapshots.delete_key(issued.key.digest) is True

    assert read_key(redis_client, issued.key) is None


def test_a_replayed_creation_makes_one_key_and_shows_its_secret_once(
    redis_client: redis.Redis, live_tenant: Tenant
) -> None:
    client = client_of(live_tenant)

    first, second = (
        client.post(
            "/api/v1/keys", {"name": "a"}, format="json", headers={"idempotency-key": "once"}
        )
        for _ in range(2)
    )

    assert (first.status_code, second.status_code) == (201, 201)
    assert second["idempotency-replayed"] == "true"
    assert second.json() == {**first.json(), "secret": None}
    assert first.json()["effective"] is True
    with platform_scope(REASON):
        assert ApiKey.objects.filter(tenant=live_tenant).count() == 1


def test_a_key_that_was_just_made_opens_the_management_api(
    redis_client: redis.Redis, live_tenant: Tenant
) -> None:
    issued = make_key(live_tenant, ApiKey.Kind.MANAGEMENT)
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issued.secret}")

    before = client.get("/api/v1/tenant").status_code
    with platform_scope(REASON):
        keys.revoke_key(caller=SYSTEM, key=issued.key)

    assert (before, client.get("/api/v1/tenant").status_code) == (200, 401)
