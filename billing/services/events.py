"""Rows of usage events and attempts: built from what was parsed, written in one statement each."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from billing.models.usage import NUMBER_COLUMNS
from billing.models.usage import UsageEvent as EventRow
from billing.services.charging import BATCH, Charge
from billing.services.costs import CostBooks, load_cost_books
from turnpike.contracts.usage import (
    OUTCOME_ANSWERED,
    OUTCOME_CUT,
    OUTCOME_RECONCILED,
    Attempt,
    UsageEvent,
)
from turnpike.kernel import clock

BILLED_OUTCOMES = frozenset((OUTCOME_ANSWERED, OUTCOME_CUT))
SUMMED_COLUMNS = (*NUMBER_COLUMNS, "output_chars")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What PostgreSQL has of a request: its newest words and the sum of its numbers."""

    tenant: int
    revision: int
    rank: int
    workspace: int
    key: int
    model: str
    tier: str
    context_window: str
    started_at: datetime
    sums: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where an event belongs in the books."""

    period: int
    is_late: bool
    posting: UUID


def event_row(
    event: UsageEvent, *, request: UUID, fingerprint: bytes, charge: Charge, placement: Placement
) -> dict[str, Any]:
    """The first row of a request."""
    return {
        "request_id": str(request),
        "revision": 0,
        "tenant_id": event.tenant,
        "workspace_id": event.workspace,
        "api_key_id": event.key,
        "member": event.member,
        "period_id": placement.period,
        "status": charge.status,
        "rank": event.rank,
        "is_late": placement.is_late,
        "model": event.model,
        "requested_model": event.requested_model,
        "upstream_model": event.upstream_model,
        "tier": charge.tier,
        "context_window": charge.context_window,
        "is_batch": event.tier == BATCH,
        "is_stream": event.stream,
        "started_at": clock.datetime_of_us(event.started_at_us).isoformat(),
        "finished_at": clock.datetime_of_us(event.finished_at_us).isoformat(),
        "ttft_us": event.ttft_us,
        "http_status": event.http_status,
        "stop_reason": event.stop_reason,
        "error_type": event.error_type,
        "output_chars": event.output_chars,
        "price_set_id": event.price_set,
        "discount_bp": event.discount_bp,
        "hold_micro": event.hold_micro,
        "currency": charge.currency,
        "components": charge.components,
        "posting_id": str(placement.posting),
        "fingerprint": f"\\x{fingerprint.hex()}",
        "raw_usage": dict(event.usage),
        **charge.numbers,
    }


def revision_row(row: Mapping[str, Any], *, known: Known) -> dict[str, Any]:
    """The row that turns what is known into what is known better: numbers are the differences.

    Who it was and when it started stay as first posted, so that it corrects the sums it is in.
    """
    return {
        **row,
        "revision": known.revision + 1,
        "workspace_id": known.workspace,
        "api_key_id": known.key,
        "started_at": known.started_at.isoformat(),
        "finished_at": max(row["finished_at"], known.started_at.isoformat()),
        **{name: row[name] - known.sums[name] for name in SUMMED_COLUMNS},
    }


def insert_events(rows: Sequence[Mapping[str, Any]]) -> set[UUID]:
    """Insert rows that do not exist yet, by rising id; returns the requests that it inserted."""
    if not rows:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(_INSERT_EVENTS, [json.dumps(rows)])
        return {row[0] for row in cursor.fetchall()}


def read_known(requests: Iterable[UUID]) -> dict[UUID, Known]:
    """What is stored of each of these requests."""
    rows_of: dict[UUID, list[EventRow]] = {}
    stored = EventRow.objects.filter(request_id__in=list(requests)).defer("components", "raw_usage")
    for row in stored.order_by("request_id", "revision"):
        rows_of.setdefault(row.request_id, []).append(row)
    return {request: _known_of(rows) for request, rows in rows_of.items()}


def write_attempts(events: Sequence[tuple[UUID, UsageEvent]]) -> None:
    """Keep every try at an upstream; better knowledge of a try replaces the earlier one."""
    costs = load_cost_books(attempt.upstream for _, event in events for attempt in event.attempts)
    rows = [
        _attempt_row(request, event, attempt, costs=costs)
        for request, event in events
        for attempt in {attempt.n: attempt for attempt in event.attempts}.values()
    ]
    if rows:
        with connection.cursor() as cursor:
            cursor.execute(_UPSERT_ATTEMPTS, [json.dumps(rows)])


def _known_of(rows: Sequence[EventRow]) -> Known:
    newest = rows[-1]
    return Known(
        tenant=newest.tenant_id,
        revision=newest.revision,
        rank=newest.rank,
        workspace=newest.workspace_id,
        key=newest.api_key_id,
        model=newest.model,
        tier=newest.tier,
        context_window=newest.context_window,
        started_at=newest.started_at,
        sums={name: sum(getattr(row, name) for row in rows) for name in SUMMED_COLUMNS},
    )


def _attempt_row(
    request: UUID, event: UsageEvent, attempt: Attempt, *, costs: CostBooks
) -> dict[str, Any]:
    is_settled = attempt.outcome == OUTCOME_RECONCILED and bool(attempt.usage)
    is_billed = attempt.outcome in BILLED_OUTCOMES or is_settled
    cost = costs.cost_of(
        attempt.usage if is_billed else None,
        upstream=attempt.upstream,
        models=(event.upstream_model, event.model),
        at_us=event.started_at_us,
        is_batch=event.tier == BATCH,
    )
    return {
        "request_id": str(request),
        "attempt": attempt.n,
        "tenant_id": event.tenant,
        "upstream_id": attempt.upstream,
        "credential_id": attempt.credential,
        "upstream_request_id": attempt.upstream_request_id,
        "outcome": attempt.outcome,
        "is_billed": is_billed,
        "cost_nano": cost,
        "usage": None if attempt.usage is None else dict(attempt.usage),
        "started_at": clock.datetime_of_us(event.started_at_us).isoformat(),
    }


_EVENT_TYPES = {
    "request_id": "uuid",
    "revision": "smallint",
    "tenant_id": "bigint",
    "workspace_id": "bigint",
    "api_key_id": "bigint",
    "member": "text",
    "period_id": "bigint",
    "status": "text",
    "rank": "smallint",
    "is_late": "boolean",
    "model": "text",
    "requested_model": "text",
    "upstream_model": "text",
    "tier": "text",
    "context_window": "text",
    "is_batch": "boolean",
    "is_stream": "boolean",
    "started_at": "timestamptz",
    "finished_at": "timestamptz",
    "ttft_us": "bigint",
    "http_status": "smallint",
    "stop_reason": "text",
    "error_type": "text",
    "output_chars": "bigint",
    "price_set_id": "bigint",
    "discount_bp": "integer",
    "hold_micro": "bigint",
    "currency": "text",
    "components": "jsonb",
    "posting_id": "uuid",
    "fingerprint": "bytea",
    "raw_usage": "jsonb",
    **dict.fromkeys(NUMBER_COLUMNS, "bigint"),
}
_ATTEMPT_TYPES = {
    "request_id": "uuid",
    "attempt": "smallint",
    "tenant_id": "bigint",
    "upstream_id": "bigint",
    "credential_id": "bigint",
    "upstream_request_id": "text",
    "outcome": "text",
    "is_billed": "boolean",
    "usage": "jsonb",
    "cost_nano": "bigint",
    "started_at": "timestamptz",
}


def _insert_sql(table: str, types: Mapping[str, str], order: str) -> str:
    names = ", ".join(types)
    typed = ", ".join(f"{name} {kind}" for name, kind in types.items())
    return (
        f"INSERT INTO {table} AS stored ({names}) SELECT {names}"  # noqa: S608 - our names
        f" FROM jsonb_to_recordset(%s::jsonb) AS given ({typed}) ORDER BY {order}"
    )


_INSERT_EVENTS = (
    _insert_sql("billing_usage_event", _EVENT_TYPES, "request_id, revision")
    + " ON CONFLICT (request_id, revision) DO NOTHING RETURNING request_id"
)
_UPSERT_ATTEMPTS = (
    _insert_sql("billing_upstream_attempt", _ATTEMPT_TYPES, "request_id, attempt")
    + " ON CONFLICT (request_id, attempt) DO UPDATE SET outcome = excluded.outcome,"
    " is_billed = excluded.is_billed, upstream_id = excluded.upstream_id,"
    " credential_id = coalesce(excluded.credential_id, stored.credential_id),"
    " upstream_request_id = coalesce(excluded.upstream_request_id, stored.upstream_request_id),"
    " usage = coalesce(excluded.usage, stored.usage),"
    " cost_nano = coalesce(excluded.cost_nano, stored.cost_nano)"
)
