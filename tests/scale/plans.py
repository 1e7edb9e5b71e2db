"""What a page asks the database: every query, and how the database means to answer it."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db import connection

# Tables that have a row, or more, for each request: nobody reads them from end to end.
GROWING = re.compile(
    r"^billing_(usage_event|upstream_attempt|ledger_txn|ledger_entry|usage_rollup)(_\w+)?$"
)
NAMED = re.compile(r"\bbilling_(usage|upstream_attempt|ledger)_?")
READS = re.compile(r"\s*(SELECT|WITH)\b")
SCAN = "Seq Scan"


@dataclass(slots=True)
class Asked:
    """The queries of one page; `plans` where they were asked for."""

    queries: list[str] = field(default_factory=list)
    plans: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def scans(self) -> list[str]:
        """Growing tables that a query reads whole."""
        return [
            f"{node['Relation Name']}: {sql[:300]}"
            for sql, plan in self.plans
            for node in nodes(plan)
            if node["Node Type"] == SCAN and GROWING.match(node.get("Relation Name", ""))
        ]

    def events_read(self) -> int:
        """How many events were read, where the plans were run."""
        return sum(
            int(
                (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            )
            for _sql, plan in self.plans
            for node in nodes(plan)
            if node.get("Relation Name", "").startswith("billing_usage_event")
        )


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's nodes."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


@contextmanager
def watching(*, with_plans: bool, are_run: bool = False) -> Iterator[Asked]:
    """Keep every query that is sent meanwhile; and its plan, asked for in its own transaction.

    Plans that are run say how many rows they read.
    """
    asked = Asked()

    def keep(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        asked.queries.append(sql)
        if with_plans and READS.match(sql) and NAMED.search(sql):
            asked.plans.append((sql, _explain(sql, params, is_run=are_run)))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(keep):
        yield asked


def _explain(sql: str, params: Any, *, is_run: bool) -> dict[str, Any]:
    words = "ANALYZE, FORMAT JSON" if is_run else "FORMAT JSON"
    with connection.connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN ({words}) {sql}", params)
        found = cursor.fetchone()[0]
    plan: dict[str, Any] = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    return plan
