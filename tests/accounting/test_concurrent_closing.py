"""Posting and closing at once, by several schedulers, with crashes: P15 and the numbers."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction

from billing.models.invoices import Invoice
from billing.models.ledger import BillingPeriod
from billing.services.closing import close_due_periods, draft_documents
from billing.services.invoices import finalize_invoice
from tests.billing.invoice_world import (
    differences,
    event_at,
    make_partitions,
    post_events,
    postpaid_shop,
    tokens,
    with_seller,
)
from tests.billing.usage_world import Shop, make_price_set
from tests.support.threads import at_once
from turnpike.control.scope import platform_scope

START = datetime(2024, 12, 1, tzinfo=UTC)
POSTERS, SCHEDULERS = 4, 2
PATIENCE_SECONDS = 1_500


def month(number: int) -> datetime:
    years, index = divmod(START.month - 1 + number, 12)
    return START.replace(year=START.year + years, month=index + 1)


class Race:
    """Posters that post one event each time, and schedulers that close month after month."""

    def __init__(self, *, shops: list[Shop], months: int, posts: int) -> None:
        self.shops, self.months, self.posts = shops, months, posts
        self.posted, self.crashes = Counter[int](), 0
        self.has_failed = False
        self.lock = threading.Lock()

    def run(self) -> None:
        jobs: list[Callable[[], None]] = [
            *(lambda seed=seed: self._post(seed) for seed in range(POSTERS)),
            *(lambda seed=seed: self._close(seed) for seed in range(SCHEDULERS)),
        ]
        at_once(lambda job: job(), jobs, seconds_max=PATIENCE_SECONDS)

    def _post(self, seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(self.posts // POSTERS):
            shop = chance.choice(self.shops)
            # Anywhere from long closed to not yet over.
            at = month(0) + chance.random() * (month(self.months) - month(0))
            try:
                post_events([event_at(shop, at, usage=tokens(chance.randrange(1, 99_999)))])
            except BaseException:
                self.has_failed = True  # nobody waits for the posts that do not come
                raise
            with self.lock:
                self.posted[shop.number] += 1

    def _close(self, seed: int) -> None:
        chance = random.Random(1_000 + seed)
        for number in range(1, self.months + 1):
            # No sooner than the posts have come that far, so that both work until the end.
            share = self.posts * (number - 1) // self.months
            while sum(self.posted.values()) < share and not self.has_failed:
                threading.Event().wait(0.005)
            self.schedule(month(number) + timedelta(minutes=20), chance)

    def schedule(self, at: datetime, chance: random.Random | None = None) -> None:
        """What beat runs; by chance the process dies just before it commits."""
        close_due_periods(at=at)
        draft_documents(at=at)
        with platform_scope("tests"):
            drafts = list(Invoice.objects.filter(status="draft").values_list("pk", flat=True))
        if chance is not None:
            chance.shuffle(drafts)
        for draft in drafts:
            dies = chance is not None and chance.random() < 0.3
            with transaction.atomic():
                finalize_invoice(invoice=draft, at=at)
                transaction.set_rollback(dies)
            with self.lock:
                self.crashes += dies


@pytest.mark.django_db(transaction=True)
@pytest.mark.timeout(1_800)
def test_every_invoice_is_its_events_and_numbers_have_no_gap(is_full: bool) -> None:
    tenants, months, posts = (20, 25, 10_000) if is_full else (4, 6, 240)
    make_partitions(START, months=months)
    with_seller()
    price_set = make_price_set()
    shops = [postpaid_shop(name=f"Tenant {n}", price_set=price_set) for n in range(tenants)]
    for shop in shops:  # so that every month of everybody is closed
        post_events([event_at(shop, month(n) + timedelta(days=3)) for n in range(months)])
    race = Race(shops=shops, months=months, posts=posts)

    race.run()
    # What came late made later months; they are closed one after the other.
    for number in range(months, months + 4):
        race.schedule(month(number) + timedelta(minutes=20))

    assert race.crashes
    assert differences() == {}
    with platform_scope("tests"):
        assert not Invoice.objects.filter(status="draft").exists()
        periods = BillingPeriod.objects.filter(ends_at__lte=month(months))
        assert periods.filter(state="closed").count() == tenants * months
        documents = Invoice.objects.values_list("period_id", "series__name", "sequence")
        assert len({period for period, _, _ in documents}) == len(documents)
        for series in {name for _, name, _ in documents if name}:
            numbers = sorted(number or 0 for _, name, number in documents if name == series)
            assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.django_db(transaction=True)
def test_two_schedulers_at_once_make_one_invoice() -> None:
    make_partitions(START, months=1)
    with_seller()
    shops = [postpaid_shop(name=f"Tenant {n}") for n in range(3)]
    for shop in shops:
        post_events([event_at(shop, month(0) + timedelta(days=1), usage=tokens(10_000))])
    race = Race(shops=shops, months=1, posts=0)

    at_once(
        lambda _: race.schedule(month(1) + timedelta(days=1), random.Random(1)),
        range(4),
    )

    race.schedule(month(1) + timedelta(days=2))
    with platform_scope("tests"):
        assert Invoice.objects.count() == len(shops)
        numbers = Invoice.objects.exclude(sequence=None).values_list("sequence", flat=True)
        assert sorted(number or 0 for number in numbers) == [1, 2, 3]
    assert differences() == {}
