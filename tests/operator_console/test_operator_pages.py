"""Every page of the operator console: whole in every language, with the figures of the rollups."""

import re
from typing import Any

import pytest
import redis
from django.test import Client

from accounts.models import Role, User
from billing.models.catalog import PriceBook
from billing.models.upstreams import Upstream
from billing.services.catalog import import_catalog
from billing.services.upstreams import add_upstream
from tests.billing.usage_world import USAGE_NANO
from tests.console.console_world import World, make_world
from tests.operator_console.operator_world import browser_of
from turnpike.control import formats
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids, keyspace

LANGUAGES = ("en", "zh-hans", "ru")
MODEL = "claude-haiku-4-5-20251001"


@pytest.fixture
def world(redis_client: redis.Redis, db: None) -> World:
    with platform_scope("tests"):
        import_catalog()
        add_upstream(
            name="main", kind="anthropic", base_url="http://127.0.0.1:9", credential="s" * 24
        )
    return make_world(redis_client)


def addresses(world: World) -> list[str]:
    """An address of each page that is read."""
    tenant = world.shop.tenant.public_id
    tabs = ("keys", "members", "limits", "billing", "requests", "audit")
    person = world.members[Role.OWNER].user.public_id
    with platform_scope("tests"):
        upstream, book = Upstream.objects.get(name="main").pk, PriceBook.objects.get(name="list").pk
    return [
        "",
        *("tenants", "tenants?new=1", "tenants?q=nobody", f"tenants/{tenant}"),
        *(f"tenants/{tenant}/{tab}" for tab in tabs),
        *("tiers", "tiers/pro", "models", f"models/{MODEL}"),
        *("prices", f"prices/{book}/{MODEL}", "upstreams", f"upstreams/{upstream}"),
        *("live", "users", "users?q=example", f"users/{person}"),
    ]


def text_of(client: Client, path: str) -> str:
    """What a page says, without its marks."""
    page = client.get(f"/operator/{path}").content.decode()
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


@pytest.mark.parametrize("language", LANGUAGES)
def test_pages_render_in_every_language_without_leftovers(
    world: World, operator: User, language: str
) -> None:
    client = browser_of(operator, language=language)
    for path in addresses(world):
        answer = client.get(f"/operator/{path}")
        page = answer.content.decode()

        assert answer.status_code == 200, path
        assert f'<html lang="{language}"' in page
        assert [mark for mark in ("<c-", "{{", "{%", ' style="', "onclick=") if mark in page] == []
        assert answer["cache-control"] == "no-store"
        found = re.findall(r'\sid="([^"]*)"', page)
        assert sorted(name for name in set(found) if found.count(name) > 1) == [], path


def test_money_and_traffic_are_those_of_the_tenants(
    world: World, redis_client: redis.Redis, browser: Client
) -> None:
    other = make_world(redis_client, name="Other", days=1)
    today = clock.utc_now().day
    mine, theirs = len(world.requests) * USAGE_NANO, USAGE_NANO

    dashboard = text_of(browser, "")
    tenants = text_of(browser, "tenants")
    detail = text_of(browser, f"tenants/{world.shop.tenant.public_id}")

    assert f"Acme {formats.money(mine)}" in dashboard
    if today > 1:
        assert f"{formats.money(mine + theirs)}" in dashboard
    assert "Not known: no upstream has a cost book" in dashboard
    assert f"Prepaid $100.00 {formats.money(mine)}" in tenants
    assert f"Charged in 30 days {formats.money(mine)}" in detail
    assert other.shop.tenant.public_id not in detail


def test_tenants_are_found_by_name_id_member_and_state(world: World, browser: Client) -> None:
    tenant, member = world.shop.tenant, world.members[Role.VIEWER].user

    assert tenant.public_id in text_of(browser, "tenants?q=acm")
    assert tenant.public_id in text_of(browser, f"tenants?q={member.email}")
    assert tenant.public_id in text_of(browser, "tenants?status=active&tier=pro")
    assert "No tenant matches." in text_of(browser, "tenants?status=suspended")
    answer = browser.get(f"/operator/tenants?q={tenant.public_id}")
    assert answer["location"] == f"/operator/tenants/{tenant.public_id}"


def test_pages_of_tenants_go_on_where_the_last_one_ended(
    db: None, redis_client: redis.Redis, browser: Client
) -> None:
    from tests.accounts.factories import make_tenant

    made = {make_tenant().public_id for _ in range(30)}

    first = browser.get("/operator/tenants").content.decode()
    older = re.search(r'href="(\?before=\d+)"', first)
    assert older is not None
    second = browser.get(f"/operator/tenants{older.group(1)}").content.decode()

    shown = [set(re.findall(r"ten_\w+", page)) & made for page in (first, second)]
    assert (len(shown[0]), len(shown[1])) == (25, 5)
    assert shown[0] | shown[1] == made


def test_requests_in_flight_are_those_of_redis(
    world: World, redis_client: redis.Redis, browser: Client
) -> None:
    tenant, rid = world.shop.number, ids.uuid7()
    member = f"{tenant}|{rid}"
    redis_client.zadd(
        keyspace.open_requests(world.shop.shard), {member: clock.now_ms() + 60_000, "x": 1}
    )
    base: dict[str, Any] = {"model": MODEL, "key": world.shop.key.pk, "stream": True}
    redis_client.hset(
        keyspace.record(tenant, str(rid)),
        mapping={"base": formats_json(base), "hold": 2_500_000},
    )

    page = browser.get("/operator/live", headers={"x-poll": "1"}).content.decode()
    live = " ".join(re.sub(r"<[^>]+>", " ", page).split())

    assert "<html" not in page
    assert "Requests in flight 1 " in live
    assert f"Acme {MODEL} {world.shop.key.name} $2.50" in live
    assert "Requests in flight 1" in text_of(browser, f"tenants/{world.shop.tenant.public_id}")


def test_names_that_are_not_sold_raise_an_alarm(
    world: World, redis_client: redis.Redis, browser: Client
) -> None:
    assert "Asked for and not sold" not in text_of(browser, "models")
    row = {"at_us": clock.now_us(), "status": 404, "model": "claude-9", "reason": "not_found"}
    redis_client.lpush(keyspace.refusals(world.shop.number), formats_json(row), formats_json(row))

    page = text_of(browser, "models")

    assert "Asked for and not sold" in page
    assert "claude-9 Acme 2 times" in page


def test_a_broken_upstream_shows_its_circuit(
    world: World, redis_client: redis.Redis, browser: Client
) -> None:
    with platform_scope("tests"):
        number = Upstream.objects.get(name="main").pk
    now = clock.now_ms()
    name = keyspace.upstream_health(number)
    redis_client.hset(name, mapping={"breaker": f"1:{now + 60_000}:3:{now}", "c:7": now + 9_000})

    assert "Circuit open" in text_of(browser, "upstreams")
    detail = text_of(browser, f"upstreams/{number}")
    assert "Opened in a row 3" in detail
    assert "Credentials at rest 1" in detail


def test_tenants_at_risk_are_named_with_the_reason(
    world: World, redis_client: redis.Redis, browser: Client
) -> None:
    from accounts.models import Tenant
    from billing.models.ledger import Wallet

    with platform_scope("tests"):
        Wallet.objects.filter(tenant_id=world.shop.number).update(balance_nano=USAGE_NANO // 10)
        Tenant.objects.filter(pk=world.shop.number).update(monthly_budget_nano=USAGE_NANO)
    hour = clock.utc_now().strftime("%Y-%m-%dT%H")
    redis_client.hset(
        keyspace.outcome_counts(world.shop.number, hour), mapping={"rate_limited": 7, "accepted": 3}
    )

    page = text_of(browser, "")

    assert "Credit runs out" in page
    assert "Near its budget" in page
    assert "7 requests refused by limits in two hours" in page
    assert "Refused by us in 24 h 7 70%" in page


def test_queries_do_not_grow_with_requests_or_tenants(
    world: World, redis_client: redis.Redis, browser: Client, django_assert_max_num_queries: Any
) -> None:
    for number in range(5):
        make_world(redis_client, name=f"Tenant {number}", days=1)
    for path in addresses(world):
        with django_assert_max_num_queries(60):
            browser.get(f"/operator/{path}")


def formats_json(value: dict[str, Any]) -> bytes:
    """As the data plane writes it."""
    import json

    return json.dumps(value).encode()
