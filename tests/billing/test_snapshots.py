"""What Redis is told: values, versions, epochs and the fence after a loss."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from accounts.models import Tenant
from billing.models.catalog import Price, PriceBook, PriceSet
from billing.models.state import PlatformState
from billing.services.catalog import import_catalog, publish_prices
from billing.services.catalog_file import PriceRow
from billing.services.publication import check_cold, publish_everything, touch_plane
from billing.services.tiers import set_tier
from billing.services.upstreams import add_upstream
from billing.services.wallet import grant_credit, set_credit_line
from billing.snapshots import (
    GOOD_STANDING_NANOS_MIN,
    plane_snapshot,
    publish_plane,
    publish_terms,
    terms_of,
)
from tests.billing.ledger_world import ACTOR, make_tenant
from tests.support.threads import at_once
from turnpike.contracts import snapshots
from turnpike.contracts.snapshots import PLANE_FIELDS, Candidate, Limits, PlaneSnapshot
from turnpike.control import policy
from turnpike.control.redis import redis_client as control_client
from turnpike.control.redis import script
from turnpike.control.scope import platform_scope
from turnpike.kernel import codec, ids, keyspace

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_client")]

SHARDS = range(keyspace.SHARDS)
BIG = 2**53


def read_plane(client: "redis.Redis") -> PlaneSnapshot:
    """The plane as a gateway reads it."""
    fields: dict[str, Any] = {
        name: codec.from_json(kind, client.hget(keyspace.PLANE, name) or b"")
        for name, kind in PLANE_FIELDS.items()
    }
    return PlaneSnapshot(**fields)


def run_policy(*arguments: str | int, shard: int = 0) -> int:
    """Run policy.lua itself."""
    return int(script("policy")(keys=[keyspace.policy(shard)], args=list(arguments)))


def open_shards() -> list[int]:
    """The shards that admit requests now."""
    return [shard for shard in SHARDS if policy.read_policy(shard).is_open]


def test_the_plane_in_redis_is_the_plane_in_postgresql(redis_client: "redis.Redis") -> None:
    import_catalog()
    add_upstream(
        name="sim", kind="anthropic", base_url="http://s:1", credential="x", is_simulator=True
    )

    assert publish_plane() is True

    assert read_plane(redis_client) == plane_snapshot()


def test_snapshots_say_exactly_what_was_configured() -> None:
    import_catalog()
    upstream = add_upstream(
        name="sim", kind="anthropic", base_url="http://s:1", credential="x", is_simulator=True
    )

    plane = plane_snapshot()

    haiku = plane.models["claude-haiku-5-5"]
    assert (haiku.display_name, haiku.line, haiku.limit_group) == (
        "Claude Haiku 5.5",
        "haiku",
        "haiku-5",
    )
    assert (haiku.created_at, haiku.lifecycle) == ("2026-10-07T00:00:00Z", "active")
    assert (haiku.max_input_tokens, haiku.max_tokens) == (1_000_000, 128_000)
    assert haiku.aliases == ("claude-haiku-5.5",)
    assert plane.models["claude-3-opus-20240229"].successor == "claude-opus-4-8"
    assert plane.routes["claude-haiku-5-5"] == (
        Candidate(upstream=upstream.pk, upstream_model="claude-haiku-5-5"),
    )
    credential = upstream.credentials.get()
    assert plane.upstreams[str(upstream.pk)].credentials == (
        snapshots.CredentialSnapshot(credential=credential.pk, sealed=credential.sealed),
    )
    price = snapshots.Price(component="output", min_input=100_000, nano_per_mtok=2_500_000_000)
    assert price in plane.prices[0].prices["claude-haiku-5-5"]


def test_prices_in_force_to_come_and_of_the_last_two_days_are_published() -> None:
    book = PriceBook.objects.create(name="b")
    now = datetime.now(UTC)
    hours = [(-90, -60), (-60, -47), (-47, -1), (-1, 5), (5, 9), (9, None)]
    spans = [
        (now + timedelta(hours=begin), None if end is None else now + timedelta(hours=end))
        for begin, end in hours
    ]
    for begin, end in spans:
        row = PriceSet.objects.create(book=book, effective=(begin, end))
        Price.objects.create(price_set=row, model="m", component="input", nano_per_mtok=1)

    published = plane_snapshot().prices

    assert [item.from_us for item in published] == [
        round(begin.timestamp() * 1_000_000) for begin, _ in spans[1:]
    ]
    assert [item.until_us is None for item in published] == [False] * 4 + [True]


def test_a_price_without_a_beginning_holds_from_the_start_of_time() -> None:
    import_catalog()
    PriceBook.objects.create(name="mine")
    publish_prices(book="mine", rows=[PriceRow(model="m", component="input", nano_per_mtok=7)])

    everything = plane_snapshot().prices

    # The set that ended on 2026-10-07 is older than two days.
    assert {item.until_us for item in everything} == {None}
    assert {item.book for item in everything} == set(PriceBook.objects.values_list("pk", flat=True))


@pytest.mark.django_db(transaction=True)
def test_a_change_is_in_redis_when_the_call_returns(redis_client: "redis.Redis") -> None:
    tenant = make_tenant()
    import_catalog()
    publish_everything()

    set_tier(tenant=tenant, tier="pro", actor=ACTOR, reason="upgrade")
    add_upstream(name="u", kind="openai", base_url="https://x", credential=None, models=[])

    terms = redis_client.hget(keyspace.tenant_snapshot(tenant), "terms") or b""
    assert codec.from_json(snapshots.TenantTerms, terms).tier == "pro"
    with platform_scope("tests"):
        version = Tenant.objects.get(pk=tenant).policy_version
    versions = redis_client.hgetall(keyspace.policy(keyspace.shard_of(tenant)))
    assert int(versions[str(tenant).encode()]) == version
    assert [item.name for item in read_plane(redis_client).upstreams.values()] == ["u"]
    assert {policy.read_policy(shard).version for shard in SHARDS} == {
        PlatformState.objects.get().policy_version
    }


def test_good_standing_is_postpaid_or_above_the_floor() -> None:
    import_catalog()
    poor, rich = make_tenant("poor"), make_tenant("rich")
    for tenant, amount in ((poor, GOOD_STANDING_NANOS_MIN), (rich, GOOD_STANDING_NANOS_MIN + 999)):
        grant_credit(
            tenant=tenant,
            amount=amount,
            idempotency_key=str(ids.uuid7()),
            reason="tests",
            actor=ACTOR,
        )

    with platform_scope("tests"):
        terms = terms_of([poor, rich])

    assert terms[poor].is_in_good_standing is False
    assert terms[rich].is_in_good_standing is True
    assert (terms[poor].balance_micro, terms[rich].balance_micro) == (2_000_000, 2_000_000)


@pytest.fixture
def redis_away(settings: Any) -> Iterator[None]:
    """A control plane whose Redis does not answer."""
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    control_client.cache_clear()
    script.cache_clear()
    yield
    control_client.cache_clear()
    script.cache_clear()


@pytest.mark.usefixtures("redis_away")
def test_publishing_to_a_redis_that_is_away_says_so() -> None:
    tenant = make_tenant()

    assert publish_terms(tenant) is False
    assert publish_plane() is False
    with pytest.raises(redis.RedisError):
        check_cold()


def test_the_policy_script_takes_newer_numbers_alone() -> None:
    results = [run_policy("", 0, "7", version) for version in (5, 5, 4, 6)]

    assert results == [1, 0, 0, 1]
    assert control_client().hget(keyspace.policy(0), "7") == b"6"


def test_versions_beyond_what_a_double_can_tell_apart_still_compare() -> None:
    assert run_policy("", 0, "*", BIG) == 1
    assert run_policy("", 0, "*", BIG + 1) == 1
    assert run_policy("", 0, "*", BIG) == 0
    assert policy.read_policy(0).version == BIG + 1


def test_the_policy_script_checks_everything_before_it_changes_anything() -> None:
    with pytest.raises(redis.ResponseError, match="a version is digits"):
        run_policy(3, 0, "1", 5, "2", "x")
    with pytest.raises(redis.ResponseError, match="then pairs"):
        run_policy("", 0, "1")

    assert control_client().exists(keyspace.policy(0)) == 0


def test_an_epoch_opens_after_its_fence_and_an_older_one_changes_nothing() -> None:
    policy.open_shard(3, version=1, epoch=2, fence_ms=60_000)
    fenced = policy.read_policy(3)
    policy.open_shard(3, version=1, epoch=1, fence_ms=0)
    older = policy.read_policy(3)
    policy.open_shard(3, version=1, epoch=3, fence_ms=0)
    newer = policy.read_policy(3)

    assert (fenced.epoch, fenced.is_open) == (2, False)
    assert 0 < fenced.opens_at_ms - fenced.now_ms <= 60_000
    assert (older.epoch, older.opens_at_ms) == (2, fenced.opens_at_ms)
    # A fence that stands is not shortened by a newer epoch either.
    assert (newer.epoch, newer.opens_at_ms) == (3, fenced.opens_at_ms)


def test_the_first_publication_opens_at_once(redis_client: "redis.Redis") -> None:
    tenant = make_tenant()
    grant_credit(tenant=tenant, amount=5_000_000, idempotency_key="k", reason="tests", actor=ACTOR)
    import_catalog()
    assert open_shards() == []

    assert check_cold() is True

    assert open_shards() == list(SHARDS)
    assert {policy.read_policy(shard).epoch for shard in SHARDS} == {1}
    assert redis_client.hget(keyspace.wallet(tenant), "posted") == b"5000"
    assert sorted(redis_client.hkeys(keyspace.tenant_snapshot(tenant))) == [b"terms", b"who"]
    assert check_cold() is False


def test_a_lost_redis_opens_behind_the_fence(redis_client: "redis.Redis") -> None:
    import_catalog()
    check_cold()
    redis_client.flushdb()

    assert check_cold() is True

    for shard in SHARDS:
        found = policy.read_policy(shard)
        assert (found.epoch, found.is_open) == (2, False)
        assert policy.FENCE_MS - 5_000 < found.opens_at_ms - found.now_ms <= policy.FENCE_MS
    assert PlatformState.objects.get().epoch == 2
    assert check_cold() is False


def test_a_lost_shard_is_fenced_and_the_others_stay_open(redis_client: "redis.Redis") -> None:
    import_catalog()
    check_cold()
    redis_client.delete(keyspace.policy(5))

    check_cold()

    assert open_shards() == [shard for shard in SHARDS if shard != 5]
    assert {policy.read_policy(shard).epoch for shard in SHARDS} == {2}


def test_an_old_copy_of_redis_is_a_loss_too(redis_client: "redis.Redis") -> None:
    import_catalog()
    check_cold()
    old = redis_client.dump(keyspace.policy(5))
    assert old is not None
    redis_client.delete(keyspace.policy(6))
    check_cold()
    redis_client.restore(keyspace.policy(5), 0, old, replace=True)

    assert check_cold() is True

    assert 5 not in open_shards()


def test_a_publication_that_died_half_way_leaves_shards_fenced(
    redis_client: "redis.Redis",
) -> None:
    import_catalog()
    check_cold()
    redis_client.flushdb()
    # What a process does before it dies: the new epoch is committed, nothing is published.
    PlatformState.objects.update(epoch=2)

    check_cold()

    assert open_shards() == []
    assert {policy.read_policy(shard).epoch for shard in SHARDS} == {3}


def test_a_version_that_redis_missed_is_repaired_without_a_fence() -> None:
    import_catalog()
    check_cold()
    PlatformState.objects.update(policy_version=99)

    assert check_cold() is True

    assert open_shards() == list(SHARDS)
    assert {policy.read_policy(shard).version for shard in SHARDS} == {99}


def test_a_change_does_not_open_a_cold_shard(redis_client: "redis.Redis") -> None:
    import_catalog()
    check_cold()
    redis_client.delete(keyspace.policy(5))

    publish_plane()

    assert 5 not in open_shards()


@pytest.mark.django_db(transaction=True)
def test_two_publications_at_once_make_one_epoch(redis_client: "redis.Redis") -> None:
    import_catalog()
    check_cold()
    redis_client.flushdb()

    at_once(lambda _publisher: check_cold(), range(4))

    assert PlatformState.objects.get().epoch == 2
    assert open_shards() == []


@pytest.mark.django_db(transaction=True)
def test_parallel_changes_end_with_the_newest_values_under_the_newest_version(
    redis_client: "redis.Redis",
) -> None:
    import_catalog()
    publish_everything()

    def change(number: int) -> None:
        add_upstream(
            name=f"u{number}", kind="openai", base_url="https://x", credential=None, models=[]
        )

    at_once(change, range(6))

    assert len(read_plane(redis_client).upstreams) == 6
    assert policy.read_policy(0).version == PlatformState.objects.get().policy_version


def test_full_publication_brings_back_wallets_terms_and_budgets(
    redis_client: "redis.Redis",
) -> None:
    import_catalog()
    tenants = [make_tenant(f"tenant {number}") for number in range(3)]
    for tenant in tenants:
        set_credit_line(tenant=tenant, limit=tenant * 1_000, actor=ACTOR)

    done = publish_everything()

    assert done is not None
    assert (done.tenants, done.is_fenced) == (3, False)
    limits = [redis_client.hget(keyspace.wallet(tenant), "limit") for tenant in tenants]
    assert limits == [str(tenant).encode() for tenant in tenants]
    assert all(redis_client.exists(keyspace.budgets(tenant)) for tenant in tenants)


def test_touching_the_plane_raises_its_version_once() -> None:
    first, second = touch_plane(), touch_plane()

    assert second == first + 1 == PlatformState.objects.get().policy_version


def test_limits_in_terms_are_written_as_values(redis_client: "redis.Redis") -> None:
    import_catalog()
    tenant = make_tenant()

    publish_terms(tenant)

    terms = json.loads(redis_client.hget(keyspace.tenant_snapshot(tenant), "terms") or b"")
    assert codec.from_json(Limits, json.dumps(terms["overrides"])) == Limits()
    assert terms["schema"] == 1
