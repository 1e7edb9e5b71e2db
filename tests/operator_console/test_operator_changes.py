"""What operators change: every form does what it says, wants a reason, and is written down."""

from datetime import timedelta
from typing import Any

import pytest
import redis
from django.test import Client

from accounts.models import Role, Tenant, TenantStatus, User
from billing.models.catalog import DEFAULT_BOOK, CatalogModel, ModelAlias, PriceBook
from billing.models.ledger import CreditGrant, Wallet
from billing.models.tiers import Subscription, Tier
from billing.models.upstreams import Route, Upstream, UpstreamCredential
from billing.services.catalog import import_catalog
from billing.services.selling import list_rates
from billing.services.tiers import ensure_tiers
from billing.services.upstreams import add_upstream
from tests.accounts.factories import make_tenant
from tests.operator_console.operator_world import REASON, audited, browser_of
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids
from turnpike.kernel.money import parse_amount

MODEL = "claude-haiku-4-5-20251001"
LIMIT_FIELDS = (
    *("requests_per_minute", "tokens_per_minute", "input_tokens_per_minute"),
    *("output_tokens_per_minute", "concurrency", "burst_seconds"),
)
SECRET = "sk-upstream-0123456789-abcdefgh"


@pytest.fixture
def tenant(redis_client: redis.Redis, db: None) -> Tenant:
    with platform_scope("tests"):
        ensure_tiers()
        PriceBook.objects.get_or_create(name=DEFAULT_BOOK)
    return make_tenant()


@pytest.fixture
def catalog(redis_client: redis.Redis, db: None) -> None:
    with platform_scope("tests"):
        import_catalog()
        add_upstream(name="main", kind="anthropic", base_url="https://up.example", credential=None)


def change(client: Client, tenant: Tenant, name: str, **values: Any) -> Any:
    """Send the form of a change with a reason."""
    path = f"/operator/tenants/{tenant.public_id}/change/{name}"
    return client.post(path, {"reason": REASON, **values}, follow=True)


CHANGES: dict[str, dict[str, Any]] = {
    "suspend": {},
    "grant": {"amount_nano": "12.50", "once": "0" * 36},
    "payment": {"mode": "postpaid", "credit_limit_nano": "250"},
    "prices": {"book": DEFAULT_BOOK, "discount_percent": "12.5"},
    "tier": {"tier": "pro"},
    "limits": {"requests_per_minute": "77"},
    "disconnect": {"on_disconnect": "drain", "drain_seconds": "30"},
}
ACTIONS = {"suspend": "tenant.suspended", "grant": "credit.granted"}


def state_of(tenant: Tenant) -> dict[str, Any]:
    """What these changes change."""
    with platform_scope("tests"):
        row = Subscription.objects.select_related("tier").filter(tenant=tenant).first()
        wallet = Wallet.objects.filter(tenant=tenant).first() or Wallet()
        return {
            "status": Tenant.objects.get(pk=tenant.pk).status,
            "balance": wallet.balance_nano,
            "payment": (wallet.mode, wallet.credit_limit_nano),
            "discount": row.discount_bp if row else 0,
            "tier": row.tier.code if row else "",
            "overrides": row.overrides if row else {},
            "disconnect": (row.on_disconnect, row.drain_seconds) if row else ("", None),
        }


def test_each_change_of_a_tenant_holds_and_is_written_down(
    tenant: Tenant, browser: Client, operator: User
) -> None:
    for name, values in CHANGES.items():
        answer = change(browser, tenant, name, **values)
        assert answer.status_code == 200, name

    assert state_of(tenant) == {
        "status": TenantStatus.SUSPENDED,
        "balance": parse_amount("12.5"),
        "payment": ("postpaid", parse_amount("250")),
        "discount": 1_250,
        "tier": "pro",
        "overrides": {"requests_per_minute": 77},
        "disconnect": ("drain", 30),
    }
    for name in ("tenant.suspended", "credit.granted", "subscription.changed", "wallet.changed"):
        events = audited(name, tenant=tenant.pk)
        assert events, name
        assert {event.address for event in events} == {"127.0.0.1"}
        assert {event.actor for event in events} == {operator.public_id}
        assert {event.reason for event in events} == {REASON}


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_without_a_reason_a_proof_or_a_token_nothing_changes(
    tenant: Tenant, browser: Client, operator: User, name: str
) -> None:
    before = state_of(tenant)

    refused = change(browser, tenant, name, **CHANGES[name], reason="  ")
    unproved = browser_of(operator, is_proved=False)
    path = f"/operator/tenants/{tenant.public_id}/change/{name}"
    asked = unproved.post(path, {"reason": REASON, **CHANGES[name]})
    careful = Client(enforce_csrf_checks=True)
    careful.force_login(operator, backend="django.contrib.auth.backends.ModelBackend")

    assert "Reason: This field is required." in refused.content.decode()
    assert asked.status_code == 302
    assert careful.post(path, {"reason": REASON, **CHANGES[name]}).status_code == 403
    assert state_of(tenant) == before


def test_a_grant_that_is_sent_twice_is_given_once(tenant: Tenant, browser: Client) -> None:
    day = (clock.utc_now() + timedelta(days=3)).date().isoformat()
    values = {"amount_nano": "5", "once": str(ids.uuid7()), "expires_on": day}
    for _ in range(2):
        change(browser, tenant, "grant", **values)

    with platform_scope("tests"):
        (grant,) = CreditGrant.objects.filter(tenant=tenant)
    assert grant.amount_nano == parse_amount("5")
    assert grant.expires_at is not None
    assert clock.rfc3339(grant.expires_at - timedelta(microseconds=1)).startswith(day)


def test_restoring_and_closing_a_tenant(tenant: Tenant, browser: Client) -> None:
    change(browser, tenant, "suspend")
    change(browser, tenant, "restore")
    assert state_of(tenant)["status"] == TenantStatus.ACTIVE

    wrong = change(browser, tenant, "close", typed="something else")
    assert "Type the tenant&#x27;s name to close it." in wrong.content.decode()
    assert state_of(tenant)["status"] == TenantStatus.ACTIVE

    closed = change(browser, tenant, "close", typed=tenant.name)
    assert state_of(tenant)["status"] == TenantStatus.CLOSED
    assert "Closed for good" in closed.content.decode()
    assert browser.post(f"/operator/tenants/{tenant.public_id}/change/magic").status_code == 404


def test_a_new_tenant_has_its_tier_and_its_owner_a_link(tenant: Tenant, browser: Client) -> None:
    form = {"name": "Globex", "tier": "pro", "owner_email": "o@example.com", "reason": REASON}

    answer = browser.post("/operator/tenants", form).content.decode()

    with platform_scope("tests"):
        made = Tenant.objects.get(name="Globex")
    assert state_of(made)["tier"] == "pro"
    assert "/accounts/invite?token=" in answer
    assert audited("tenant.created", tenant=made.pk)[0].reason == REASON
    assert audited("invite.created", tenant=made.pk) != []
    refused = browser.post("/operator/tenants", {**form, "name": ""})
    assert refused.status_code == 400


def test_a_tier_is_made_and_changed_for_everybody(tenant: Tenant, browser: Client) -> None:
    form = {"name": "Team", "requests_per_minute": "90", "count_tokens_per_minute": "10"}
    form |= {"denied_models": "a b", "reason": REASON}
    browser.post("/operator/tiers", {**form, "code": "team"})
    taken = browser.post("/operator/tiers", {**form, "code": "team"})
    browser.post("/operator/tiers/team", {**form, "requests_per_minute": "91"})
    assert browser.post("/operator/tiers/team", {**form, "reason": ""}).status_code == 400

    tier = Tier.objects.get(code="team")
    assert (tier.requests_per_minute, tier.denied_models) == (91, ["a", "b"])
    assert tier.tokens_per_minute is None
    assert taken.status_code == 400
    (created,), (changed,) = audited("tier.created"), audited("tier.changed")
    assert (created.target, changed.reason) == ("tier/team", REASON)
    assert changed.before["requests_per_minute"] == 90


def test_limits_of_a_group_come_and_go(catalog: None, browser: Client) -> None:
    group = CatalogModel.objects.exclude(limit_group="").first()
    assert group is not None
    form = {"limit_group": group.limit_group, "requests_per_minute": "5", "reason": REASON}
    browser.post("/operator/tiers/pro/groups", form)
    assert Tier.objects.get(code="pro").group_limits.get().requests_per_minute == 5

    browser.post("/operator/tiers/pro/groups", {**form, "requests_per_minute": ""})
    assert Tier.objects.get(code="pro").group_limits.exists() is False
    assert len(audited("tier.changed")) == 2


def test_a_model_is_switched_named_and_routed(catalog: None, browser: Client) -> None:
    path = f"/operator/models/{MODEL}"
    browser.post(path, {"action": "switch", "is_successor_allowed": "on", "reason": REASON})
    browser.post(path, {"action": "alias", "alias": "fast", "reason": REASON})
    taken = browser.post(path, {"action": "alias", "alias": "fast", "reason": REASON}, follow=True)
    route = Route.objects.get(model__model=MODEL)
    form = {"action": "route", "route": route.pk, "upstream_model": "other", "weight": "3"}
    browser.post(path, {**form, "priority": "2", "reason": REASON})

    model = CatalogModel.objects.get(model=MODEL)
    assert (model.is_enabled, model.is_successor_allowed) == (False, True)
    assert ModelAlias.objects.get(alias="fast").model == model
    assert "is the name of a model already" in taken.content.decode()
    route.refresh_from_db()
    assert (route.is_enabled, route.upstream_model, route.weight) == (False, "other", 3)
    for action in ("model.changed", "model.alias_added", "model.route_changed"):
        assert audited(action)[0].reason == REASON

    import_catalog()
    assert ModelAlias.objects.filter(alias="fast").exists()
    browser.post(path, {"action": "remove-alias", "alias": "fast", "reason": REASON})
    assert ModelAlias.objects.filter(alias="fast").exists() is False


def prices() -> dict[tuple[str, str], int | None]:
    """A model's prices in force."""
    rows = list_rates(book=DEFAULT_BOOK, model=MODEL)
    return {(row.component, row.variant): row.nano_per_mtok for row in rows}


def price_form(**changes: str) -> dict[str, str]:
    """The form of prices."""
    names = ("input", "output", "cache_write_5m", "cache_write_1h", "cache_read")
    return {**{f"{name}__0": "2" for name in names}, "reason": REASON, **changes}


def test_prices_are_previewed_then_begin_a_version_and_outlast_an_import(
    catalog: None, browser: Client
) -> None:
    book = PriceBook.objects.get(name=DEFAULT_BOOK)
    path, before = f"/operator/prices/{book.pk}/{MODEL}", prices()

    preview = browser.post(path, price_form()).content.decode()
    assert "Is this what you mean?" in preview
    assert prices() == before

    browser.post(path, price_form(confirmed="1"))
    after = prices()
    assert after["input", "standard"] == parse_amount("2")
    assert after["input", "batch"] == parse_amount("1")
    assert audited("prices.changed")[0].after["input"] == "2.000000000"
    import_catalog()
    assert prices() == after


def test_prices_are_shown_with_all_their_decimals(catalog: None, browser: Client) -> None:
    path = f"/operator/prices/{PriceBook.objects.get(name=DEFAULT_BOOK).pk}/{MODEL}"
    browser.post(path, price_form(cache_write_5m__0="0.12875", confirmed="1"))

    for page in ("/operator/prices", path):
        assert "$0.12875" in browser.get(page).content.decode()


def test_prices_of_a_date_to_come_hold_then_and_never_in_the_past(
    catalog: None, browser: Client
) -> None:
    book = PriceBook.objects.get(name=DEFAULT_BOOK)
    path, before = f"/operator/prices/{book.pk}/{MODEL}", prices()
    sets = book.sets.count()

    past = browser.post(path, price_form(begins_at="2020-01-01T00:00", confirmed="1"))
    later = (clock.utc_now() + timedelta(days=9)).strftime("%Y-%m-%dT%H:%M")
    browser.post(path, price_form(begins_at=later, confirmed="1"))

    assert past.status_code == 400
    assert prices() == before
    assert book.sets.count() == sets + 1
    assert "To come" in browser.get(path).content.decode()


def test_a_book_is_made_from_another_one(catalog: None, browser: Client) -> None:
    form = {"name": "partners", "based_on": DEFAULT_BOOK, "percent": "90", "reason": REASON}
    browser.post("/operator/prices", form)

    rows = list_rates(book="partners", model=MODEL)
    cheaper = {(row.component, row.variant): row.nano_per_mtok for row in rows}
    listed = prices()
    assert cheaper.keys() == listed.keys()
    assert all((cheaper[key] or 0) * 10 == (listed[key] or 0) * 9 for key in listed)
    assert audited("prices.book_created")[0].reason == REASON


def test_an_upstream_is_added_changed_drained_and_its_credential_rotated(
    catalog: None, browser: Client
) -> None:
    form = {"name": "second", "kind": "anthropic", "base_url": "https://two.example"}
    form |= {"weight": "2", "priority": "1", "on_disconnect": "cancel", "reason": REASON}
    added = browser.post("/operator/upstreams", {**form, "secret": SECRET}, follow=True)
    row = Upstream.objects.get(name="second")
    path = f"/operator/upstreams/{row.pk}"
    pages = [added.content.decode()]
    pages.append(
        browser.post(
            path, {**form, "action": "edit", "weight": "7", "concurrency": "3"}, follow=True
        ).content.decode()
    )
    browser.post(path, {"action": "drain", "reason": REASON})
    rotated = {"name": "default", "secret": f"{SECRET}-next", "reason": REASON}
    pages.append(browser.post(f"{path}/credentials", rotated, follow=True).content.decode())

    row.refresh_from_db()
    assert (row.default_weight, row.concurrency, row.is_draining) == (7, 3, True)
    assert UpstreamCredential.objects.get(upstream=row).hint == "next"
    assert all(SECRET not in page for page in pages)
    assert "…next" in pages[-1]

    gone = {"action": "disable", "name": "default", "reason": REASON}
    browser.post(f"{path}/credentials", gone)
    assert UpstreamCredential.objects.get(upstream=row).sealed == ""
    browser.post(path, {"action": "disable"})
    row.refresh_from_db()
    assert row.is_enabled is True
    for action in ("upstream.created", "upstream.updated", "upstream.credential_replaced"):
        assert audited(action)[0].reason == REASON


def test_a_secret_is_never_kept_while_one_proves_who_they_are(
    catalog: None, operator: User
) -> None:
    unproved = browser_of(operator, is_proved=False)
    number = Upstream.objects.get(name="main").pk
    form = {"name": "default", "secret": SECRET, "reason": REASON}

    answer = unproved.post(f"/operator/upstreams/{number}/credentials", form)

    assert answer.status_code == 302
    assert SECRET not in str(dict(unproved.session))
    assert UpstreamCredential.objects.count() == 0


def test_a_cost_book_makes_the_margin_known(catalog: None, browser: Client) -> None:
    number = Upstream.objects.get(name="main").pk
    form = {"action": "cost", "book": DEFAULT_BOOK}
    browser.post(f"/operator/upstreams/{number}", form)
    assert Upstream.objects.get(pk=number).cost_book is None
    browser.post(f"/operator/upstreams/{number}", {**form, "reason": REASON})

    book = Upstream.objects.get(pk=number).cost_book
    assert book is not None
    assert book.name == DEFAULT_BOOK
    assert audited("upstream.cost_book_set")[0].reason == REASON


def test_a_test_of_an_upstream_says_what_came_back(catalog: None, browser: Client) -> None:
    with platform_scope("tests"):
        row = add_upstream(
            name="away", kind="anthropic", base_url="http://127.0.0.1:9", credential=None
        )

    page = browser.post(f"/operator/upstreams/{row.pk}", {"action": "test"}).content.decode()

    assert "It cannot be reached: ConnectionRefusedError." in page


@pytest.mark.parametrize("kind", ["tenant", "model", "upstream"])
def test_the_kill_switch_goes_off_and_on(
    catalog: None, tenant: Tenant, browser: Client, kind: str
) -> None:
    number = Upstream.objects.get(name="main").pk
    target = {"tenant": tenant.public_id, "model": MODEL, "upstream": str(number)}[kind]

    def is_on() -> bool:
        found: dict[str, bool] = {
            "tenant": state_of(tenant)["status"] == TenantStatus.ACTIVE,
            "model": CatalogModel.objects.get(model=MODEL).is_enabled,
            "upstream": Upstream.objects.get(pk=number).is_enabled,
        }
        return found[kind]

    path = f"/operator/live/switch/{kind}"
    browser.post(path, {"target": target})
    assert is_on()
    browser.post(path, {"target": target, "reason": REASON})
    assert not is_on()
    assert "Switched off now" in browser.get("/operator/live").content.decode()
    browser.post(path, {"target": target, "reason": REASON, "turn": "on"})
    assert is_on()


def test_roles_of_tenants_know_nothing_of_changes(tenant: Tenant) -> None:
    from tests.accounts.factories import make_member

    client = browser_of(make_member(tenant, Role.OWNER).user)

    assert change(client, tenant, "grant", amount_nano="9", once="0" * 36).status_code == 404
    assert state_of(tenant)["balance"] == 0
