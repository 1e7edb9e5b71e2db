"""The database's own rules: row level security, constraints, and an audit log that only grows."""

from datetime import timedelta

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models import Model

from accounts.models import (
    ApiKey,
    AuditAnchor,
    AuditEvent,
    DataExport,
    ExportPart,
    IdempotentAnswer,
    Invite,
    Mail,
    Member,
    NoticePreference,
    Tenant,
    TenantClosing,
    User,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
    Workspace,
)
from accounts.services.audit import find_broken_event, record_audit
from accounts.tasks import check_audit_chains_task
from tests.accounts.factories import (
    REASON,
    make_invite,
    make_key,
    make_member,
    make_user,
    make_webhook,
    make_workspace,
)
from turnpike.control.caller import Caller
from turnpike.control.scope import platform_scope, tenant_scope
from turnpike.kernel import clock

OWNED: tuple[type[Model], ...] = (
    Tenant,
    Workspace,
    Member,
    Invite,
    ApiKey,
    AuditEvent,
    IdempotentAnswer,
    Mail,
    DataExport,
    ExportPart,
    TenantClosing,
    AuditAnchor,
    WebhookEndpoint,
    WebhookEvent,
    WebhookDelivery,
    WebhookAttempt,
    NoticePreference,
)


def _fill(tenant: Tenant) -> None:
    webhook = make_webhook(tenant)
    member = make_member(tenant)
    with platform_scope("tests"):
        WebhookAttempt.objects.create(
            tenant=tenant,
            delivery=webhook.deliveries.order_by("pk")[0],
            number=1,
            at=webhook.created_at,
            took_ms=1,
        )
        NoticePreference.objects.create(tenant=tenant, member=member)
    make_member(tenant)
    make_invite(tenant)
    make_key(tenant)
    with tenant_scope(tenant.pk):
        IdempotentAnswer.objects.create(
            tenant=tenant, actor="user_1", key="k", request_digest="0" * 64
        )
        export = DataExport.objects.create(tenant=tenant, requested_by=make_user())
        ExportPart.objects.create(tenant=tenant, export=export, place=0, data=b"x")
        TenantClosing.objects.create(tenant=tenant, closed_by="user_1", erase_at=clock.utc_now())
        AuditAnchor.objects.create(
            tenant=tenant, digest="", removed=1, removed_before=clock.utc_now()
        )


def _check_constraints_now() -> None:
    """Foreign keys wait for the commit, and tables with such checks cannot be altered."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def _tenant_of(row: Model) -> int:
    return row.pk if isinstance(row, Tenant) else row.tenant_id  # type: ignore[attr-defined]


def test_every_table_with_a_tenant_is_among_the_walled_ones(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity FROM pg_class c"
            " JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public'"
            " WHERE c.relkind = 'r' AND c.relname LIKE 'accounts\\_%' AND (c.relname ="
            " 'accounts_tenant' OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid"
            " AND a.attname = 'tenant_id'))"
        )
        found = dict(cursor.fetchall())

    assert found == {model._meta.db_table: True for model in OWNED}


def test_without_a_scope_there_are_no_rows(tenant: Tenant) -> None:
    _fill(tenant)

    assert {model.__name__: model._default_manager.count() for model in OWNED} == {
        model.__name__: 0 for model in OWNED
    }


def test_in_a_tenants_scope_there_are_its_rows_alone(tenant: Tenant, stranger: Tenant) -> None:
    _fill(tenant)
    _fill(stranger)

    with tenant_scope(tenant.pk):
        owners = {
            model.__name__: {_tenant_of(row) for row in model._default_manager.all()}
            for model in OWNED
        }

    assert owners == {model.__name__: {tenant.pk} for model in OWNED}


def test_a_row_for_another_tenant_is_refused(tenant: Tenant, stranger: Tenant) -> None:
    with (
        tenant_scope(tenant.pk),
        pytest.raises(DatabaseError, match="row-level security"),
        transaction.atomic(),
    ):
        Workspace.objects.create(tenant_id=stranger.pk, name="theirs")


def test_another_tenants_row_cannot_be_changed_or_taken(tenant: Tenant, stranger: Tenant) -> None:
    theirs = make_workspace(stranger)

    with tenant_scope(tenant.pk):
        changed = Workspace.objects.filter(pk=theirs.pk).update(name="mine")
        deleted, _ = Workspace.objects.filter(pk=theirs.pk).delete()

    assert (changed, deleted) == (0, 0)


def test_a_tenants_scope_inside_the_platforms_hides_the_others(
    tenant: Tenant, stranger: Tenant
) -> None:
    with platform_scope(REASON):
        before = Tenant.objects.count()
        with tenant_scope(tenant.pk):
            inside = Tenant.objects.count()
        after = Tenant.objects.count()

    assert (before, inside, after) == (2, 1, 2)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE accounts_auditevent SET actor = 'nobody'",
        "DELETE FROM accounts_auditevent",
        "TRUNCATE accounts_auditevent",
    ],
)
def test_the_audit_log_cannot_be_changed(tenant: Tenant, statement: str) -> None:
    with platform_scope(REASON):
        _check_constraints_now()
        before = list(AuditEvent.objects.values_list("pk", "actor"))
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            connection.cursor().execute(statement)
        after = list(AuditEvent.objects.values_list("pk", "actor"))

    assert before
    assert after == before


def test_an_untouched_chain_is_whole(tenant: Tenant, stranger: Tenant) -> None:
    _fill(tenant)

    with platform_scope(REASON):
        record_audit(
            actor="system", tenant=None, action="platform.settings_changed", target="platform"
        )
        record_audit(
            actor="system", tenant=None, action="platform.settings_changed", target="platform"
        )
        broken = [find_broken_event(tenant=number) for number in (tenant.pk, stranger.pk, None)]

    assert check_audit_chains_task() == 0
    assert broken == [None, None, None]


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE accounts_auditevent SET actor = 'nobody' WHERE id = %s",
        'UPDATE accounts_auditevent SET after = \'{"name": "Evil"}\' WHERE id = %s',
        "UPDATE accounts_auditevent SET created_at = created_at - interval '1 us' WHERE id = %s",
        "DELETE FROM accounts_auditevent WHERE id = %s",
    ],
)
def test_tampering_by_the_tables_owner_shows(tenant: Tenant, tampering: str) -> None:
    make_workspace(tenant)
    make_workspace(tenant)
    with platform_scope(REASON):
        chain = list(AuditEvent.objects.filter(tenant=tenant).order_by("pk"))
        _check_constraints_now()
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE accounts_auditevent DISABLE TRIGGER auditevent_rows_stay")
            cursor.execute(tampering, [chain[1].pk])
            cursor.execute("ALTER TABLE accounts_auditevent ENABLE TRIGGER auditevent_rows_stay")

        broken = find_broken_event(tenant=tenant.pk)

    assert check_audit_chains_task() == 1
    assert broken is not None
    assert broken.pk == (chain[2].pk if tampering.startswith("DELETE") else chain[1].pk)


def test_a_chain_that_forks_is_refused(tenant: Tenant) -> None:
    with platform_scope(REASON):
        first = AuditEvent.objects.filter(tenant=tenant).order_by("pk")[0]
        first.pk = None
        with pytest.raises(IntegrityError, match="chain_is_a_line"), transaction.atomic():
            first.save(force_insert=True)


def test_an_audit_row_names_who_what_and_from_where_and_masks_keys(tenant: Tenant) -> None:
    secret = make_key(tenant).secret
    caller = Caller(actor="user_x", tenant=tenant.pk, address="192.0.2.1", request_id="req_1")

    with platform_scope(REASON):
        record_audit(
            actor=caller,
            tenant=tenant.pk,
            action="key.updated",
            target="thing_1",
            before={"note": secret},
            after={"at": clock.utc_now(), "list": [secret]},
            reason=f"because {secret}",
        )
        event = AuditEvent.objects.order_by("-pk")[0]

    assert (event.actor, event.action, event.target) == ("user_x", "key.updated", "thing_1")
    assert (event.address, event.request_id) == ("192.0.2.1", "req_1")
    assert event.before == {"note": "tpk_live_***"}
    assert event.after["list"] == ["tpk_live_***"]
    assert event.reason == "because tpk_live_***"


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("daily_budget_nano", -1, "budgets_not_negative"),
        ("concurrency", -1, "concurrency"),
        ("scopes", [], "scopes_are_bounded"),
        ("ip_ranges", ["10.0.0.0/8"] * 33, "ip_ranges_are_bounded"),
        ("allowed_models", ["m"] * 65, "models_are_bounded"),
        ("digest", "x" * 64, "digest_is_hex"),
        ("kind", "other", "kind_is_known"),
        ("name", "", "has_a_name"),
        ("grace_ends_at", clock.utc_now() + timedelta(days=1), "grace_means_replaced"),
    ],
)
def test_the_database_refuses_a_bad_key(
    tenant: Tenant, column: str, value: object, rule: str
) -> None:
    key = make_key(tenant).key
    with (
        platform_scope(REASON),
        pytest.raises(IntegrityError, match=rule),
        transaction.atomic(),
    ):
        ApiKey.objects.filter(pk=key.pk).update(**{column: value})


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"status": "other"}, "status_is_known"),
        ({"policy_version": 0}, "policy_version_is_positive"),
        ({"monthly_budget_nano": -1}, "budgets_not_negative"),
        ({"name": ""}, "has_a_name"),
    ],
)
def test_the_database_refuses_a_bad_tenant(
    tenant: Tenant, changes: dict[str, object], rule: str
) -> None:
    with (
        platform_scope(REASON),
        pytest.raises(IntegrityError, match=rule),
        transaction.atomic(),
    ):
        Tenant.objects.filter(pk=tenant.pk).update(**changes)


def test_the_database_keeps_one_default_workspace_and_one_membership(tenant: Tenant) -> None:
    member = make_member(tenant)
    with platform_scope(REASON):
        with pytest.raises(IntegrityError, match="one_default"), transaction.atomic():
            Workspace.objects.create(tenant=tenant, name="second", is_default=True)
        with pytest.raises(IntegrityError, match="once_per_tenant"), transaction.atomic():
            Member.objects.create(tenant=tenant, user=member.user, role="viewer")
        with pytest.raises(IntegrityError, match="never_archived"), transaction.atomic():
            Workspace.objects.filter(is_default=True).update(archived_at=clock.utc_now())


def test_an_address_is_one_person_in_whatever_case(db: None) -> None:
    make_user("Alice@Example.com")

    assert User.objects.get_by_natural_key("ALICE@example.COM").email == "alice@example.com"
    with pytest.raises(IntegrityError), transaction.atomic():
        make_user("alice@example.com")
    with pytest.raises(IntegrityError, match="email_is_lower"), transaction.atomic():
        User.objects.update(email="Alice@example.com")
