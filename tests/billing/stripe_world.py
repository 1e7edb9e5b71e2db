"""A server that plays the few endpoints of Stripe's that we use, and messages signed as Stripe's.

It keeps orders like the real one: a session leads to a PaymentIntent when somebody pays, a charge
to a balance transaction, a dispute to withdrawals. Signatures are made by Stripe's own library.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import stripe

from billing.models.ledger import LedgerAccount
from turnpike.control.scope import platform_scope
from turnpike.env import env
from turnpike.kernel import clock, ids

API_KEY = "sk_test_of_our_own_server"
SECRET = "whsec_first_secret_of_our_own"
OTHER_SECRET = "whsec_second_secret_of_our_own"
CENT = 10_000_000
FEE_CENTS = 59
PREFIXES = {"payment_intents": "pi_", "refunds": "re_", "disputes": "dp_"}
SPAN = (("gte", 0), ("lt", 1 << 62))


class StripeServer:
    """What the account at our Stripe holds; `url` answers its API."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.answers: dict[str, tuple[int, dict[str, Any]]] = {}
        self.calls: list[str] = []
        self.is_declining = False
        self.age_seconds = 3_600
        self.page_size = 100
        self.is_down = False
        # What is asked for is done, and nobody hears of it.
        self.is_unheard = False
        self.lock = threading.RLock()
        self.number = 0
        self.url = ""

    def make(self, prefix: str, **fields: Any) -> dict[str, Any]:
        """Keep an object under a new id."""
        with self.lock:
            self.number += 1
            name = f"{prefix}_{self.number:06d}"
            # Long enough ago that its message would have come.
            created = int(clock.utc_now().timestamp()) - self.age_seconds
            self.objects[name] = {"id": name, "created": created, **fields}
            return self.objects[name]

    def pay(self, session: str, **changes: Any) -> dict[str, Any]:
        """Somebody pays at the page of a session; the PaymentIntent."""
        order = self.objects[session]
        given = order["payment_intent_data"]
        intent = self._intent(
            order["amount_total"],
            order["currency"],
            given["metadata"],
            saves="setup_future_usage" in given,
        )
        self._succeed(intent)
        intent |= changes
        order |= {"status": "complete", "payment_status": "paid", "payment_intent": intent["id"]}
        return intent

    def expire(self, session: str) -> None:
        """Nobody paid."""
        self.objects[session]["status"] = "expired"

    def dispute(self, intent: str, cents: int, *, fee: int = 0) -> dict[str, Any]:
        """The payer's bank takes money back."""
        made = self.make("dp", payment_intent=intent, balance_transactions=[])
        return self.move(made["id"], -cents, fee=fee)

    def move(self, dispute: str, cents: int, *, fee: int = 0) -> dict[str, Any]:
        """Money of a dispute moves; above zero: back to us."""
        moved = self.make("txn", amount=cents, fee=fee, currency="usd")
        self.objects[dispute]["balance_transactions"].append(moved)
        return self.objects[dispute]

    def refund(self, intent: str, cents: int, **fields: Any) -> dict[str, Any]:
        """A refund, made in Stripe's own dashboard."""
        known = {"amount": cents, "currency": "usd", "status": "succeeded", "metadata": {}}
        return self.make("re", payment_intent=intent, **{**known, **fields})

    def answer(
        self, method: str, path: str, given: dict[str, Any], key: str
    ) -> tuple[int, dict[str, Any]]:
        """What the API says; the same for a key that came before."""
        with self.lock:
            self.calls.append(f"{method} {path}")
            if self.is_down:
                return 503, {"error": {"type": "api_error", "message": "away"}}
            if not key or key not in self.answers:
                said = self._answer(method, path.removeprefix("/v1/"), given)
                self.answers[key] = said
            if self.is_unheard and method == "POST":
                return 503, {"error": {"type": "api_error", "message": "the answer was lost"}}
            return self.answers[key]

    def _answer(self, method: str, path: str, given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if method == "GET" and path in PREFIXES:
            return 200, self._list(PREFIXES[path], given)
        if method == "GET":
            found = self.objects.get(path.rpartition("/")[2])
            return (200, found) if found else _error(404, "No such thing")
        if path == "checkout/sessions":
            return 200, self._session(given)
        if path == "payment_intents":
            return self._charge(given)
        assert path == "refunds", path
        return 200, self.refund(
            given["payment_intent"], int(given["amount"]), metadata=given["metadata"]
        )

    def _list(self, prefix: str, given: dict[str, Any]) -> dict[str, Any]:
        """Objects of a kind, newest first, of one payment or of a span, page by page."""
        rows = [row for name, row in self.objects.items() if name.startswith(prefix)]
        if payment := given.get("payment_intent"):
            rows = [row for row in rows if row["payment_intent"] == payment]
        first, last = (int(given.get(f"created[{name}]", default)) for name, default in SPAN)
        rows = [row for row in reversed(rows) if first <= row["created"] < last]
        names = [row["id"] for row in rows]
        start = names.index(given["starting_after"]) + 1 if "starting_after" in given else 0
        size = int(given.get("limit", 10))
        if not payment:
            size = min(self.page_size, size)
        has_more = len(rows) > start + size
        return {"object": "list", "data": rows[start : start + size], "has_more": has_more}

    def _session(self, given: dict[str, Any]) -> dict[str, Any]:
        price = given["line_items"]["0"]["price_data"]
        session = self.make(
            "cs_test",
            object="checkout.session",
            status="open",
            payment_status="unpaid",
            payment_intent=None,
            amount_total=int(price["unit_amount"]),
            currency=price["currency"],
            metadata=given["metadata"],
            payment_intent_data=given["payment_intent_data"],
        )
        session["url"] = f"https://checkout.stripe.example/{session['id']}"
        return session

    def _charge(self, given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        assert given["off_session"] == "true"
        intent = self._intent(int(given["amount"]), given["currency"], given["metadata"])
        if self.is_declining:
            intent |= {
                "status": "requires_payment_method",
                "last_payment_error": {"message": "Your card was declined."},
            }
            return _error(402, "Your card was declined.", kind="card_error")
        self._succeed(intent)
        return 200, intent

    def _intent(
        self, cents: int, currency: str, metadata: dict[str, Any], *, saves: bool = False
    ) -> dict[str, Any]:
        card = {"id": "pm_visa", "type": "card", "card": {"brand": "visa", "last4": "4242"}}
        return self.make(
            "pi",
            object="payment_intent",
            amount=cents,
            amount_received=0,
            currency=currency,
            metadata=metadata,
            status="processing",
            customer="cus_ours",
            payment_method=card,
            setup_future_usage="off_session" if saves else None,
        )

    def _succeed(self, intent: dict[str, Any]) -> None:
        moved = self.make("txn", amount=intent["amount"], fee=FEE_CENTS, currency="usd")
        charge = {"id": f"ch_{intent['id']}", "balance_transaction": moved}
        intent |= {
            "status": "succeeded",
            "amount_received": intent["amount"],
            "latest_charge": charge,
        }


@contextmanager
def stripe_server() -> Iterator[StripeServer]:
    """The server, listening on loopback."""
    world = StripeServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            self._say(*world.answer("GET", parts.path, dict(parse_qsl(parts.query)), ""))

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["content-length"])).decode()
            given = nested(parse_qsl(text))
            key = self.headers.get("idempotency-key", "")
            assert key, "every call that moves money carries a key"
            self._say(*world.answer("POST", self.path, given, key))

        def _say(self, status: int, said: dict[str, Any]) -> None:
            if self.headers["authorization"] != f"Bearer {API_KEY}":
                status, said = _error(401, "Invalid API Key")
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.send_header("stripe-should-retry", "false")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    world.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield world
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def set_up_stripe(monkeypatch: pytest.MonkeyPatch) -> Iterator[StripeServer]:
    """The server, and a platform that is set up for it."""
    with stripe_server() as found:
        monkeypatch.setenv("STRIPE_API_KEY", API_KEY)
        monkeypatch.setenv("STRIPE_WEBHOOK_SECRETS", f"{SECRET},{OTHER_SECRET}")
        monkeypatch.setenv("STRIPE_API_BASE", found.url)
        env.cache_clear()
        yield found
    monkeypatch.undo()
    env.cache_clear()


def nested(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Form fields like `a[b][c]` as dictionaries in dictionaries."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        first, *rest = name.replace("]", "").split("[")
        place = found
        for step in [first, *rest][:-1]:
            place = place.setdefault(step, {})
        place[[first, *rest][-1]] = value
    return found


def event(kind: str, about: dict[str, Any], *, name: str = "") -> bytes:
    """A message's body."""
    return json.dumps(
        {
            "id": name or f"evt_{ids.uuid7().hex}",
            "object": "event",
            "type": kind,
            "data": {"object": about},
        }
    ).encode()


def signed(body: bytes, *, secret: str = SECRET, at: int | None = None) -> str:
    """The header with which Stripe signs a body."""
    moment = int(clock.utc_now().timestamp()) if at is None else at
    return str(
        stripe.WebhookSignature.generate_signature_header(body.decode(), secret, timestamp=moment)
    )


def balances() -> dict[str, int]:
    """What stands on each kind of account, in cents."""
    found: dict[str, int] = {}
    with platform_scope("tests"):
        for account in LedgerAccount.objects.all():
            found[account.kind] = found.get(account.kind, 0) + account.balance_nano // CENT
    return {kind: amount for kind, amount in found.items() if amount}


def _error(status: int, message: str, *, kind: str = "") -> tuple[int, dict[str, Any]]:
    return status, {"error": {"type": kind or "invalid_request_error", "message": message}}
