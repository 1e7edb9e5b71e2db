"""Random histories of money: whatever happens in whatever order, every proof of the books holds.

P11-P15 over everything that posts: usage that comes twice and better, top-ups, grants that expire,
months that close, payments, credit notes, voids, write-offs and re-ratings. P16: holds.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import DatabaseError, transaction
from django.db.models import F, Sum
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.models.batches import LedgerHold
from billing.models.invoices import Invoice, RatingDifference
from billing.models.ledger import LedgerAccount, LedgerEntry
from billing.models.usage import UsageEvent as EventRow
from billing.services.catalog_file import PriceRow
from billing.services.correction import make_corrected_set, rate_again
from billing.services.credit_notes import credit_invoice, void_invoice
from billing.services.holds import end_hold, shrink_hold
from billing.services.invoice_payments import pay_invoice, write_off_invoice
from billing.services.ledger import account_for
from billing.services.rating_sample import rate_sample
from billing.services.rollups import compare_counters, compare_rollups
from billing.services.wallet import expire_grants, grant_credit, set_mode, top_up
from tests.accounts.factories import caller_of, make_member, make_tenant
from tests.billing.invoice_world import (
    close_months,
    differences,
    event_at,
    finalize_all,
    make_partitions,
    post_events,
    postpaid_shop,
    tokens,
    with_seller,
)
from tests.billing.ledger_world import broken_invariants
from tests.billing.payment_world import order, payment_of, send, tenant_of
from tests.billing.stripe_world import CENT, FEE_CENTS, StripeServer, balances, event, set_up_stripe
from tests.billing.usage_world import MODEL, RATES, Shop, make_price_set, make_shop
from turnpike.contracts.usage import UsageEvent
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids, money
from turnpike.kernel.errors import Conflict, InvalidInput

pytestmark = pytest.mark.django_db

ACTOR = "history"
START = datetime(2026, 1, 1, tzinfo=UTC)
MONTHS_MAX = 5
IS_FULL = os.environ.get("ACCOUNTING") == "full"


def examples(few: int, many: int) -> settings:
    """A few in every run, many in `make test-billing`."""
    return settings(
        max_examples=many if IS_FULL else few,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def month(number: int) -> datetime:
    return START.replace(month=START.month + number)


shop_numbers, small = st.integers(0, 1), st.integers(0, 9)
# What becomes of one invoice, one after the other.
SETTLING = st.tuples(
    st.just("settle"),
    st.lists(
        st.sampled_from(["pay", "part", "credit", "all", "void", "redraft", "write_off"]),
        min_size=1,
        max_size=4,
    ),
    small,
)
STEPS = st.one_of(
    st.tuples(
        st.just("use"), shop_numbers, st.integers(0, 200_000), st.integers(0, 4), st.integers(0, 27)
    ),
    st.tuples(st.just("again"), small, st.integers(0, 200_000), st.integers(0, 4)),
    st.tuples(st.just("top_up"), shop_numbers, st.integers(1, 100_000_000)),
    st.tuples(st.just("grant"), shop_numbers, st.integers(1, 100_000_000), st.integers(0, 60)),
    st.tuples(st.just("mode"), shop_numbers, st.booleans()),
    st.tuples(st.just("close")),
    SETTLING,
    SETTLING,
    st.tuples(st.just("rate"), st.integers(50, 150)),
)


# How a history begins: everybody has used something, and one has been asked to pay for it.
BEGINNING: tuple[tuple[Any, ...], ...] = (
    ("top_up", 0, 50_000_000),
    ("use", 0, 20_000, 3, 2),
    ("use", 1, 150_000, 3, 3),
    ("use", 1, 40_000, 2, 9),
    ("close",),
)


class History:
    """Two tenants and what happens to them; `at` is the present moment."""

    def __init__(self, shops: list[Shop], price_set: int) -> None:
        self.shops, self.price_set = shops, price_set
        self.month, self.number = 0, 0
        self.events: list[UsageEvent] = []

    @property
    def at(self) -> datetime:
        """Twenty minutes into the current month."""
        return month(self.month) + timedelta(minutes=20)

    def key(self) -> str:
        """Something that was not used before."""
        self.number += 1
        return f"history {self.number}"

    def use(self, shop: int, count: int, rank: int, day: int) -> None:
        """A request that ended in this month."""
        at = month(self.month) + timedelta(days=day, hours=1)
        usage = tokens(count, count // 50) if rank else {}
        made = event_at(self.shops[shop], at, price_set=self.price_set, rank=rank, usage=usage)
        self.events.append(made)
        post_events([made])

    def again(self, index: int, count: int, rank: int) -> None:
        """One that was posted comes again, perhaps with better knowledge, perhaps months later."""
        if not self.events:
            return
        known = self.events[index % len(self.events)]
        shop = next(shop for shop in self.shops if shop.number == known.tenant)
        at = clock.datetime_of_us(known.started_at_us)
        usage = tokens(count, count // 50) if rank else {}
        better = event_at(shop, at, price_set=self.price_set, rank=rank, usage=usage)
        better.rid = known.rid
        post_events([known, better])

    def top_up(self, shop: int, amount: int) -> None:
        """Money comes in, and the message about it twice."""
        key = self.key()
        for _ in range(2):
            top_up(tenant=self.shops[shop].number, amount=amount, idempotency_key=key, actor=ACTOR)

    def grant(self, shop: int, amount: int, days: int) -> None:
        """Credit that ends some time."""
        grant_credit(
            tenant=self.shops[shop].number,
            amount=amount,
            idempotency_key=self.key(),
            reason="history",
            actor=ACTOR,
            expires_at=self.at + timedelta(days=days) if days else None,
        )

    def mode(self, shop: int, is_prepaid: bool) -> None:
        """A tenant pays otherwise from now on."""
        mode = "prepaid" if is_prepaid else "postpaid"
        with contextlib.suppress(Conflict):
            set_mode(tenant=self.shops[shop].number, mode=mode, actor=ACTOR)

    def close(self) -> None:
        """The month is over: what is due expires, documents are drawn up and made final."""
        self.month = min(self.month + 1, MONTHS_MAX)
        expire_grants(at=self.at)
        close_months(self.at)
        finalize_all(self.at)

    def settle(self, verbs: list[str], index: int) -> None:
        """Things become of an invoice, as far as they still can."""
        with platform_scope("tests"):
            rows = list(Invoice.objects.filter(kind="invoice").exclude(status="draft"))
        if not rows:
            return
        number = rows[index % len(rows)].pk
        for verb in verbs:
            with platform_scope("tests"):
                row = Invoice.objects.get(pk=number)
            self.settle_by(verb, row)

    def settle_by(self, verb: str, row: Invoice) -> None:
        """One of them."""
        common: dict[str, Any] = {"invoice": row.pk, "at": self.at, "actor": ACTOR}
        minor = money.minor_unit(row.currency)
        acts: dict[str, Callable[[], object]] = {
            "pay": lambda: pay_invoice(**common, amount=row.open_nano, idempotency_key=self.key()),
            "part": lambda: pay_invoice(**common, amount=minor, idempotency_key=self.key()),
            "credit": lambda: credit_invoice(
                **common, net=minor, reason="history", idempotency_key=self.key()
            ),
            "all": lambda: credit_invoice(
                **common, net=None, reason="history", idempotency_key=self.key()
            ),
            "void": lambda: void_invoice(**common, reason="history"),
            "redraft": lambda: void_invoice(**common, reason="history", redraft=True),
            "write_off": lambda: write_off_invoice(**common, reason="history"),
        }
        with contextlib.suppress(Conflict, InvalidInput):
            acts[verb]()

    def rate(self, percent: int) -> None:
        """The prices were wrong from the beginning; the same correction twice is one."""
        key = self.key()
        rows = [
            PriceRow(
                model=MODEL,
                component=name,
                variant=variant,
                nano_per_mtok=rate * percent // divisor // 100,
            )
            for name, rate in RATES.items()
            for variant, divisor in (("standard", 1), ("batch", 2))
        ]
        right = make_corrected_set(wrong_set=self.price_set, rows=rows, name=key)
        for _ in range(2):
            rate_again(
                wrong_set=self.price_set,
                right_set=right.pk,
                since=START,
                until=self.at + timedelta(days=31),
                reason="history",
                idempotency_key=key,
                actor=ACTOR,
                at=self.at,
            )


@pytest.fixture
def shops() -> tuple[list[Shop], int]:
    """One that pays ahead and one that pays by invoice."""
    make_partitions(START, months=MONTHS_MAX + 2)
    with_seller()
    price_set = make_price_set()
    return [
        make_shop(name="Ahead", price_set=price_set),
        postpaid_shop(name="By invoice", price_set=price_set),
    ], price_set


@contextlib.contextmanager
def undone() -> Iterator[None]:
    """Whatever happens here did not happen."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@examples(6, 400)
@given(steps=st.lists(STEPS, min_size=4, max_size=25))
def test_whatever_happens_the_books_agree(
    shops: tuple[list[Shop], int], steps: list[tuple[Any, ...]]
) -> None:
    with undone():
        history = History(*shops)
        for name, *values in [*BEGINNING, *steps, ("close",)]:
            getattr(history, name)(*values)

        span = {"since": START, "until": month(MONTHS_MAX) + timedelta(days=40)}
        assert differences() == {}
        assert broken_invariants() == []
        assert compare_rollups(**span) == []
        assert compare_counters(**span) == []
        assert rate_sample(until=span["until"]).differences == 0
        _postings_are_events_and_corrections()


def _postings_are_events_and_corrections() -> None:
    """An oracle of its own: what was earned is usage and corrections, less what was credited."""
    with platform_scope("tests"):
        used = EventRow.objects.aggregate(nano=Sum("amount_nano"))["nano"] or 0
        kept = RatingDifference.objects.filter(credit_note=None)
        corrected = kept.aggregate(nano=Sum("difference_nano"))["nano"] or 0
        entries = LedgerEntry.objects.filter(account__kind="revenue")
        earned = 0
        for side, amount in entries.filter(txn__kind__in=["usage", "correction"]).values_list(
            "side", "amount"
        ):
            earned -= side * amount
        assert earned == used + corrected
        # No grant is worth less than nothing.
        assert not LedgerAccount.objects.filter(kind="promo", debits__gt=F("credits")).exists()


HOLD = 1_000
PARTS = st.tuples(st.integers(-5, HOLD), st.integers(-5, HOLD))
HOLD_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("shrink"), PARTS),
        st.tuples(st.just("end"), st.booleans()),
        st.tuples(st.just("force"), st.sampled_from(["pending", "posted", "voided", "expired"])),
        st.tuples(st.just("grow"), st.integers(1, 50)),
        st.tuples(st.just("unpost"), st.integers(1, 50)),
        st.tuples(st.just("delete"), st.none()),
    ),
    max_size=12,
)


@examples(25, 600)
@given(steps=HOLD_STEPS)
def test_a_hold_ends_once_and_never_gives_more_than_it_has(
    shops: tuple[list[Shop], int], steps: list[tuple[str, Any]]
) -> None:
    shop = shops[0][0]
    with undone(), platform_scope("tests"):
        row = _make_hold(shop)
        state, left, posted = "pending", HOLD, 0
        for name, value in steps:
            was = (state, left, posted)
            is_done = _try_hold_step(row.pk, name, value)
            if state == "pending" and is_done and name == "shrink":
                left, posted = left - value[0], posted + value[1]
            elif state == "pending" and is_done and name == "end":
                state = "posted" if posted else "expired" if value else "voided"
                left = 0
            # Nothing else has any effect, whoever tries it.
            row.refresh_from_db()
            assert (row.state, row.remaining_nano, row.posted_nano) == (state, left, posted)
            assert left + posted <= HOLD
            assert (state == "pending") == (row.resolved_at is None)
            if was[0] != "pending":
                assert (state, left, posted) == was
            assert LedgerAccount.objects.get(pk=row.account_id).pending == left
        assert differences() == {}


def _make_hold(shop: Shop) -> LedgerHold:
    account = account_for(tenant=shop.number, kind="prepaid", currency="USD")
    return LedgerHold.objects.create(
        id=ids.uuid7(),
        tenant_id=shop.number,
        account_id=account.pk,
        workspace_id=shop.workspace.pk,
        api_key_id=shop.key.pk,
        ref=f"history {ids.uuid7()}",
        amount_nano=HOLD,
        remaining_nano=HOLD,
        created_at=START,
        expires_at=START + timedelta(days=1),
    )


def _try_hold_step(hold: UUID, name: str, value: Any) -> bool:
    """Whether the database let a step through."""
    rows = LedgerHold.objects.filter(pk=hold)
    before = rows.get()
    acts: dict[str, Callable[[], object]] = {
        "shrink": lambda: shrink_hold(hold=hold, released_nano=value[0], posted_nano=value[1]),
        "end": lambda: end_hold(hold=hold, at=START + timedelta(days=2 if value else 0)),
        "force": lambda: rows.update(state=value),
        "grow": lambda: rows.update(remaining_nano=before.remaining_nano + value),
        "unpost": lambda: rows.update(posted_nano=before.posted_nano - value),
        "delete": lambda: rows.delete(),
    }
    is_forced_to_what_it_is = name == "force" and value == before.state == "pending"
    try:
        with transaction.atomic():
            acts[name]()
    except DatabaseError:
        return False
    # What ends it by hand would have to say when: only the same word again passes.
    assert name in ("shrink", "end") or is_forced_to_what_it_is
    return True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StripeServer]:
    """Our own Stripe, and a platform that is set up for it."""
    with set_up_stripe(monkeypatch) as found:
        yield found


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["order", "pay", "refund", "dispute", "win", "expire"]),
        st.integers(0, 3),
        st.integers(1, 400),
    ),
    min_size=2,
    max_size=9,
)


@examples(4, 150)
@given(acts=ACTS, deliveries=st.lists(st.integers(0, 30), max_size=25), chance=st.randoms())
def test_webhooks_in_any_order_and_any_number_end_in_the_providers_books(
    server: StripeServer,
    acts: list[tuple[str, int, int]],
    deliveries: list[int],
    chance: Any,
) -> None:
    """What the provider has is the oracle: nothing is taken from what a message says."""
    with undone():
        owner = caller_of(make_member(make_tenant(), "owner"))
        world = _Provider(server)
        for act, index, cents in [("order", 0, 900), *acts]:
            world.act(act, index, cents, lambda cents: order(owner, cents))
            # Now and then a message arrives, perhaps for the third time.
            if deliveries and world.messages:
                send(world.messages[deliveries.pop() % len(world.messages)])
        rest = [*world.messages, *chance.sample(world.messages, len(world.messages) // 2)]
        chance.shuffle(rest)
        for body in rest:
            assert send(body).json()["outcome"] in {"applied", "ignored"}, body

        assert balances() == {kind: cents for kind, cents in world.expected().items() if cents}
        assert broken_invariants() == []
        for started, paid in world.orders:
            row = payment_of(started)
            assert row.tenant_id == tenant_of(owner)
            assert (row.status == "paid") == (paid is not None)
            assert row.amount_nano % CENT == 0


class _Provider:
    """What happens at the provider, and what it says of it; it delivers nothing by itself."""

    def __init__(self, server: StripeServer) -> None:
        self.server = server
        self.orders: list[tuple[Any, dict[str, Any] | None]] = []
        self.messages: list[bytes] = []
        self.refunded: dict[str, int] = {}
        self.disputes: dict[str, dict[str, Any]] = {}
        self.won: set[str] = set()

    def act(self, what: str, index: int, cents: int, start: Callable[[int], Any]) -> None:
        """One thing happens, if it can."""
        if what == "order":
            self.orders.append((start(1_000 + cents), None))
            return
        place = index % len(self.orders)
        started, intent = self.orders[place]
        session = self.server.objects[started.payment.order_ref]
        if what == "pay" and intent is None and session["status"] == "open":
            made = self.server.pay(session["id"])
            self.orders[place] = (started, made)
            self.tell("payment_intent.succeeded", made)
            self.tell("checkout.session.completed", session)
        elif what == "expire" and intent is None and session["status"] == "open":
            self.server.expire(session["id"])
            self.tell("checkout.session.expired", session)
        elif what == "refund" and intent and self.left(intent) >= cents:
            self.refunded[intent["id"]] = self.refunded.get(intent["id"], 0) + cents
            self.tell("refund.created", self.server.refund(intent["id"], cents))
        elif what == "dispute" and intent and intent["id"] not in self.disputes:
            taken = min(cents, self.left(intent))
            if taken:
                found = self.server.dispute(intent["id"], taken)
                self.disputes[intent["id"]] = {**found, "cents": taken}
                self.tell("charge.dispute.funds_withdrawn", found)
        elif what == "win" and intent and intent["id"] in self.disputes:
            self.win(intent["id"])

    def win(self, intent: str) -> None:
        """The bank gives the money back, once."""
        if intent not in self.won:
            self.won.add(intent)
            dispute = self.disputes[intent]
            moved = self.server.move(dispute["id"], dispute["cents"])
            self.tell("charge.dispute.funds_reinstated", moved)

    def left(self, intent: dict[str, Any]) -> int:
        """What of a payment was neither given back nor taken."""
        disputed = self.disputes.get(intent["id"], {}).get("cents", 0)
        return int(intent["amount"]) - self.refunded.get(intent["id"], 0) - int(disputed)

    def tell(self, kind: str, about: dict[str, Any]) -> None:
        """A message, as it is at this moment."""
        self.messages.append(event(kind, about))

    def expected(self) -> dict[str, int]:
        """What our accounts must say, in cents."""
        paid = [intent for _, intent in self.orders if intent is not None]
        gone = sum(self.refunded.values()) + sum(
            item["cents"] for name, item in self.disputes.items() if name not in self.won
        )
        kept = sum(int(intent["amount"]) for intent in paid) - gone
        fees = FEE_CENTS * len(paid)
        return {"prepaid": kept, "cash": kept - fees, "fees": fees}
