"""StripeProvider: Checkout, saved cards, refunds and disputes over the Stripe library.

The library is imported by whoever is configured for Stripe, and by nobody else.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, NoReturn, TypeVar

import stripe

from billing.services.payments.provider import (
    Card,
    Checkout,
    Declined,
    Forged,
    Listed,
    ListedMove,
    ListedPayment,
    Move,
    MoveKind,
    Order,
    Seen,
    SeenPayment,
    SeenRefund,
    Webhook,
)
from turnpike.kernel.errors import Unavailable
from turnpike.kernel.money import minor_unit

STRIPE = "stripe"
TIMEOUT_SECONDS = 10
TOLERANCE_SECONDS = 300
FAILURE_LENGTH_MAX = 300
# Stripe keeps more than these only for payments that nobody would call a top-up.
LISTED_MAX = 100
# Lists of a few days end long before; a longer one is read in part, and says so.
PAGES_MAX = 50
ORDER, TENANT, REFUND = "turnpike_payment", "turnpike_tenant", "turnpike_refund"
ORDERS = "checkout.session."
ENDED_REFUNDS = ("failed", "canceled")
ABOUT_A_PAYMENT = ("payment_intent.", "charge.", "refund.")

Answer = TypeVar("Answer")


class StripeProvider:
    """Stripe, by an account's key and its webhooks' signing secrets."""

    name = STRIPE

    def __init__(self, *, api_key: str, secrets: tuple[str, ...], base: str = "") -> None:
        assert secrets, "an unset secret would verify anything"
        self._secrets = secrets
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": base} if base else None,
            http_client=stripe.RequestsClient(timeout=TIMEOUT_SECONDS),
            max_network_retries=1,
        )

    def start_checkout(self, order: Order, *, card: Card | None, return_url: str) -> Checkout:
        """A Checkout session; the card is kept for auto-reload where the person agrees."""
        names = {ORDER: order.payment, TENANT: order.tenant}
        price = {
            "currency": order.currency.lower(),
            "unit_amount": _minor(order),
            "product_data": {"name": order.title},
        }
        params: dict[str, Any] = {
            "mode": "payment",
            "line_items": [{"quantity": 1, "price_data": price}],
            "client_reference_id": order.payment,
            "metadata": names,
            "payment_intent_data": {"metadata": names},
            "success_url": return_url,
            "cancel_url": return_url,
        }
        if order.keeps_card:
            params["payment_intent_data"]["setup_future_usage"] = "off_session"
        if card is not None:
            params["customer"] = card.customer
        elif order.keeps_card:
            params["customer_creation"] = "always"
        session = _ask(
            lambda: self._client.v1.checkout.sessions.create(
                params,  # type: ignore[arg-type]
                {"idempotency_key": f"checkout:{order.payment}"},
            )
        )
        return Checkout(ref=session.id, url=session.url or "")

    def charge_saved(self, order: Order, *, card: Card) -> str:
        """A PaymentIntent without the person there."""
        intent = _ask(
            lambda: self._client.v1.payment_intents.create(
                {
                    "amount": _minor(order),
                    "currency": order.currency.lower(),
                    "customer": card.customer,
                    "payment_method": card.method,
                    "off_session": True,
                    "confirm": True,
                    "metadata": {ORDER: order.payment, TENANT: order.tenant},
                },
                {"idempotency_key": f"charge:{order.payment}"},
            )
        )
        return str(intent.id)

    def refund(self, *, payment_ref: str, refund: str, currency: str, amount_nano: int) -> str:
        """A refund to where the money came from."""
        found = _ask(
            lambda: self._client.v1.refunds.create(
                {
                    "payment_intent": payment_ref,
                    "amount": amount_nano // minor_unit(currency),
                    "metadata": {REFUND: refund},
                },
                {"idempotency_key": f"refund:{refund}"},
            )
        )
        return str(found.id)

    def parse_webhook(self, body: bytes, *, signature: str, at: datetime) -> Webhook:
        """A message signed with one of our secrets, at most five minutes from now."""
        if not any(_is_signed(body, signature, secret) for secret in self._secrets):
            raise Forged("The signature does not fit.")
        # The library compares with the machine's own clock; here the time is given.
        times = [part[2:] for part in signature.split(",") if part.startswith("t=")]
        if abs(at.timestamp() - int(times[0])) > TOLERANCE_SECONDS:
            raise Forged("The signature is too old.")
        try:
            event = json.loads(body)
            kind, about = str(event["type"]), event["data"]["object"]
            subject = _subject(kind, about)
            return Webhook(event_id=str(event["id"]), kind=kind, subject=subject, body=event)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Forged("That is no event.") from error

    def list_movements(self, *, since: datetime, until: datetime) -> Listed:
        """PaymentIntents, refunds and disputes that were created in a span, newest first."""
        span = {"created": {"gte": int(since.timestamp()), "lt": int(until.timestamp())}}
        intents, has_all = _pages(self._client.v1.payment_intents.list, span)
        refunds, has_refunds = _pages(self._client.v1.refunds.list, span)
        disputes, has_disputes = _pages(self._client.v1.disputes.list, span)
        return Listed(
            payments=tuple(_listed_intent(row) for row in intents),
            refunds=tuple(
                _listed_move(row, row["id"], int(row["amount"]), _name(row.get("payment_intent")))
                for row in refunds
                if row.get("status") not in ENDED_REFUNDS
            ),
            moves=tuple(_listed_disputes(disputes)),
            is_whole=has_all and has_refunds and has_disputes,
        )

    def read_payment(self, subject: str) -> SeenPayment | None:
        """The PaymentIntent with its refunds and disputes, or a session that has none yet."""
        try:
            return self._read(subject)
        except Declined:
            return None

    def _read(self, subject: str) -> SeenPayment:
        intent_ref = subject
        if subject.startswith("cs_"):
            session = _ask(lambda: self._client.v1.checkout.sessions.retrieve(subject)).to_dict()
            intent_ref = _name(session.get("payment_intent"))
            if not intent_ref:
                return _seen_session(session)
        expand = ["latest_charge.balance_transaction", "payment_method"]
        intent = _ask(
            lambda: self._client.v1.payment_intents.retrieve(intent_ref, {"expand": expand})
        ).to_dict()
        refunds: list[dict[str, Any]] = []
        disputes: list[dict[str, Any]] = []
        if intent.get("amount_received"):
            asked: Any = {"payment_intent": intent_ref, "limit": LISTED_MAX}
            refunds = _ask(lambda: self._client.v1.refunds.list(asked)).to_dict()["data"]
            disputes = _ask(lambda: self._client.v1.disputes.list(asked)).to_dict()["data"]
        return _seen_intent(intent, refunds, disputes)


def _pages(
    list_rows: Callable[[Any], Any], span: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], bool]:
    """The rows of a list, and whether these are all."""
    rows: list[dict[str, Any]] = []
    for _ in range(PAGES_MAX):
        after = {"starting_after": rows[-1]["id"]} if rows else {}
        asked = {**span, "limit": LISTED_MAX, **after}
        page = _ask(lambda asked=asked: list_rows(asked)).to_dict()  # type: ignore[misc]
        rows += page["data"]
        if not page.get("has_more"):
            return rows, True
    return rows, False


def _listed_intent(row: Mapping[str, Any]) -> ListedPayment:
    currency = str(row["currency"]).upper()
    return ListedPayment(
        ref=str(row["id"]),
        order=str((row.get("metadata") or {}).get(ORDER, "")),
        is_paid=row["status"] == "succeeded",
        currency=currency,
        amount_nano=int(row.get("amount_received") or 0) * minor_unit(currency),
    )


def _listed_move(row: Mapping[str, Any], ref: str, amount: int, payment: str) -> ListedMove:
    currency = str(row["currency"]).upper()
    nanos = abs(amount) * minor_unit(currency)
    return ListedMove(ref=ref, payment=payment, currency=currency, amount_nano=nanos)


def _listed_disputes(disputes: list[dict[str, Any]]) -> Iterator[ListedMove]:
    for dispute in disputes:
        payment = _name(dispute.get("payment_intent"))
        for moved in dispute.get("balance_transactions") or ():
            if int(moved["amount"]):
                yield _listed_move(moved, str(moved["id"]), int(moved["amount"]), payment)


def _ask(call: Callable[[], Answer]) -> Answer:
    try:
        return call()
    except (stripe.CardError, stripe.InvalidRequestError) as error:
        raise Declined(str(error.user_message or error)[:FAILURE_LENGTH_MAX]) from error
    except stripe.StripeError as error:
        _unavailable(error)


def _unavailable(error: stripe.StripeError) -> NoReturn:
    # What the provider says may name its key: the type is enough.
    raise Unavailable(f"Stripe did not answer: {type(error).__name__}.") from error


def _is_signed(body: bytes, signature: str, secret: str) -> bool:
    try:
        stripe.WebhookSignature.verify_header(body, signature, secret)
    except (stripe.SignatureVerificationError, UnicodeDecodeError):
        return False
    return True


def _subject(kind: str, about: Mapping[str, Any]) -> str:
    if kind.startswith(ORDERS):
        return str(about["id"])
    if kind.startswith("payment_intent."):
        return str(about["id"])
    if kind.startswith(ABOUT_A_PAYMENT):
        return _name(about.get("payment_intent"))
    return ""


def _name(thing: Any) -> str:
    """An object's id, whether it was expanded or not."""
    return str(thing["id"]) if isinstance(thing, Mapping) else str(thing or "")


def _minor(order: Order) -> int:
    return order.amount_nano // minor_unit(order.currency)


def _seen_session(session: Mapping[str, Any]) -> SeenPayment:
    currency = str(session.get("currency") or "").upper()
    names = session.get("metadata") or {}
    return SeenPayment(
        ref="",
        order=str(names.get(ORDER, "")),
        tenant=str(names.get(TENANT, "")),
        status=Seen.EXPIRED if session.get("status") == "expired" else Seen.OPEN,
        currency=currency,
        amount_nano=int(session.get("amount_total") or 0) * minor_unit(currency),
    )


def _seen_intent(
    intent: Mapping[str, Any], refunds: list[dict[str, Any]], disputes: list[dict[str, Any]]
) -> SeenPayment:
    currency = str(intent["currency"]).upper()
    unit = minor_unit(currency)
    names = intent.get("metadata") or {}
    received = int(intent.get("amount_received") or 0)
    is_paid = intent["status"] == "succeeded"
    failure = intent.get("last_payment_error") or {}
    return SeenPayment(
        ref=str(intent["id"]),
        order=str(names.get(ORDER, "")),
        tenant=str(names.get(TENANT, "")),
        status=_status(intent),
        currency=currency,
        amount_nano=(received if is_paid else int(intent["amount"])) * unit,
        failure=str(failure.get("message") or "")[:FAILURE_LENGTH_MAX],
        refunds=tuple(_seen_refund(row, unit) for row in refunds),
        moves=(*_fees(intent, currency), *_disputed(disputes, currency)),
        card=_card(intent) if is_paid else None,
    )


def _status(intent: Mapping[str, Any]) -> Seen:
    known = {"succeeded": Seen.PAID, "canceled": Seen.EXPIRED}
    if intent["status"] == "requires_payment_method" and intent.get("last_payment_error"):
        return Seen.FAILED
    return known.get(str(intent["status"]), Seen.OPEN)


def _seen_refund(row: Mapping[str, Any], unit: int) -> SeenRefund:
    return SeenRefund(
        ref=str(row["id"]),
        ours=str((row.get("metadata") or {}).get(REFUND, "")),
        is_failed=row.get("status") in ENDED_REFUNDS,
        amount_nano=int(row["amount"]) * unit,
    )


def _fees(intent: Mapping[str, Any], currency: str) -> Iterator[Move]:
    charge = intent.get("latest_charge")
    moved = charge.get("balance_transaction") if isinstance(charge, Mapping) else None
    if isinstance(moved, Mapping):
        yield from _fee_of(moved, currency)


def _fee_of(moved: Mapping[str, Any], currency: str) -> Iterator[Move]:
    # A fee in another currency than the payment's is not of this cash account.
    fee = int(moved.get("fee") or 0)
    if fee > 0 and str(moved["currency"]).upper() == currency:
        amount = fee * minor_unit(currency)
        yield Move(ref=f"{moved['id']}:fee", kind=MoveKind.FEE, amount_nano=amount)


def _disputed(disputes: list[dict[str, Any]], currency: str) -> Iterator[Move]:
    for dispute in disputes:
        for moved in dispute.get("balance_transactions") or ():
            amount = int(moved["amount"])
            kind = MoveKind.WITHDRAWN if amount < 0 else MoveKind.REINSTATED
            if amount and str(moved["currency"]).upper() == currency:
                nanos = abs(amount) * minor_unit(currency)
                yield Move(ref=str(moved["id"]), kind=kind, amount_nano=nanos)
            yield from _fee_of(moved, currency)


def _card(intent: Mapping[str, Any]) -> Card | None:
    customer, method = _name(intent.get("customer")), intent.get("payment_method")
    if not customer or not isinstance(method, Mapping) or not intent.get("setup_future_usage"):
        return None
    card = method.get("card") or {}
    label = f"{card.get('brand', method.get('type', ''))} ···· {card.get('last4', '')}"
    return Card(customer=customer, method=str(method["id"]), label=label[:60])
