"""Every row lock in the app and the one order in which they are taken.

    publication → refunds → wallet → billing period → invoice → number series
    → ledger transaction key → ledger accounts by id
    → price book → tenant (accounts) → platform state

A function that needs several takes them in this order, several of one kind by rising id.
"""

from collections.abc import Collection

from django.db import connection

from billing.models.catalog import PriceBook
from billing.models.invoices import Invoice, NumberSeries
from billing.models.ledger import BillingPeriod, LedgerAccount, Wallet
from billing.models.state import STATE_ID, PlatformState

# Two publishers of one thing would overwrite each other's newer values. Numbers of advisory locks.
PUBLICATION_LOCKS = 7_101
PLANE_LOCK = 0
# A refund waits for a payment provider; nothing else waits for that.
REFUND_LOCKS = 7_102


def lock_publication(*, tenant: int = PLANE_LOCK) -> None:
    """Wait until nobody else publishes this tenant (0: the plane), until the transaction ends."""
    _wait_for(PUBLICATION_LOCKS, tenant)


def lock_refunds(*, tenant: int) -> None:
    """Wait until nobody else gives this tenant money back, until the transaction ends."""
    _wait_for(REFUND_LOCKS, tenant)


def lock_wallet(*, tenant: int, currency: str = "USD") -> Wallet:
    """The tenant's wallet, locked; made empty and prepaid if there is none."""
    wallet = Wallet.objects.select_for_update().filter(tenant_id=tenant).first()
    if wallet is not None:
        return wallet
    Wallet.objects.bulk_create([Wallet(tenant_id=tenant, currency=currency)], ignore_conflicts=True)
    return Wallet.objects.select_for_update().get(tenant_id=tenant)


def lock_accounts(*, account_ids: Collection[int]) -> None:
    """Lock ledger accounts in the order of their ids, so that no two posts wait in a ring."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id FROM {LedgerAccount._meta.db_table}"  # noqa: S608 - a name of ours
            " WHERE id = ANY(%s) ORDER BY id FOR UPDATE",
            [sorted(account_ids)],
        )


def share_period(*, period: int) -> BillingPeriod:
    """A billing period that nobody closes until the transaction ends; many may share it."""
    rows = BillingPeriod.objects.raw(
        f"SELECT * FROM {BillingPeriod._meta.db_table} WHERE id = %s FOR SHARE",  # noqa: S608
        [period],
    )
    return rows[0]


def lock_period(*, period: int) -> BillingPeriod:
    """A billing period into which nobody posts, and which nobody else closes."""
    return BillingPeriod.objects.select_for_update().get(pk=period)


def lock_invoice(*, invoice: int) -> Invoice:
    """An invoice whose state nobody else changes."""
    return Invoice.objects.select_for_update().get(pk=invoice)


def next_number(*, seller: int, name: str) -> tuple[NumberSeries, int]:
    """Take a series' next number; given back whole where the transaction fails, so no gap."""
    NumberSeries.objects.bulk_create(
        [NumberSeries(seller_id=seller, name=name)], ignore_conflicts=True
    )
    series = NumberSeries.objects.select_for_update().get(seller_id=seller, name=name)
    number = series.next
    series.next = number + 1
    series.save(update_fields=["next"])
    return series, number


def lock_book(*, book: int) -> PriceBook:
    """A price book whose sets nobody else changes until the transaction ends."""
    return PriceBook.objects.select_for_update().get(pk=book)


def lock_state() -> PlatformState:
    """The platform's one row of state, locked; made at first use."""
    PlatformState.objects.bulk_create([PlatformState()], ignore_conflicts=True)
    return PlatformState.objects.select_for_update().get(pk=STATE_ID)


def _wait_for(kind: int, number: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, hashint8(%s))", [kind, number])
