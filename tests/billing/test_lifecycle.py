"""How accounts and data end: keys of who left, closing, erasing, exports, retention."""

import csv
import io
import json
import zipfile
from datetime import UTC, datetime, timedelta

import pytest
import redis
from django.db import DatabaseError, connection, transaction

from accounts.models import (
    ApiKey,
    AuditEvent,
    DataExport,
    ExportPart,
    Invite,
    Mail,
    Member,
    Role,
    TenantClosing,
    TenantStatus,
    User,
)
from accounts.services.audit import cut_audit, find_broken_event, record_audit
from accounts.services.closing import close_account, erase_due
from accounts.services.exports import expire_exports, read_export, request_export
from accounts.services.members import change_role, remove_member
from accounts.services.platform_settings import (
    KEEP_CLOSED_DAYS,
    KEEP_EVENTS_DAYS,
    change_settings,
    read_settings,
)
from billing.models.ledger import LedgerEntry
from billing.models.upkeep import ForgottenMonth, ForgottenPosting
from billing.models.usage import DeadLetter, UsageEvent, UsageRollup
from billing.services.export_files import build_exports
from billing.services.reconciliation import reconcile
from billing.services.retention import apply_retention
from tests.accounts.factories import caller_of, make_invite, make_key, make_member
from tests.billing.usage_world import append, ingest, make_event, make_shop
from tests.console.console_world import World, make_world
from turnpike.control.caller import SYSTEM
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids
from turnpike.kernel.errors import Conflict, InvalidInput, NotFound

DOLLARS = 1_000_000_000
LONG_AGO = timedelta(days=500)


@pytest.fixture
def world(redis_client: redis.Redis, db: None) -> World:
    return make_world(redis_client)


def key_of(member: Member) -> ApiKey:
    return make_key(member.tenant, caller=caller_of(member)).key


def is_revoked(key: ApiKey) -> bool:
    key.refresh_from_db()
    return key.revoked_at is not None


def test_keys_of_who_is_removed_go_with_them_unless_they_shall_stay(world: World) -> None:
    owner = caller_of(world.members[Role.OWNER])
    leaver, builder = world.members[Role.DEVELOPER], world.members[Role.ADMIN]
    gone, kept, theirs = key_of(leaver), key_of(builder), world.shop.key
    with platform_scope("tests"):
        assert remove_member(caller=owner, member=leaver) == 1
        assert remove_member(caller=owner, member=builder, is_revoking_keys=False) == 0

        assert [is_revoked(key) for key in (gone, kept, theirs)] == [True, False, False]
        actions = AuditEvent.objects.filter(target=gone.public_id).values_list("action", flat=True)
        assert list(actions.order_by("pk")) == ["key.created", "key.revoked"]


def test_keys_of_who_gets_another_role_stay_unless_they_shall_go(world: World) -> None:
    owner = caller_of(world.members[Role.OWNER])
    member = world.members[Role.DEVELOPER]
    key = key_of(member)
    with platform_scope("tests"):
        change_role(caller=owner, member=member, role=Role.VIEWER)
        assert is_revoked(key) is False
        change_role(caller=owner, member=member, role=Role.BILLING, is_revoking_keys=True)
        assert is_revoked(key) is True


def close(world: World) -> TenantClosing:
    owner = world.members[Role.OWNER]
    with platform_scope("tests"):
        return close_account(
            caller=caller_of(owner), tenant=world.shop.tenant, typed_name="Acme", reason="done"
        )


def test_closing_takes_the_typed_name_and_ends_keys_and_invitations(world: World) -> None:
    invite = make_invite(world.shop.tenant).invite
    with platform_scope("tests"), pytest.raises(InvalidInput):
        close_account(
            caller=caller_of(world.members[Role.OWNER]),
            tenant=world.shop.tenant,
            typed_name="acme",
            reason="done",
        )

    closing = close(world)

    with platform_scope("tests"):
        world.shop.tenant.refresh_from_db()
        invite.refresh_from_db()
        assert world.shop.tenant.status == TenantStatus.CLOSED
        assert is_revoked(world.shop.key)
        assert invite.revoked_at is not None
        days = read_settings()[KEEP_CLOSED_DAYS]
        assert closing.erase_at - clock.utc_now() > timedelta(days=days, minutes=-1)
        assert Mail.objects.filter(kind="closing").count() == 1
    assert erase_due() == 0


def test_what_is_personal_goes_when_the_time_is_over_and_the_ledger_stays(world: World) -> None:
    elsewhere = make_member(make_shop(name="Other").tenant, user=world.members[Role.ADMIN].user)
    invite = make_invite(world.shop.tenant, "guest@example.com").invite
    viewer = world.members[Role.VIEWER].user
    address = viewer.email
    close(world)
    with platform_scope("tests"):
        lines = LedgerEntry.objects.filter(tenant=world.shop.tenant).count()
        TenantClosing.objects.update(erase_at=clock.utc_now())

    assert erase_due() == 1
    assert erase_due() == 0

    with platform_scope("tests"):
        viewer.refresh_from_db()
        invite.refresh_from_db()
        assert viewer.is_active is False
        assert not User.objects.filter(email=address).exists()
        assert User.objects.get(pk=elsewhere.user_id).is_active is True
        assert "guest" not in invite.email
        assert not Member.objects.filter(tenant=world.shop.tenant).exists()
        assert not Mail.objects.filter(tenant=world.shop.tenant).exists()
        assert LedgerEntry.objects.filter(tenant=world.shop.tenant).count() == lines > 0
        erased = AuditEvent.objects.get(action="tenant.erased")
        assert erased.target == world.shop.tenant.public_id


def test_a_log_is_cut_at_its_old_end_and_its_chain_still_holds(world: World) -> None:
    tenant = make_shop(name="Old").number
    now = clock.utc_now()
    with platform_scope("tests"):
        for back in (500, 400, 3, 2):
            record_audit(
                actor="tests",
                tenant=tenant,
                action="key.updated",
                target=f"old {back}",
                at=now - timedelta(days=back),
            )

    assert cut_audit(tenant=tenant, before=now - timedelta(days=30)) == 2

    with platform_scope("tests"):
        left = AuditEvent.objects.filter(tenant_id=tenant).order_by("pk")
        assert list(left.values_list("target", flat=True)) == ["old 3", "old 2"]
        assert find_broken_event(tenant=tenant) is None
        with pytest.raises(DatabaseError, match="a week"), transaction.atomic():
            cut_audit(tenant=tenant, before=now)
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            left.delete()


def test_an_empty_log_goes_on_from_where_it_was_cut(world: World) -> None:
    tenant, now = make_shop(name="Old").number, clock.utc_now()
    with platform_scope("tests"):
        record_audit(actor="t", tenant=tenant, action="key.created", target="x", at=now - LONG_AGO)
    cut_audit(tenant=tenant, before=now - timedelta(days=30))
    with platform_scope("tests"):
        event = record_audit(actor="t", tenant=tenant, action="key.revoked", target="x")

        assert event.previous_digest != ""
        assert find_broken_event(tenant=tenant) is None


def export_of(world: World) -> DataExport:
    with platform_scope("tests"):
        return request_export(caller=caller_of(world.members[Role.OWNER]), tenant=world.shop.tenant)


def test_an_export_holds_everything_but_secrets(world: World) -> None:
    make_invite(world.shop.tenant, "=cmd@example.com")
    export = export_of(world)
    with platform_scope("tests"), pytest.raises(Conflict):
        request_export(caller=caller_of(world.members[Role.OWNER]), tenant=world.shop.tenant)

    assert build_exports() == 1
    assert build_exports() == 0

    with platform_scope("tests"):
        export.refresh_from_db()
        data = read_export(caller=caller_of(world.members[Role.OWNER]), export=export)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        tables = {
            name: list(csv.DictReader(io.StringIO(archive.read(name).decode())))
            for name in archive.namelist()
            if name.endswith(".csv")
        }
        organization = json.loads(archive.read("organization.json"))
    assert organization["id"] == world.shop.tenant.public_id
    assert len(tables["members.csv"]) == len(Role)
    assert {row["id"] for row in tables["requests.csv"]} >= {world.newest}
    assert tables["ledger.csv"][0]["amount"] == "100.000000000"
    assert tables["invitations.csv"][0]["email"].startswith("'=")
    assert world.shop.key.digest not in data.decode("latin-1")
    assert export.rows == sum(map(len, tables.values()))
    assert export.size_bytes == len(data)


def test_an_export_ends_with_its_time(world: World) -> None:
    export = export_of(world)
    build_exports()
    with platform_scope("tests"):
        DataExport.objects.update(expires_at=clock.utc_now())

    assert expire_exports() == 1

    with platform_scope("tests"):
        export.refresh_from_db()
        assert export.state == DataExport.State.EXPIRED
        assert ExportPart.objects.count() == 0
        with pytest.raises(NotFound):
            read_export(caller=caller_of(world.members[Role.OWNER]), export=export)


def test_months_of_events_go_and_the_books_still_agree(
    redis_client: redis.Redis, transactional_db: None
) -> None:
    shop = make_shop(credit=100 * DOLLARS)
    old = clock.utc_now() - LONG_AGO
    for at in (old, clock.utc_now() - timedelta(minutes=1)):
        rid = ids.uuid7(at_ms=int(at.timestamp() * 1_000))
        append(redis_client, make_event(shop, rid=rid))
    ingest(redis_client)
    assert {finding.differences for finding in reconcile()} == {0}

    run = apply_retention(at=clock.utc_now())

    assert run.failed == []
    assert run.removed["events"] == 1
    with platform_scope("tests"):
        assert UsageEvent.objects.count() == 1
        assert UsageRollup.objects.count() == 2
        assert ForgottenPosting.objects.count() == 1
        # Other months may have stood there without an event.
        assert ForgottenMonth.objects.get(events__gt=0).month == old.date().replace(day=1)
    assert {finding.differences for finding in reconcile()} == {0}


def test_nothing_is_posted_into_a_month_that_went(
    redis_client: redis.Redis, transactional_db: None
) -> None:
    shop = make_shop(credit=100 * DOLLARS)
    at = datetime(2024, 3, 5, tzinfo=UTC)
    ForgottenMonth.objects.create(month=at.date().replace(day=1), events=3)
    append(redis_client, make_event(shop, rid=ids.uuid7(at_ms=int(at.timestamp() * 1_000))))
    ingest(redis_client)

    with platform_scope("tests"):
        assert UsageEvent.objects.count() == 0
        assert "dropped" in DeadLetter.objects.get().error


def test_the_database_keeps_young_months(db: None) -> None:
    with (
        platform_scope("tests"),
        connection.cursor() as cursor,
        pytest.raises(DatabaseError, match="stay"),
        transaction.atomic(),
    ):
        cursor.execute("SELECT billing_forget_month(%s)", [clock.utc_now().date()])


def test_addresses_of_invitations_that_came_to_nothing_are_blanked(world: World) -> None:
    invite = make_invite(world.shop.tenant, "guest@example.com").invite
    with platform_scope("tests"):
        Invite.objects.update(expires_at=clock.utc_now() - timedelta(days=40))

    run = apply_retention(at=clock.utc_now())

    with platform_scope("tests"):
        invite.refresh_from_db()
    assert run.removed["invitations"] == 1
    assert "guest" not in invite.email


def test_settings_are_checked_kept_and_written_down(db: None) -> None:
    changed = change_settings(
        caller=SYSTEM, changes={KEEP_EVENTS_DAYS: 0, KEEP_CLOSED_DAYS: 30}, reason="the law"
    )

    assert changed == {KEEP_EVENTS_DAYS: 0}
    assert read_settings()[KEEP_EVENTS_DAYS] == 0
    with platform_scope("tests"):
        event = AuditEvent.objects.get(action="platform.settings_changed")
    assert (event.before, event.after) == ({KEEP_EVENTS_DAYS: 400}, {KEEP_EVENTS_DAYS: 0})
    for name, value in ((KEEP_EVENTS_DAYS, 92), (KEEP_CLOSED_DAYS, 0), ("nonsense", 1)):
        with pytest.raises(InvalidInput):
            change_settings(caller=SYSTEM, changes={name: value}, reason="x")
