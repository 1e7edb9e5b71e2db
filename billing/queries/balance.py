"""What a tenant can spend, the credit it was given, and what moved its money."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Prefetch, QuerySet, Sum

from billing.models.ledger import (
    WALLET_KINDS,
    CreditGrant,
    LedgerAccount,
    LedgerEntry,
    LedgerTxn,
    Wallet,
)

GRANTS_SHOWN_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """A tenant's wallet; `balance_nano` is below zero where it owes."""

    currency: str
    balance_nano: int
    credit_limit_nano: int
    mode: str
    pending_nano: int = 0

    @property
    def available_nano(self) -> int:
        """Balance and credit line without what batches hold, open requests aside."""
        return self.balance_nano + self.credit_limit_nano - self.pending_nano


def read_balance(tenant: int) -> Balance:
    """A tenant's balance; that of an empty wallet where nothing was ever posted."""
    wallet = Wallet.objects.filter(tenant_id=tenant).first() or Wallet()
    return Balance(
        currency=wallet.currency,
        balance_nano=wallet.balance_nano,
        credit_limit_nano=wallet.credit_limit_nano,
        mode=wallet.mode,
        pending_nano=pending_by_tenant(tenant).get(tenant, 0),
    )


def pending_by_tenant(*tenants: int) -> dict[int, int]:
    """What holds that outlive a request keep of each tenant's money; without names, of all."""
    rows = LedgerAccount.objects.filter(pending__gt=0, tenant__isnull=False)
    if tenants:
        rows = rows.filter(tenant_id__in=tenants)
    sums = rows.values_list("tenant_id").annotate(total=Sum("pending"))
    return {tenant: int(total) for tenant, total in sums if tenant is not None}


def list_grants(tenant: int) -> list[CreditGrant]:
    """Credit that was given and is not used up, what expires first at the top."""
    grants = CreditGrant.objects.filter(tenant_id=tenant, expired_at=None)
    alive = grants.select_related("account").order_by("expires_at", "pk")[:GRANTS_SHOWN_MAX]
    return [row for row in alive if row.account.balance_nano > 0]


def list_ledger(tenant: int) -> QuerySet[LedgerTxn]:
    """A tenant's postings with their lines on its accounts."""
    entries = LedgerEntry.objects.select_related("account").order_by("line")
    return LedgerTxn.objects.filter(tenant_id=tenant).prefetch_related(
        Prefetch("entries", queryset=entries.filter(tenant_id=tenant))
    )


def change_of(entries: Iterable[LedgerEntry]) -> int:
    """What a posting changed in the balance."""
    return -sum(
        entry.side * entry.amount for entry in entries if entry.account.kind in WALLET_KINDS
    )
