"""credit_invoice, void_invoice: what was wrong on a final invoice is corrected by a document.

Credit notes never come to more than their invoice, net and tax by tax. What the invoice still asks
for shrinks first; what was paid already becomes credit to spend.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from django.db import transaction
from django.db.models import Sum

from billing.locks import lock_invoice, lock_wallet
from billing.models.invoices import Invoice, InvoiceLine, InvoiceTax
from billing.models.ledger import LedgerTxn
from billing.services.billing_details import details_of
from billing.services.invoices import (
    draft_document,
    freeze,
    note,
    signed,
    tax_accounts,
    write_taxes,
)
from billing.services.ledger import account_for, post, reverse
from billing.services.posting import publish_wallet
from turnpike.control.caller import Caller
from turnpike.control.scope import platform_scope
from turnpike.kernel import money
from turnpike.kernel.errors import Conflict, InvalidInput

Kind, Status = Invoice.Kind, Invoice.Status
REASON_LENGTH_MAX = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditItem:
    """What is credited: a net amount of one tax, `exact` as the ledger has it."""

    text: str
    net: int
    exact: int
    tax_code: str = ""
    kind: str = InvoiceLine.Kind.CREDIT
    requests: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaxLeft:
    """What of one tax of an invoice no credit note has taken back yet."""

    code: str
    title: str
    note: str
    rate_ppm: int
    base: int
    amount: int


def credit_invoice(
    *,
    invoice: int,
    net: int | None,
    reason: str,
    idempotency_key: str,
    at: datetime,
    actor: Caller | str,
) -> Invoice:
    """Credit a net amount of an invoice, or all that is left of it (None); once under its key.

    An invoice with several taxes is credited from the first one on. Raises Conflict where less is
    left than is to be credited.
    """
    with platform_scope("billing.credit_invoice"):
        row = _lock_with_wallet(invoice)
        posted = _find_posted(_key(idempotency_key))
        if posted is not None:
            if posted.corrects_id != row.pk:
                raise Conflict(f"The key {idempotency_key!r} was used before for another invoice.")
            return posted
        _check(row, reason)
        items = _rest(row, reason) if net is None else _split(row, net, reason)
        return _issue(row, items, reason=reason, key=_key(idempotency_key), at=at, actor=actor)


def credit_corrections(
    *, row: Invoice, item: CreditItem, key: str, at: datetime, actor: Caller | str
) -> Invoice | None:
    """A credit note for what a re-rating lowered; None where the invoice has less left than that.

    The caller holds the wallet and the invoice, in its own transaction and `platform_scope`.
    """
    left = taxes_left(row)
    fit = next((tax for tax in left if tax.base >= item.net), None)
    if fit is None or item.net <= 0 or row.status == Status.VOID:
        return None
    item = CreditItem(
        text=item.text,
        net=item.net,
        exact=item.exact,
        tax_code=fit.code,
        kind=InvoiceLine.Kind.CORRECTION,
        requests=item.requests,
    )
    return _issue(row, [item], reason=item.text, key=key, at=at, actor=actor)


def void_invoice(
    *, invoice: int, reason: str, at: datetime, actor: Caller | str, redraft: bool = False
) -> Invoice:
    """Take an unpaid invoice back whole; its number stays, a credit note says so.

    With `redraft` its usage is unbilled again and a new draft of the same month is drawn up: for
    an invoice to the wrong address. Without, the usage is given away. Returns the credit note.
    """
    with platform_scope("billing.void_invoice"):
        row = _lock_with_wallet(invoice)
        if row.status == Status.VOID:
            return row.credit_notes.order_by("pk")[0]
        _check(row, reason)
        if row.paid_nano or row.credited_nano or row.written_off_nano:
            raise Conflict("Part of this invoice is settled: credit the rest instead.")
        key = f"void:{row.uuid}"
        items = _rest(row, reason)
        if redraft:
            credit_note = _issue(row, items, reason=reason, key=None, at=at, actor=actor)
            txn = LedgerTxn.objects.filter(idem_key=f"invoice:{row.uuid}").first()
            if txn is not None:
                name = actor if isinstance(actor, str) else actor.actor
                reverse(txn=txn.pk, actor=name, reason=reason)
        else:
            credit_note = _issue(row, items, reason=reason, key=key, at=at, actor=actor)
        Invoice.objects.filter(pk=row.pk).update(status=Status.VOID, is_reopened=redraft)
        note(row, "invoice.voided", actor=actor, reason=reason)
        if redraft and row.period_id is not None:
            draft_document(period=row.period_id, at=at)
    return credit_note


def taxes_left(row: Invoice) -> list[TaxLeft]:
    """What is left to credit of an invoice, by tax; what has none is under an empty code."""
    issued = row.credit_notes.values_list("pk", flat=True)
    left = []
    for tax in row.taxes.order_by("code"):
        taken = InvoiceTax.objects.filter(invoice__in=issued, code=tax.code).aggregate(
            base=Sum("base_nano"), amount=Sum("amount_nano")
        )
        left.append(
            TaxLeft(
                code=tax.code,
                title=tax.title,
                note=tax.note,
                rate_ppm=tax.rate_ppm,
                base=tax.base_nano - (taken["base"] or 0),
                amount=tax.amount_nano - (taken["amount"] or 0),
            )
        )
    plain = row.lines.filter(tax_code="").aggregate(net=Sum("amount_nano"))["net"] or 0
    lines = InvoiceLine.objects.filter(invoice__in=issued, tax_code="")
    plain -= lines.aggregate(net=Sum("amount_nano"))["net"] or 0
    if plain:
        left.append(TaxLeft(code="", title="", note="", rate_ppm=0, base=plain, amount=0))
    return left


def _lock_with_wallet(invoice: int) -> Invoice:
    tenant = Invoice.objects.values_list("tenant_id", flat=True).get(pk=invoice)
    lock_wallet(tenant=tenant)
    return lock_invoice(invoice=invoice)


def _check(row: Invoice, reason: str) -> None:
    if row.kind != Kind.INVOICE or row.status in (Status.DRAFT, Status.VOID):
        raise Conflict("Only an invoice that is final and not void can be credited.")
    if row.total_nano <= 0:
        raise Conflict("This invoice asks for nothing, so nothing of it can be credited.")
    if not 0 < len(reason.strip()) <= REASON_LENGTH_MAX:
        raise InvalidInput(f"reason must have 1 to {REASON_LENGTH_MAX} characters.", field="reason")


def _rest(row: Invoice, reason: str) -> list[CreditItem]:
    """All that is left; the first credit note of an invoice takes back its exact amount, too."""
    left = taxes_left(row)
    net = sum(tax.base for tax in left)
    if net == 0:
        raise Conflict("Nothing is left of this invoice to credit.")
    exact = row.exact_nano - net if net == row.subtotal_nano else 0
    return [
        CreditItem(
            text=reason,
            net=tax.base,
            exact=tax.base + (exact if place == 0 else 0),
            tax_code=tax.code,
        )
        for place, tax in enumerate(left)
        if tax.base
    ]


def _split(row: Invoice, net: int, reason: str) -> list[CreditItem]:
    if net <= 0 or net % money.minor_unit(row.currency):
        raise InvalidInput("The amount is above zero, in whole minor units.", field="amount")
    items = []
    for tax in taxes_left(row):
        part = min(net, tax.base)
        if part > 0:
            items.append(CreditItem(text=reason, net=part, exact=part, tax_code=tax.code))
            net -= part
    if net:
        raise Conflict("Less than that is left of this invoice to credit.")
    return items


def _issue(
    row: Invoice,
    items: Sequence[CreditItem],
    *,
    reason: str,
    key: str | None,
    at: datetime,
    actor: Caller | str,
) -> Invoice:
    """Write, number and freeze the credit note, and post it under its key (None: nothing)."""
    details = details_of(row.tenant_id)
    credit_note = Invoice.objects.create(
        tenant_id=row.tenant_id,
        kind=Kind.CREDIT_NOTE,
        corrects=row,
        currency=row.currency,
        reason=reason.strip(),
    )
    left = {tax.code: tax for tax in taxes_left(row)}
    InvoiceLine.objects.bulk_create(
        InvoiceLine(
            invoice=credit_note,
            tenant_id=row.tenant_id,
            position=position,
            kind=item.kind,
            text=item.text,
            quantity=item.requests,
            exact_nano=item.exact,
            amount_nano=item.net,
            tax_code=item.tax_code,
            tax_ppm=left[item.tax_code].rate_ppm,
        )
        for position, item in enumerate(items, start=1)
    )
    write_taxes(credit_note, _taxes(items, left, currency=row.currency))
    if row.credited_nano + credit_note.total_nano > row.total_nano:
        raise Conflict("Credit notes never come to more than their invoice.")
    details.seller = row.seller or details.seller
    freeze(credit_note, details=details, at=at)
    credit_note.buyer_copy = row.buyer_copy
    credit_note.status = Status.ISSUED
    credit_note.save()
    if key is None:
        _take(row, credit_note.total_nano, at=at)
    else:
        _post(row, credit_note, key=key, actor=actor, at=at)
    note(credit_note, "credit_note.issued", actor=actor, reason=reason)
    transaction.on_commit(partial(publish_wallet, tenant=row.tenant_id))
    return credit_note


def _taxes(
    items: Sequence[CreditItem], left: dict[str, TaxLeft], *, currency: str
) -> list[InvoiceTax]:
    taxes = []
    for code in sorted({item.tax_code for item in items if item.tax_code}):
        tax = left[code]
        base = sum(item.net for item in items if item.tax_code == code)
        amount = money.tax_of(base, rate_ppm=tax.rate_ppm, currency=currency)
        # The last credit note takes what is left, so that rounding never leaves a cent behind.
        amount = money.Nanos(tax.amount if base == tax.base else min(amount, tax.amount))
        taxes.append(
            InvoiceTax(
                code=code,
                title=tax.title,
                note=tax.note,
                rate_ppm=tax.rate_ppm,
                base_nano=base,
                amount_nano=amount,
            )
        )
    return taxes


def _post(
    row: Invoice, credit_note: Invoice, *, key: str, actor: Caller | str, at: datetime
) -> None:
    """revenue and taxes back, against what is still asked for and then as credit to spend."""
    own = partial(account_for, tenant=row.tenant_id, currency=row.currency)
    total = credit_note.total_nano
    from_open = min(total, max(row.open_nano, 0))
    rounding = account_for(kind="rounding", currency=row.currency)
    post(
        key=key,
        kind="credit_note",
        currency=row.currency,
        lines=[
            *signed(own(kind="revenue").pk, credit_note.exact_nano),
            *(line for acc, amount in tax_accounts(credit_note) for line in signed(acc, amount)),
            *signed(rounding.pk, credit_note.subtotal_nano - credit_note.exact_nano),
            *signed(own(kind="receivable").pk, -from_open),
            *signed(own(kind="prepaid").pk, from_open - total),
        ],
        actor=actor if isinstance(actor, str) else actor.actor,
        memo={"invoice": credit_note.public_id, "number": credit_note.number},
    )
    _take(row, total, from_open=from_open, at=at)


def _take(row: Invoice, total: int, *, at: datetime, from_open: int | None = None) -> None:
    """What was credited beyond what was open had been paid: it moves from paid to credit."""
    row.refresh_from_db()
    row.credited_nano += total
    row.credit_beyond_nano += 0 if from_open is None else total - from_open
    if row.status == Status.OPEN and row.open_nano <= 0:
        row.status, row.settled_at = Status.PAID, at
    row.save(update_fields=["credited_nano", "credit_beyond_nano", "status", "settled_at"])


def _find_posted(key: str) -> Invoice | None:
    txn = LedgerTxn.objects.filter(idem_key=key).first()
    if txn is None:
        return None
    return Invoice.objects.get(uuid=Invoice.parse_public_id(txn.memo["invoice"]))


def _key(idempotency_key: str) -> str:
    return f"credit_note:{idempotency_key}"
