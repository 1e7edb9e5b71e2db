"""publish_wallet: tells Redis what PostgreSQL has posted.

Every posting that touches a wallet is followed by a publish after its commit; the periodic
refresh repairs what was missed. Values carry the wallet row's version, so publishes may overtake
one another.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

import redis
from django.db import connection

from turnpike.control.redis import redis_client, script
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, keyspace, money

logger = logging.getLogger(__name__)

RECORDS_PER_CALL = 1_000
# The data plane asks Redis' clock for the day; ours may have passed midnight before it.
MIDNIGHT_SLACK = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletValues:
    """What a wallet's publication says, all of one instant; pending holds count as spent."""

    version: int
    posted_micro: int
    limit_micro: int
    spent_micro: Mapping[str, int]


def publish_wallet(*, tenant: int, posted: Mapping[str, int] | None = None) -> int:
    """Publish a tenant's balance, credit line and spent counters; returns how many holds it freed.

    `posted` names requests by the rank that PostgreSQL has of them: their holds end, now that the
    balance contains their charges. Without it an unreachable Redis is logged and left to the
    refresh; with it `redis.RedisError` is raised, because the caller must not forget them.
    """
    values = find_wallet_values(tenant=tenant)
    try:
        return _publish(tenant, values, dict(posted or {}))
    except redis.RedisError:
        if posted:
            raise
        logger.warning("wallet.publish_failed", extra={"tenant": tenant}, exc_info=True)
        return 0


def find_wallet_values(*, tenant: int) -> WalletValues:
    """A wallet as PostgreSQL has it; version 0 and nothing to spend where there is none."""
    now = clock.utc_now()
    days = {at.strftime("%Y-%m-%d") for at in (now - MIDNIGHT_SLACK, now)}
    periods = sorted(days | {day[:7] for day in days})
    with platform_scope("publish wallet"), connection.cursor() as cursor:
        # One statement, so that the counters are of the same instant as the version.
        cursor.execute(_VALUES, {"periods": periods, "tenant": tenant})
        row = cursor.fetchone()
    if row is None:
        return WalletValues(version=0, posted_micro=0, limit_micro=0, spent_micro={})
    version, balance, limit, spent = row
    return WalletValues(
        version=version,
        posted_micro=money.micros_down(balance),
        limit_micro=money.micros_down(limit),
        spent_micro={
            name: money.micros_up(nanos) for name, nanos in json.loads(spent or "{}").items()
        },
    )


def _publish(tenant: int, values: WalletValues, posted: Mapping[str, int]) -> int:
    shard = keyspace.shard_of(tenant)
    fixed_keys = [
        keyspace.wallet(tenant),
        keyspace.budgets(tenant),
        keyspace.unposted(shard),
        keyspace.open_requests(shard),
    ]
    fixed_arguments: list[int | str] = [
        values.posted_micro,
        values.version,
        values.limit_micro,
        tenant,
        json.dumps(dict(values.spent_micro)),
    ]
    freed, remaining = 0, iter(sorted(posted.items()))
    is_first = True
    while (part := list(islice(remaining, RECORDS_PER_CALL))) or is_first:
        is_first = False
        freed += int(
            script("publish")(
                keys=[*fixed_keys, *(keyspace.record(tenant, rid) for rid, _ in part)],
                args=[*fixed_arguments, *(rank for _, rank in part)],
                client=redis_client(),
            )
        )
    return freed


# What is pending is neither to be spent nor within a budget: it counts in the day and month in
# which its work was ordered, as the usage will.
_VALUES = """
SELECT wallet.version,
  wallet.balance_nano - (SELECT coalesce(sum(pending), 0)::bigint FROM billing_ledger_account
    WHERE billing_ledger_account.tenant_id = wallet.tenant_id),
  wallet.credit_limit_nano,
  (SELECT jsonb_object_agg(name, nano) FROM (
    SELECT name, sum(nano)::bigint AS nano FROM (
      SELECT scope || ':' || period AS name, spent_nano AS nano FROM billing_spend_counter
      WHERE billing_spend_counter.tenant_id = wallet.tenant_id AND period = ANY(%(periods)s)
      UNION ALL
      SELECT scope || ':' || period, hold.remaining_nano FROM billing_ledger_hold AS hold
      CROSS JOIN LATERAL (VALUES ('t'), ('w' || hold.workspace_id), ('k' || hold.api_key_id))
        AS scopes (scope)
      CROSS JOIN LATERAL (VALUES (to_char(hold.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')),
        (to_char(hold.created_at AT TIME ZONE 'UTC', 'YYYY-MM'))) AS periods (period)
      WHERE hold.tenant_id = wallet.tenant_id AND hold.state = 'pending'
        AND period = ANY(%(periods)s)
    ) AS parts GROUP BY name) AS spent)
FROM billing_wallet AS wallet WHERE wallet.tenant_id = %(tenant)s
"""
