"""Row level security on what tenants own, and an audit log that only grows."""

from django.db import migrations

from turnpike.control.scope import rls_sql

TABLES = {
    "accounts_tenant": "id",
    "accounts_workspace": "tenant_id",
    "accounts_member": "tenant_id",
    "accounts_invite": "tenant_id",
    "accounts_apikey": "tenant_id",
    "accounts_auditevent": "tenant_id",
    "accounts_idempotentanswer": "tenant_id",
}

APPEND_ONLY = """
CREATE FUNCTION accounts_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER auditevent_rows_stay BEFORE UPDATE OR DELETE ON accounts_auditevent
    FOR EACH ROW EXECUTE FUNCTION accounts_refuse_change();
CREATE TRIGGER auditevent_table_stays BEFORE TRUNCATE ON accounts_auditevent
    FOR EACH STATEMENT EXECUTE FUNCTION accounts_refuse_change();
"""
APPEND_ONLY_UNDO = """
DROP TRIGGER auditevent_table_stays ON accounts_auditevent;
DROP TRIGGER auditevent_rows_stay ON accounts_auditevent;
DROP FUNCTION accounts_refuse_change();
"""


def _undo(table: str) -> str:
    return (
        f"DROP POLICY tenant_rows ON {table};"
        f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY;"
        f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY;"
    )


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial")]

    operations = [
        *(
            migrations.RunSQL(rls_sql(table, column=column), _undo(table))
            for table, column in TABLES.items()
        ),
        migrations.RunSQL(APPEND_ONLY, APPEND_ONLY_UNDO),
    ]
