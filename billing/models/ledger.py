"""LedgerAccount, LedgerTxn, LedgerEntry, Wallet, CreditGrant, BillingPeriod: where money is.

Amounts are nanos. Triggers keep the accounts' sums, refuse a transaction that does not balance and
any change of what was posted; they stand in the migrations. docs/money.md has the invariants.
"""

from django.db import models
from django.db.models import F, Q

from turnpike.contracts.snapshots import MODE_POSTPAID, MODE_PREPAID
from turnpike.control.models import TimestampedModel
from turnpike.kernel import clock, ids

DEBIT, CREDIT = 1, -1

# kind -> the side on which a balance of this kind is positive
NORMAL_OF_KIND = {
    "prepaid": CREDIT,
    "promo": CREDIT,
    "unbilled": DEBIT,
    "receivable": DEBIT,
    "revenue": CREDIT,
    "cash": DEBIT,
    "tax": CREDIT,
    "rounding": CREDIT,
    "promo_expense": DEBIT,
    "breakage": CREDIT,
    "bad_debt": DEBIT,
    "fees": DEBIT,
    "upstream_cost": DEBIT,
    "upstream_payable": CREDIT,
    "correction": DEBIT,
}
# What a tenant can spend is the credit side of these: prepaid + promo - unbilled - receivable.
WALLET_KINDS = frozenset({"prepaid", "promo", "unbilled", "receivable"})


class LedgerAccount(models.Model):
    """One account of a tenant, or of the platform where `tenant` is null."""

    tenant = models.ForeignKey(
        "accounts.Tenant", null=True, on_delete=models.PROTECT, related_name="+"
    )
    kind = models.CharField(max_length=30)
    ref = models.CharField(max_length=100, default="", blank=True)
    currency = models.CharField(max_length=3)
    normal = models.SmallIntegerField()
    debits = models.BigIntegerField(default=0)
    credits = models.BigIntegerField(default=0)
    pending = models.BigIntegerField(default=0)
    version = models.BigIntegerField(default=0)

    class Meta:
        db_table = "billing_ledger_account"
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "kind", "ref", "currency"],
                name="ledger_account_once",
                nulls_distinct=False,
            ),
            models.CheckConstraint(condition=Q(normal__in=[1, -1]), name="ledger_account_normal"),
            models.CheckConstraint(
                condition=Q(debits__gte=0, credits__gte=0, pending__gte=0, version__gte=0),
                name="ledger_account_sums_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id or 'platform'}/{self.kind}/{self.ref}"

    @property
    def balance_nano(self) -> int:
        """What stands on the account, positive on its normal side."""
        return self.normal * (self.debits - self.credits)


class LedgerTxn(models.Model):
    """One posting: two or more entries that sum to zero, known by its idempotency key."""

    idem_key = models.CharField(max_length=200, unique=True)
    kind = models.CharField(max_length=30)
    currency = models.CharField(max_length=3)
    # Whose money it moves; null: the platform's own.
    tenant = models.ForeignKey(
        "accounts.Tenant", null=True, on_delete=models.PROTECT, related_name="+"
    )
    fingerprint = models.BinaryField()
    reverses = models.OneToOneField(
        "self", null=True, on_delete=models.PROTECT, related_name="reversed_by"
    )
    actor = models.CharField(max_length=200)
    posted_at = models.DateTimeField()
    memo = models.JSONField(default=dict)

    class Meta:
        db_table = "billing_ledger_txn"
        indexes = [models.Index(fields=["tenant", "-id"], name="ledger_txn_of_tenant")]

    def __str__(self) -> str:
        return self.idem_key


class LedgerEntry(models.Model):
    """One line of a posting. The database fills the last three columns."""

    pk = models.CompositePrimaryKey("txn_id", "line")
    txn = models.ForeignKey(LedgerTxn, on_delete=models.PROTECT, related_name="entries")
    line = models.SmallIntegerField()
    account = models.ForeignKey(LedgerAccount, on_delete=models.PROTECT, related_name="entries")
    side = models.SmallIntegerField()
    amount = models.BigIntegerField()
    # Copied from the account by the trigger; without a constraint, so that posting locks no tenant.
    tenant = models.ForeignKey(
        "accounts.Tenant",
        null=True,
        on_delete=models.PROTECT,
        related_name="+",
        db_constraint=False,
    )
    account_version = models.BigIntegerField()
    balance_after = models.BigIntegerField()

    class Meta:
        db_table = "billing_ledger_entry"
        constraints = [
            models.UniqueConstraint(
                fields=["account", "account_version"], name="ledger_entry_account_version"
            ),
            models.CheckConstraint(condition=Q(side__in=[1, -1]), name="ledger_entry_side"),
            models.CheckConstraint(condition=Q(amount__gt=0), name="ledger_entry_amount_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.txn_id}.{self.line}"

    @property
    def change_nano(self) -> int:
        """What it did to the balance of its account."""
        return self.amount if self.side == self.account.normal else -self.amount


class Wallet(models.Model):
    """What a tenant can spend: prepaid + promo - unbilled - receivable, under one version."""

    class Mode(models.TextChoices):
        """Paid ahead, or by invoice."""

        PREPAID = MODE_PREPAID
        POSTPAID = MODE_POSTPAID

    tenant = models.OneToOneField(
        "accounts.Tenant", primary_key=True, on_delete=models.PROTECT, related_name="wallet"
    )
    currency = models.CharField(max_length=3, default="USD")
    balance_nano = models.BigIntegerField(default=0)
    version = models.BigIntegerField(default=1)
    credit_limit_nano = models.BigIntegerField(default=0)
    mode = models.CharField(max_length=10, choices=Mode.choices, default=Mode.PREPAID)

    class Meta:
        db_table = "billing_wallet"
        constraints = [
            models.CheckConstraint(
                condition=Q(credit_limit_nano__gte=0, version__gte=1), name="wallet_not_negative"
            ),
            models.CheckConstraint(
                condition=Q(mode__in=[MODE_PREPAID, MODE_POSTPAID]), name="wallet_mode"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id}: {self.balance_nano}"


class CreditGrant(TimestampedModel):
    """Promotional credit with its own account, so that what is left of it can expire."""

    tenant = models.ForeignKey(
        "accounts.Tenant", on_delete=models.PROTECT, related_name="credit_grants"
    )
    uuid = models.UUIDField(default=ids.uuid7, unique=True)
    account = models.OneToOneField(LedgerAccount, on_delete=models.PROTECT, related_name="grant")
    amount_nano = models.BigIntegerField()
    reason = models.CharField(max_length=500)
    actor = models.CharField(max_length=200)
    idempotency_key = models.CharField(max_length=200, unique=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    expired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "billing_credit_grant"
        constraints = [
            models.CheckConstraint(condition=Q(amount_nano__gt=0), name="credit_grant_positive"),
        ]
        indexes = [
            models.Index(
                fields=["expires_at"], name="credit_grant_to_expire", condition=Q(expired_at=None)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id}: {self.amount_nano}"


class BillingPeriod(models.Model):
    """A calendar month (UTC) of a tenant. A closed one never changes again."""

    class State(models.TextChoices):
        """Open takes usage; closing takes what still arrives; closed takes nothing."""

        OPEN = "open"
        CLOSING = "closing"
        CLOSED = "closed"

    tenant = models.ForeignKey(
        "accounts.Tenant", on_delete=models.PROTECT, related_name="billing_periods"
    )
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    created_at = models.DateTimeField(default=clock.utc_now)

    class Meta:
        db_table = "billing_period"
        constraints = [
            models.UniqueConstraint(fields=["tenant", "starts_at"], name="billing_period_once"),
            models.CheckConstraint(
                condition=Q(starts_at__lt=F("ends_at")), name="billing_period_not_empty"
            ),
            models.CheckConstraint(
                condition=Q(state__in=["open", "closing", "closed"]), name="billing_period_state"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.starts_at:%Y-%m}"
