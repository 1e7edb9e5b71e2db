"""Provider: the small interface behind which payments happen, and the values that cross it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from turnpike.kernel.errors import InvalidInput


class Forged(InvalidInput):
    """A webhook that was not signed with a secret of ours, or too long ago."""

    code = "webhook_forged"


class Declined(Exception):
    """The provider refused to take or to give back money; the text is for people."""


class Seen(StrEnum):
    """What the provider says of an order."""

    OPEN = "open"
    PAID = "paid"
    FAILED = "failed"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is asked of a provider: `payment` and `tenant` are public ids, sent along and back."""

    payment: str
    tenant: str
    currency: str
    title: str
    # Whether the card is kept for auto-reload.
    keeps_card: bool = True
    amount_nano: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A means of payment that may be charged again; `label` says which without its number."""

    customer: str
    method: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """An order at the provider; `url` is where a person pays."""

    ref: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRefund:
    """A refund as the provider has it; `ours` is our id of it, empty if we did not ask."""

    ref: str
    ours: str
    is_failed: bool
    amount_nano: int


class MoveKind(StrEnum):
    """Why the provider moved money besides payments and refunds."""

    FEE = "fee"
    WITHDRAWN = "withdrawn"
    REINSTATED = "reinstated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Money that the provider moved by itself, under its own id."""

    ref: str
    kind: MoveKind
    amount_nano: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPayment:
    """An order as the provider has it now. The whole truth, so that no order of events matters."""

    ref: str
    order: str
    tenant: str
    status: Seen
    currency: str
    amount_nano: int
    failure: str = ""
    refunds: tuple[SeenRefund, ...] = ()
    moves: tuple[Move, ...] = ()
    card: Card | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPayment:
    """A payment in a provider's list; `order` is empty where it is not ours."""

    ref: str
    order: str
    is_paid: bool
    currency: str
    amount_nano: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedMove:
    """A refund, or money that a bank moved, of a payment in a provider's list."""

    ref: str
    payment: str
    currency: str
    amount_nano: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What moved at a provider in a span; not whole where there was more than is ever read."""

    payments: tuple[ListedPayment, ...] = ()
    refunds: tuple[ListedMove, ...] = ()
    moves: tuple[ListedMove, ...] = ()
    is_whole: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A verified message: about which object, empty where it does not concern us."""

    event_id: str
    kind: str
    subject: str
    body: Mapping[str, Any] = field(default_factory=dict)


class Provider(Protocol):
    """Somebody who moves money. Each call that does carries a key and is safe to repeat.

    Raises Unavailable where the provider cannot be reached, Declined where it says no.
    """

    name: str

    def start_checkout(self, order: Order, *, card: Card | None, return_url: str) -> Checkout:
        """Make an order that a person pays on a page of the provider's."""

    def charge_saved(self, order: Order, *, card: Card) -> str:
        """Charge a saved card; the provider's name of the payment. Credit follows by webhook."""

    def refund(self, *, payment_ref: str, refund: str, currency: str, amount_nano: int) -> str:
        """Give money back under our id of the refund; the provider's name of it."""

    def parse_webhook(self, body: bytes, *, signature: str, at: datetime) -> Webhook:
        """A message, if it is the provider's. Raises Forged."""

    def list_movements(self, *, since: datetime, until: datetime) -> Listed:
        """Payments that began, and refunds and disputes that came, in a span."""

    def read_payment(self, subject: str) -> SeenPayment | None:
        """An order or payment as it stands now; None where there is none of that name."""
