"""Thresholds of budgets: noted by the ingest, told once in their period, in both modes."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.utils import translation

from accounts.models import Mail, Member, Role, Tenant, WebhookEvent
from accounts.services.mail import deliver_mail
from accounts.services.notices import BALANCE, BUDGETS, WEBHOOKS, choose_notices, muted_of
from accounts.services.tenants import update_tenant
from accounts.services.webhooks import create_webhook
from billing.models.alerts import BudgetAlert
from billing.models.invoices import BillingDetails
from billing.services.budget_alerts import note_crossings, watch_budgets
from billing.services.budget_letters import tell_alerts
from billing.tasks import watch_budgets as job
from tests.accounts.factories import client_of, make_member
from tests.billing.usage_world import Shop, append, ingest, make_event, make_shop, redis_json
from tests.console.console_world import client_for
from turnpike.control.caller import SYSTEM
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids, keyspace
from turnpike.kernel.errors import InvalidInput

pytestmark = pytest.mark.django_db
NOW = clock.utc_now()
DAY, MONTH = NOW.strftime("%Y-%m-%d"), NOW.strftime("%Y-%m")
# A million tokens of input are three dollars.
DOLLAR = 1_000_000_000
TOKENS = 1_000_000 // 3


@pytest.fixture
def shop(redis_client: redis.Redis) -> Shop:
    return make_shop(credit=1_000 * DOLLAR)


@pytest.fixture
def owner(shop: Shop) -> Member:
    return make_member(shop.tenant, Role.OWNER)


@pytest.fixture
def hook(shop: Shop) -> None:
    with platform_scope("tests"):
        create_webhook(
            caller=SYSTEM, tenant=shop.tenant, url="https://example.com/hooks", description=""
        )


def spend(client: "redis.Redis", shop: Shop, cents: int) -> None:
    usage = {"input_tokens": TOKENS * cents // 100 + 1, "output_tokens": 0}
    append(client, make_event(shop, usage=usage, hold_micro=10**12))
    ingest(client)


def budget(row: Any, **values: Any) -> None:
    with platform_scope("tests"):
        type(row).objects.filter(pk=row.pk).update(**values)


def refresh(row: Any) -> None:
    with platform_scope("tests"):
        row.refresh_from_db()


def tenant_now(shop: Shop) -> Tenant:
    with platform_scope("tests"):
        return Tenant.objects.get(pk=shop.number)


def alerts(**chosen: Any) -> list[tuple[str, str, int]]:
    with platform_scope("tests"):
        rows = BudgetAlert.objects.filter(**chosen).order_by("scope", "period", "threshold")
        return [(row.scope, row.period, row.threshold) for row in rows]


def letters() -> list[str]:
    with platform_scope("tests"):
        rows = Mail.objects.filter(kind=f"notice.{BUDGETS}").order_by("pk")
        return list(rows.values_list("subject", flat=True))


def events() -> list[Mapping[str, Any]]:
    with platform_scope("tests"):
        rows = WebhookEvent.objects.filter(type="budget.threshold_reached").order_by("pk")
        return [json.loads(row.body)["data"] for row in rows]


def test_each_threshold_is_noted_in_the_transaction_and_told_once(
    shop: Shop, owner: Member, hook: None, redis_client: redis.Redis
) -> None:
    budget(shop.tenant, monthly_budget_nano=10 * DOLLAR)
    spend(redis_client, shop, 490)
    assert alerts() == []
    for cents in (20, 10, 285, 160, 40, 50):
        spend(redis_client, shop, cents)
        job()
        job()

    assert alerts() == [("t", MONTH, threshold) for threshold in (50, 80, 95, 100)]
    assert [item["threshold"] for item in events()] == [50, 80, 95, 100]
    assert [letter.split(" %")[0] for letter in letters()] == ["50", "80", "95", "100"]
    first = events()[0]
    assert (first["scope"], first["id"]) == ("organization", shop.tenant.public_id)
    assert (first["budget"], first["period"]) == ("10.000000000", MONTH)
    assert first["blocks"] is True


def test_scopes_and_periods_have_budgets_of_their_own(
    shop: Shop, owner: Member, hook: None, redis_client: redis.Redis
) -> None:
    budget(shop.tenant, monthly_budget_nano=100 * DOLLAR, daily_budget_nano=2 * DOLLAR)
    budget(shop.workspace, monthly_budget_nano=1 * DOLLAR)
    budget(shop.key, daily_budget_nano=4 * DOLLAR, daily_budget_blocks=False)
    other = make_shop(name="Other")
    budget(other.tenant, monthly_budget_nano=1)

    spend(redis_client, shop, 195)
    job()

    workspace, key = f"w{shop.workspace.pk}", f"k{shop.key.pk}"
    assert alerts() == sorted(
        [
            *(("t", DAY, threshold) for threshold in (50, 80, 95)),
            *((workspace, MONTH, threshold) for threshold in (50, 80, 95, 100)),
        ]
    )
    # Reached at once: a webhook for each, and one letter for each budget.
    assert len(events()) == 7
    assert sorted(letter.split(" %")[0] for letter in letters()) == ["100", "95"]
    spend(redis_client, shop, 10)
    job()
    assert (key, DAY, 50) in alerts()
    (told,) = [item for item in events() if item["scope"] == "key"]
    assert (told["id"], told["blocks"]) == (shop.key.public_id, False)


def test_a_changed_budget_is_another_one_and_is_seen_without_usage(
    shop: Shop, owner: Member, redis_client: redis.Redis
) -> None:
    budget(shop.tenant, monthly_budget_nano=10 * DOLLAR)
    spend(redis_client, shop, 600)
    job()
    budget(shop.tenant, monthly_budget_nano=7 * DOLLAR)

    assert watch_budgets(at=NOW) == 2  # 50 and 80 of seven dollars
    assert watch_budgets(at=NOW) == 0
    assert alerts(budget_nano=7 * DOLLAR) == [("t", MONTH, 50), ("t", MONTH, 80)]
    budget(shop.tenant, monthly_budget_nano=0)  # nothing may be spent: nothing is reached
    assert watch_budgets(at=NOW) == 0


def test_history_that_somebody_imports_is_told_to_nobody(
    shop: Shop, owner: Member, redis_client: redis.Redis
) -> None:
    budget(shop.tenant, daily_budget_nano=1)
    old = ids.uuid7(at_ms=clock.now_ms() - 5 * 86_400_000)

    append(redis_client, make_event(shop, rid=old))
    ingest(redis_client)

    assert alerts() == []
    assert note_crossings(tenants=[shop.number], periods=["2020-01"], at=NOW) == 0


def test_a_budget_that_refuses_is_used_up_though_its_last_cents_are_not_spent(
    shop: Shop, owner: Member, redis_client: redis.Redis
) -> None:
    budget(shop.tenant, monthly_budget_nano=10 * DOLLAR)
    budget(shop.workspace, monthly_budget_nano=10 * DOLLAR, monthly_budget_blocks=False)
    spend(redis_client, shop, 960)
    job()
    workspace = f"w{shop.workspace.pk}"
    for scope in ("t", workspace):
        row = {"reason": f"budget:s:{scope}:{MONTH}", "status": 402}
        redis_client.lpush(keyspace.refusals(shop.number), redis_json(row))

    assert job() == 1
    assert job() == 0

    assert alerts(threshold=100) == [("t", MONTH, 100)]


def test_letters_say_what_follows_in_the_language_of_the_tenant(
    shop: Shop, owner: Member, redis_client: redis.Redis, mailoutbox: list[Any]
) -> None:
    budget(shop.tenant, daily_budget_nano=1 * DOLLAR, daily_budget_blocks=False)
    budget(shop.workspace, daily_budget_nano=1 * DOLLAR)
    with platform_scope("tests"):
        BillingDetails.objects.create(tenant=shop.tenant, language="ru")
    spend(redis_client, shop, 150)
    tell_alerts(at=NOW)

    assert deliver_mail() == 2

    texts = [message.body for message in mailoutbox]
    assert all("100 %" in message.subject for message in mailoutbox)
    assert any("только сообщает" in text for text in texts)
    tomorrow = (NOW + timedelta(days=1)).strftime("%Y-%m-%d 00:00")
    assert any(tomorrow in text for text in texts)


def test_everybody_is_written_to_in_the_language_that_they_chose(
    shop: Shop, owner: Member, redis_client: redis.Redis, mailoutbox: list[Any]
) -> None:
    payer, other = (make_member(shop.tenant, Role.BILLING) for _ in range(2))
    for member, language in ((owner, "ru"), (payer, "zh-hans"), (payer, "tlh")):
        client_for(member).post("/language", {"language": language})
    budget(shop.tenant, daily_budget_nano=1 * DOLLAR)
    with platform_scope("tests"):
        BillingDetails.objects.create(tenant=shop.tenant, language="en")
    spend(redis_client, shop, 90)
    tell_alerts(at=NOW)

    assert deliver_mail() == 3

    languages = {message.to[0]: message.extra_headers["Content-Language"] for message in mailoutbox}
    assert languages == {
        owner.user.email: "ru",
        payer.user.email: "zh-hans",
        other.user.email: "en",
    }
    subjects = {message.subject for message in mailoutbox}
    assert len(subjects) == 3
    assert all("80" in subject for subject in subjects)
    opened = next(message.body for message in mailoutbox if message.to == [owner.user.email])
    assert "UTC" in opened
    assert "бюджет" in opened


def test_members_choose_what_they_get(shop: Shop, owner: Member, redis_client: redis.Redis) -> None:
    payer = make_member(shop.tenant, Role.BILLING)
    make_member(shop.tenant, Role.VIEWER)  # whom budgets do not concern
    client = client_for(owner)
    page = client.get("/console/mail").content.decode()
    assert page.count('name="wanted"') == 3
    assert page.count("checked") == 3

    client.post("/console/mail", {"wanted": [BALANCE]})

    assert client.get("/console/mail").content.decode().count("checked") == 1
    budget(shop.tenant, monthly_budget_nano=DOLLAR)
    spend(redis_client, shop, 60)
    job()
    with platform_scope("tests"):
        assert list(Mail.objects.values_list("recipient", flat=True)) == [payer.user.email]
        owner.refresh_from_db()
        assert sorted(muted_of(owner)) == [BUDGETS, WEBHOOKS]
        with pytest.raises(InvalidInput):
            choose_notices(member=payer, wanted=[WEBHOOKS])  # not of their role
        # What another role is not offered stays as it was.
        owner.role = Role.BILLING
        choose_notices(member=owner, wanted=[BUDGETS, BALANCE])
        owner.refresh_from_db()
        assert list(muted_of(Member.objects.get(pk=owner.pk))) == [WEBHOOKS]
    assert client.post("/console/mail", {"wanted": ["invoices"]}).status_code == 400


@pytest.mark.parametrize("language", ["en", "zh-hans", "ru"])
def test_the_page_of_mails_says_what_is_always_sent(owner: Member, language: str) -> None:
    client = client_for(owner)
    client.cookies["turnpike_language"] = language
    page = client.get("/console/mail").content.decode()

    with translation.override(language):
        assert translation.gettext("Always sent") in page
    assert page.count('class="check"') == 6


def test_one_tenants_trouble_is_not_the_others(
    shop: Shop, owner: Member, redis_client: redis.Redis
) -> None:
    broken = make_shop(name="Broken")
    with platform_scope("tests"):
        BudgetAlert.objects.create(
            tenant=broken.tenant,
            scope="k999999999",
            period=DAY,
            threshold=50,
            budget_nano=2,
            spent_nano=1,
            blocks=True,
        )
    budget(shop.tenant, monthly_budget_nano=DOLLAR)
    spend(redis_client, shop, 60)

    assert tell_alerts(at=NOW) == 1

    assert len(letters()) == 1
    assert alerts(told_at=None) == [("k999999999", DAY, 50)]


def test_modes_are_set_by_api_and_hold_from_the_next_request(shop: Shop) -> None:
    api = client_of(shop.tenant, Role.OWNER)
    where = f"/api/v1/workspaces/{shop.workspace.public_id}"
    first = api.patch(where, {"monthly_budget": "5", "daily_budget": "1"}, "json").json()
    assert (first["monthly_budget_blocks"], first["daily_budget_blocks"]) == (True, True)

    said = api.patch(where, {"monthly_budget_blocks": False}, "json").json()

    assert (said["monthly_budget_blocks"], said["monthly_budget"]) == (False, "5.000000000")
    refresh(shop.workspace)
    assert [item.period for item in shop.workspace.budgets] == ["day"]
    for wrong in ("some", None, 3):
        answer = api.patch(where, {"monthly_budget_blocks": wrong}, "json")
        assert answer.status_code == 400, wrong
    for path in ("tenant", f"keys/{shop.key.public_id}"):
        answer = api.patch(f"/api/v1/{path}", {"daily_budget_blocks": False}, "json")
        assert answer.json()["daily_budget_blocks"] is False
    with platform_scope("tests"), pytest.raises(InvalidInput):
        update_tenant(caller=SYSTEM, tenant=shop.tenant, changes={"daily_budget_blocks": 1})


def test_modes_are_set_on_the_pages(shop: Shop, owner: Member) -> None:
    client = client_for(owner)
    form = {"name": "Acme", "monthly_budget_nano": "20", "monthly_budget_blocks": "notify"}

    assert client.post("/console/settings", form).status_code == 302

    tenant = tenant_now(shop)
    assert (tenant.monthly_budget_blocks, tenant.daily_budget_blocks) == (False, True)
    assert tenant.monthly_budget_nano == 20 * DOLLAR
    assert tenant.budgets == ()
    client.post("/console/settings", {"name": "Acme", "monthly_budget_nano": "20"})
    assert not tenant_now(shop).monthly_budget_blocks  # left out, left alone
    client.post(f"/console/workspaces/{shop.workspace.public_id}", {**form, "name": "Default"})
    refresh(shop.workspace)
    assert not shop.workspace.monthly_budget_blocks
