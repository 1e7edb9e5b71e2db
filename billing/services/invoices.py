"""draft_document, finalize_invoice: a closed month becomes a document that never changes.

Finalizing takes the number, copies seller and buyer, posts to the ledger and freezes, in one
transaction: a failure leaves a draft and no gap.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Any

from django.db import transaction

from accounts.models import Tenant
from accounts.services.audit import record_audit
from accounts.services.webhook_events import INVOICE_FINALIZED, emit_event
from billing.locks import lock_invoice, lock_period, lock_wallet, next_number
from billing.models.invoices import BillingDetails, Invoice, InvoiceLine, InvoiceTax, Seller
from billing.models.ledger import BillingPeriod, Wallet
from billing.services.billing_details import details_of, find_default_seller
from billing.services.invoice_lines import LineDraft, period_lines
from billing.services.ledger import Line, account_for, credit, debit, post
from billing.services.posting import publish_wallet
from billing.services.statements import statement_summary
from turnpike.control.caller import Caller, actor_of
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, money
from turnpike.kernel.errors import Conflict

SYSTEM = "system"
Kind, Status = Invoice.Kind, Invoice.Status
# What every document has of its seller and its buyer, copied.
PARTY_FIELDS = ("name", "address", "country", "tax_id", "email")


def draft_document(*, period: int, at: datetime) -> Invoice | None:
    """The draft of a closed month's invoice, or its statement; None where there is one already."""
    with platform_scope("billing.draft_document"):
        row = lock_period(period=period)
        assert row.state == BillingPeriod.State.CLOSED
        if _find_live(period) is not None:
            return None
        wallet = Wallet.objects.filter(tenant_id=row.tenant_id).first() or Wallet()
        lines = period_lines(period=period, currency=wallet.currency)
        owed = sum(line.exact for line in lines)
        if not lines or (wallet.mode == Wallet.Mode.PREPAID and owed == 0):
            return _issue_statement(row, lines, wallet=wallet, at=at)
        return _draft_invoice(row, lines, currency=wallet.currency)


def redraft_invoice(*, invoice: int) -> None:
    """Draw a draft's lines up again, after a correction has joined its month.

    Runs in the caller's transaction and `platform_scope`; the caller holds the draft's row.
    """
    row = Invoice.objects.get(pk=invoice)
    assert row.status == Status.DRAFT
    assert row.period_id is not None
    row.lines.all().delete()
    row.taxes.all().delete()
    lines = period_lines(period=row.period_id, currency=row.currency)
    write_parts(row, lines, details=details_of(row.tenant_id))


def finalize_invoice(*, invoice: int, at: datetime, actor: Caller | str = SYSTEM) -> Invoice:
    """Number, post and freeze a draft; one that is final already stays as it is.

    Raises Conflict where no seller is set up.
    """
    with platform_scope("billing.finalize_invoice"):
        tenant = Invoice.objects.values_list("tenant_id", flat=True).get(pk=invoice)
        lock_wallet(tenant=tenant)
        row = lock_invoice(invoice=invoice)
        if row.status != Status.DRAFT:
            return row
        details = details_of(tenant)
        row.lines.update(**_tax_of_lines(details))
        row.taxes.all().delete()
        _write_taxes(row, _taxes_known(details))
        freeze(row, details=details, at=at)
        row.status = Status.OPEN if row.total_nano else Status.PAID
        row.settled_at = None if row.total_nano else at
        row.save()
        _post_invoice(row, actor=actor)
        note(row, "invoice.finalized", actor=actor)
        emit_event(
            tenant=tenant,
            kind=INVOICE_FINALIZED,
            data={
                "invoice": row.public_id,
                "number": row.number,
                "total": money.format_amount(row.total_nano),
                "currency": row.currency,
                "status": str(row.status),
            },
            key=f"invoice:{row.public_id}",
        )
        transaction.on_commit(partial(publish_wallet, tenant=tenant))
    return row


def finalize_due_drafts(*, at: datetime, limit: int = 500) -> int:
    """Finalize the drafts whose seller lets them finalize themselves; how many."""
    with platform_scope("billing.finalize_due_drafts"):
        drafts = Invoice.objects.filter(status=Status.DRAFT, kind=Kind.INVOICE).order_by("pk")
        waiting = list(drafts.values_list("pk", "tenant_id", "created_at")[:limit])
        sellers = {tenant: seller_of(details_of(tenant)) for _, tenant, _ in waiting}
    done = 0
    for number, tenant, created_at in waiting:
        seller = sellers[tenant]
        hours = None if seller is None else seller.finalize_after_hours
        if hours is not None and created_at + timedelta(hours=hours) <= at:
            done += finalize_invoice(invoice=number, at=at).status != Status.DRAFT
    return done


def write_parts(
    row: Invoice, lines: Sequence[LineDraft], *, details: BillingDetails, first: int = 1
) -> None:
    """Write a draft's lines and taxes, and its sums."""
    _write_lines(row, lines, words=_tax_of_lines(details), first=first)
    _write_taxes(row, _taxes_known(details))


def seller_of(details: BillingDetails) -> Seller | None:
    """Who invoices a tenant."""
    return details.seller or find_default_seller()


def freeze(row: Invoice, *, details: BillingDetails, at: datetime) -> None:
    """Give a document its number, the parties' data and its digest, as it goes out."""
    seller = seller_of(details)
    if seller is None:
        raise Conflict("There is no seller yet: set one up before invoices are finalized.")
    is_invoice = row.kind == Kind.INVOICE
    prefix = seller.invoice_prefix if is_invoice else seller.credit_note_prefix
    row.issued_at = at
    row.due_at = at + timedelta(days=seller.due_days) if is_invoice else None
    row.language = details.language
    row.seller = seller
    row.seller_copy = {
        **{name: getattr(seller, name) for name in PARTY_FIELDS},
        "payment_details": seller.payment_details,
    }
    row.buyer_copy = buyer_copy(details)
    row.series, row.sequence = next_number(seller=seller.pk, name=f"{row.kind}:{at.year}")
    row.number = f"{prefix}{at.year}-{row.sequence:05d}"
    row.digest = digest_of(row)


def buyer_copy(details: BillingDetails) -> dict[str, str]:
    """The buyer as a document shows it; an organization without details goes by its name."""
    copied = {name: getattr(details, name) for name in (*PARTY_FIELDS, "reference")}
    if not copied["name"]:
        copied["name"] = Tenant.objects.get(pk=details.tenant_id).name
    return copied


def digest_of(row: Invoice) -> str:
    """The SHA-256 of all that a document says."""
    lines = row.lines.order_by("position").values_list(
        "kind", "model", "component", "tier", "is_late", "text", "quantity", "amount_nano"
    )
    taxes = row.taxes.order_by("code").values_list("code", "rate_ppm", "base_nano", "amount_nano")
    content = {
        "number": row.number,
        "kind": row.kind,
        "currency": row.currency,
        "issued_at": None if row.issued_at is None else clock.rfc3339(row.issued_at),
        "total": row.total_nano,
        "seller": row.seller_copy,
        "buyer": row.buyer_copy,
        "lines": [list(line) for line in lines],
        "taxes": [list(tax) for tax in taxes],
        "summary": row.summary,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def note(row: Invoice, action: str, *, actor: Caller | str, reason: str = "") -> None:
    """Write a document's change to its tenant's log."""
    after = {"number": row.number, "total_nano": row.total_nano, "currency": row.currency}
    record_audit(
        actor=actor,
        tenant=row.tenant_id,
        action=action,
        target=row.public_id,
        after=after,
        reason=reason,
    )


def signed(account: int, amount: int) -> list[Line]:
    """A debit of an amount, a credit where it is below zero, nothing of nothing."""
    if amount == 0:
        return []
    return [debit(account, amount) if amount > 0 else credit(account, -amount)]


def tax_accounts(row: Invoice) -> list[tuple[int, int]]:
    """The accounts of a document's taxes, each with its amount."""
    taxes = row.taxes.exclude(amount_nano=0).order_by("code")
    return [
        (account_for(kind="tax", ref=tax.code, currency=row.currency).pk, tax.amount_nano)
        for tax in taxes
    ]


def _draft_invoice(period: BillingPeriod, lines: Sequence[LineDraft], *, currency: str) -> Invoice:
    row = Invoice.objects.create(
        tenant_id=period.tenant_id, kind=Kind.INVOICE, period=period, currency=currency
    )
    write_parts(row, lines, details=details_of(period.tenant_id))
    return row


def _issue_statement(
    period: BillingPeriod, lines: Sequence[LineDraft], *, wallet: Wallet, at: datetime
) -> Invoice:
    """A prepaid month's statement: for reading, so without taxes, number or posting."""
    row = Invoice.objects.create(
        tenant_id=period.tenant_id, kind=Kind.STATEMENT, period=period, currency=wallet.currency
    )
    details = details_of(period.tenant_id)
    usage = [line for line in lines if line.kind != InvoiceLine.Kind.PAID_AHEAD]
    _write_lines(row, usage)
    _sum_up(row)
    row.status, row.issued_at, row.language = Status.ISSUED, at, details.language
    seller = seller_of(details)
    row.seller_copy = {} if seller is None else {n: getattr(seller, n) for n in PARTY_FIELDS}
    row.buyer_copy = buyer_copy(details)
    row.summary = statement_summary(
        tenant=row.tenant_id, since=period.starts_at, until=period.ends_at
    )
    row.digest = digest_of(row)
    row.save()
    return row


def _post_invoice(row: Invoice, *, actor: Caller | str) -> None:
    """receivable against unbilled and taxes; what rounding made goes to `rounding`."""
    own = partial(account_for, tenant=row.tenant_id, currency=row.currency)
    receivable = own(kind="receivable")
    unbilled = own(kind="unbilled")
    rounding = account_for(kind="rounding", currency=row.currency)
    lines = [
        *signed(receivable.pk, row.total_nano),
        *signed(unbilled.pk, -row.exact_nano),
        *(line for account, amount in tax_accounts(row) for line in signed(account, -amount)),
        *signed(rounding.pk, row.exact_nano - row.subtotal_nano),
    ]
    if lines:
        post(
            key=f"invoice:{row.uuid}",
            kind="invoice",
            currency=row.currency,
            lines=lines,
            actor=actor_of(actor),
            memo={"invoice": row.public_id, "number": row.number},
        )


def _find_live(period: int) -> Invoice | None:
    rows = Invoice.objects.filter(period_id=period, kind__in=[Kind.INVOICE, Kind.STATEMENT])
    return rows.exclude(status=Status.VOID).first()


def _tax_of_lines(details: BillingDetails) -> dict[str, Any]:
    seller = seller_of(details)
    tax = details.tax_rate or (None if seller is None else seller.tax_rate)
    if tax is None:
        return {"tax_code": "", "tax_ppm": 0}
    return {"tax_code": tax.code, "tax_ppm": tax.rate_ppm}


def _taxes_known(details: BillingDetails) -> dict[str, tuple[str, str]]:
    """Titles and notes of the taxes that the lines may carry."""
    seller = seller_of(details)
    rates = (details.tax_rate, None if seller is None else seller.tax_rate)
    return {rate.code: (rate.title, rate.note) for rate in rates if rate is not None}


def _write_lines(
    row: Invoice,
    lines: Sequence[LineDraft],
    *,
    words: Mapping[str, Any] = MappingProxyType({}),
    first: int = 1,
) -> None:
    """Write lines in their order; `words` are what all of them have in common."""
    InvoiceLine.objects.bulk_create(
        InvoiceLine(
            invoice=row,
            tenant_id=row.tenant_id,
            position=position,
            kind=line.kind,
            quantity=line.quantity,
            price_nano=line.price,
            exact_nano=line.exact,
            amount_nano=line.amount,
            **{**words, **line.words},
        )
        for position, line in enumerate(lines, start=first)
    )


def _write_taxes(row: Invoice, known: Mapping[str, tuple[str, str]]) -> None:
    bases: dict[tuple[str, int], int] = defaultdict(int)
    for code, rate_ppm, amount in row.lines.values_list("tax_code", "tax_ppm", "amount_nano"):
        if code:
            bases[code, rate_ppm] += amount
    write_taxes(
        row,
        [
            InvoiceTax(
                code=code,
                title=known.get(code, (code, ""))[0],
                note=known.get(code, (code, ""))[1],
                rate_ppm=rate_ppm,
                base_nano=base,
                amount_nano=money.tax_of(base, rate_ppm=rate_ppm, currency=row.currency),
            )
            for (code, rate_ppm), base in sorted(bases.items())
        ],
    )


def write_taxes(row: Invoice, taxes: Iterable[InvoiceTax]) -> None:
    """Write a draft's taxes, and all its sums."""
    rows = list(taxes)
    for tax in rows:
        tax.invoice, tax.tenant_id = row, row.tenant_id
    InvoiceTax.objects.bulk_create(rows)
    _sum_up(row)


def _sum_up(row: Invoice) -> None:
    lines = list(row.lines.values_list("exact_nano", "amount_nano"))
    row.exact_nano = sum(exact for exact, _ in lines)
    row.subtotal_nano = sum(amount for _, amount in lines)
    row.tax_nano = sum(row.taxes.values_list("amount_nano", flat=True))
    row.total_nano = row.subtotal_nano + row.tax_nano
    row.save(
        update_fields=["exact_nano", "subtotal_nano", "tax_nano", "total_nano"],
    )
