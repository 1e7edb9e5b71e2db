"""Files of tables, for the links on the pages of both consoles."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar
from urllib.parse import urlencode

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.translation import gettext as _

from accounts.access import access_tenant
from accounts.console.operators import OperatorPage
from accounts.console.pages import TenantPage
from billing.api.exports import export_answer, operator_export_answer
from billing.queries.exports import EXPORTS
from turnpike.control import formats
from turnpike.control.caller import Power
from turnpike.control.exports import CsvEncoder, ParquetEncoder
from turnpike.kernel import clock

MONTHS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportLink:
    """A span of time, and where its file is in each form."""

    title: str
    csv: str
    parquet: str


class _ExportPage(TenantPage):
    """A table of the organization as a file."""

    table: ClassVar[str]

    def get(self, request: HttpRequest) -> HttpResponseBase:
        """The file that the query asks for."""
        tenant = access_tenant(self.caller, power=self.powers["GET"])
        table = EXPORTS[self.table]
        return export_answer(request.GET, table=table, caller=self.caller, tenant=tenant)


class LedgerExportPage(_ExportPage):
    """Entries on the organization's accounts."""

    table = "ledger"
    powers = {"GET": Power.BILLING_READ}


class UsageExportPage(_ExportPage):
    """The organization's requests."""

    table = "usage"
    powers = {"GET": Power.REQUESTS_READ}


class InvoicesExportPage(_ExportPage):
    """The organization's documents and their lines."""

    table = "invoices"
    powers = {"GET": Power.BILLING_READ}


class OperatorExportPage(OperatorPage):
    """A table of one tenant or of all."""

    def get(self, request: HttpRequest, table: str) -> HttpResponseBase:
        """The file that the query asks for."""
        return operator_export_answer(request.GET, table=table, caller=self.caller)


def export_links(name: str, *arguments: str, **query: str) -> list[ExportLink]:
    """Links to a file of this month, of the last one and of a year, for the page of that name."""
    now = clock.utc_now()
    this = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    last = _months_before(this, 1)
    spans = (
        (formats.month(this), this, now),
        (formats.month(last), last, this),
        (_("Last 12 months"), _months_before(this, MONTHS - 1), now),
    )
    base = reverse(name, args=arguments)
    found = []
    for title, since, until in spans:
        times = {"starting_at": clock.rfc3339(since), "ending_at": clock.rfc3339(until)}
        csv, parquet = (
            f"{base}?{urlencode({'format': form, **times, **query})}"
            for form in (CsvEncoder.ending, ParquetEncoder.ending)
        )
        found.append(ExportLink(title=title, csv=csv, parquet=parquet))
    return found


def operator_export_links(table: str, *, tenant: str = "") -> list[ExportLink]:
    """The same for operators: of one tenant's rows, or of everybody's."""
    query = {"tenant": tenant} if tenant else {}
    return export_links("operator-table-export", table, **query)


def _months_before(first: datetime, count: int) -> datetime:
    """The first of the month so many months before."""
    month = first.year * 12 + first.month - 1 - count
    return first.replace(year=month // 12, month=month % 12 + 1)
