"""The models of billing, one module for each noun."""

from billing.models.alerts import BudgetAlert
from billing.models.batches import BatchItem, BatchPart, LedgerHold, MessageBatch
from billing.models.catalog import CatalogModel, ModelAlias, Price, PriceBook, PriceSet
from billing.models.differences import ReconciliationItem, UpstreamReportDay, UsageReview
from billing.models.invoices import (
    BillingDetails,
    Invoice,
    InvoiceFile,
    InvoiceLine,
    InvoiceReminder,
    InvoiceTax,
    NumberSeries,
    RatingDifference,
    RatingRun,
    Seller,
    TaxRate,
)
from billing.models.ledger import (
    BillingPeriod,
    CreditGrant,
    LedgerAccount,
    LedgerEntry,
    LedgerTxn,
    Wallet,
)
from billing.models.payments import (
    CreditPlan,
    Payment,
    PaymentEvent,
    PaymentReversal,
    Redemption,
    RedemptionCode,
)
from billing.models.state import PlatformState
from billing.models.tiers import Subscription, Tier, TierGroupLimit
from billing.models.upkeep import (
    Announcement,
    ComponentDay,
    ForgottenMonth,
    ForgottenPosting,
    ReconciliationRun,
)
from billing.models.upstreams import Route, Upstream, UpstreamCredential
from billing.models.usage import (
    DeadLetter,
    SpendCounter,
    UpstreamAttempt,
    UsageEvent,
    UsageRollup,
)

__all__ = [
    "Announcement",
    "BatchItem",
    "BatchPart",
    "BillingDetails",
    "BillingPeriod",
    "BudgetAlert",
    "CatalogModel",
    "ComponentDay",
    "CreditGrant",
    "CreditPlan",
    "DeadLetter",
    "ForgottenMonth",
    "ForgottenPosting",
    "Invoice",
    "InvoiceFile",
    "InvoiceLine",
    "InvoiceReminder",
    "InvoiceTax",
    "LedgerAccount",
    "LedgerEntry",
    "LedgerHold",
    "LedgerTxn",
    "MessageBatch",
    "ModelAlias",
    "NumberSeries",
    "Payment",
    "PaymentEvent",
    "PaymentReversal",
    "PlatformState",
    "Price",
    "PriceBook",
    "PriceSet",
    "RatingDifference",
    "RatingRun",
    "ReconciliationItem",
    "ReconciliationRun",
    "Redemption",
    "RedemptionCode",
    "Route",
    "Seller",
    "SpendCounter",
    "Subscription",
    "TaxRate",
    "Tier",
    "TierGroupLimit",
    "Upstream",
    "UpstreamAttempt",
    "UpstreamCredential",
    "UpstreamReportDay",
    "UsageEvent",
    "UsageReview",
    "UsageRollup",
    "Wallet",
]
