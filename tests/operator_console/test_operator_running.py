"""The pages that keep the platform running: each is whole, each action does what it says."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings
from django.test import Client, override_settings

from accounts.models import AuditEvent, Mail, Role
from accounts.services.mail import Letter, deliver_mail, post_mail
from accounts.services.platform_settings import KEEP_MAIL_DAYS, read_settings
from billing.models.ledger import LedgerTxn, Wallet
from billing.models.upkeep import Announcement, ComponentDay, ReconciliationRun
from billing.models.usage import DeadLetter
from billing.services.standing import look_at_components, read_components
from tests.billing.usage_world import append_body, ingest
from tests.console.console_world import World, client_for, make_world
from tests.operator_console.operator_world import REASON, audited, browser_of, make_operator
from turnpike.control.job_records import note_end, note_start
from turnpike.control.mail_backend import FOLDER_BACKEND
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids, keyspace

PAGES = ("health", "jobs", "logs", "audit", "ledger", "announcements", "mail", "settings")
LANGUAGES = ("en", "zh-hans", "ru")
DOLLARS = 1_000_000_000


@pytest.fixture
def world(redis_client: redis.Redis, db: None) -> World:
    return make_world(redis_client, days=1)


@pytest.fixture
def operator_browser(world: World) -> Client:
    return browser_of(make_operator())


@pytest.mark.parametrize("language", LANGUAGES)
def test_pages_render_in_every_language_without_leftovers(world: World, language: str) -> None:
    client = browser_of(make_operator(), language=language)
    append_body(redis_of(), b"no event")
    ingest(redis_of())
    for name in (*PAGES, f"logs/{world.newest}"):
        answer = client.get(f"/operator/{name}")
        page = answer.content.decode()

        assert answer.status_code == 200, name
        assert [mark for mark in ("<c-", "{{", "{%", ' style="', "onclick=") if mark in page] == []
        assert "unsafe" not in answer["content-security-policy"]
        assert answer["cache-control"] == "no-store"


def redis_of() -> "redis.Redis":
    return redis.Redis.from_url(settings.REDIS_URL)


def test_queries_do_not_grow(operator_browser: Client, django_assert_max_num_queries: Any) -> None:
    for name in PAGES:
        with django_assert_max_num_queries(60):
            operator_browser.get(f"/operator/{name}")


def test_logs_show_every_tenants_requests_and_find_one_by_its_id(
    world: World, operator_browser: Client, redis_client: redis.Redis
) -> None:
    other = make_world(redis_client, name="Other", days=1)

    everything = operator_browser.get("/operator/logs?span=7d").content.decode()
    theirs = operator_browser.get(
        f"/operator/logs?span=7d&tenant={other.shop.tenant.public_id}"
    ).content.decode()
    found = operator_browser.get(f"/operator/logs?q={other.newest}")

    assert {world.newest in everything, other.newest in everything} == {True}
    assert (other.newest in theirs, world.newest in theirs) == (True, False)
    assert found["location"] == f"/operator/logs/{other.newest}"
    assert operator_browser.get("/operator/logs/req_nonsense").status_code == 404
    one = operator_browser.get(f"/operator/logs/{other.newest}").content.decode()
    assert "Revision 0: Reported by the model" in one
    nothing = operator_browser.get("/operator/logs?status=500").content.decode()
    assert world.newest not in nothing


def test_a_dead_letter_is_closed_with_a_reason(operator_browser: Client) -> None:
    append_body(redis_of(), b"no event")
    ingest(redis_of())
    with platform_scope("tests"):
        letter = DeadLetter.objects.get()
    path = f"/operator/jobs/letters/{letter.pk}"

    operator_browser.post(path, {"action": "discard"})
    with platform_scope("tests"):
        letter.refresh_from_db()
    assert letter.resolved_at is None
    operator_browser.post(path, {"action": "discard", "reason": REASON})

    with platform_scope("tests"):
        letter.refresh_from_db()
    assert letter.resolution == DeadLetter.Resolution.DISCARDED
    assert audited("dead_letter.discard")[0].reason == REASON


def test_the_timetable_says_how_jobs_went(operator_browser: Client) -> None:
    at_us = clock.now_us()
    task = "billing.tasks.reconcile_usage"
    note_start(task, at_us=at_us)
    note_end(task, at_us=at_us + 1_000, error="ValueError: nothing fits")

    page = operator_browser.get("/operator/jobs").content.decode()

    assert "1 job failed" in page
    assert "nothing fits" in page
    note_start(task, at_us=at_us + 2_000)
    note_end(task, at_us=at_us + 3_000)
    assert "nothing fits" not in operator_browser.get("/operator/jobs").content.decode()
    assert operator_browser.post("/operator/jobs", {"job": "nonsense"}).status_code == 404


def test_health_names_what_is_wrong(operator_browser: Client, redis_client: redis.Redis) -> None:
    page = operator_browser.get("/operator/health").content.decode()
    assert "No gateway is alive" in page

    now_ms = clock.now_ms()
    facts: dict[Any, Any] = {
        "at_ms": now_ms,
        "unconfirmed": 7,
        "is_writable": 0,
        "fallback_admitted": 3,
    }
    facts["oldest_started_ms"] = now_ms - 120_000
    redis_client.zadd(keyspace.GATEWAYS, {"worker-1": now_ms})
    redis_client.hset(keyspace.gateway_facts("worker-1"), mapping=facts)
    page = operator_browser.get("/operator/health").content.decode()

    assert "1 cannot write the journal" in page
    assert "7 requests are not known to be posted" in page
    assert "Repair missed postings" in page
    operator_browser.post("/operator/health", {"action": "sweep"})
    assert len(audited("health.sweep")) == 1


def test_money_is_moved_by_hand_once_and_undone_once(
    world: World, operator_browser: Client
) -> None:
    def balance() -> int:
        with platform_scope("tests"):
            return Wallet.objects.get(tenant=world.shop.tenant).balance_nano

    before = balance()
    form = {
        "once": str(ids.uuid7()),
        "tenant": world.shop.tenant.public_id,
        "direction": "take",
        "amount": "12.50",
        "counter": "correction",
        "reason": REASON,
    }
    for _ in range(2):
        assert operator_browser.post("/operator/ledger", form).status_code == 302
    assert balance() == before - 25 * DOLLARS // 2
    with platform_scope("tests"):
        txn = LedgerTxn.objects.get(kind="manual")
    for _ in range(2):
        operator_browser.post(f"/operator/ledger/{txn.pk}/undo", {"reason": REASON})

    assert balance() == before
    assert audited("ledger.adjusted", tenant=world.shop.number)[0].reason == REASON
    assert len(audited("ledger.reversed", tenant=world.shop.number)) == 1
    for wrong in ({"tenant": "ten_x"}, {"reason": ""}, {"amount": "0"}, {"amount": "x"}):
        answer = operator_browser.post(
            "/operator/ledger", {**form, "once": str(ids.uuid7()), **wrong}
        )
        assert answer.status_code == 400
    grant = LedgerTxn.objects.filter(kind="grant")
    with platform_scope("tests"):
        number = grant.values_list("pk", flat=True)[0]
    operator_browser.post(f"/operator/ledger/{number}/undo", {"reason": REASON})
    assert balance() == before


def test_the_books_are_compared_and_the_result_is_kept(operator_browser: Client) -> None:
    answer = operator_browser.post("/operator/ledger/reconcile", follow=True)

    run = ReconciliationRun.objects.get()
    assert run.differences == sum(item["differences"] for item in run.findings)
    assert "Usage and ledger" in answer.content.decode()


def note_form(**changes: str) -> dict[str, str]:
    return {
        "kind": "incident",
        "severity": "danger",
        "title_en": "Streams are slow",
        "title_ru": "Потоки тормозят",
        "text_en": "We look into it.",
        **changes,
    }


def test_an_announcement_is_read_by_tenants_in_their_language_until_it_ends(
    world: World, operator_browser: Client
) -> None:
    assert operator_browser.post("/operator/announcements", note_form()).status_code == 302
    row = Announcement.objects.get()
    reader = client_for(world.members[Role.VIEWER])

    assert "Streams are slow" in reader.get("/console/usage").content.decode()
    reader.cookies["turnpike_language"] = "ru"
    assert "Потоки тормозят" in reader.get("/console/usage").content.decode()
    reader.cookies["turnpike_language"] = "zh-hans"
    assert "Streams are slow" in reader.get("/console/status").content.decode()
    assert "Streams are slow" in Client().get("/status").content.decode()

    operator_browser.post(f"/operator/announcements/{row.public_id}", {"action": "end"})
    assert "Streams are slow" not in reader.get("/console/usage").content.decode()
    assert "Streams are slow" in Client().get("/status").content.decode()
    operator_browser.post(
        f"/operator/announcements/{row.public_id}", {"action": "withdraw", "reason": REASON}
    )
    assert "Streams are slow" not in Client().get("/status").content.decode()


def test_an_announcement_needs_words_and_a_span(operator_browser: Client) -> None:
    for wrong in (
        {"title_en": ""},
        {"kind": "nonsense"},
        {"starts_at": "2026-11-21T10:00", "ends_at": "2026-11-21T09:00"},
    ):
        answer = operator_browser.post("/operator/announcements", note_form(**wrong))
        assert answer.status_code == 400
    assert Announcement.objects.count() == 0


def test_settings_are_changed_with_a_reason(operator_browser: Client) -> None:
    form = {name: value for name, value in read_settings().items() if not isinstance(value, bool)}
    form |= {KEEP_MAIL_DAYS: 9}
    assert operator_browser.post("/operator/settings", form).status_code == 400
    form["reason"] = REASON
    assert operator_browser.post("/operator/settings", form).status_code == 302
    assert read_settings()[KEEP_MAIL_DAYS] == 9
    wrong = operator_browser.post("/operator/settings", {**form, KEEP_MAIL_DAYS: 0})
    assert wrong.status_code == 400
    assert audited("platform.settings_changed")[0].after == {KEEP_MAIL_DAYS: 9}


def test_a_second_factor_can_be_required_without_a_restart(operator_browser: Client) -> None:
    form = {**read_settings(), "second_factor_required": "on", "reason": REASON}
    operator_browser.post("/operator/settings", form)

    assert operator_browser.get("/operator/settings")["location"] == "/accounts/2fa/"


def test_mail_in_the_folder_is_read_after_a_proof(world: World, tmp_path: Path) -> None:
    letter = Letter(subject="Hello", paragraphs=("A secret link.",))
    with platform_scope("tests"):
        post_mail(key="k", kind="invitation", to="a@example.com", letter=letter, tenant=None)
    with override_settings(EMAIL_BACKEND=FOLDER_BACKEND, EMAIL_FILE_PATH=str(tmp_path)):
        deliver_mail()
        name = next(tmp_path.glob("*.eml")).name
        operator = make_operator(password="a long enough password")
        page = browser_of(operator).get("/operator/mail").content.decode()
        message = browser_of(operator).get(f"/operator/mail/{name}").content.decode()
        unproved = browser_of(operator, is_proved=False).get(f"/operator/mail/{name}")

    assert "a@example.com" in page
    assert "A secret link." in message
    assert unproved["location"].startswith("/accounts/reauthenticate/")


def test_mail_that_waits_is_tried_at_once(operator_browser: Client) -> None:
    letter = Letter(subject="Hello", paragraphs=("One.",))
    with platform_scope("tests"):
        post_mail(key="k", kind="invitation", to="a@example.com", letter=letter, tenant=None)
        Mail.objects.update(next_try_at=clock.utc_now() + timedelta(hours=1))
        number = Mail.objects.get().pk
    operator_browser.post("/operator/mail", {"mail": str(number)})

    assert deliver_mail() == 1


def test_the_audit_log_of_everybody_is_filtered_and_written_as_a_file(
    world: World, operator_browser: Client
) -> None:
    operator_browser.post("/operator/health", {"action": "sweep"})
    platform = operator_browser.get("/operator/audit?tenant=platform").content.decode()
    theirs = operator_browser.get(
        f"/operator/audit?tenant={world.shop.tenant.public_id}"
    ).content.decode()
    file = operator_browser.get("/operator/audit?format=csv&action=health.sweep")

    assert "Missed postings repaired by hand" in platform
    assert "Member added" not in platform.split("<table")[1]
    assert "Member added" in theirs.split("<table")[1]
    lines = file.content.decode().splitlines()
    assert (len(lines), lines[0].split(",")[:4]) == (2, ["at", "tenant", "actor", "action"])


def test_looks_are_counted_by_day_and_shown_to_everybody(
    world: World, redis_client: redis.Redis
) -> None:
    now = clock.utc_now()
    assert look_at_components(at=now) > 0
    redis_client.zadd(keyspace.GATEWAYS, {"worker-1": clock.now_ms()})
    redis_client.hset(keyspace.policy(0), keyspace.GLOBAL_VERSION, 1)
    look_at_components(at=now)

    api = next(item for item in read_components(at=now) if item.name == "api")
    assert (api.checks, api.answered, api.is_up) == (2, 1, True)
    assert redis_client.llen(keyspace.LOOKS) == 0
    ComponentDay.objects.filter(component="usage").update(is_up=False)
    page = Client().get("/status").content.decode()
    assert "1 component does not answer" in page
    assert world.shop.tenant.name not in page


def test_raw_rows_are_for_superusers_alone_and_never_written(world: World) -> None:
    chief = browser_of(make_operator(is_superuser=True))

    assert chief.get("/admin/").status_code == 200
    for path in ("accounts/tenant", "accounts/auditevent", "accounts/apikey", "billing/ledgertxn"):
        listing = chief.get(f"/admin/{path}/")
        assert listing.status_code == 200, path
        assert "unsafe" not in listing["content-security-policy"]
        assert "style=" not in listing.content.decode()
    tenant = chief.get(f"/admin/accounts/tenant/{world.shop.number}/change/").content.decode()
    key = chief.get(f"/admin/accounts/apikey/{world.shop.key.pk}/change/").content.decode()
    assert world.shop.tenant.name in tenant
    assert world.shop.key.digest not in key
    assert chief.post(f"/admin/accounts/tenant/{world.shop.number}/change/", {}).status_code == 403
    assert chief.post(f"/admin/accounts/tenant/{world.shop.number}/delete/", {}).status_code == 403
    for nobody in (browser_of(make_operator()), browser_of(None)):
        for path in ("", "accounts/tenant/", "login/"):
            assert nobody.get(f"/admin/{path}").status_code == 404
    member = client_for(world.members[Role.OWNER])
    assert member.get("/admin/").status_code == 404
    with platform_scope("tests"):
        assert AuditEvent.objects.exists()
