"""Tables that leave as files: ledger entries, usage events, invoices with their lines.

Each is read in chunks by key, the oldest row first, of one tenant or of all. What is read was
written for good, so a file that takes long is none the less of one moment: the end of its span.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Q

from accounts.models import Tenant
from billing.models.invoices import Invoice, InvoiceLine
from billing.models.ledger import DEBIT, LedgerEntry, LedgerTxn
from billing.models.usage import CHARGE_COLUMNS, UsageEvent
from billing.queries.requests import public_ids
from turnpike.control.exports import Chunk, Column, Kind
from turnpike.kernel import ids

# Postings, events and documents that are read at a time.
POSTINGS_AT_ONCE = 2_000
EVENTS_AT_ONCE = 5_000
DOCUMENTS_AT_ONCE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What of a table is wanted: a time, and whose rows; None: everybody's."""

    since: datetime
    until: datetime
    tenant: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportTable:
    """A table that can leave: `read` gives the rows of a span that come after a place."""

    name: str
    columns: tuple[Column, ...]
    read: Callable[[Span, Any], Chunk]


def _columns(kind: Kind, *names: str) -> tuple[Column, ...]:
    return tuple(Column(name=name, kind=kind) for name in names)


TOKENS = (
    *("input_tokens", "output_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens"),
    *("cache_read_tokens", "thinking_tokens", "web_search_requests"),
)
CHARGES = tuple(f"{name}_amount" for name in CHARGE_COLUMNS)
LEDGER_COLUMNS = (
    *_columns(Kind.TEXT, "posting_id"),
    *_columns(Kind.WHOLE, "line"),
    *_columns(Kind.TIME, "posted_at"),
    *_columns(Kind.TEXT, "tenant_id", "kind", "account", "account_ref", "side"),
    *_columns(Kind.MONEY, "amount", "balance_after"),
    *_columns(Kind.TEXT, "currency", "key", "reason"),
)
USAGE_COLUMNS = (
    *_columns(Kind.TEXT, "request_id"),
    *_columns(Kind.WHOLE, "revision"),
    *_columns(Kind.TIME, "started_at", "finished_at"),
    *_columns(Kind.TEXT, "tenant_id", "workspace_id", "api_key_id", "member"),
    *_columns(Kind.TEXT, "model", "requested_model", "tier", "context_window", "status"),
    *_columns(Kind.WHOLE, "http_status"),
    *_columns(Kind.TEXT, "stop_reason", "error_type"),
    *_columns(Kind.FLAG, "stream", "batch", "late"),
    *_columns(Kind.WHOLE, *TOKENS),
    *_columns(Kind.MONEY, *CHARGES, "amount", "waived"),
    *_columns(Kind.TEXT, "currency", "price_set"),
    *_columns(Kind.WHOLE, "discount_bp"),
    *_columns(Kind.TEXT, "ledger_key"),
)
INVOICE_COLUMNS = (
    *_columns(Kind.TEXT, "invoice_id", "number", "kind", "status", "tenant_id"),
    *_columns(Kind.TIME, "period_start", "period_end", "issued_at", "due_at"),
    *_columns(Kind.TEXT, "corrects", "reason", "buyer", "currency"),
    *_columns(Kind.MONEY, "subtotal", "tax", "total", "amount_due"),
    *_columns(Kind.WHOLE, "line"),
    *_columns(Kind.TEXT, "line_kind", "model", "component", "line_tier", "price_set"),
    *_columns(Kind.WHOLE, "discount_bp"),
    *_columns(Kind.FLAG, "late"),
    *_columns(Kind.TEXT, "text"),
    *_columns(Kind.WHOLE, "quantity"),
    *_columns(Kind.MONEY, "price", "exact", "line_amount"),
    *_columns(Kind.TEXT, "tax_code"),
    *_columns(Kind.WHOLE, "tax_ppm"),
)
# What an event's columns have as the file does, in its order; the rest is translated.
_PLAIN = (
    *("member", "model", "requested_model", "tier", "context_window", "status", "http_status"),
    *("stop_reason", "error_type", "is_stream", "is_batch", "is_late", *TOKENS),
    *CHARGE_COLUMNS.values(),
    *("amount_nano", "waived_nano", "currency"),
)
_EVENT_WORDS = (
    *("request_id", "revision", "started_at", "finished_at", "tenant_id", "workspace_id"),
    *("api_key_id", *_PLAIN, "price_set_id", "discount_bp", "posting_id"),
)


def read_ledger(span: Span, place: Any) -> Chunk:
    """Entries of postings that were posted in the span; of a tenant those on its accounts."""
    postings = LedgerTxn.objects.filter(posted_at__gte=span.since, posted_at__lt=span.until)
    entries = LedgerEntry.objects.select_related("account")
    if span.tenant is not None:
        postings = postings.filter(tenant_id=span.tenant)
        entries = entries.filter(tenant_id=span.tenant)
    if place is not None:
        postings = postings.filter(pk__gt=place)
    found = {row.pk: row for row in postings.order_by("pk")[:POSTINGS_AT_ONCE]}
    lines = list(entries.filter(txn_id__in=list(found)).order_by("txn_id", "line"))
    owners = _tenants(entry.tenant_id for entry in lines)
    return Chunk(
        rows=[_entry(found[entry.txn_id], entry, owners) for entry in lines],
        next_place=max(found) if len(found) == POSTINGS_AT_ONCE else None,
    )


def read_usage(span: Span, place: Any) -> Chunk:
    """Revisions of requests that began in the span; their amounts sum to what was charged."""
    rows = UsageEvent.objects.filter(
        request_id__gte=ids.uuid7_floor(span.since), request_id__lt=ids.uuid7_floor(span.until)
    )
    if span.tenant is not None:
        rows = rows.filter(tenant_id=span.tenant)
    if place is not None:
        request, revision = place
        is_later = Q(request_id__gt=request) | Q(revision__gt=revision)
        rows = rows.filter(is_later, request_id__gte=request)
    found = list(rows.order_by("request_id", "revision").values(*_EVENT_WORDS)[:EVENTS_AT_ONCE])
    last = found[-1] if len(found) == EVENTS_AT_ONCE else None
    return Chunk(
        rows=list(_events(found)),
        next_place=None if last is None else (last["request_id"], last["revision"]),
    )


def read_invoices(span: Span, place: Any) -> Chunk:
    """A row for each line of a document issued in the span; at least one for each document."""
    rows = Invoice.objects.filter(issued_at__gte=span.since, issued_at__lt=span.until)
    rows = rows.exclude(status=Invoice.Status.DRAFT).select_related("period", "corrects", "tenant")
    if span.tenant is not None:
        rows = rows.filter(tenant_id=span.tenant)
    if place is not None:
        rows = rows.filter(pk__gt=place)
    found = list(rows.order_by("pk")[:DOCUMENTS_AT_ONCE])
    lines: dict[int, list[InvoiceLine]] = {row.pk: [] for row in found}
    for line in InvoiceLine.objects.filter(invoice_id__in=list(lines)).order_by("position"):
        lines[line.invoice_id].append(line)
    return Chunk(
        rows=[
            (*_document(row), *_line(line)) for row in found for line in lines[row.pk] or (None,)
        ],
        next_place=found[-1].pk if len(found) == DOCUMENTS_AT_ONCE else None,
    )


EXPORTS: Mapping[str, ExportTable] = {
    table.name: table
    for table in (
        ExportTable(name="ledger", columns=LEDGER_COLUMNS, read=read_ledger),
        ExportTable(name="usage", columns=USAGE_COLUMNS, read=read_usage),
        ExportTable(name="invoices", columns=INVOICE_COLUMNS, read=read_invoices),
    )
}


def _entry(txn: LedgerTxn, entry: LedgerEntry, owners: Mapping[int, str]) -> tuple[Any, ...]:
    return (
        str(txn.pk),
        entry.line,
        txn.posted_at,
        owners.get(entry.tenant_id or 0),
        txn.kind,
        entry.account.kind,
        entry.account.ref,
        "debit" if entry.side == DEBIT else "credit",
        entry.amount,
        entry.balance_after,
        txn.currency,
        txn.idem_key,
        str(txn.memo.get("reason", "")),
    )


def _events(rows: list[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    names = public_ids(rows)
    owners = _tenants(row["tenant_id"] for row in rows)
    for row in rows:
        posting: UUID = row["posting_id"]
        has_posting = row["amount_nano"] != 0
        yield (
            ids.public_id(ids.REQUEST, row["request_id"]),
            row["revision"],
            row["started_at"],
            row["finished_at"],
            owners.get(row["tenant_id"]),
            names.workspaces.get(row["workspace_id"]),
            names.keys.get(row["api_key_id"]),
            *(row[name] for name in _PLAIN),
            str(row["price_set_id"]),
            row["discount_bp"],
            f"usage:{posting}:{row['tenant_id']}" if has_posting else None,
        )


def _document(row: Invoice) -> tuple[Any, ...]:
    period, corrects = row.period, row.corrects
    return (
        row.public_id,
        row.number,
        row.kind,
        row.status,
        row.tenant.public_id,
        None if period is None else period.starts_at,
        None if period is None else period.ends_at,
        row.issued_at,
        row.due_at,
        None if corrects is None else corrects.public_id,
        row.reason,
        str(row.buyer_copy.get("name", "")),
        row.currency,
        row.subtotal_nano,
        row.tax_nano,
        row.total_nano,
        row.open_nano,
    )


def _line(line: InvoiceLine | None) -> tuple[Any, ...]:
    if line is None:
        return (None,) * (len(INVOICE_COLUMNS) - _DOCUMENT_WIDTH)
    return (
        line.position,
        line.kind,
        line.model,
        line.component,
        line.tier,
        None if line.price_set_id is None else str(line.price_set_id),
        line.discount_bp,
        line.is_late,
        line.text,
        line.quantity,
        line.price_nano,
        line.exact_nano,
        line.amount_nano,
        line.tax_code,
        line.tax_ppm,
    )


_DOCUMENT_WIDTH = [column.name for column in INVOICE_COLUMNS].index("line")


def _tenants(numbers: Iterable[int | None]) -> dict[int, str]:
    """The public ids of these tenants."""
    wanted = {number for number in numbers if number is not None}
    rows = Tenant.objects.filter(pk__in=wanted).values_list("pk", "uuid")
    return {number: ids.public_id(ids.TENANT, uuid) for number, uuid in rows}
