"""Invoices, credit notes and statements as people and programs read them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from typing import Any
from uuid import UUID

from django.db.models import QuerySet, Sum
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from billing.models.invoices import Invoice, InvoiceLine, InvoiceTax, RatingDifference
from billing.models.usage import CHARGE_COLUMNS, TOKEN_COLUMNS, UsageEvent
from turnpike.kernel.errors import NotFound
from turnpike.kernel.money import parse_amount

COMPONENTS: Mapping[str, Any] = {
    "input": gettext_lazy("Input"),
    "output": gettext_lazy("Output"),
    "cache_write_5m": gettext_lazy("Cache write, 5 minutes"),
    "cache_write_1h": gettext_lazy("Cache write, 1 hour"),
    "cache_read": gettext_lazy("Cache read"),
    "web_search": gettext_lazy("Web search"),
}
MOVEMENTS: Mapping[str, Any] = {
    "grant": gettext_lazy("Credit granted"),
    "grant_expiry": gettext_lazy("Credit expired"),
    "top_up": gettext_lazy("Top-up"),
    "usage": gettext_lazy("Usage"),
    "correction": gettext_lazy("Correction of prices"),
    "reversal": gettext_lazy("Reversal"),
    "invoice": gettext_lazy("Invoice: tax and rounding"),
    "invoice_payment": gettext_lazy("Payment of an invoice"),
    "credit_note": gettext_lazy("Credit note"),
    "write_off": gettext_lazy("Written off"),
    "refund": gettext_lazy("Refund"),
    "chargeback": gettext_lazy("Chargeback"),
    "manual": gettext_lazy("Entered by hand"),
    "chargeback_returned": gettext_lazy("Chargeback won"),
}
ACCOUNTS: Mapping[str, Any] = {
    "prepaid": gettext_lazy("Paid ahead"),
    "promo": gettext_lazy("Granted credit"),
    "unbilled": gettext_lazy("Used, not invoiced yet"),
    "receivable": gettext_lazy("Invoiced, not paid yet"),
    "revenue": gettext_lazy("Revenue"),
    "promo_expense": gettext_lazy("Credit given away"),
    "breakage": gettext_lazy("Credit that expired"),
    "cash": gettext_lazy("Money received"),
    "fees": gettext_lazy("Fees"),
    "bad_debt": gettext_lazy("Debt given up"),
    "rounding": gettext_lazy("Rounding"),
    "tax": gettext_lazy("Tax"),
    "correction": gettext_lazy("Correction"),
}
KINDS: Mapping[str, Any] = {
    Invoice.Kind.INVOICE: gettext_lazy("Invoice"),
    Invoice.Kind.CREDIT_NOTE: gettext_lazy("Credit note"),
    Invoice.Kind.STATEMENT: gettext_lazy("Statement"),
}
STATUSES: Mapping[str, Any] = {
    Invoice.Status.DRAFT: gettext_lazy("Draft"),
    Invoice.Status.OPEN: gettext_lazy("Open"),
    Invoice.Status.PAID: gettext_lazy("Paid"),
    Invoice.Status.VOID: gettext_lazy("Void"),
    Invoice.Status.UNCOLLECTIBLE: gettext_lazy("Written off"),
    Invoice.Status.ISSUED: gettext_lazy("Issued"),
}
TONES = {
    Invoice.Status.DRAFT: "",
    Invoice.Status.OPEN: "warn",
    Invoice.Status.PAID: "ok",
    Invoice.Status.VOID: "",
    Invoice.Status.UNCOLLECTIBLE: "danger",
    Invoice.Status.ISSUED: "ok",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetLine:
    """A line in words; `price` is of a million where `is_per_million`."""

    row: InvoiceLine
    title: str
    detail: str
    is_per_million: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetGroup:
    """Lines of the same title, one below the other, and what they come to."""

    title: str
    lines: tuple[SheetLine, ...]

    @property
    def amount_nano(self) -> int:
        """The sum of their amounts."""
        return sum(line.row.amount_nano for line in self.lines)

    @property
    def has_details(self) -> bool:
        """Whether its lines say more than their title."""
        return any(line.detail for line in self.lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """What one kind of posting did to a balance in a month."""

    title: str
    nano: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A document with everything that is printed on it, in the language in use."""

    row: Invoice
    title: str
    status: str
    tone: str
    lines: tuple[SheetLine, ...]
    taxes: tuple[InvoiceTax, ...]
    credit_notes: tuple[Invoice, ...]
    opening_nano: int = 0
    closing_nano: int = 0
    movements: tuple[Movement, ...] = ()

    @property
    def groups(self) -> list[SheetGroup]:
        """The lines in their order, those of a title together."""
        return [
            SheetGroup(title=title, lines=tuple(lines))
            for title, lines in groupby(self.lines, key=lambda line: line.title)
        ]

    @property
    def percents(self) -> list[tuple[InvoiceTax, str]]:
        """The taxes, each with its rate in percent."""
        return [(tax, percent_of(tax.rate_ppm)) for tax in self.taxes]


def list_documents(tenant: int) -> QuerySet[Invoice]:
    """A tenant's documents that went out; drafts are the operator's business."""
    rows = Invoice.objects.filter(tenant_id=tenant).exclude(status=Invoice.Status.DRAFT)
    return rows.select_related("period", "corrects")


def get_document(*, tenant: int, public_id: str) -> Invoice:
    """A tenant's document by its public id. Raises NotFound, also for another tenant's."""
    row = list_documents(tenant).filter(uuid=document_uuid(public_id)).first()
    if row is None:
        raise NotFound("There is no such invoice.")
    return row


def get_line(*, document: Invoice, position: int) -> InvoiceLine:
    """A line of a document by its place. Raises NotFound."""
    line = document.lines.filter(position=position).first()
    if line is None:
        raise NotFound("There is no such line.")
    return line


def document_uuid(public_id: str) -> UUID:
    """The UUID of a document's public id. Raises NotFound."""
    try:
        return Invoice.parse_public_id(public_id)
    except ValueError as error:
        raise NotFound("There is no such invoice.") from error


def requests_of_line(document: Invoice, line: InvoiceLine) -> QuerySet[Any, dict[str, Any]]:
    """What a line sums, one row a request: `request_id`, `quantity`, `nano`, newest first.

    The sum of `nano` over all rows is the line's exact amount. Other lines give none.
    """
    if line.kind == InvoiceLine.Kind.CORRECTION:
        place = (
            {"credit_note": document}
            if document.kind == Invoice.Kind.CREDIT_NOTE
            else {"period": document.period_id}
        )
        rows = RatingDifference.objects.filter(
            tenant_id=document.tenant_id, run__reason=line.text, **place
        )
        return _by_request(rows, quantity="after_nano", nano="difference_nano")
    if line.kind != InvoiceLine.Kind.USAGE or document.period_id is None:
        return _by_request(UsageEvent.objects.none(), quantity="input_tokens", nano="input_nano")
    assert line.price_set_id is not None
    column = CHARGE_COLUMNS[line.component]
    events = UsageEvent.objects.filter(
        tenant_id=document.tenant_id,
        period_id=document.period_id,
        model=line.model,
        tier=line.tier,
        price_set_id=line.price_set_id,
        discount_bp=line.discount_bp,
        is_late=line.is_late,
    ).exclude(**{column: 0})
    return _by_request(events, quantity=TOKEN_COLUMNS[line.component], nano=column)


def correction_keys(*, tenant: int, request: UUID) -> list[str]:
    """The postings in which a request's price was corrected afterwards."""
    rows = RatingDifference.objects.filter(tenant_id=tenant, request_id=request)
    return list(rows.order_by("pk").values_list("posting_key", flat=True))


def sheet_of(row: Invoice) -> Sheet:
    """A document in words, in the language in use."""
    summary = row.summary
    return Sheet(
        row=row,
        title=str(KINDS[row.kind]),
        status=str(STATUSES[row.status]),
        tone=TONES[Invoice.Status(row.status)],
        lines=tuple(line_words(line) for line in row.lines.order_by("position")),
        taxes=tuple(row.taxes.order_by("code")),
        credit_notes=tuple(row.credit_notes.order_by("pk")),
        opening_nano=parse_amount(summary.get("opening", "0")),
        closing_nano=parse_amount(summary.get("closing", "0")),
        movements=tuple(_movements(summary.get("movements", ()))),
    )


def line_words(line: InvoiceLine) -> SheetLine:
    """A line's title and what is below it."""
    titles = {
        InvoiceLine.Kind.CORRECTION: _("Correction of prices"),
        InvoiceLine.Kind.PAID_AHEAD: _("Already paid from credit"),
        InvoiceLine.Kind.CREDIT: _("Amount credited"),
    }
    if line.kind != InvoiceLine.Kind.USAGE:
        title = titles[InvoiceLine.Kind(line.kind)]
        return SheetLine(row=line, title=title, detail=line.text, is_per_million=False)
    details = [str(COMPONENTS.get(line.component, line.component))]
    if line.tier != "standard":
        details.append(line.tier)
    if line.discount_bp:
        share = percent_of(line.discount_bp * 100)
        details.append(_("less %(share)s discount") % {"share": share})
    if line.is_late:
        details.append(_("late, of an earlier month"))
    return SheetLine(
        row=line,
        title=line.model,
        detail=" · ".join(details),
        is_per_million=line.component != "web_search",
    )


def percent_of(rate_ppm: int) -> str:
    """A rate in millionths as a percentage: ``19 %``, ``8.875 %``."""
    text = f"{Decimal(rate_ppm).scaleb(-4):f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"


def _by_request(rows: QuerySet[Any], *, quantity: str, nano: str) -> QuerySet[Any, dict[str, Any]]:
    grouped: QuerySet[Any, dict[str, Any]] = rows.order_by("-request_id").values("request_id")
    found: QuerySet[Any, dict[str, Any]] = grouped.annotate(quantity=Sum(quantity), nano=Sum(nano))
    return found


def _movements(items: Iterable[Mapping[str, str]]) -> Iterable[Movement]:
    for item in items:
        title = str(MOVEMENTS.get(item["kind"], item["kind"]))
        yield Movement(title=title, nano=parse_amount(item["amount"]))
