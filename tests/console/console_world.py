"""A small organization with members, keys and a few days of usage, for the consoles' tests."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import redis
from allauth.account.internal.flows.login import record_authentication
from django.http import HttpRequest
from django.test import Client

from accounts.models import ApiKey, Member, Role
from billing.models.catalog import DEFAULT_BOOK, PriceBook
from billing.models.invoices import Invoice
from billing.services.closing import close_due_periods, draft_documents
from billing.services.tiers import set_tier
from tests.accounts.factories import make_member
from tests.billing.usage_world import Shop, append, ingest, make_event, make_shop
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids

DOLLARS = 1_000_000_000
PASSWORD = "a long enough password"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """An organization, its members by role, and its newest request."""

    shop: Shop
    members: dict[Role, Member]
    requests: tuple[UUID, ...]

    @property
    def newest(self) -> str:
        """The newest request's public id."""
        return ids.public_id(ids.REQUEST, self.requests[-1])


def make_world(client: "redis.Redis", *, name: str = "Acme", days: int = 2) -> World:
    """Members in each role and a request a day, charged."""
    shop = make_shop(name=name, credit=100 * DOLLARS)
    with platform_scope("tests"):
        PriceBook.objects.get_or_create(name=DEFAULT_BOOK)
        set_tier(tenant=shop.number, tier="pro", actor="tests", reason="tests")
    now = clock.utc_now()
    made = []
    for back in reversed(range(days)):
        at = now - timedelta(days=back, minutes=1)
        made.append(ids.uuid7(at_ms=int(at.timestamp() * 1_000)))
        append(client, make_event(shop, rid=made[-1]))
    ingest(client)
    members = {role: make_member(shop.tenant, role) for role in Role}
    return World(shop=shop, members=members, requests=tuple(made))


def make_document(world: World) -> str:
    """Close the month that is running and draw up its statement; its public id."""
    at = clock.utc_now() + timedelta(days=40)
    close_due_periods(at=at)
    draft_documents(at=at)
    with platform_scope("tests"):
        return Invoice.objects.get(tenant=world.shop.tenant, kind="statement").public_id


def prove(client: Client, member: Member) -> None:
    """Make a session one whose holder has just proved who they are."""
    request = HttpRequest()
    request.session = client.session
    record_authentication(request, member.user, method="password")
    request.session.save()


def client_for(member: Member, *, is_proved: bool = True) -> Client:
    """A browser signed in as a member."""
    client = Client()
    client.force_login(member.user, backend="django.contrib.auth.backends.ModelBackend")
    if is_proved:
        prove(client, member)
    return client


def key_form(world: World, **changes: Any) -> dict[str, Any]:
    """What the form for a new key sends."""
    return {
        "once": str(ids.uuid7()),
        "name": "production-backend",
        "kind": ApiKey.Kind.API,
        "workspace": world.shop.workspace.public_id,
        "scopes": ["messages", "models"],
        **changes,
    }
