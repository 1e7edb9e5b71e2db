"""The models of billing, one module for each noun."""

from billing.models.catalog import CatalogModel, ModelAlias, Price, PriceBook, PriceSet
from billing.models.ledger import (
    BillingPeriod,
    CreditGrant,
    LedgerAccount,
    LedgerEntry,
    LedgerTxn,
    Wallet,
)
from billing.models.state import PlatformState
from billing.models.tiers import Subscription, Tier, TierGroupLimit
from billing.models.upstreams import Route, Upstream, UpstreamCredential
from billing.models.usage import (
    DeadLetter,
    SpendCounter,
    UpstreamAttempt,
    UsageEvent,
    UsageRollup,
)

__all__ = [
    "BillingPeriod",
    "CatalogModel",
    "CreditGrant",
    "DeadLetter",
    "LedgerAccount",
    "LedgerEntry",
    "LedgerTxn",
    "ModelAlias",
    "PlatformState",
    "Price",
    "PriceBook",
    "PriceSet",
    "Route",
    "SpendCounter",
    "Subscription",
    "Tier",
    "TierGroupLimit",
    "Upstream",
    "UpstreamAttempt",
    "UpstreamCredential",
    "UsageEvent",
    "UsageRollup",
    "Wallet",
]
