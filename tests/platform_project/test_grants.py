"""What the application's role may do after migrations."""

import pytest
from django.db import connection

from turnpike.control.grants import grant, is_append_only

pytestmark = pytest.mark.django_db

ROLE = "turnpike_app"


@pytest.fixture
def role() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolname FROM pg_roles WHERE rolname = %s", [ROLE])
        if cursor.fetchone() is None:
            pytest.fail(f"The server of the tests has no role {ROLE}.")
    return ROLE


def rights(table: str, role: str) -> set[str]:
    names = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name FROM unnest(%s::text[]) AS name WHERE has_table_privilege(%s, %s, name)",
            [list(names), role, table],
        )
        return {name for (name,) in cursor.fetchall()}


def test_history_can_be_added_to_and_not_changed(role: str) -> None:
    grant(role)
    grant(role)

    assert rights("accounts_tenant", role) == {"SELECT", "INSERT", "UPDATE", "DELETE"}
    for table in ("billing_ledger_txn", "billing_ledger_entry", "accounts_auditevent"):
        assert rights(table, role) == {"SELECT", "INSERT"}, table
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE tablename ~ '^billing_usage_event'")
        names = [name for (name,) in cursor.fetchall()]
    assert len(names) > 1
    for table in names:
        assert rights(table, role) == {"SELECT", "INSERT"}, table


def test_a_partition_is_history_and_a_namesake_is_not() -> None:
    assert is_append_only("billing_usage_event_2026_11")
    assert not is_append_only("billing_usage_eventual")
