"""Mail, exports, closing, the platform's settings; and an audit log that can be cut at its old end.

Cutting is a function of the owner's: the application's role has no right to delete. What is younger
than a week never goes, and the digest of the last row that went is kept as the chain's anchor.
"""

import django.contrib.postgres.fields
import django.db.models.deletion
import turnpike.kernel.clock
import turnpike.kernel.ids
from django.conf import settings
from django.db import migrations, models


from turnpike.control.scope import rls_sql

TABLES = (
    "accounts_mail",
    "accounts_dataexport",
    "accounts_exportpart",
    "accounts_tenantclosing",
    "accounts_auditanchor",
)

CUT = """
CREATE OR REPLACE FUNCTION accounts_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('tp.cuts_audit', true) = 'on' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

CREATE FUNCTION accounts_cut_audit(of_tenant bigint, until timestamptz, rows_max integer)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE last_id bigint; last_digest varchar; gone integer;
BEGIN
    IF until > now() - interval '7 days' THEN
        RAISE EXCEPTION 'audit rows stay for a week' USING ERRCODE = 'restrict_violation';
    END IF;
    -- Only the old end of the chain: nothing behind the first row that stays.
    SELECT max(old.id) INTO last_id FROM (
        SELECT id FROM accounts_auditevent
        WHERE (tenant_id = of_tenant OR (of_tenant IS NULL AND tenant_id IS NULL))
          AND created_at < until
          AND id < coalesce((
            SELECT min(id) FROM accounts_auditevent
            WHERE (tenant_id = of_tenant OR (of_tenant IS NULL AND tenant_id IS NULL))
              AND created_at >= until), 9223372036854775807)
        ORDER BY id LIMIT rows_max
    ) AS old;
    IF last_id IS NULL THEN
        RETURN 0;
    END IF;
    SELECT digest INTO last_digest FROM accounts_auditevent WHERE id = last_id;
    PERFORM set_config('tp.cuts_audit', 'on', true);
    DELETE FROM accounts_auditevent
    WHERE (tenant_id = of_tenant OR (of_tenant IS NULL AND tenant_id IS NULL)) AND id <= last_id;
    GET DIAGNOSTICS gone = ROW_COUNT;
    PERFORM set_config('tp.cuts_audit', '', true);
    INSERT INTO accounts_auditanchor AS known (tenant_id, digest, removed, removed_before)
    VALUES (of_tenant, last_digest, gone, until)
    ON CONFLICT (tenant_id) DO UPDATE SET digest = excluded.digest,
        removed = known.removed + excluded.removed, removed_before = excluded.removed_before;
    RETURN gone;
END $$;
"""
UNCUT = """
DROP FUNCTION accounts_cut_audit(bigint, timestamptz, integer);
CREATE OR REPLACE FUNCTION accounts_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("accounts", "0004_webhooks")]

    operations = [
        migrations.CreateModel(
            name='PlatformSetting',
            fields=[
                ('name', models.CharField(max_length=64, primary_key=True, serialize=False)),
                ('value', models.JSONField()),
                ('changed_at', models.DateTimeField()),
                ('changed_by', models.CharField(max_length=64)),
            ],
        ),
        migrations.CreateModel(
            name='RetentionRun',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('removed', models.JSONField(default=dict)),
                ('failed', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=40), default=list, size=None)),
                ('took_ms', models.BigIntegerField(default=0)),
            ],
            options={
                'abstract': False,
            },
        ),
        migrations.CreateModel(
            name='DataExport',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('uuid', models.UUIDField(default=turnpike.kernel.ids.uuid7, editable=False, unique=True)),
                ('state', models.CharField(choices=[('pending', 'Pending'), ('ready', 'Ready'), ('failed', 'Failed'), ('expired', 'Expired')], default='pending', max_length=7)),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('expires_at', models.DateTimeField(blank=True, null=True)),
                ('size_bytes', models.BigIntegerField(default=0)),
                ('rows', models.BigIntegerField(default=0)),
                ('requested_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='exports', to='accounts.tenant')),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('state__in', ['pending', 'ready', 'failed', 'expired'])), name='dataexport_state_is_known'), models.UniqueConstraint(condition=models.Q(('state', 'pending')), fields=('tenant',), name='dataexport_one_at_a_time')],
            },
        ),
        migrations.CreateModel(
            name='ExportPart',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('place', models.IntegerField()),
                ('data', models.BinaryField()),
                ('export', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='parts', to='accounts.dataexport')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.tenant')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('export', 'place'), name='exportpart_once')],
            },
        ),
        migrations.CreateModel(
            name='Mail',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('key', models.CharField(max_length=200, unique=True)),
                ('kind', models.CharField(max_length=40)),
                ('recipient', models.EmailField(max_length=254)),
                ('language', models.CharField(max_length=10)),
                ('subject', models.CharField(max_length=200)),
                ('sealed', models.TextField(blank=True)),
                ('state', models.CharField(choices=[('waiting', 'Waiting'), ('sent', 'Sent'), ('failed', 'Failed')], default='waiting', max_length=7)),
                ('tries', models.SmallIntegerField(default=0)),
                ('next_try_at', models.DateTimeField()),
                ('sent_at', models.DateTimeField(blank=True, null=True)),
                ('error', models.CharField(blank=True, max_length=300)),
                ('tenant', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.tenant')),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('state__in', ['waiting', 'sent', 'failed'])), name='mail_state_is_known'), models.CheckConstraint(condition=models.Q(('state', 'waiting'), ('sealed', ''), _connector='OR'), name='mail_says_nothing_once_it_ended')],
                'indexes': [models.Index(condition=models.Q(('state', 'waiting')), fields=['next_try_at'], name='mail_to_send'), models.Index(fields=['recipient', 'created_at'], name='mail_by_recipient')],
            },
        ),
        migrations.CreateModel(
            name='TenantClosing',
            fields=[
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('tenant', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='closing', serialize=False, to='accounts.tenant')),
                ('closed_by', models.CharField(max_length=64)),
                ('reason', models.CharField(blank=True, max_length=500)),
                ('erase_at', models.DateTimeField()),
                ('erased_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'indexes': [models.Index(condition=models.Q(('erased_at__isnull', True)), fields=['erase_at'], name='closing_to_erase')],
            },
        ),
        migrations.CreateModel(
            name='AuditAnchor',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('digest', models.CharField(max_length=64)),
                ('removed', models.BigIntegerField()),
                ('removed_before', models.DateTimeField()),
                ('tenant', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.tenant')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('tenant',), name='auditanchor_once', nulls_distinct=False)],
            },
        ),
        *(
            migrations.RunSQL(rls_sql(table), migrations.RunSQL.noop)
            for table in TABLES
        ),
        migrations.RunSQL(CUT, UNCUT),
    ]
