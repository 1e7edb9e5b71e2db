"""reconcile: the proof that events, ledger, rollups, counters, wallets and Redis agree.

Each check compares a sum with what it sums and names the first differences. Those of PostgreSQL are
exact at any time; those of Redis look again, as requests in flight move it between two reads.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import redis
from django.db import connection

from billing.models.ledger import WALLET_KINDS, Wallet
from billing.models.upkeep import ReconciliationRun
from billing.queries.balance import pending_by_tenant
from billing.services.invoice_checks import INVOICE_CHECKS
from billing.services.partitions import forgotten_until
from billing.services.rollups import compare_counters, compare_rollups
from billing.services.upstream_reports import compare_upstreams
from turnpike.control.redis import redis_client, text_of
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, keyspace, money

EXAMPLES_MAX = 5
SCANNED_AT_ONCE = 1_000
LOOKS_AT_REDIS = 3
BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)
AHEAD = timedelta(days=2)
REPORTED = timedelta(days=3)
HELD_STATES = frozenset((b"open", b"settled"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found; no differences is good."""

    check: str
    differences: int
    examples: tuple[str, ...] = ()


def reconcile(*, since: datetime = BEGINNING) -> list[Finding]:
    """Run all checks; rollups and counters from `since` on."""
    until = clock.utc_now() + AHEAD
    since = max(since, _first_sure())
    return [
        *(check(name) for name in POSTGRES_CHECKS),
        _of_rows("rollups", compare_rollups(since=since, until=until)),
        _of_rows("counters", compare_counters(since=since, until=until)),
        _compare_redis(),
    ]


def check(name: str) -> Finding:
    """Run one of the checks of PostgreSQL."""
    return _of_rows(name, _rows(POSTGRES_CHECKS[name]))


def reconcile_and_keep(*, actor: str) -> ReconciliationRun:
    """Run all checks and keep what they found, for operators to read."""
    began_us = clock.now_us()
    findings = [*reconcile(), _compare_reports()]
    return ReconciliationRun.objects.create(
        differences=sum(finding.differences for finding in findings),
        findings=[asdict(finding) for finding in findings],
        took_ms=(clock.now_us() - began_us) // 1_000,
        actor=actor,
    )


def _compare_reports() -> Finding:
    """The newest days that are over, against the reports of the upstreams that give any."""
    today = clock.utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    return _of_rows("upstreams", compare_upstreams(since=today - REPORTED, until=today))


def _first_sure() -> datetime:
    """Rollups and counters of dropped months have no events to be compared with."""
    first = forgotten_until()
    return BEGINNING if first is None else datetime(first.year, first.month, 1, tzinfo=UTC)


def _rows(query: str) -> list[Any]:
    with platform_scope("reconcile"), connection.cursor() as cursor:
        cursor.execute(query, {"wallet_kinds": sorted(WALLET_KINDS)})
        return list(cursor.fetchall())


def _of_rows(name: str, rows: Sequence[Any]) -> Finding:
    examples = tuple(
        ", ".join(str(value) for value in row) if isinstance(row, tuple) else str(row)
        for row in rows[:EXAMPLES_MAX]
    )
    return Finding(check=name, differences=len(rows), examples=examples)


def _compare_redis() -> Finding:
    """Balances at equal versions, and what is held against the records that hold it."""
    try:
        seen = _redis_differences()
        for _ in range(LOOKS_AT_REDIS - 1):
            if not seen:
                break
            seen &= _redis_differences()
    except redis.RedisError as error:
        seen = {f"Redis is away: {type(error).__name__}"}
    return _of_rows("redis", sorted(seen))


def _redis_differences() -> set[str]:
    client = redis_client()
    held, held_by_scope = _holds(client)
    with platform_scope("reconcile"):
        wallets = {row.tenant_id: row for row in Wallet.objects.order_by("tenant_id")}
        pending = pending_by_tenant()
    found = set()
    for tenant in sorted(wallets.keys() | held.keys()):
        posted, version, amount = client.hmget(keyspace.wallet(tenant), "posted", "ver", "held")
        wallet = wallets.get(tenant)
        if wallet is not None and version is not None and int(version) == wallet.version:
            expected = money.micros_down(wallet.balance_nano - pending.get(tenant, 0))
            if int(posted or 0) != expected:
                found.add(f"tenant {tenant}: posted {int(posted or 0)}, should be {expected}")
        if int(amount or 0) != held.get(tenant, 0):
            found.add(f"tenant {tenant}: held {int(amount or 0)}, records {held.get(tenant, 0)}")
        found |= _scope_differences(client, tenant, held_by_scope.get(tenant, {}))
    return found


def _scope_differences(client: "redis.Redis", tenant: int, expected: Mapping[str, int]) -> set[str]:
    stored = {
        text_of(name).removeprefix("h:"): int(value)
        for name, value in client.hgetall(keyspace.budgets(tenant)).items()
        if text_of(name).startswith("h:")
    }
    return {
        f"tenant {tenant}: scope {scope} holds {stored.get(scope, 0)}, "
        f"records {expected.get(scope, 0)}"
        for scope in stored.keys() | expected.keys()
        if stored.get(scope, 0) != expected.get(scope, 0)
    }


def _holds(client: "redis.Redis") -> tuple[dict[int, int], dict[int, dict[str, int]]]:
    held: dict[int, int] = defaultdict(int)
    by_scope: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for shard in range(keyspace.SHARDS):
        pattern = f"{keyspace.tag(shard)}:r:*"
        for tenant, state, hold, scopes in _records(client, pattern):
            if state in HELD_STATES:
                held[tenant] += hold
                for scope in scopes:
                    by_scope[tenant][scope] += hold
    return held, by_scope


def _records(
    client: "redis.Redis", pattern: str
) -> Iterable[tuple[int, bytes | None, int, list[str]]]:
    names = client.scan_iter(match=pattern, count=SCANNED_AT_ONCE)
    while keys := list(islice(names, SCANNED_AT_ONCE)):
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.hmget(key, "st", "hold", "scopes")
        for key, (state, hold, scopes) in zip(keys, pipeline.execute(), strict=True):
            held_by = [scope for scope in text_of(scopes or b"").split(",") if scope]
            yield int(text_of(key).split(":")[-2]), state, int(hold or 0), held_by


POSTGRES_CHECKS: Mapping[str, str] = {
    "events_and_ledger": """
WITH used AS (
  SELECT 'usage:' || posting_id || ':' || tenant_id AS idem_key, sum(amount_nano) AS nano
  FROM (
    SELECT posting_id, tenant_id, amount_nano FROM billing_usage_event
    UNION ALL SELECT posting_id, tenant_id, amount_nano FROM billing_forgotten_posting
  ) AS all_postings GROUP BY posting_id, tenant_id HAVING sum(amount_nano) <> 0
), booked AS (
  SELECT txn.idem_key, sum(-entry.side * entry.amount) AS nano
  FROM billing_ledger_txn AS txn JOIN billing_ledger_entry AS entry ON entry.txn_id = txn.id
  JOIN billing_ledger_account AS account ON account.id = entry.account_id
  WHERE txn.kind = 'usage' AND account.kind = 'revenue' GROUP BY txn.idem_key
)
SELECT idem_key, used.nano, booked.nano FROM used FULL JOIN booked USING (idem_key)
WHERE used.nano IS DISTINCT FROM booked.nano""",
    "events_in_order": """
SELECT request_id, count(*), sum(amount_nano) FROM billing_usage_event GROUP BY request_id
HAVING max(revision) <> count(*) - 1 OR count(DISTINCT rank) <> count(*)
  OR sum(amount_nano) < 0 OR count(DISTINCT tenant_id) <> 1
  OR sum(amount_nano) > (array_agg(hold_micro ORDER BY revision DESC))[1]::numeric * 1000""",
    "entries_and_accounts": """
WITH replayed AS (
  SELECT account_id, count(*) AS entries,
    sum(amount) FILTER (WHERE side = 1) AS debits, sum(amount) FILTER (WHERE side = -1) AS credits
  FROM billing_ledger_entry GROUP BY account_id
)
SELECT account.id, account.debits, replayed.debits, account.credits, replayed.credits,
  account.version, replayed.entries
FROM billing_ledger_account AS account LEFT JOIN replayed ON replayed.account_id = account.id
WHERE account.debits <> coalesce(replayed.debits, 0)
  OR account.credits <> coalesce(replayed.credits, 0)
  OR account.version <> coalesce(replayed.entries, 0)""",
    "running_balances": """
SELECT txn_id, line, balance_after, replayed FROM (
  SELECT entry.txn_id, entry.line, entry.balance_after, entry.account_version,
    account.normal * sum(entry.side * entry.amount) OVER history AS replayed,
    row_number() OVER history AS place
  FROM billing_ledger_entry AS entry JOIN billing_ledger_account AS account
    ON account.id = entry.account_id
  WINDOW history AS (PARTITION BY entry.account_id ORDER BY entry.account_version)
) AS replay WHERE balance_after <> replayed OR account_version <> place""",
    "zero_sum": """
SELECT currency, sum(debits) - sum(credits) FROM billing_ledger_account
GROUP BY currency HAVING sum(debits) <> sum(credits)""",
    "wallets_and_accounts": """
SELECT wallet.tenant_id, wallet.balance_nano, coalesce(sum(account.credits - account.debits), 0)
FROM billing_wallet AS wallet LEFT JOIN billing_ledger_account AS account
  ON account.tenant_id = wallet.tenant_id AND account.kind = ANY(%(wallet_kinds)s)
GROUP BY wallet.tenant_id, wallet.balance_nano
HAVING wallet.balance_nano <> coalesce(sum(account.credits - account.debits), 0)""",
    "holds_and_accounts": """
WITH held AS (
  SELECT account_id, sum(remaining_nano) AS nano FROM billing_ledger_hold
  WHERE state = 'pending' GROUP BY account_id
)
SELECT account.id, account.pending, coalesce(held.nano, 0) FROM billing_ledger_account AS account
LEFT JOIN held ON held.account_id = account.id WHERE account.pending <> coalesce(held.nano, 0)""",
    "holds_and_batches": """
WITH open AS (
  SELECT batch_id, sum(hold_micro) FILTER (WHERE state = 'waiting') * 1000 AS waiting
  FROM billing_batch_item GROUP BY batch_id
), charged AS (
  SELECT item.batch_id, sum(event.amount_nano) AS nano FROM billing_batch_item AS item
  JOIN billing_usage_event AS event
    ON event.request_id = item.request_id AND event.revision = 0
  GROUP BY item.batch_id
)
SELECT batch.id, hold.state, hold.remaining_nano, open.waiting, hold.posted_nano, charged.nano
FROM billing_message_batch AS batch JOIN open ON open.batch_id = batch.id
LEFT JOIN billing_ledger_hold AS hold ON hold.id = batch.id
LEFT JOIN charged ON charged.batch_id = batch.id
WHERE hold.id IS NULL OR (hold.state = 'pending') <> (batch.state <> 'ended')
  OR (hold.state = 'pending' AND hold.remaining_nano <> coalesce(open.waiting, 0))
  OR hold.posted_nano <> coalesce(charged.nano, 0)""",
    "stray_rows": """
SELECT 'billing_usage_event_default', request_id FROM billing_usage_event_default
UNION ALL
SELECT 'billing_upstream_attempt_default', request_id FROM billing_upstream_attempt_default""",
    **INVOICE_CHECKS,
}
