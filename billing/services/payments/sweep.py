"""sweep_payments, compare_payments: what a provider has and we do not, because a message was lost.

The provider is asked for everything that moved lately, instead of being waited for. The sweep
applies what is missing as its message would have; the comparison names what is still missing.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from billing.models.ledger import LedgerTxn
from billing.models.payments import Payment, PaymentReversal
from billing.services.findings import Difference
from billing.services.payments.effects import apply_seen
from billing.services.payments.provider import Listed, Provider
from billing.services.payments.registry import checkout_provider
from turnpike.control.scope import platform_scope
from turnpike.kernel.errors import Conflict, Unavailable
from turnpike.kernel.money import format_amount

logger = logging.getLogger(__name__)

# Providers themselves repeat a message for about three days.
LOOKED_BACK = timedelta(days=4)
# A message is under way for a moment; what is younger is not missed yet.
PATIENCE = timedelta(minutes=10)
NO_LIST = "no list"
# Orders that are asked about in one sweep; the next one asks about those that are left.
STARTED_AT_ONCE_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Something that one side has: under the provider's name, and the payment it belongs to."""

    ref: str
    payment: str
    what: str
    amount_nano: int
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedPayments:
    """What differs, and the names that were looked at."""

    differences: tuple[Difference, ...]
    covered: frozenset[tuple[str, ...]]


def sweep_payments(*, at: datetime) -> int:
    """Apply what the provider has and we lack; how many payments that changed.

    Orders of these days that have neither been paid nor ended are asked about one by one: an
    auto-reload that failed without a word would keep the next one from being tried.
    """
    source = checkout_provider()
    listed = source.list_movements(since=at - LOOKED_BACK, until=at - PATIENCE)
    missing = {item.payment for item in _missing_here(source.name, listed)}
    applied = sum(_apply(source, subject, at) for subject in missing)
    return applied + sum(_apply(source, subject, at) for subject in _unended(source.name, at))


def compare_payments(*, at: datetime) -> ComparedPayments:
    """The payments of the last days on both sides, by the provider's own names."""
    source = checkout_provider()
    since, until = at - LOOKED_BACK, at - PATIENCE
    try:
        listed = source.list_movements(since=since, until=until)
    except Unavailable as error:
        away = Difference(
            cause=(source.name, NO_LIST),
            evidence=(("provider", source.name), ("problem", error.message)),
            text=f"{source.name}: {error.message}",
        )
        return ComparedPayments(differences=(away,), covered=frozenset())
    found = [
        *_missing_here(source.name, listed),
        *_missing_there(source.name, listed, since, until),
    ]
    names = {row.ref for row in listed.payments}
    names |= {row.ref for row in (*listed.refunds, *listed.moves)}
    ours = {item.ref for item in found}
    return ComparedPayments(
        differences=tuple(_difference(source.name, item) for item in found),
        covered=frozenset((source.name, name) for name in {*names, *ours, NO_LIST}),
    )


def _apply(source: Provider, subject: str, at: datetime) -> bool:
    try:
        seen = source.read_payment(subject)
        if seen is None or not seen.order:
            return False
        with platform_scope("billing.sweep_payments"):
            payment = apply_seen(provider=source.name, seen=seen, at=at)
            payment.refresh_from_db(fields=["status"])
    except Conflict as error:
        logger.warning("payment.refused", extra={"payment": subject, "why": error.message})
        return False
    if payment.status == Payment.Status.STARTED:
        return False
    logger.warning("payment.found", extra={"payment": payment.public_id})
    return True


def _unended(provider: str, at: datetime) -> list[str]:
    """The provider's names of orders that wait for their end; what was charged comes first."""
    with platform_scope("billing.sweep_payments"):
        rows = Payment.objects.filter(
            provider=provider,
            status=Payment.Status.STARTED,
            created_at__gte=at - LOOKED_BACK,
            created_at__lt=at - PATIENCE,
        ).exclude(payment_ref="", order_ref="")
        refs = rows.order_by("kind", "pk").values_list("payment_ref", "order_ref")
        return [payment or order for payment, order in refs[:STARTED_AT_ONCE_MAX]]


def _missing_here(provider: str, listed: Listed) -> list[Missing]:
    with platform_scope("billing.compare_payments"):
        return [
            *_unpaid_here(provider, listed),
            *_unknown_refunds(provider, listed),
            *_unknown_moves(provider, listed),
        ]


def _unpaid_here(provider: str, listed: Listed) -> Iterator[Missing]:
    refs = [row.ref for row in listed.payments]
    rows = Payment.objects.filter(
        provider=provider, payment_ref__in=refs, status=Payment.Status.PAID
    )
    known = {
        ref: (amount, currency)
        for ref, amount, currency in rows.values_list("payment_ref", "amount_nano", "currency")
    }
    for row in listed.payments:
        if row.order and row.is_paid and known.get(row.ref) != (row.amount_nano, row.currency):
            yield Missing(
                ref=row.ref,
                payment=row.ref,
                what="payment",
                amount_nano=row.amount_nano,
                currency=row.currency,
            )


def _unknown_refunds(provider: str, listed: Listed) -> Iterator[Missing]:
    ours = _our_payments(provider, {row.payment for row in listed.refunds})
    done = PaymentReversal.objects.filter(
        payment__provider=provider,
        provider_ref__in=[row.ref for row in listed.refunds],
        status=PaymentReversal.Status.DONE,
    )
    known = set(done.values_list("provider_ref", flat=True))
    for row in listed.refunds:
        if row.payment in ours and row.ref not in known:
            yield Missing(
                ref=row.ref,
                payment=row.payment,
                what="refund",
                amount_nano=row.amount_nano,
                currency=row.currency,
            )


def _unknown_moves(provider: str, listed: Listed) -> Iterator[Missing]:
    ours = _our_payments(provider, {row.payment for row in listed.moves})
    keys = {f"{provider}:{row.ref}": row for row in listed.moves if row.payment in ours}
    posted = LedgerTxn.objects.filter(idem_key__in=list(keys))
    known = set(posted.values_list("idem_key", flat=True))
    for key, row in keys.items():
        if key not in known:
            yield Missing(
                ref=row.ref,
                payment=row.payment,
                what="dispute",
                amount_nano=row.amount_nano,
                currency=row.currency,
            )


def _our_payments(provider: str, refs: set[str]) -> set[str]:
    rows = Payment.objects.filter(provider=provider, payment_ref__in=list(refs))
    return set(rows.values_list("payment_ref", flat=True))


def _missing_there(
    provider: str, listed: Listed, since: datetime, until: datetime
) -> Iterator[Missing]:
    """What we count as paid and the provider does not; transfers are known to us alone."""
    if not listed.is_whole:
        return
    there = {row.ref for row in listed.payments if row.is_paid}
    with platform_scope("billing.compare_payments"):
        # An order is older than its payment, so that an order of this time has its payment listed.
        rows = Payment.objects.filter(
            provider=provider,
            status=Payment.Status.PAID,
            created_at__gte=since,
            settled_at__lt=until,
        ).exclude(kind=Payment.Kind.TRANSFER)
        for row in rows.order_by("pk"):
            if row.payment_ref not in there:
                yield Missing(
                    ref=row.payment_ref,
                    payment=row.payment_ref,
                    what="not at the provider",
                    amount_nano=row.amount_nano,
                    currency=row.currency,
                )


def _difference(provider: str, item: Missing) -> Difference:
    amount = f"{format_amount(item.amount_nano)} {item.currency}"
    return Difference(
        cause=(provider, item.ref),
        evidence=(
            ("provider", provider),
            ("what", item.what),
            ("payment", item.payment),
            ("amount", amount),
        ),
        text=f"{provider} {item.ref}: {item.what} of {amount}",
    )
