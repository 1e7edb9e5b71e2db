"""sum_attempts: what an upstream's billed attempts come to, by UTC day and model."""

from datetime import datetime
from typing import Any

from django.db import connection

from turnpike.control.scope import platform_scope
from turnpike.kernel import ids

_ATTEMPTS = """
SELECT to_char(attempt.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD'), event.upstream_model, {columns}
FROM billing_upstream_attempt AS attempt JOIN billing_usage_event AS event
  ON event.request_id = attempt.request_id AND event.revision = 0
WHERE attempt.upstream_id = %(upstream)s AND attempt.is_billed
  AND attempt.started_at >= %(since)s AND attempt.started_at < %(until)s
  AND attempt.request_id >= %(first)s AND event.request_id >= %(first)s
GROUP BY 1, 2"""


def sum_attempts(
    columns: str, *, upstream: int, since: datetime, until: datetime
) -> list[tuple[Any, ...]]:
    """Day, model and these sums of `attempt`; `columns` is SQL of ours."""
    values: dict[str, Any] = {
        "upstream": upstream,
        "since": since,
        "until": until,
        "first": ids.uuid7_floor(since),
    }
    with platform_scope("sum attempts"), connection.cursor() as cursor:
        cursor.execute(_ATTEMPTS.format(columns=columns), values)
        return list(cursor.fetchall())
