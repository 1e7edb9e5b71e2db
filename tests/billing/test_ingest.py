"""Events from the stream to PostgreSQL: each once, revised by better ones, poison set aside."""

import json
from typing import Any
from uuid import UUID

import pytest
import redis
from django.db import DatabaseError, connection

from billing.models.ledger import LedgerTxn
from billing.models.usage import DeadLetter, SpendCounter, UpstreamAttempt, UsageEvent, UsageRollup
from billing.services.periods import period_for
from billing.services.reconciliation import reconcile
from tests.billing.usage_world import (
    USAGE,
    USAGE_NANO,
    append,
    append_body,
    final_state,
    ingest,
    letters,
    make_event,
    make_price_set,
    make_shop,
    rollup_rows,
    rows_of,
    stream_lengths,
    sums_agree,
)
from turnpike.contracts.usage import Attempt
from turnpike.control.scope import platform_scope, tenant_scope
from turnpike.kernel import clock, ids, keyspace
from turnpike.kernel.codec import to_json

pytestmark = pytest.mark.django_db


def test_an_event_is_posted_charged_rolled_up_and_leaves_the_stream(
    redis_client: redis.Redis,
) -> None:
    shop = make_shop(credit=5_000_000_000)
    event = make_event(shop)
    append(redis_client, event)

    handled = ingest(redis_client)

    [row] = rows_of(event.rid)
    assert handled == 1
    assert (row.revision, row.rank, row.status, row.amount_nano) == (0, 3, "reported", USAGE_NANO)
    assert (row.input_nano, row.output_nano, row.waived_nano) == (300_000, 300_000, 0)
    assert (row.tier, row.context_window, row.currency) == ("standard", "0-200k", "USD")
    [rollup] = rollup_rows(shop)
    assert (rollup.requests, rollup.input_tokens, rollup.amount_nano) == (1, 100, USAGE_NANO)
    assert final_state()["balances"] == [(shop.number, 5_000_000_000 - USAGE_NANO)]
    assert stream_lengths(redis_client) == 0
    assert redis_client.xpending(keyspace.usage_stream(shop.shard), "ingest")["pending"] == 0
    assert (
        redis_client.hget(keyspace.wallet(shop.number), "posted")
        == str((5_000_000_000 - USAGE_NANO) // 1_000).encode()
    )
    sums_agree()


def test_a_batch_of_two_tenants_makes_one_posting_for_each(redis_client: redis.Redis) -> None:
    prices = make_price_set()
    shops = [make_shop(price_set=prices, credit=1_000_000_000) for _ in range(2)]
    for shop in shops:
        for _ in range(3):
            append(redis_client, make_event(shop))

    ingest(redis_client)

    balances = {shop.number: 1_000_000_000 - 3 * USAGE_NANO for shop in shops}
    assert dict(final_state()["balances"]) == balances
    with platform_scope("tests"):
        assert LedgerTxn.objects.filter(kind="usage").count() == 2
    sums_agree()


def test_the_same_event_three_times_is_charged_once(redis_client: redis.Redis) -> None:
    shop = make_shop(credit=1_000_000_000)
    event = make_event(shop)
    for _ in range(3):
        append(redis_client, event)
    ingest(redis_client)
    append(redis_client, event)

    ingest(redis_client)

    assert len(rows_of(event.rid)) == 1
    assert dict(final_state()["balances"]) == {shop.number: 1_000_000_000 - USAGE_NANO}
    assert stream_lengths(redis_client) == 0
    sums_agree()


def test_a_higher_rank_revises_by_the_difference_and_a_lower_one_does_nothing(
    redis_client: redis.Redis,
) -> None:
    shop = make_shop(credit=1_000_000_000)
    rid = ids.uuid7()
    for rank, output in ((1, 10), (3, 50), (2, 30), (1, 10)):
        usage = {"input_tokens": 100, "output_tokens": output}
        append(redis_client, make_event(shop, rid=rid, rank=rank, usage=usage))
        ingest(redis_client)

    first, second = rows_of(rid)

    assert (first.rank, first.status, first.output_tokens) == (1, "estimated", 10)
    assert (second.rank, second.status) == (3, "reported")
    assert (second.input_tokens, second.output_tokens, second.amount_nano) == (0, 40, 600_000)
    assert dict(final_state()["balances"]) == {shop.number: 1_000_000_000 - 1_050_000}
    [rollup] = rollup_rows(shop)
    assert (rollup.requests, rollup.output_tokens) == (1, 50)
    sums_agree()


def test_a_revision_may_give_money_back(redis_client: redis.Redis) -> None:
    shop = make_shop(credit=1_000_000_000)
    rid = ids.uuid7()
    append(redis_client, make_event(shop, rid=rid, rank=2))
    ingest(redis_client)
    append(redis_client, make_event(shop, rid=rid, rank=4, usage={"input_tokens": 1}))

    ingest(redis_client)

    assert [row.amount_nano for row in rows_of(rid)] == [USAGE_NANO, 3_000 - USAGE_NANO]
    assert dict(final_state()["balances"]) == {shop.number: 1_000_000_000 - 3_000}
    sums_agree()


def test_a_revision_of_another_tier_moves_its_row_of_the_rollup(redis_client: redis.Redis) -> None:
    shop = make_shop()
    rid = ids.uuid7()
    append(redis_client, make_event(shop, rid=rid, rank=1))
    ingest(redis_client)
    usage = {**USAGE, "service_tier": "batch"}
    append(redis_client, make_event(shop, rid=rid, rank=3, usage=usage))

    ingest(redis_client)

    [rollup] = rollup_rows(shop)
    assert (rollup.tier, rollup.requests, rollup.amount_nano) == ("batch", 1, USAGE_NANO // 2)
    sums_agree()


def test_the_charge_never_exceeds_the_hold_and_the_rest_is_waived(
    redis_client: redis.Redis,
) -> None:
    shop = make_shop()
    rid = ids.uuid7()
    append(redis_client, make_event(shop, rid=rid, rank=2, hold_micro=400))
    ingest(redis_client)
    usage = {"input_tokens": 1_000, "output_tokens": 500}
    append(redis_client, make_event(shop, rid=rid, rank=3, hold_micro=450, usage=usage))

    ingest(redis_client)

    rows = rows_of(rid)
    assert sum(row.amount_nano for row in rows) == 450_000
    assert sum(row.waived_nano for row in rows) == 1_000 * 3_000 + 500 * 15_000 - 450_000
    assert (rows[0].input_nano, rows[0].output_nano) == (300_000, 100_000)
    sums_agree()


def test_every_component_is_charged_by_its_own_price(redis_client: redis.Redis) -> None:
    shop = make_shop()
    usage = {
        "input_tokens": 7,
        "output_tokens": 11,
        "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
        "cache_read_input_tokens": 1_000,
        "output_tokens_details": {"thinking_tokens": 5},
        "server_tool_use": {"web_search_requests": 2},
    }
    event = make_event(shop, usage=usage, discount_bp=1_000)
    append(redis_client, event)

    ingest(redis_client)

    [row] = rows_of(event.rid)
    assert [row.input_nano, row.output_nano, row.cache_write_5m_nano] == [18_900, 148_500, 33_750]
    assert [row.cache_write_1h_nano, row.cache_read_nano] == [108_000, 270_000]
    assert (row.web_search_nano, row.thinking_tokens) == (18_000_000, 5)
    assert row.amount_nano == 18_900 + 148_500 + 33_750 + 108_000 + 270_000 + 18_000_000


def test_a_component_without_a_price_leaves_the_event_unrated_and_free(
    redis_client: redis.Redis,
) -> None:
    shop = make_shop(price_set=make_price_set(rates={"input": 3_000_000_000}), credit=1_000)
    event = make_event(shop)
    append(redis_client, event)

    ingest(redis_client)

    [row] = rows_of(event.rid)
    assert (row.status, row.amount_nano, row.output_tokens) == ("unrated", 0, 20)
    assert dict(final_state()["balances"]) == {shop.number: 1_000}


def test_a_refused_request_is_kept_as_void_and_costs_nothing(redis_client: redis.Redis) -> None:
    shop = make_shop()
    event = make_event(shop, rank=0, hold_micro=0, http_status=529, error_type="overloaded_error")
    append(redis_client, event)

    ingest(redis_client)

    [row] = rows_of(event.rid)
    assert (row.status, row.amount_nano, row.http_status) == ("void", 0, 529)
    assert [rollup.requests for rollup in rollup_rows(shop)] == [1]


def test_attempts_are_kept_and_better_knowledge_replaces_them(redis_client: redis.Redis) -> None:
    shop = make_shop()
    rid = ids.uuid7()
    unknown = (Attempt(n=1, upstream=5, outcome="refused"), Attempt(n=2, upstream=6))
    append(redis_client, make_event(shop, rid=rid, rank=1, attempts=unknown))
    ingest(redis_client)
    known = Attempt(
        n=2, upstream=6, credential=9, upstream_request_id="req_up", outcome="answered", usage={}
    )
    append(redis_client, make_event(shop, rid=rid, rank=3, attempts=(unknown[0], known)))

    ingest(redis_client)

    with platform_scope("tests"):
        rows = UpstreamAttempt.objects.filter(request_id=rid).order_by("attempt")
        found = [(row.attempt, row.outcome, row.is_billed, row.credential_id) for row in rows]
    assert found == [(1, "refused", False, None), (2, "answered", True, 9)]


def test_an_event_of_an_old_month_makes_its_partition(redis_client: redis.Redis) -> None:
    shop = make_shop()
    rid = ids.uuid7(at_ms=1_717_243_200_000)  # 2024-06-01T12:00:00Z
    append(redis_client, make_event(shop, rid=rid))

    ingest(redis_client)

    with platform_scope("tests"), connection.cursor() as cursor:
        cursor.execute(
            "SELECT tableoid::regclass::text FROM billing_usage_event WHERE request_id = %s", [rid]
        )
        assert cursor.fetchone() == ("billing_usage_event_202406",)
    assert next(item for item in reconcile() if item.check == "stray_rows").differences == 0


def test_an_event_of_a_closed_period_goes_to_the_next_one_as_late(
    redis_client: redis.Redis,
) -> None:
    shop = make_shop()
    event = make_event(shop)
    with platform_scope("tests"):
        month = period_for(shop.number, clock.datetime_of_us(event.finished_at_us))
        month.state = "closed"
        month.save()
    append(redis_client, event)

    ingest(redis_client)

    [row] = rows_of(event.rid)
    assert row.is_late
    assert row.period_id != month.pk


@pytest.mark.parametrize(
    "change",
    [
        {"tenant": 10**12},
        {"tenant": -1},
        {"tenant": 10**30},
        {"price_set": 10**12},
        {"rid": "nonsense"},
        {"rid": "0190a000-0000-4000-8000-000000000000"},
        {"rid": "ffffffff-ffff-7fff-bfff-ffffffffffff"},
        {"rank": 9},
        {"rank": "3"},
        {"status": "paid"},
        {"hold_micro": -5},
        {"hold_micro": 1.5},
        {"hold_micro": 2**60},
        {"discount_bp": 20_000},
        {"started_at_us": 0},
        {"finished_at_us": 2**62},
        {"usage": []},
        {"usage": {"input_tokens": float("nan")}},
        {"usage": {"note": "a\x00b"}},
        {"usage": {"note": "\ud800"}},
        {"model": ""},
        {"model": "m" * 1_000},
        {"model": None},
        {"attempts": [{"n": 1}]},
        {"attempts": [{"n": 10**9, "upstream": 1}]},
        {"http_status": 10**9},
        {"stream": "yes"},
    ],
    ids=str,
)
def test_poison_ends_as_a_dead_letter_and_its_neighbours_are_posted(
    redis_client: redis.Redis, change: dict[str, Any]
) -> None:
    shop = make_shop(credit=1_000_000_000)
    before, after = make_event(shop), make_event(shop)
    append(redis_client, before)
    body = json.dumps({**json.loads(to_json(make_event(shop))), **change}).encode()
    append_body(redis_client, body, shard=shop.shard)
    append(redis_client, after)

    ingest(redis_client)

    assert [bytes(letter.body) for letter in letters()] == [body]
    assert len(rows_of(before.rid)) == len(rows_of(after.rid)) == 1
    assert stream_lengths(redis_client) == 0
    assert dict(final_state()["balances"]) == {shop.number: 1_000_000_000 - 2 * USAGE_NANO}


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\x00\x9d", b"null", b"[]", b"{}", b'{"rid": 1}', b"[" * 100_000, b"1" * 10_000],
    ids=["empty", "bytes", "null", "list", "object", "few", "deep", "huge number"],
)
def test_garbage_ends_as_a_dead_letter(redis_client: redis.Redis, body: bytes) -> None:
    shop = make_shop()
    event = make_event(shop)
    append_body(redis_client, body, shard=shop.shard)
    append(redis_client, event)

    ingest(redis_client)

    assert [bytes(letter.body) for letter in letters()] == [body]
    assert len(rows_of(event.rid)) == 1
    assert stream_lengths(redis_client) == 0


def test_an_entry_without_our_field_is_a_dead_letter_too(redis_client: redis.Redis) -> None:
    redis_client.xadd(keyspace.usage_stream(3), {"other": "thing"})

    ingest(redis_client)

    assert len(letters()) == 1
    assert stream_lengths(redis_client) == 0


def test_the_same_poison_again_counts_a_try(redis_client: redis.Redis) -> None:
    for _ in range(3):
        append_body(redis_client, b"poison", shard=1)
        ingest(redis_client)

    assert [letter.tries for letter in letters()] == [3]


def test_an_event_that_fails_for_other_reasons_is_buried_after_five_deliveries(
    redis_client: redis.Redis,
) -> None:
    shop = make_shop(credit=1_000_000_000)
    events = [make_event(shop) for _ in range(8)]
    cursed = events[5]
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION curse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF NEW.request_id = '{cursed.rid}' THEN RAISE EXCEPTION 'cursed'; END IF;"
            " RETURN NEW; END $$;"
            "CREATE TRIGGER curse BEFORE INSERT ON billing_usage_event"
            " FOR EACH ROW EXECUTE FUNCTION curse()"
        )
    for event in events:
        append(redis_client, event)

    ingest(redis_client)

    assert [len(rows_of(event.rid)) for event in events] == [1, 1, 1, 1, 1, 0, 1, 1]
    assert letters() == []
    for _ in range(4):
        ingest(redis_client, claim_idle_ms=0)
    [letter] = letters()
    assert "cursed" in letter.error
    assert letter.request_id == UUID(cursed.rid)
    assert stream_lengths(redis_client) == 0
    assert dict(final_state()["balances"]) == {shop.number: 1_000_000_000 - 7 * USAGE_NANO}


def test_a_request_of_one_tenant_is_not_revised_by_another(redis_client: redis.Redis) -> None:
    prices = make_price_set()
    acme, other = make_shop(price_set=prices), make_shop(name="Other", price_set=prices)
    rid = ids.uuid7()
    append(redis_client, make_event(acme, rid=rid, rank=1))
    ingest(redis_client)
    append(redis_client, make_event(other, rid=rid, rank=3))

    ingest(redis_client)

    assert [row.tenant_id for row in rows_of(rid)] == [acme.number]
    assert [letter.error for letter in letters()] == ["the request belongs to another tenant"]


def test_usage_events_can_neither_be_changed_nor_deleted(redis_client: redis.Redis) -> None:
    shop = make_shop()
    append(redis_client, make_event(shop))
    ingest(redis_client)

    for statement in (
        "UPDATE billing_usage_event SET amount_nano = 0",
        "DELETE FROM billing_usage_event",
        "TRUNCATE billing_usage_event",
    ):
        with (
            pytest.raises(DatabaseError, match="append-only"),
            platform_scope("tests"),
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)


def test_a_tenant_sees_its_own_events_alone_even_in_sql(redis_client: redis.Redis) -> None:
    prices = make_price_set()
    acme, other = make_shop(price_set=prices), make_shop(name="Other", price_set=prices)
    append(redis_client, make_event(acme))
    append(redis_client, make_event(other))
    append_body(redis_client, b"poison")
    ingest(redis_client)

    with tenant_scope(acme.number):
        assert [row.tenant_id for row in UsageEvent.objects.all()] == [acme.number]
        assert [row.tenant_id for row in UsageRollup.objects.all()] == [acme.number]
        assert {row.tenant_id for row in SpendCounter.objects.all()} == {acme.number}
        assert DeadLetter.objects.count() == 0
