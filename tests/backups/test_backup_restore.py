"""A backup of a platform in use, restored: the same proof, and nothing is charged twice."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from django.core.management import call_command
from django.core.management.base import CommandError

from accounts.models import Tenant
from billing.models.differences import ReconciliationItem
from billing.models.ledger import Wallet
from billing.models.upstreams import Upstream
from billing.services.publication import publish_everything
from billing.services.reconciliation import reconcile
from billing.services.upstream_reports import compare_reports
from billing.services.upstreams import set_credential
from billing.services.wallet import grant_credit
from tests.billing.usage_world import (
    MODEL,
    USAGE_NANO,
    Shop,
    append,
    final_state,
    ingest,
    make_event,
    make_shop,
    settle,
    sums_agree,
)
from turnpike.contracts.usage import Attempt, UsageEvent
from turnpike.control import policy
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, keyspace
from turnpike.management.backups import DUMP, MANIFEST

CREDIT = 50_000_000_000
Elsewhere = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def shop(transactional_db: None, redis_client: redis.Redis) -> Shop:
    shop = make_shop(credit=CREDIT)
    publish_everything()
    return shop


def run(command: str, *arguments: str) -> dict[str, Any]:
    output = StringIO()
    call_command(command, *arguments, "--json", stdout=output)
    answer: dict[str, Any] = json.loads(output.getvalue())
    return answer


def balance_of(shop: Shop) -> int:
    with platform_scope("tests"):
        return int(Wallet.objects.get(tenant_id=shop.number).balance_nano)


def test_a_restored_platform_passes_the_proof_and_charges_nothing_twice(
    shop: Shop, redis_client: redis.Redis, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    before = [make_event(shop) for _ in range(4)]
    for event in before:
        settle(redis_client, event)
    ingest(redis_client)
    made = run("backup", str(tmp_path / "one"))
    state_then = final_state()
    afterwards = [make_event(shop) for _ in range(3)]
    for event in afterwards:
        settle(redis_client, event)
    ingest(redis_client)
    waiting = make_event(shop)
    settle(redis_client, waiting)
    seen = policy.read_policy(shop.shard)

    with elsewhere():
        restored = run("restore", str(tmp_path / "one"))
        state = final_state()
        opened = policy.read_policy(shop.shard)
        # What the journals of gateways and a late worker send, all of it, and more than once.
        for event in [*before, *afterwards, waiting, *before]:
            append(redis_client, event)
        ingest(redis_client)
        sums_agree()
        assert [found for found in reconcile() if found.differences] == []
        assert len(final_state()["events"]) == 8
        assert balance_of(shop) == CREDIT - 8 * USAGE_NANO

    assert (made["events"], restored["posted_from_redis"], restored["is_good"]) == (4, 1, True)
    assert len(state["events"]) == 5
    assert state_then["events"] == [row for row in state["events"] if row in state_then["events"]]
    assert opened.epoch > seen.epoch
    assert opened.version is not None
    assert seen.version is not None
    assert opened.version > seen.version
    assert not opened.is_open  # the fence


def test_the_gap_is_listed_by_the_upstreams_report_and_nothing_is_charged_twice(
    shop: Shop,
    redis_client: redis.Redis,
    elsewhere: Elsewhere,
    simulator_url: str,
    tmp_path: Path,
) -> None:
    httpx.post(f"{simulator_url}/_reset").raise_for_status()
    with platform_scope("tests"):
        there = Upstream.objects.create(name="there", kind="anthropic", base_url=simulator_url)
        set_credential(upstream=there, secret="sk-ant-admin-of-the-tests", name="admin")
    kept, lost = answered(shop, there, simulator_url), answered(shop, there, simulator_url)
    append(redis_client, kept)
    ingest(redis_client)
    run("backup", str(tmp_path / "one"))
    append(redis_client, lost)
    ingest(redis_client)
    unread = answered(shop, there, simulator_url)  # died with its gateway

    with elsewhere():
        restored = run("restore", str(tmp_path / "one"))
        gap = {row["kind"]: int(row["reported"]) - int(row["ours"]) for row in restored["gap"]}
        with platform_scope("tests"):
            waiting = ReconciliationItem.objects.filter(kind="upstreams", state="open").count()
        for event in (lost, kept, lost):  # the journal of the gateway that lived
            append(redis_client, event)
        ingest(redis_client)
        left = run_compare()
        charged = sum(row[6] for row in final_state()["events"])

    of = {"output": "output_tokens", "uncached_input": "input_tokens"}
    assert restored["is_good"]
    assert gap == {kind: lost.usage[name] + unread.usage[name] for kind, name in of.items()}
    assert waiting == 2
    assert left == {kind: unread.usage[name] for kind, name in of.items()}
    assert charged == sum(
        event.usage["input_tokens"] * 3_000 + event.usage["output_tokens"] * 15_000
        for event in (kept, lost)
    )


def answered(shop: Shop, upstream: Upstream, url: str) -> UsageEvent:
    """The event of a request that the simulator answered and billed."""
    body = {"model": MODEL, "max_tokens": 30, "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
    usage = httpx.post(f"{url}/v1/messages", json=body, headers=headers).json()["usage"]
    attempt = Attempt(n=1, upstream=upstream.pk, outcome="answered", usage=usage)
    return make_event(shop, usage=usage, attempts=(attempt,))


def run_compare() -> dict[str, int]:
    """What the upstreams' reports of yesterday and today count beyond us, by kind of token."""
    today = clock.utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    day = timedelta(days=1)
    found = [
        dict(row.evidence)
        for row in compare_reports(since=today - day, until=today + day).differences
    ]
    return {row["kind"]: int(row["reported"]) - int(row["ours"]) for row in found}


def test_redis_forgets_the_platform_that_was(
    shop: Shop, redis_client: redis.Redis, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    run("backup", str(tmp_path / "one"))
    with platform_scope("tests"):
        late = make_shop(name="Later", credit=CREDIT)
    grant_credit(
        tenant=shop.number, amount=CREDIT, idempotency_key="late", reason="tests", actor="tests"
    )
    publish_everything()
    assert redis_client.exists(keyspace.wallet(late.number))

    with elsewhere():
        run("restore", str(tmp_path / "one"))
        with platform_scope("tests"):
            assert list(Tenant.objects.values_list("name", flat=True)) == ["Acme"]

    assert not redis_client.exists(keyspace.wallet(late.number))
    assert not redis_client.exists(keyspace.tenant_snapshot(late.number))
    assert int(redis_client.hget(keyspace.wallet(shop.number), "posted") or 0) == CREDIT // 1_000


def test_it_does_not_restore_over_data_unless_forced(
    shop: Shop, redis_client: redis.Redis, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    run("backup", str(tmp_path / "one"))
    with elsewhere():
        run("restore", str(tmp_path / "one"))
        with platform_scope("tests"):
            Tenant.objects.create(name="Somebody")
        with pytest.raises(CommandError, match="not empty"):
            run("restore", str(tmp_path / "one"))
        with platform_scope("tests"):
            assert Tenant.objects.filter(name="Somebody").exists()

        restored = run("restore", str(tmp_path / "one"), "--force")

        with platform_scope("tests"):
            assert not Tenant.objects.filter(name="Somebody").exists()
        assert restored["is_good"]

        path = tmp_path / "one" / MANIFEST
        manifest = json.loads(path.read_text())
        manifest["rows"]["billing_wallet"] += 1
        path.write_text(json.dumps(manifest))
        with pytest.raises(CommandError, match="billing_wallet has 1 rows, not 2"):
            run("restore", str(tmp_path / "one"), "--force")


def test_what_is_no_whole_backup_is_refused_before_anything_changes(
    shop: Shop, tmp_path: Path
) -> None:
    folder = tmp_path / "one"
    run("backup", str(folder))
    manifest = json.loads((folder / MANIFEST).read_text())
    with pytest.raises(CommandError, match="folder of its own"):
        run("backup", str(folder))

    for changes, words in (
        ({"dump_sha256": "0" * 64}, "not the file"),
        ({"migrations": [*manifest["migrations"], "billing.9999_later"]}, "newer version"),
        ({"schema": 2}, "schema 2"),
    ):
        (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))
        with pytest.raises(CommandError, match=words):
            run("restore", str(folder), "--force")
    (folder / MANIFEST).unlink()
    with pytest.raises(CommandError, match="no backup"):
        run("restore", str(folder), "--force")

    assert balance_of(shop) == CREDIT
    assert (folder / DUMP).stat().st_mode & 0o777 == 0o600
