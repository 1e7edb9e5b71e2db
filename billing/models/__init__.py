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

__all__ = [
    "BillingPeriod",
    "CatalogModel",
    "CreditGrant",
    "LedgerAccount",
    "LedgerEntry",
    "LedgerTxn",
    "ModelAlias",
    "PlatformState",
    "Price",
    "PriceBook",
    "PriceSet",
    "Route",
    "Subscription",
    "Tier",
    "TierGroupLimit",
    "Upstream",
    "UpstreamCredential",
    "Wallet",
]
