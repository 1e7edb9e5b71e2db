"""Usage of two months, written by the database itself: as many events as are asked for.

A few tenants share them unevenly, and so do their keys: some are busy all day, most are used now
and then. Rollups come from the events by the same rebuild that repairs them; counters and ledger
are sums of the same rows.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import connection

from accounts.models import ApiKey
from billing.services.rollups import rebuild_rollups
from tests.billing.usage_world import MODEL, Shop, make_shop
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock

DAYS = 60
# Of a hundred events and keys, how many are each tenant's; the first is the console's.
SHARES = (70, 20, 7, 3)
POSTED_AT_ONCE = 10
RUN = 10
TABLES = (
    *("usage_event", "upstream_attempt", "usage_rollup", "spend_counter", "ledger_txn"),
    *("ledger_entry", "ledger_account", "period"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Tenants with their keys, ready to have used something."""

    shops: tuple[Shop, ...]
    keys: int


def make_crowd(first: Shop, *, keys: int) -> Crowd:
    """The other tenants beside a first one, and so many keys over all."""
    others = [make_shop(name=f"Tenant {number}") for number in range(1, len(SHARES))]
    shops = (first, *others)
    with platform_scope("tests"):
        for shop, share in zip(shops, SHARES, strict=True):
            ApiKey.objects.bulk_create(
                _key(shop, number) for number in range(keys * share // 100 - 1)
            )
    return Crowd(shops=shops, keys=keys)


def fill(crowd: Crowd, *, events: int, known: int = 0) -> None:
    """Write so many events over DAYS until now, and everything that is summed from them.

    `known` is how many were written before: more are others.
    """
    now = clock.utc_now()
    since = now - timedelta(days=DAYS)
    with platform_scope("tests"), connection.cursor() as cursor:
        cursor.execute("SELECT billing_make_partitions(%s, %s)", [since.date(), 3])
        for shop, share in zip(crowd.shops, SHARES, strict=True):
            given: dict[str, Any] = {
                "tenant": shop.number,
                "workspace": shop.workspace.pk,
                "price_set": shop.price_set,
                "model": MODEL,
                "count": events * share // 100,
                "known": known,
                "since": since,
                "days": DAYS,
                "at_once": POSTED_AT_ONCE,
                "run": RUN,
            }
            cursor.execute(_PERIODS, given)
            cursor.execute(_EVENTS, given)
            cursor.execute(_ATTEMPTS, given)
            cursor.execute(_COUNTERS, given)
            cursor.execute(_ACCOUNTS, given)
            _post(given)
    rebuild_rollups(since=since - timedelta(days=1), until=now + timedelta(days=1))


def analyze() -> None:
    """Let the planner know what there is now."""
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"ANALYZE billing_{table}")
        cursor.execute("ANALYZE accounts_apikey")


def _post(given: Mapping[str, Any]) -> None:
    # The triggers keep accounts row by row; here their sums are written at once.
    guarded = ("ledger_txn", "ledger_entry", "ledger_account")
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in guarded:
            cursor.execute(f"ALTER TABLE billing_{table} DISABLE TRIGGER USER")
        cursor.execute(_TXNS, given)
        cursor.execute(_ENTRIES, given)
        cursor.execute(_ACCOUNT_SUMS, given)
        cursor.execute(_WALLETS, given)
        for table in guarded:
            cursor.execute(f"ALTER TABLE billing_{table} ENABLE TRIGGER USER")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")


def _key(shop: Shop, number: int) -> ApiKey:
    return ApiKey(
        tenant=shop.tenant,
        workspace=shop.workspace,
        name=f"service {number}",
        digest=os.urandom(32).hex(),
        pepper_id="p1",
        hint="tpk_live_xxxx...yyyy",
        scopes=["messages"],
    )


_PERIODS = """
INSERT INTO billing_period (tenant_id, starts_at, ends_at, state, created_at)
SELECT %(tenant)s, month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC',
  'open', now()
FROM generate_series(date_trunc('month', %(since)s AT TIME ZONE 'UTC'),
  now() AT TIME ZONE 'UTC', interval '1 month') AS month
ON CONFLICT (tenant_id, starts_at) DO NOTHING
"""
# Time goes on evenly with the number, so that ids are made in order, as they are in life; a key
# sends some requests in a row, and few keys send most of them.
_EVENTS = """
WITH keys AS MATERIALIZED (
  SELECT array_agg(id ORDER BY id) AS ids FROM accounts_apikey WHERE tenant_id = %(tenant)s
), numbered AS (
  SELECT n, md5(%(tenant)s || ':' || n) AS hash,
    %(since)s::timestamptz
      + (n - %(known)s - 0.5) * (make_interval(days => %(days)s) / %(count)s) AS at,
    keys.ids[1 + floor(cardinality(keys.ids) * power(
      (('x' || substr(md5('k' || n / %(run)s), 1, 8))::bit(32)::bigint / 4294967296.0), 6)
    )::int] AS key
  FROM keys, generate_series(%(known)s + 1, %(known)s + %(count)s) AS n
), used AS (
  SELECT *, (('x' || substr(hash, 20, 3))::bit(12)::int) + 50 AS input,
    (('x' || substr(hash, 24, 2))::bit(8)::int) + 10 AS output
  FROM numbered
)
INSERT INTO billing_usage_event (
  request_id, revision, tenant_id, workspace_id, api_key_id, period_id, status, rank, is_late,
  model, requested_model, upstream_model, tier, context_window, is_batch, is_stream, started_at,
  finished_at, ttft_us, http_status, stop_reason, error_type, output_chars, price_set_id,
  discount_bp, hold_micro, currency, components, posting_id, fingerprint, raw_usage,
  input_tokens, output_tokens, cache_write_5m_tokens, cache_write_1h_tokens, cache_read_tokens,
  web_search_requests, thinking_tokens, input_nano, output_nano, cache_write_5m_nano,
  cache_write_1h_nano, cache_read_nano, web_search_nano, amount_nano, waived_nano)
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(hash, 1, 3)
    || '8' || substr(hash, 4, 15))::uuid, 0, %(tenant)s, %(workspace)s, key, period.id, 'reported',
  3, false, %(model)s, %(model)s, %(model)s, 'standard', '', false, n %% 3 = 0, at,
  at + interval '1.5 seconds', 200000 + input * 100, 200, 'end_turn', NULL, output * 4,
  %(price_set)s, 0, 1000000, 'USD', '[]',
  md5(%(tenant)s || '/' || (n - 1) / %(at_once)s)::uuid, '\\x00', '{}',
  input, output, 0, 0, 0, 0, 0, input * 3000, output * 15000, 0, 0, 0, 0,
  input * 3000 + output * 15000, 0
FROM used JOIN billing_period AS period
  ON period.tenant_id = %(tenant)s AND period.starts_at <= at AND at < period.ends_at
"""
_ATTEMPTS = """
INSERT INTO billing_upstream_attempt (request_id, attempt, tenant_id, upstream_id, outcome,
  is_billed, cost_nano, started_at)
SELECT request_id, 0, tenant_id, 1, 'answered', true, amount_nano / 2, started_at
FROM billing_usage_event WHERE tenant_id = %(tenant)s
ON CONFLICT DO NOTHING
"""
_COUNTERS = """
INSERT INTO billing_spend_counter AS stored (tenant_id, period, scope, spent_nano)
SELECT %(tenant)s, period, scope, sum(nano) FROM (
  SELECT api_key_id, to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day,
    sum(amount_nano) AS nano
  FROM billing_usage_event WHERE tenant_id = %(tenant)s GROUP BY 1, 2
) AS spent, unnest(ARRAY['t', 'w' || %(workspace)s, 'k' || api_key_id]) AS scope,
  unnest(ARRAY[day, left(day, 7)]) AS period
GROUP BY period, scope
ON CONFLICT (tenant_id, period, scope) DO UPDATE SET spent_nano = excluded.spent_nano
"""
_ACCOUNTS = """
INSERT INTO billing_ledger_account (tenant_id, kind, ref, currency, normal, debits, credits,
  pending, version)
VALUES (%(tenant)s, 'prepaid', '', 'USD', -1, 0, 0, 0, 0),
  (%(tenant)s, 'revenue', '', 'USD', -1, 0, 0, 0, 0)
ON CONFLICT DO NOTHING
"""
_TXNS = """
INSERT INTO billing_ledger_txn (idem_key, kind, currency, tenant_id, fingerprint, actor, posted_at,
  memo, xact)
SELECT 'usage:' || posting_id || ':' || %(tenant)s, 'usage', 'USD', %(tenant)s, '\\x00', 'ingest',
  max(finished_at), jsonb_build_object('amount_nano', sum(amount_nano), 'events', count(*)),
  pg_current_xact_id()
FROM billing_usage_event WHERE tenant_id = %(tenant)s GROUP BY posting_id
ORDER BY min(started_at) ON CONFLICT DO NOTHING
"""
_ENTRIES = """
WITH posted AS (
  SELECT txn.id, (txn.memo->>'amount_nano')::bigint AS nano,
    row_number() OVER (ORDER BY txn.id) AS number,
    sum((txn.memo->>'amount_nano')::bigint) OVER (ORDER BY txn.id) AS total
  FROM billing_ledger_txn AS txn WHERE tenant_id = %(tenant)s AND kind = 'usage'
    AND NOT EXISTS (SELECT FROM billing_ledger_entry AS entry WHERE entry.txn_id = txn.id)
)
INSERT INTO billing_ledger_entry (txn_id, line, account_id, side, amount, tenant_id,
  account_version, balance_after)
SELECT posted.id, CASE account.kind WHEN 'prepaid' THEN 1 ELSE 2 END, account.id,
  CASE account.kind WHEN 'prepaid' THEN 1 ELSE -1 END, nano, %(tenant)s,
  account.version + number,
  account.normal * (account.debits - account.credits)
    + CASE account.kind WHEN 'prepaid' THEN -total ELSE total END
FROM posted CROSS JOIN billing_ledger_account AS account
WHERE account.tenant_id = %(tenant)s AND account.kind IN ('prepaid', 'revenue')
  AND account.ref = ''
"""
_ACCOUNT_SUMS = """
UPDATE billing_ledger_account AS account
SET debits = sums.debits, credits = sums.credits, version = sums.version
FROM (
  SELECT account_id, coalesce(sum(amount) FILTER (WHERE side = 1), 0) AS debits,
    coalesce(sum(amount) FILTER (WHERE side = -1), 0) AS credits, max(account_version) AS version
  FROM billing_ledger_entry WHERE tenant_id = %(tenant)s GROUP BY account_id
) AS sums
WHERE account.id = sums.account_id
"""
_WALLETS = """
INSERT INTO billing_wallet AS wallet (tenant_id, currency, balance_nano, version,
  credit_limit_nano, mode)
SELECT %(tenant)s, 'USD', coalesce(sum(credits - debits), 0), 1, 0, 'prepaid'
FROM billing_ledger_account WHERE tenant_id = %(tenant)s
  AND kind IN ('prepaid', 'promo', 'unbilled', 'receivable')
ON CONFLICT (tenant_id) DO UPDATE
SET balance_nano = excluded.balance_nano, version = wallet.version + 1
"""
