"""A platform that is set up for our own Stripe, tenants that pay, and messages about it."""

from typing import Any

from django.test import Client

from accounts.models import Role
from billing.models.payments import Payment
from billing.services.payments.orders import Started, start_top_up
from tests.accounts.factories import caller_of, make_member, make_tenant
from tests.billing.stripe_world import CENT, StripeServer, event, signed
from turnpike.control.caller import Caller
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids

PATH = "/webhooks/stripe"
TEN = 1_000
OPERATOR = Caller(actor="user_op", is_operator=True)


def make_payer() -> Caller:
    """An owner of a new tenant."""
    return caller_of(make_member(make_tenant(), Role.OWNER))


def tenant_of(caller: Caller) -> int:
    """The number of somebody's tenant."""
    assert caller.tenant is not None
    return caller.tenant


def order(owner: Caller, cents: int = TEN) -> Started:
    """A top-up that nobody has paid."""
    return start_top_up(
        tenant=tenant_of(owner),
        amount=cents * CENT,
        key=str(ids.uuid7()),
        caller=owner,
        return_url="https://turnpike.example/console/billing",
        at=clock.utc_now(),
    )


def send(body: bytes, **signing: Any) -> Any:
    """Deliver a message to the endpoint."""
    return Client().post(
        PATH,
        data=body,
        content_type="application/json",
        headers={"stripe-signature": signed(body, **signing)},
    )


def paid(server: StripeServer, owner: Caller) -> tuple[Payment, dict[str, Any]]:
    """A top-up that was paid and credited, and its PaymentIntent."""
    started = order(owner)
    intent = server.pay(started.payment.order_ref)
    assert send(event("payment_intent.succeeded", intent)).json()["outcome"] == "applied"
    return started.payment, intent


def payment_of(started: Started | Payment) -> Payment:
    """A payment as it is now."""
    row = started.payment if isinstance(started, Started) else started
    with platform_scope("tests"):
        return Payment.objects.get(pk=row.pk)
