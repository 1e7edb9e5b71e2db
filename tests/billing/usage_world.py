"""A small world for usage: a tenant with a key, prices, and events as the proxy writes them."""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import redis
from django.db import connection

from accounts.models import ApiKey, Tenant, Workspace
from billing.ingest.consumer import Consumer
from billing.models.catalog import Price, PriceBook, PriceSet
from billing.models.usage import DeadLetter, UsageEvent, UsageRollup
from billing.services.wallet import grant_credit
from turnpike.contracts.usage import STATUS_OF_RANK
from turnpike.contracts.usage import UsageEvent as Event
from turnpike.control.redis import text_of
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids, keyspace
from turnpike.kernel.codec import to_json

MODEL = "claude-sonnet-4-5"
HOLD_MICRO = 1_000_000
# Dollars per million tokens, in nanos; made up, but for their order.
RATES = {
    "input": 3_000_000_000,
    "output": 15_000_000_000,
    "cache_write_5m": 3_750_000_000,
    "cache_write_1h": 6_000_000_000,
    "cache_read": 300_000_000,
}
WEB_SEARCH_NANO = 10_000_000
USAGE: Mapping[str, Any] = {"input_tokens": 100, "output_tokens": 20}
USAGE_NANO = 100 * 3_000 + 20 * 15_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """A tenant with a workspace and a key, and the prices it pays."""

    tenant: Tenant
    workspace: Workspace
    key: ApiKey
    price_set: int

    @property
    def number(self) -> int:
        """The tenant's number."""
        return int(self.tenant.pk)

    @property
    def shard(self) -> int:
        """The shard that its events are written to."""
        return keyspace.shard_of(self.number)


def make_price_set(*, rates: Mapping[str, int] | None = None, currency: str = "USD") -> int:
    """A price set of a book of its own, for MODEL in all variants that the tests use."""
    rates = RATES if rates is None else rates
    with platform_scope("tests"):
        book = PriceBook.objects.create(name=f"book {ids.uuid7()}", currency=currency)
        price_set = PriceSet.objects.create(
            book=book, effective=(datetime(2020, 1, 1, tzinfo=UTC), None)
        )
        rows = [
            Price(
                price_set=price_set,
                model=MODEL,
                component=name,
                variant=variant,
                nano_per_mtok=rate // divisor,
            )
            for name, rate in rates.items()
            for variant, divisor in (("standard", 1), ("batch", 2))
        ]
        rows.append(
            Price(
                price_set=price_set,
                model="*",
                component="web_search",
                nano_per_unit=WEB_SEARCH_NANO,
            )
        )
        Price.objects.bulk_create(rows)
    return price_set.pk


def make_shop(*, name: str = "Acme", price_set: int | None = None, credit: int = 0) -> Shop:
    """A tenant with a default workspace and one key; `credit` in nanos."""
    with platform_scope("tests"):
        tenant = Tenant.objects.create(name=name)
        workspace = Workspace.objects.create(tenant=tenant, name="Default", is_default=True)
        key = make_key(workspace)
    if credit:
        grant_credit(
            tenant=tenant.pk,
            amount=credit,
            idempotency_key=f"grant {tenant.pk} {ids.uuid7()}",
            reason="tests",
            actor="tests",
        )
    return Shop(
        tenant=tenant,
        workspace=workspace,
        key=key,
        price_set=price_set or make_price_set(),
    )


def make_key(workspace: Workspace) -> ApiKey:
    """One more key of a workspace."""
    with platform_scope("tests"):
        return ApiKey.objects.create(
            tenant=workspace.tenant,
            workspace=workspace,
            name="key",
            digest=os.urandom(32).hex(),
            pepper_id="p1",
            hint="tpk_live_xxxx...yyyy",
            scopes=["messages"],
        )


def make_event(shop: Shop, *, rid: UUID | None = None, rank: int = 3, **changes: Any) -> Event:
    """A reported event of now, unless told otherwise."""
    request = rid or ids.uuid7()
    started_at_us = ids.uuid7_ms(request) * 1_000
    event = Event(
        rid=str(request),
        rank=rank,
        status=STATUS_OF_RANK[rank],
        tenant=shop.number,
        workspace=int(shop.workspace.pk),
        key=int(shop.key.pk),
        model=MODEL,
        upstream_model=MODEL,
        requested_model=MODEL,
        price_set=shop.price_set,
        started_at_us=started_at_us,
        finished_at_us=started_at_us + 1_500_000,
        hold_micro=HOLD_MICRO,
        usage=dict(USAGE) if rank else {},
        http_status=200,
        stop_reason="end_turn",
        ttft_us=250_000,
    )
    return dataclasses.replace(event, **changes)


def append(client: "redis.Redis", event: Event) -> str:
    """Write an event to its stream as settle does; returns the entry's id."""
    return append_body(client, to_json(event).encode(), shard=keyspace.shard_of(event.tenant))


def append_body(client: "redis.Redis", body: bytes, *, shard: int = 0) -> str:
    """Write any bytes to a shard's stream."""
    return text_of(client.xadd(keyspace.usage_stream(shard), {keyspace.EVENT_FIELD: body}))


def ingest(client: "redis.Redis", **options: Any) -> int:
    """Run a consumer in this process until the streams are empty."""
    consumer = Consumer(client, name="tests", **options)
    return consumer.drain(until_seconds=clock.monotonic_seconds() + 60)


def rows_of(rid: str | UUID) -> list[UsageEvent]:
    """The revisions of a request."""
    with platform_scope("tests"):
        return list(UsageEvent.objects.filter(request_id=rid).order_by("revision"))


def letters() -> list[DeadLetter]:
    """All dead letters, the oldest first."""
    with platform_scope("tests"):
        return list(DeadLetter.objects.order_by("pk"))


def final_state() -> dict[str, Any]:
    """What the money side of the database says, without what depends on the order of arrival."""
    with platform_scope("tests"), connection.cursor() as cursor:
        state: dict[str, Any] = {}
        for name, query in _FINAL.items():
            cursor.execute(query)
            state[name] = cursor.fetchall()
    return state


def stream_lengths(client: "redis.Redis") -> int:
    """How many entries are left in all streams."""
    return sum(client.xlen(keyspace.usage_stream(shard)) for shard in range(keyspace.SHARDS))


def sums_agree() -> None:
    """Assert that events, ledger, rollups, counters and wallets say the same."""
    state = final_state()
    assert state["postings"] == []
    events = {row[0]: row[1] for row in state["by_tenant"]}
    assert {row[0]: row[1] for row in state["rolled_up"]} == events
    for name in ("revenue", "counted_by_day", "counted_by_month"):
        assert dict(state[name]) == {tenant: nano for tenant, nano in events.items() if nano}


def rollup_rows(shop: Shop) -> list[UsageRollup]:
    """A tenant's rollups in their order."""
    with platform_scope("tests"):
        return list(UsageRollup.objects.filter(tenant_id=shop.number).order_by("pk"))


def redis_json(value: Any) -> str:
    """A value as the data plane writes it."""
    return json.dumps(value, separators=(",", ":"))


_FINAL = {
    "events": (
        "SELECT request_id, tenant_id, max(rank), sum(input_tokens), sum(output_tokens),"
        " sum(cache_read_tokens), sum(amount_nano), sum(waived_nano), sum(output_chars),"
        " (array_agg(status ORDER BY revision DESC))[1]"
        " FROM billing_usage_event GROUP BY 1, 2 ORDER BY 1"
    ),
    "rollups": (
        "SELECT tenant_id, bucket_at, workspace_id, api_key_id, model, tier, context_window,"
        " requests, input_tokens, output_tokens, cache_read_tokens, amount_nano, waived_nano"
        " FROM billing_usage_rollup ORDER BY 1, 2, 3, 4, 5, 6, 7"
    ),
    "counters": (
        "SELECT tenant_id, period, scope, spent_nano FROM billing_spend_counter"
        " WHERE spent_nano <> 0 ORDER BY 1, 2, 3"
    ),
    "balances": "SELECT tenant_id, balance_nano FROM billing_wallet ORDER BY 1",
    "by_tenant": (
        "SELECT tenant_id, sum(amount_nano)::bigint FROM billing_usage_event GROUP BY 1 ORDER BY 1"
    ),
    "rolled_up": (
        "SELECT tenant_id, sum(amount_nano)::bigint FROM billing_usage_rollup GROUP BY 1 ORDER BY 1"
    ),
    "revenue": (
        "SELECT tenant_id, credits - debits FROM billing_ledger_account"
        " WHERE kind = 'revenue' AND credits <> debits ORDER BY 1"
    ),
    "counted_by_day": (
        "SELECT tenant_id, sum(spent_nano)::bigint FROM billing_spend_counter"
        " WHERE scope = 't' AND length(period) = 10 GROUP BY 1 HAVING sum(spent_nano) <> 0"
    ),
    "counted_by_month": (
        "SELECT tenant_id, sum(spent_nano)::bigint FROM billing_spend_counter"
        " WHERE scope = 't' AND length(period) = 7 GROUP BY 1 HAVING sum(spent_nano) <> 0"
    ),
    "postings": (
        "SELECT posting_id, tenant_id, sum(amount_nano) FROM billing_usage_event e GROUP BY 1, 2"
        " HAVING sum(amount_nano) <> coalesce((SELECT (memo->>'amount_nano')::bigint"
        "   FROM billing_ledger_txn t"
        "   WHERE t.idem_key = 'usage:' || posting_id || ':' || e.tenant_id), 0)"
    ),
}


def settle(client: "redis.Redis", event: Event, *, scopes: tuple[str, ...] = ("t",)) -> None:
    """Leave an event and its record behind as settle does: held, listed and in the stream."""
    shard = keyspace.shard_of(event.tenant)
    body = to_json(event)
    client.hset(
        keyspace.record(event.tenant, event.rid),
        mapping={
            "st": "settled",
            "hold": event.hold_micro,
            "rid": event.rid,
            "rank": event.rank,
            "scopes": ",".join(scopes),
            "event": body,
        },
    )
    client.hincrby(keyspace.wallet(event.tenant), "held", event.hold_micro)
    for scope in scopes:
        client.hincrby(keyspace.budgets(event.tenant), f"h:{scope}", event.hold_micro)
    client.zadd(keyspace.unposted(shard), {f"{event.tenant}|{event.rid}": clock.now_ms()})
    append_body(client, body.encode(), shard=shard)


def process_environment() -> dict[str, str]:
    """What a process needs to work on this test's own databases."""
    # Only the path changes: on a unix socket the server's place is in the query.
    url = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
    root = Path(__file__).resolve().parents[2]
    return {
        **os.environ,
        "DATABASE_URL": url.geturl(),
        "PYTHONPATH": f"{root / 'platform'}:{root}",
        "DJANGO_SETTINGS_MODULE": "turnpike.settings",
    }
