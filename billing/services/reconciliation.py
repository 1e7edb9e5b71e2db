"""reconcile: the proof that events, ledger, rollups, counters, wallets and Redis agree.

Each check compares a sum with what it sums and names the first differences. Those of PostgreSQL are
exact at any time; those of Redis look again, as requests in flight move it between two reads.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice

import redis
from django.db import connection

from billing.models.ledger import WALLET_KINDS, Wallet
from billing.models.upkeep import ReconciliationRun
from billing.queries.balance import pending_by_tenant
from billing.services.book_checks import CAUSE_COLUMNS, POSTGRES_CHECKS
from billing.services.differences import keep_differences
from billing.services.findings import Difference, Finding, difference_of, finding_of
from billing.services.partitions import forgotten_until
from billing.services.payments.sweep import compare_payments
from billing.services.rating_sample import rate_sample
from billing.services.rollups import DIMENSIONS, compare_counters, compare_rollups
from billing.services.upstream_reports import compare_reports
from turnpike.control.redis import redis_client, text_of
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, keyspace, money

SCANNED_AT_ONCE = 1_000
LOOKS_AT_REDIS = 3
BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)
AHEAD = timedelta(days=2)
REPORTED = timedelta(days=3)
HELD_STATES = frozenset((b"open", b"settled"))


def reconcile(*, since: datetime = BEGINNING) -> list[Finding]:
    """Run all checks; rollups and counters from `since` on."""
    until = clock.utc_now() + AHEAD
    since = max(since, _first_sure())
    return [
        *(check(name) for name in POSTGRES_CHECKS),
        finding_of("rollups", _rollups(since, until)),
        finding_of("counters", _counters(since, until)),
        rate_sample(until=until),
        _compare_redis(),
    ]


def check(name: str) -> Finding:
    """Run one of the checks of PostgreSQL."""
    with platform_scope("reconcile"), connection.cursor() as cursor:
        cursor.execute(POSTGRES_CHECKS[name], {"wallet_kinds": sorted(WALLET_KINDS)})
        names = [column.name for column in cursor.description]
        columns = CAUSE_COLUMNS.get(name, 1)
        rows = [difference_of(names, row, cause_columns=columns) for row in cursor.fetchall()]
    return finding_of(name, rows)


def reconcile_and_keep(*, actor: str) -> ReconciliationRun:
    """Run all checks, keep what they found, and open an item for each difference."""
    began_us = clock.now_us()
    findings = [*reconcile(), _compare_reports(), _compare_provider()]
    keep_differences(findings, at=clock.utc_now())
    return ReconciliationRun.objects.create(
        differences=sum(finding.differences for finding in findings),
        findings=[finding.as_json() for finding in findings],
        took_ms=(clock.now_us() - began_us) // 1_000,
        actor=actor,
    )


def _compare_reports() -> Finding:
    """The newest days that are over, against the reports of the upstreams that give any."""
    today = clock.utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    compared = compare_reports(since=today - REPORTED, until=today)
    return finding_of("upstreams", compared.differences, covered=compared.covered)


def _compare_provider() -> Finding:
    """The newest payments, against the list of the provider that is set up."""
    compared = compare_payments(at=clock.utc_now())
    return finding_of("payments", compared.differences, covered=compared.covered)


def _first_sure() -> datetime:
    """Rollups and counters of dropped months have no events to be compared with."""
    first = forgotten_until()
    return BEGINNING if first is None else datetime(first.year, first.month, 1, tzinfo=UTC)


def _rollups(since: datetime, until: datetime) -> list[Difference]:
    return [
        Difference(
            cause=row.key,
            evidence=(
                *zip(DIMENSIONS, row.key, strict=True),
                ("stored", str(row.stored)),
                ("rebuilt", str(row.rebuilt)),
            ),
            text=str(row),
        )
        for row in compare_rollups(since=since, until=until)
    ]


def _counters(since: datetime, until: datetime) -> list[Difference]:
    names = ("tenant_id", "period", "scope", "stored_nano", "rebuilt_nano")
    rows = compare_counters(since=since, until=until)
    return [difference_of(names, row, cause_columns=3) for row in rows]


def _compare_redis() -> Finding:
    """Balances at equal versions, and what is held against the records that hold it."""
    try:
        seen = _redis_differences()
        for _ in range(LOOKS_AT_REDIS - 1):
            if not seen:
                break
            seen &= _redis_differences()
    except redis.RedisError as error:
        away = Difference(
            cause=("away",),
            evidence=(("error", type(error).__name__),),
            text=f"Redis is away: {type(error).__name__}",
        )
        return finding_of("redis", [away], covered=frozenset())
    return finding_of("redis", sorted(seen, key=lambda row: row.cause))


def _redis_differences() -> set[Difference]:
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
                found.add(_of_tenant(tenant, "posted", int(posted or 0), expected))
        if int(amount or 0) != held.get(tenant, 0):
            found.add(_of_tenant(tenant, "held", int(amount or 0), held.get(tenant, 0)))
        found |= _scope_differences(client, tenant, held_by_scope.get(tenant, {}))
    return found


def _of_tenant(tenant: int, what: str, stored: int, expected: int) -> Difference:
    return Difference(
        cause=(str(tenant), what),
        evidence=(
            ("tenant_id", str(tenant)),
            ("what", what),
            ("stored_micro", str(stored)),
            ("expected_micro", str(expected)),
        ),
        text=f"tenant {tenant}: {what} {stored}, should be {expected}",
    )


def _scope_differences(
    client: "redis.Redis", tenant: int, expected: Mapping[str, int]
) -> set[Difference]:
    stored = {
        text_of(name).removeprefix("h:"): int(value)
        for name, value in client.hgetall(keyspace.budgets(tenant)).items()
        if text_of(name).startswith("h:")
    }
    return {
        _of_tenant(tenant, f"held of {scope}", stored.get(scope, 0), expected.get(scope, 0))
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
