"""A year of synthetic usage, with everything that happens to a bill: made from a seed.

Tenants in several currencies, by invoice and paid ahead; prices that change in mid-month; events
that come late, twice, and better than before; payments, credit notes, voids, a price error and its
re-rating.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from billing.models.catalog import Price, PriceBook, PriceSet
from billing.models.invoices import Invoice
from billing.services.billing_details import set_seller, set_tax_rate, set_tenant_tax
from billing.services.catalog_file import PriceRow
from billing.services.correction import Corrected, make_corrected_set, rate_again
from billing.services.credit_notes import credit_invoice, void_invoice
from billing.services.invoice_payments import pay_invoice, write_off_invoice
from billing.services.wallet import grant_credit, set_mode, top_up
from tests.billing.invoice_world import (
    close_months,
    event_at,
    finalize_all,
    make_partitions,
    post_events,
    postpaid_shop,
    with_seller,
)
from tests.billing.usage_world import MODEL, RATES, Shop, make_shop
from turnpike.contracts.usage import UsageEvent
from turnpike.control.scope import platform_scope
from turnpike.kernel import money
from turnpike.kernel.errors import Conflict

ACTOR = "year"
START = datetime(2025, 11, 1, tzinfo=UTC)
CURRENCIES = ("USD", "EUR", "JPY", "KWD")
# What a dollar's price is in each, so that amounts look like amounts.
FACTORS = {"USD": 1, "EUR": 1, "JPY": 150, "KWD": 1}
UNIT = money.NANOS_PER_UNIT
HOLD_MICRO = 10**12
POSTED_AT_ONCE = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much happens."""

    tenants: int
    months: int
    events_a_month: int


@dataclass(slots=True, kw_only=True)
class Year:
    """What was made; `sets` are each currency's price sets, the later one from mid-month on."""

    size: Size
    shops: list[Shop]
    sets: Mapping[str, tuple[int, int]]
    changes_at: datetime
    currency_of: Mapping[int, str]
    posted: int = 0
    corrected: list[Corrected] = field(default_factory=list)
    # Everything that was sent, for somebody who sends it again.
    sent: list[UsageEvent] = field(default_factory=list)


def make_year(size: Size, *, seed: int) -> Year:
    """Live through a year, month by month, and close each one."""
    chance = random.Random(seed)
    make_partitions(START, months=size.months + 1)
    year = _found(size, chance)
    late: list[UsageEvent] = []
    for number in range(size.months):
        begins, ends = month_at(number), month_at(number + 1)
        _fund(year, number, chance)
        events = [*late, *_events(year, begins, ends, chance)]
        late = [event for event in events if chance.random() < 0.02]
        held_back = {event.rid for event in late}
        year.posted += _post(
            year, [event for event in events if event.rid not in held_back], chance
        )
        at = ends + timedelta(minutes=20)
        close_months(at)
        finalize_all(at)
        _settle(at, chance)
        if number == size.months // 2:
            year.corrected.extend(_correct_prices(year, at))
    year.posted += _post(year, late, chance)
    end = month_at(size.months + 1) + timedelta(minutes=20)
    close_months(end)
    finalize_all(end)
    return year


def month_at(number: int) -> datetime:
    """The beginning of one of the year's months."""
    years, month = divmod(START.month - 1 + number, 12)
    return START.replace(year=START.year + years, month=month + 1)


def _found(size: Size, chance: random.Random) -> Year:
    with_seller(tax_ppm=190_000)
    set_tax_rate(code="gst", title="GST", rate_ppm=88_750, actor=ACTOR)
    set_seller(
        code="asia",
        changes={"name": "Turnpike Asia Pte Ltd", "invoice_prefix": "A-", "country": "SG"},
        tax="gst",
        actor=ACTOR,
    )
    changes_at = month_at(size.months // 2) + timedelta(days=14, hours=7)
    sets = {name: _make_sets(name, changes_at) for name in CURRENCIES}
    shops, currency_of = [], {}
    for number in range(size.tenants):
        currency = CURRENCIES[number % len(CURRENCIES)]
        is_prepaid = number % (2 * len(CURRENCIES)) == 0
        make = make_shop if is_prepaid else postpaid_shop
        given: dict[str, Any] = {} if is_prepaid else {"currency": currency}
        shop = make(name=f"Tenant {number}", price_set=sets[currency][0], **given)
        if number % 3 == 0:
            set_tenant_tax(
                tenant=shop.number, tax="gst", seller="asia", actor=ACTOR, reason="lives there"
            )
        shops.append(shop)
        currency_of[shop.number] = currency
    return Year(size=size, shops=shops, sets=sets, changes_at=changes_at, currency_of=currency_of)


def _make_sets(currency: str, changes_at: datetime) -> tuple[int, int]:
    with platform_scope("year"):
        book = PriceBook.objects.create(name=f"year {currency}", currency=currency)
        sets = []
        for percent, span in (
            (100, DateTimeTZRange(None, changes_at)),
            (125, DateTimeTZRange(changes_at, None)),
        ):
            row = PriceSet.objects.create(book=book, effective=span)
            Price.objects.bulk_create(
                Price(
                    price_set=row,
                    model=MODEL,
                    component=name,
                    variant=variant,
                    min_input=min_input,
                    nano_per_mtok=rate * FACTORS[currency] * percent * dearer // divisor // 100,
                )
                for name, rate in RATES.items()
                for variant, divisor in (("standard", 1), ("batch", 2))
                for min_input, dearer in ((0, 1), (200_000, 2))
            )
            sets.append(row.pk)
    return sets[0], sets[1]


def _events(
    year: Year, begins: datetime, ends: datetime, chance: random.Random
) -> Iterator[UsageEvent]:
    span = (ends - begins).total_seconds()
    for shop in year.shops:
        sets = year.sets[year.currency_of[shop.number]]
        for _ in range(year.size.events_a_month):
            at = begins + timedelta(milliseconds=int(chance.random() * span * 1_000))
            yield event_at(
                shop,
                at,
                price_set=sets[at >= year.changes_at],
                rank=chance.choice((1, 2, 3, 3, 3, 3, 3)),
                discount_bp=1_250 if shop.number % 5 == 0 else 0,
                tier="batch" if chance.random() < 0.1 else "standard",
                hold_micro=HOLD_MICRO,
                usage=_usage(chance),
            )


def _usage(chance: random.Random) -> Mapping[str, Any]:
    return {
        "input_tokens": chance.choice((90, 1_700, 33_333, 250_001)),
        "output_tokens": chance.randrange(1, 4_000),
        "cache_read_input_tokens": chance.choice((0, 0, 51_007)),
    }


def send_again(year: Year) -> int:
    """Everything that was ever sent, once more; how many rows that made."""
    return sum(
        post_events(year.sent[start : start + POSTED_AT_ONCE])
        for start in range(0, len(year.sent), POSTED_AT_ONCE)
    )


def _post(year: Year, events: list[UsageEvent], chance: random.Random) -> int:
    """In any order, some twice, and some again with better knowledge."""
    better = [
        replace(
            event,
            rank=chance.choice((3, 4)),
            usage={**event.usage, "output_tokens": chance.randrange(1, 4_000)},
        )
        for event in events
        if event.rank < 3
    ]
    chance.shuffle(events)
    twice = chance.sample(events, len(events) // 20)
    everything = [*events, *twice, *better]
    year.sent += everything
    return sum(
        post_events(everything[start : start + POSTED_AT_ONCE])
        for start in range(0, len(everything), POSTED_AT_ONCE)
    )


def _fund(year: Year, number: int, chance: random.Random) -> None:
    for shop in year.shops:
        if year.currency_of[shop.number] != "USD":
            continue
        key = f"{number}:{shop.number}"
        top_up(tenant=shop.number, amount=20 * UNIT, idempotency_key=key, actor=ACTOR)
        if chance.random() < 0.3:
            grant_credit(
                tenant=shop.number,
                amount=3 * UNIT,
                idempotency_key=key,
                reason="a good customer",
                actor=ACTOR,
            )
        if chance.random() < 0.05:
            mode = chance.choice(("prepaid", "postpaid"))
            set_mode(tenant=shop.number, mode=mode, actor=ACTOR)


def _settle(at: datetime, chance: random.Random) -> None:
    """Some pay, some pay a part, some complain, some never pay."""
    with platform_scope("year"):
        rows = list(Invoice.objects.filter(status="open", kind="invoice").order_by("pk"))
    for row in (row for row in rows if row.open_nano > 0):
        fate = chance.random()
        if fate < 0.55:
            _pay(row, row.open_nano, at)
        elif fate < 0.65:
            _pay(row, money.minor_unit(row.currency), at)
        elif fate < 0.75:
            _credit(row, at, part=chance.choice((2, 3)))
        elif fate < 0.8:
            _void(row, at, redraft=chance.random() < 0.7)
        elif fate < 0.83:
            write_off_invoice(invoice=row.pk, at=at, actor=ACTOR, reason="gone")
    with platform_scope("year"):
        paid = list(Invoice.objects.filter(status="paid", kind="invoice").order_by("pk"))
    for row in chance.sample(paid, min(len(paid), 2)):
        _credit(row, at, part=1)
    finalize_all(at)


def _pay(row: Invoice, amount: int, at: datetime) -> None:
    key = f"{row.pk}:{row.paid_nano}:{at:%Y%m}"
    pay_invoice(invoice=row.pk, amount=amount, idempotency_key=key, at=at, actor=ACTOR)


def _credit(row: Invoice, at: datetime, *, part: int) -> None:
    net: int | None = None
    if part > 1:
        net = money.round_to_minor(row.subtotal_nano // (part * 2), row.currency)
    try:
        credit_invoice(
            invoice=row.pk,
            net=net or None,
            reason="An hour without service",
            idempotency_key=f"{row.pk}:{at:%Y%m}",
            at=at,
            actor=ACTOR,
        )
    except Conflict:
        assert row.credited_nano or row.total_nano <= 0  # nothing was left


def _void(row: Invoice, at: datetime, *, redraft: bool) -> None:
    if row.paid_nano or row.credited_nano or row.total_nano <= 0:
        return
    void_invoice(invoice=row.pk, reason="To the wrong name", at=at, actor=ACTOR, redraft=redraft)


def _correct_prices(year: Year, at: datetime) -> Iterator[Corrected]:
    """The first prices of two currencies were wrong: one too high, one too low."""
    for currency, percent in (("USD", 90), ("EUR", 110)):
        wrong = year.sets[currency][0]
        rows = [
            PriceRow(
                model=MODEL,
                component=name,
                variant=variant,
                min_input=min_input,
                nano_per_mtok=rate * dearer * percent // divisor // 100,
            )
            for name, rate in RATES.items()
            for variant, divisor in (("standard", 1), ("batch", 2))
            for min_input, dearer in ((0, 1), (200_000, 2))
        ]
        right = make_corrected_set(wrong_set=wrong, rows=rows, name=f"corrected {currency}")
        yield rate_again(
            wrong_set=wrong,
            right_set=right.pk,
            since=month_at(0),
            until=at,
            reason=f"The prices in {currency} were wrong",
            idempotency_key=f"corrected {currency}",
            actor=ACTOR,
            at=at,
        )
