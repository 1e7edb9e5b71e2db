"""Message batches: admitted whole, charged item by item, held exactly, forgotten properly."""

from datetime import timedelta
from typing import Any

import pytest

from billing.models.batches import BatchItem, BatchPart, LedgerHold, MessageBatch
from billing.models.catalog import CatalogModel
from billing.models.upstreams import Upstream
from billing.services import features, upkeep
from billing.services.batch_records import archive_batches
from tests.billing import batch_world as world
from tests.billing.batch_world import Program, item, items, make_program
from turnpike.control.caller import SYSTEM
from turnpike.control.redis import redis_client
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids, keyspace

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def program(url: str) -> Program:
    """A tenant's program with a hundred dollars."""
    return make_program()


def test_three_hundred_items_are_charged_what_the_upstream_billed(
    url: str, program: Program
) -> None:
    batch = program.create(items(300))
    assert batch["processing_status"] == "in_progress"
    assert batch["request_counts"]["processing"] == 300
    assert batch["results_url"] is None

    world.work()

    status, ended = program.call("GET", f"{world.PATH}/{batch['id']}")
    rows = world.billed(url)
    events = world.events_of(program)
    assert (status, ended["processing_status"]) == (200, "ended")
    assert ended["request_counts"] == {
        "processing": 0,
        "succeeded": 300,
        "errored": 0,
        "canceled": 0,
        "expired": 0,
    }
    assert ended["results_url"] == f"http://127.0.0.1:8000{world.PATH}/{batch['id']}/results"
    assert len(rows) == len(events) == 300
    assert sum(event.amount_nano for event in events) == world.expected_nano(rows)
    assert {event.tier for event in events} == {"batch"}
    assert program.wallet().balance_nano == 100 * world.NANOS - world.expected_nano(rows)
    assert program.redis_wallet()["held"] == 0
    assert program.available_micro() == program.wallet().balance_nano // 1_000
    assert world.differences() == []
    hold = world.hold_of(batch)
    assert (hold.state, hold.remaining_nano) == (LedgerHold.State.POSTED, 0)
    assert hold.posted_nano == world.expected_nano(rows)
    results = world.results_of(batch)
    assert len(results) == 300
    assert results["item-7"]["message"]["usage"]["service_tier"] == "batch"


def test_the_hold_is_the_sum_of_the_worst_cases_and_shrinks_as_items_end(
    url: str, program: Program
) -> None:
    before = program.available_micro()

    batch = program.create(items(3))

    held = sum(row.hold_micro for row in world.items_of(batch))
    assert world.hold_of(batch).remaining_nano == held * 1_000
    assert program.available_micro() == before - held
    assert program.redis_wallet().get("held", 0) == 0  # PostgreSQL has it, `posted` is lower
    assert world.differences() == []
    # 64 output tokens at 2.5 micros, and a short prompt at half a micro a token.
    assert 160 <= world.items_of(batch)[0].hold_micro <= 190


def test_what_fails_is_free_and_told_in_the_results(url: str, program: Program) -> None:
    bad = item(1, messages=[{"role": "owner", "content": "x"}])
    never_begun = item(2, metadata=world.EXPIRE)
    stream = item(3, stream=True)
    without_model: dict[str, Any] = {"custom_id": "item-4", "params": {"max_tokens": 5}}

    batch = program.create([item(0), bad, never_begun, stream, without_model])
    world.work()

    results = world.results_of(batch)
    types = {name: result["type"] for name, result in results.items()}
    assert types == {
        "item-0": "succeeded",
        "item-1": "errored",
        "item-2": "expired",
        "item-3": "errored",
        "item-4": "errored",
    }
    assert results["item-3"]["error"]["error"]["type"] == "invalid_request_error"
    assert results["item-1"]["error"]["request_id"].startswith("req_01")
    assert len(world.events_of(program)) == 1
    assert world.hold_of(batch).remaining_nano == 0
    assert world.differences() == []


def test_credit_that_covers_part_of_a_batch_admits_none_of_it(url: str) -> None:
    program = make_program(credit=1_000_000)  # a tenth of a cent

    status, answer = program.call("POST", body={"requests": items(20)})

    assert (status, answer["error"]["type"]) == (402, "billing_error")
    assert answer["request_id"].startswith("req_01")
    assert program.available_micro() == 1_000
    with platform_scope("tests"):
        assert not MessageBatch.objects.exists()
        assert not LedgerHold.objects.exists()


def test_a_blocking_budget_counts_what_batches_hold(url: str) -> None:
    program = make_program(daily_budget_nano=400_000)
    first = program.create(items(2))

    status, answer = program.call("POST", body={"requests": items(1)})

    assert (status, answer["error"]["type"]) == (402, "billing_error")
    assert "budget" in answer["error"]["message"]
    program.call("POST", f"{world.PATH}/{first['id']}/cancel")
    world.work()
    program.create(items(2))


def test_a_canceled_batch_ends_free_and_gives_everything_back(url: str, program: Program) -> None:
    before = program.available_micro()
    batch = program.create(items(5))

    status, answer = program.call("POST", f"{world.PATH}/{batch['id']}/cancel")
    world.work()

    assert (status, answer["processing_status"]) == (200, "canceling")
    assert answer["cancel_initiated_at"] is not None
    _, ended = program.call("GET", f"{world.PATH}/{batch['id']}")
    assert ended["request_counts"]["canceled"] == 5
    assert program.available_micro() == before
    assert world.hold_of(batch).state == LedgerHold.State.VOIDED
    assert world.billed(url) == []


def test_what_was_not_begun_in_a_day_expires_free(url: str, program: Program) -> None:
    batch = program.create(items(4))
    with platform_scope("tests"):
        MessageBatch.objects.update(expires_at=clock.utc_now() - timedelta(seconds=1))

    world.work()

    _, ended = program.call("GET", f"{world.PATH}/{batch['id']}")
    assert ended["request_counts"]["expired"] == 4
    assert world.events_of(program) == []
    assert world.results_of(batch)["item-3"] == {"type": "expired"}


def test_another_tenants_batch_is_not_found(url: str, program: Program) -> None:
    batch = program.create(items(1))
    world.work()
    other = make_program()

    for method, path in (
        ("GET", ""),
        ("GET", "/results"),
        ("POST", "/cancel"),
        ("DELETE", ""),
    ):
        status, answer = other.call(method, f"{world.PATH}/{batch['id']}{path}")
        assert (status, answer["error"]["type"]) == (404, "not_found_error")
    assert other.call("GET")[1]["data"] == []


def test_rows_are_invisible_outside_of_their_tenants_scope(url: str, program: Program) -> None:
    program.create(items(1))

    for model in (MessageBatch, BatchItem, BatchPart, LedgerHold):
        assert not model._default_manager.exists()


def test_prompts_and_answers_are_sealed_at_rest(url: str, program: Program) -> None:
    batch = program.create([item(0, system="a planted secret")])
    row = world.items_of(batch)[0]
    assert b"planted" not in bytes(row.params or b"")

    world.work()

    row = world.items_of(batch)[0]
    assert row.params is None
    assert b"message" not in bytes(row.result or b"")


def test_deleting_needs_an_end_and_forgets_all_but_the_charges(url: str, program: Program) -> None:
    batch = program.create(items(2))
    path = f"{world.PATH}/{batch['id']}"
    status, answer = program.call("DELETE", path)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    world.work()

    assert program.call("DELETE", path) == (
        200,
        {"id": batch["id"], "type": "message_batch_deleted"},
    )

    assert program.call("GET", path)[0] == 404
    assert len(world.events_of(program)) == 2
    assert world.differences() == []


def test_results_are_kept_for_29_days(url: str, program: Program) -> None:
    batch = program.create(items(1))
    world.work()

    assert archive_batches(now=clock.utc_now() + timedelta(days=28, hours=23)) == 0
    assert archive_batches(now=clock.utc_now() + timedelta(days=29, hours=1)) == 1

    _, shown = program.call("GET", f"{world.PATH}/{batch['id']}")
    assert (shown["archived_at"] is None, shown["results_url"]) == (False, None)
    assert program.call("GET", f"{world.PATH}/{batch['id']}/results")[0] == 404


@pytest.mark.parametrize(
    ("model", "status"), [("claude-nobody-1", 404), ("claude-3-5-sonnet-20241022", 200)]
)
def test_a_model_that_nobody_sells_is_refused(
    url: str, program: Program, model: str, status: int
) -> None:
    got, answer = program.call("POST", body={"requests": [item(0), item(1, model=model)]})

    assert got == status
    if status == 404:
        assert "requests.1.params.model" in answer["error"]["message"]
        assert program.redis_wallet().get("held", 0) == 0


def test_another_makers_model_is_refused_where_only_claude_is_served(
    url: str, program: Program
) -> None:
    CatalogModel.objects.create(
        model="llama-4", display_name="Llama", released_at=clock.utc_now(), lifecycle="active"
    )
    asked = {"requests": [item(0), item(1, model="llama-4")]}
    assert program.call("POST", body=asked)[0] == 404  # nobody sells it yet

    with platform_scope("tests"):
        features.set_switches(caller=SYSTEM, is_claude_only=True, reason="ours alone")
    status, answer = program.call("POST", body=asked)

    assert status == 400
    assert answer["error"]["message"].startswith("requests.1.params.model: llama-4 is served on")
    assert program.redis_wallet().get("held", 0) == 0


def test_a_key_without_the_model_the_scope_or_the_address_is_refused(url: str) -> None:
    body = {"requests": items(1)}

    assert make_program(allowed_models=["claude-opus-4-8"]).call("POST", body=body)[0] == 403
    assert make_program(scopes=["models"]).call("POST", body=body)[0] == 403
    assert make_program(ip_ranges=["10.0.0.0/8"]).call("POST", body=body)[0] == 403


def test_without_a_key_or_a_version_nothing_is_answered(url: str, program: Program) -> None:
    assert program.call("GET", x_api_key="")[0] == 401
    assert program.call("GET", x_api_key=program.secret[:-1] + "x")[0] == 401
    assert program.call("GET", anthropic_version="")[0] == 400


@pytest.mark.parametrize(
    "requests",
    [
        [],
        "text",
        [{"custom_id": "a b", "params": {}}],
        [{"custom_id": "x" * 65, "params": {}}],
        [{"custom_id": "a", "params": {}}, {"custom_id": "a", "params": {}}],
        [{"custom_id": "a", "params": 5}],
        [{"params": {}}],
    ],
)
def test_a_batch_that_cannot_be_told_apart_is_refused_whole(
    url: str, program: Program, requests: Any
) -> None:
    status, answer = program.call("POST", body={"requests": requests})

    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    with platform_scope("tests"):
        assert not MessageBatch.objects.exists()


def test_the_same_idempotency_key_makes_one_batch(url: str, program: Program) -> None:
    first = program.create(items(2), idempotency_key="once")
    again = program.create(items(2), idempotency_key="once")
    status, answer = program.call("POST", body={"requests": items(3)}, idempotency_key="once")

    assert first["id"] == again["id"]
    assert (status, answer["error"]["type"]) == (409, "conflict_error")
    with platform_scope("tests"):
        assert MessageBatch.objects.count() == 1


def test_pages_run_from_new_to_old_and_back(url: str, program: Program) -> None:
    made = [program.create(items(1))["id"] for _ in range(5)]
    newest_first = made[::-1]

    _, first = program.call("GET", f"{world.PATH}?limit=2")
    _, second = program.call("GET", f"{world.PATH}?limit=2&after_id={first['last_id']}")
    _, back = program.call("GET", f"{world.PATH}?limit=2&before_id={second['first_id']}")

    assert [row["id"] for row in first["data"]] == newest_first[:2]
    assert first["has_more"] is True
    assert [row["id"] for row in second["data"]] == newest_first[2:4]
    assert back["data"] == first["data"]
    assert program.call("GET", f"{world.PATH}?limit=0")[0] == 400
    assert program.call("GET", f"{world.PATH}?after_id=nonsense")[0] == 400


def test_a_hold_that_nobody_committed_is_given_back(url: str, program: Program) -> None:
    before = program.available_micro()
    dead, shard = str(ids.uuid7()), keyspace.shard_of(program.tenant)
    _take_in_redis(program, dead, hold_micro=5_000)
    assert program.available_micro() == before - 5_000

    upkeep.sweep_unposted(after_ms=-1_000)

    assert program.available_micro() == before
    assert redis_client().zcard(keyspace.unposted(shard)) == 0
    assert world.differences() == []


def test_a_committed_hold_that_was_not_published_is_published_by_the_sweep(
    url: str, program: Program
) -> None:
    batch = program.create(items(3))
    expected = program.available_micro()
    # As it was between the commit and the publication.
    ident = str(ids.parse_public_id(ids.BATCH, batch["id"]))
    held = world.hold_of(batch).amount_nano // 1_000
    client = redis_client()
    client.delete(keyspace.record(program.tenant, ident))
    client.hincrby(keyspace.wallet(program.tenant), "posted", held)
    client.hset(keyspace.wallet(program.tenant), "ver", 0)
    _take_in_redis(program, ident, hold_micro=held)
    assert program.available_micro() == expected

    upkeep.sweep_unposted(after_ms=-1_000)

    assert program.available_micro() == expected
    assert program.redis_wallet()["held"] == 0


def test_an_upstream_that_has_no_batches_gets_none(url: str, program: Program) -> None:
    with platform_scope("tests"):
        Upstream.objects.update(has_batches=False)

    batch = program.create(items(3))

    with platform_scope("tests"):
        part = BatchPart.objects.get(batch=world.row_of(batch))
    assert part.upstream_id is None


def _take_in_redis(program: Program, ident: str, *, hold_micro: int) -> None:
    from turnpike.control.redis import script

    tenant = program.tenant
    answer: Any = script("hold")(
        keys=[
            keyspace.wallet(tenant),
            keyspace.budgets(tenant),
            keyspace.record(tenant, ident),
            keyspace.unposted(keyspace.shard_of(tenant)),
            keyspace.policy(keyspace.shard_of(tenant)),
        ],
        args=[tenant, ident, hold_micro, "[]", ""],
    )
    assert answer[0] == 1
