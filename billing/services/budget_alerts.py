"""note_crossings, watch_budgets, tell_alerts: thresholds of budgets, each told once in its period.

The ingest notes a crossing in the transaction that charges; a job looks again, as a budget may be
lowered beneath what was spent. What was noted is told afterwards: a letter that cannot be written
never holds up usage.
"""

import logging
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta

import redis
from django.db import connection

from billing.models.alerts import THRESHOLDS, BudgetAlert
from billing.queries.refusals import read_refusals
from turnpike.control.scope import platform_scope
from turnpike.control.tasks import enqueue_on_commit

logger = logging.getLogger(__name__)

WATCH = "billing.tasks.watch_budgets"
# What ended longer ago is history that somebody imports: nobody is told of it.
RECENT = timedelta(days=1)
NEARLY, FULL = THRESHOLDS[-2:]
NEARLY_SPENT_MAX = 200
REFUSALS_READ = 200


def recent_periods(at: datetime) -> list[str]:
    """The days and months whose thresholds are told now."""
    days = {moment.astimezone(UTC).strftime("%Y-%m-%d") for moment in (at - RECENT, at)}
    return sorted(days | {day[:7] for day in days})


def note_crossings(*, tenants: Collection[int], periods: Collection[str], at: datetime) -> int:
    """Note what these tenants' budgets reached in periods, as far as they are recent; how many.

    Called in the transaction that charges; what is new is told after its commit.
    """
    wanted = sorted(set(periods) & set(recent_periods(at)))
    if not tenants or not wanted:
        return 0
    with connection.cursor() as cursor:
        cursor.execute(
            _NOTE.format(of="= ANY(%(tenants)s)"),
            {"tenants": sorted(tenants), "periods": wanted, "thresholds": list(THRESHOLDS)},
        )
        noted = int(cursor.rowcount)
    if noted:
        enqueue_on_commit(WATCH)
    return noted


def watch_budgets(*, at: datetime) -> int:
    """Look at every budget of the current periods; how many crossings were new."""
    with platform_scope("watch budgets"), connection.cursor() as cursor:
        cursor.execute(
            _NOTE.format(of="IS NOT NULL"),
            {"periods": recent_periods(at), "thresholds": list(THRESHOLDS)},
        )
        noted = int(cursor.rowcount)
    return noted + _note_refusing(at)


def _note_refusing(at: datetime) -> int:
    """A budget that refuses requests is used up, though its last cents are never spent."""
    with platform_scope("watch budgets"):
        nearly = list(_nearly_spent(at))
        noted = 0
        for alert in nearly:
            if _refuses(alert):
                _row, is_new = BudgetAlert.objects.get_or_create(
                    tenant_id=alert.tenant_id,
                    scope=alert.scope,
                    period=alert.period,
                    threshold=FULL,
                    budget_nano=alert.budget_nano,
                    defaults={"spent_nano": alert.spent_nano, "blocks": True},
                )
                noted += is_new
    return noted


def _nearly_spent(at: datetime) -> Sequence[BudgetAlert]:
    """Blocking budgets of which little is left, and that nobody was told to be used up."""
    rows = BudgetAlert.objects.filter(
        threshold=NEARLY, blocks=True, period__in=recent_periods(at)
    ).order_by("-pk")[:NEARLY_SPENT_MAX]
    found = list(rows)
    full = set(
        BudgetAlert.objects.filter(
            threshold=FULL, tenant_id__in={row.tenant_id for row in found}
        ).values_list("tenant_id", "scope", "period", "budget_nano")
    )
    return [
        row for row in found if (row.tenant_id, row.scope, row.period, row.budget_nano) not in full
    ]


def _refuses(alert: BudgetAlert) -> bool:
    reason = f"budget:s:{alert.scope}:{alert.period}"
    try:
        refused = read_refusals(alert.tenant_id, limit=REFUSALS_READ)
    except redis.RedisError:
        return False  # the next look is a minute away
    return any(row.get("reason") == reason for row in refused)


# A scope's budgets beside what was spent of them. Numbers of counters are the numbers of rows.
_NOTE = """
WITH scopes AS (
  SELECT id AS tenant_id, 't' AS scope, daily_budget_nano, daily_budget_blocks,
    monthly_budget_nano, monthly_budget_blocks
  FROM accounts_tenant WHERE id {of}
    AND (daily_budget_nano > 0 OR monthly_budget_nano > 0)
  UNION ALL
  SELECT tenant_id, 'w' || id, daily_budget_nano, daily_budget_blocks,
    monthly_budget_nano, monthly_budget_blocks
  FROM accounts_workspace WHERE tenant_id {of}
    AND (daily_budget_nano > 0 OR monthly_budget_nano > 0)
  UNION ALL
  SELECT tenant_id, 'k' || id, daily_budget_nano, daily_budget_blocks,
    monthly_budget_nano, monthly_budget_blocks
  FROM accounts_apikey WHERE tenant_id {of}
    AND (daily_budget_nano > 0 OR monthly_budget_nano > 0)
), budgets AS (
  SELECT tenant_id, scope, 10 AS width, daily_budget_nano AS nano, daily_budget_blocks AS blocks
  FROM scopes WHERE daily_budget_nano > 0
  UNION ALL
  SELECT tenant_id, scope, 7, monthly_budget_nano, monthly_budget_blocks
  FROM scopes WHERE monthly_budget_nano > 0
)
INSERT INTO billing_budget_alert
  (created_at, tenant_id, scope, period, threshold, budget_nano, spent_nano, blocks)
SELECT now(), budgets.tenant_id, budgets.scope, counter.period, threshold, budgets.nano,
  counter.spent_nano, budgets.blocks
FROM budgets
JOIN billing_spend_counter AS counter ON counter.tenant_id = budgets.tenant_id
  AND counter.scope = budgets.scope AND length(counter.period) = budgets.width
  AND counter.period = ANY(%(periods)s)
CROSS JOIN unnest(%(thresholds)s::smallint[]) AS threshold
WHERE counter.spent_nano::numeric * 100 >= budgets.nano::numeric * threshold
ORDER BY budgets.tenant_id, budgets.scope, counter.period, threshold
ON CONFLICT DO NOTHING
"""
