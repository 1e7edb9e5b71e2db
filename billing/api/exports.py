"""/exports: ledger entries, usage events and invoices as CSV or Parquet, streamed.

One way for the API and both consoles: `export_answer` reads the query, notes the export in the
audit log and answers with a file that is read from the database as fast as it is taken.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request

from accounts.access import access_any_tenant, access_tenant
from accounts.models import Tenant
from accounts.services.audit import record_audit
from billing.api.spans import time_of
from billing.queries.exports import EXPORTS, ExportTable, Span
from turnpike.control.caller import Caller, Power
from turnpike.control.drf import OneForm, OperatorView, TenantView
from turnpike.control.exports import ENCODERS, Chunk, CsvEncoder, ParquetEncoder, TableStream
from turnpike.control.scope import platform_scope, tenant_scope
from turnpike.kernel import clock
from turnpike.kernel.errors import InvalidInput

SPAN_MAX = timedelta(days=366)
PARAMETERS = [
    OpenApiParameter("format", str, enum=list(ENCODERS), default=CsvEncoder.ending),
    OpenApiParameter("starting_at", datetime, required=True),
    OpenApiParameter(
        "ending_at",
        datetime,
        description=f"Now if missing; at most {SPAN_MAX.days} days after the start.",
    ),
]
FILES: Any = {
    (200, CsvEncoder.media_type.partition(";")[0]): OpenApiTypes.STR,
    (200, ParquetEncoder.media_type): OpenApiTypes.BINARY,
}


class _ExportView(TenantView):
    """A table of the tenant."""

    content_negotiation_class = OneForm
    table: ClassVar[ExportTable]

    def answer(self, request: Request) -> StreamingHttpResponse:
        """The file."""
        power = self.powers["GET"]
        tenant = access_tenant(self.caller, power=power)
        query = request.query_params
        return export_answer(query, table=self.table, caller=self.caller, tenant=tenant)


class LedgerExportView(_ExportView):
    """The tenant's ledger."""

    table = EXPORTS["ledger"]
    powers: ClassVar = {"GET": Power.BILLING_READ}

    @extend_schema(operation_id="export_ledger", parameters=PARAMETERS, responses=FILES)
    def get(self, request: Request) -> StreamingHttpResponse:
        """Every entry on the tenant's accounts that was posted in a span."""
        return self.answer(request)


class UsageExportView(_ExportView):
    """The tenant's usage events."""

    table = EXPORTS["usage"]
    powers: ClassVar = {"GET": Power.REQUESTS_READ}

    @extend_schema(operation_id="export_usage", parameters=PARAMETERS, responses=FILES)
    def get(self, request: Request) -> StreamingHttpResponse:
        """Every request that began in a span, a row for each of its revisions."""
        return self.answer(request)


class InvoicesExportView(_ExportView):
    """The tenant's documents."""

    table = EXPORTS["invoices"]
    powers: ClassVar = {"GET": Power.BILLING_READ}

    @extend_schema(operation_id="export_invoices", parameters=PARAMETERS, responses=FILES)
    def get(self, request: Request) -> StreamingHttpResponse:
        """Every line of the documents that were issued in a span."""
        return self.answer(request)


class OperatorExportView(OperatorView):
    """A table of all tenants."""

    content_negotiation_class = OneForm

    @extend_schema(
        operation_id="operator_export",
        parameters=[
            *PARAMETERS,
            OpenApiParameter("table", str, OpenApiParameter.PATH, enum=list(EXPORTS)),
            OpenApiParameter("tenant", str, description="Of this tenant alone."),
        ],
        responses=FILES,
    )
    def get(self, request: Request, table: str) -> StreamingHttpResponse:
        """The table of a tenant, or of all with the platform's own rows."""
        return operator_export_answer(request.query_params, table=table, caller=self.caller)


def operator_export_answer(
    query: Mapping[str, str], *, table: str, caller: Caller
) -> StreamingHttpResponse:
    """A file of the tenant that the query names, or of all tenants."""
    if table not in EXPORTS:
        raise InvalidInput(f"table: must be one of {', '.join(EXPORTS)}", field="table")
    named = query.get("tenant")
    tenant = access_any_tenant(caller, named) if named else None
    return export_answer(query, table=EXPORTS[table], caller=caller, tenant=tenant)


def export_answer(
    query: Mapping[str, str], *, table: ExportTable, caller: Caller, tenant: Tenant | None
) -> StreamingHttpResponse:
    """The file that a query asks for. Raises InvalidInput naming the parameter."""
    form = query.get("format", CsvEncoder.ending)
    if form not in ENCODERS:
        raise InvalidInput(f"format: must be one of {', '.join(ENCODERS)}", field="format")
    span = _read_span(query, tenant)
    record_audit(
        actor=caller,
        tenant=span.tenant,
        action="data.exported",
        target=table.name,
        after={
            "format": form,
            "starting_at": clock.rfc3339(span.since),
            "ending_at": clock.rfc3339(span.until),
        },
    )

    def read(place: Any) -> Chunk:
        with _scope(span, table):
            return table.read(span, place)

    encoder = ENCODERS[form]()
    response = StreamingHttpResponse(
        TableStream(table.columns, read, encoder), content_type=encoder.media_type
    )
    name = f"{table.name}-{span.since:%Y%m%d}-{span.until:%Y%m%d}.{encoder.ending}"
    response["content-disposition"] = f'attachment; filename="{name}"'
    response["cache-control"] = "no-store"
    response["x-accel-buffering"] = "no"
    return response


def _read_span(query: Mapping[str, str], tenant: Tenant | None) -> Span:
    since = time_of(query, "starting_at")
    if since is None:
        raise InvalidInput("starting_at: this parameter is needed", field="starting_at")
    until = time_of(query, "ending_at") or clock.utc_now()
    if not since < until <= since + SPAN_MAX:
        raise InvalidInput(
            f"ending_at: must be after starting_at, by at most {SPAN_MAX.days} days",
            field="ending_at",
        )
    return Span(since=since, until=until, tenant=None if tenant is None else tenant.pk)


def _scope(span: Span, table: ExportTable) -> AbstractContextManager[None]:
    if span.tenant is None:
        return platform_scope(f"export of {table.name}")
    return tenant_scope(span.tenant)
