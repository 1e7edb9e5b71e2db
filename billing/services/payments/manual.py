"""ManualProvider: bank transfers. An operator sees them on the account and records them."""

from datetime import datetime
from typing import NoReturn

from billing.services.payments.provider import Card, Checkout, Listed, Order, SeenPayment, Webhook
from turnpike.kernel.errors import Conflict, NotFound

MANUAL = "manual"


class ManualProvider:
    """Moves nothing by itself: what was transferred is told by an operator."""

    name = MANUAL

    def start_checkout(self, order: Order, *, card: Card | None, return_url: str) -> Checkout:
        """Refuses: there is no page, one transfers."""
        del order, card, return_url
        raise Conflict("Payments by card are not set up here: transfer the amount instead.")

    def charge_saved(self, order: Order, *, card: Card) -> NoReturn:
        """Refuses: nobody can draw money from a bank account here."""
        del order, card
        raise Conflict("Transfers cannot be charged.")

    def refund(self, *, payment_ref: str, refund: str, currency: str, amount_nano: int) -> str:
        """The operator transfers it back; our id goes into the reference."""
        del payment_ref, currency, amount_nano
        return refund

    def parse_webhook(self, body: bytes, *, signature: str, at: datetime) -> Webhook:
        """Refuses: banks send none."""
        del body, signature, at
        raise NotFound("There is no such webhook.")

    def list_movements(self, *, since: datetime, until: datetime) -> Listed:
        """Nothing: banks are not asked."""
        del since, until
        return Listed()

    def read_payment(self, subject: str) -> SeenPayment | None:
        """Nothing: the ledger is all that is known of a transfer."""
        del subject
        return None
