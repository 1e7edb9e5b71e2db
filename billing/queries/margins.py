"""Margins: what was charged against what upstreams cost, by tenant and model."""

from dataclasses import dataclass
from datetime import datetime

from django.db import connection

from turnpike.kernel import ids

ROWS_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """One tenant and model in one currency; `uncosted` are billed attempts without a cost."""

    tenant: int
    model: str
    currency: str
    requests: int
    charged_nano: int
    cost_nano: int
    uncosted: int


def list_margins(*, since: datetime, until: datetime) -> list[Margin]:
    """The margins of requests that began in a span, the largest charge first.

    Costs in another currency than the charge's are counted as uncosted, never converted.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            _MARGINS,
            {
                "first": ids.uuid7_floor(since),
                "last": ids.uuid7_floor(until),
                "limit": ROWS_MAX,
            },
        )
        return [
            Margin(
                tenant=row[0],
                model=row[1],
                currency=row[2],
                requests=row[3],
                charged_nano=int(row[4]),
                cost_nano=int(row[5]),
                uncosted=int(row[6]),
            )
            for row in cursor.fetchall()
        ]


_MARGINS = """
WITH charged AS (
  SELECT request_id, max(tenant_id) AS tenant_id, max(currency) AS currency,
    (array_agg(model ORDER BY revision DESC))[1] AS model, sum(amount_nano) AS nano
  FROM billing_usage_event WHERE request_id >= %(first)s AND request_id < %(last)s
  GROUP BY request_id
), costed AS (
  SELECT attempt.request_id, book.currency, sum(attempt.cost_nano) AS nano,
    count(*) FILTER (WHERE attempt.is_billed AND attempt.cost_nano IS NULL) AS uncosted
  FROM billing_upstream_attempt AS attempt
  LEFT JOIN billing_upstream AS upstream ON upstream.id = attempt.upstream_id
  LEFT JOIN billing_price_book AS book ON book.id = upstream.cost_book_id
  WHERE attempt.request_id >= %(first)s AND attempt.request_id < %(last)s
  GROUP BY attempt.request_id, book.currency
), cost AS (
  SELECT charged.request_id,
    coalesce(sum(costed.nano) FILTER (WHERE costed.currency = charged.currency), 0) AS nano,
    coalesce(sum(costed.uncosted), 0)
      + count(*) FILTER (WHERE costed.nano <> 0 AND costed.currency <> charged.currency) AS uncosted
  FROM charged LEFT JOIN costed USING (request_id) GROUP BY charged.request_id
)
SELECT tenant_id, model, charged.currency, count(*), sum(charged.nano), sum(cost.nano),
  sum(cost.uncosted)
FROM charged JOIN cost USING (request_id)
GROUP BY tenant_id, model, charged.currency ORDER BY sum(charged.nano) DESC, 1, 2 LIMIT %(limit)s
"""
