"""Announcements, health by day, reconciliation runs; and months of events that have had their time.

A month is dropped by a function of the owner's, which first keeps what its events had come to by
posting: the ledger's proof goes on adding up. Two whole months always stay.
"""

import turnpike.kernel.clock
import turnpike.kernel.ids
from django.db import migrations, models


FORGET = """
CREATE FUNCTION billing_forget_month(of_month date) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '10s' AS $$
DECLARE first timestamp; lower_id uuid; upper_id uuid; dropped bigint; parent text; part text;
BEGIN
  IF current_setting('tp.platform', true) IS DISTINCT FROM 'on' THEN
    RAISE EXCEPTION 'only in the platform''s scope' USING ERRCODE = 'insufficient_privilege';
  END IF;
  first := date_trunc('month', of_month::timestamp);
  IF first + interval '3 months' > date_trunc('month', now() AT TIME ZONE 'UTC') THEN
    RAISE EXCEPTION 'this month''s events stay' USING ERRCODE = 'restrict_violation';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('billing_make_partitions'));
  IF to_regclass('billing_usage_event_' || to_char(first, 'YYYYMM')) IS NULL THEN
    RETURN 0;
  END IF;
  LOCK TABLE billing_usage_event IN SHARE ROW EXCLUSIVE MODE;
  lower_id := billing_uuid7_floor(first);
  upper_id := billing_uuid7_floor(first + interval '1 month');
  INSERT INTO billing_forgotten_posting AS kept (posting_id, tenant_id, amount_nano)
    SELECT posting_id, tenant_id, sum(amount_nano) FROM billing_usage_event
    WHERE request_id >= lower_id AND request_id < upper_id GROUP BY posting_id, tenant_id
  ON CONFLICT (posting_id, tenant_id) DO UPDATE
    SET amount_nano = kept.amount_nano + excluded.amount_nano;
  SELECT count(*) INTO dropped FROM billing_usage_event
    WHERE request_id >= lower_id AND request_id < upper_id;
  INSERT INTO billing_forgotten_month AS known (month, events, dropped_at)
    VALUES (first::date, dropped, now())
  ON CONFLICT (month) DO UPDATE SET events = known.events + excluded.events, dropped_at = now();
  FOREACH parent IN ARRAY ARRAY['billing_usage_event', 'billing_upstream_attempt'] LOOP
    part := parent || '_' || to_char(first, 'YYYYMM');
    IF to_regclass(part) IS NOT NULL THEN
      EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent, part);
      EXECUTE format('DROP TABLE %I', part);
    END IF;
  END LOOP;
  RETURN dropped;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0008_evidence")]

    operations = [
        migrations.CreateModel(
            name='ForgottenMonth',
            fields=[
                ('month', models.DateField(primary_key=True, serialize=False)),
                ('events', models.BigIntegerField()),
                ('dropped_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now)),
            ],
            options={
                'db_table': 'billing_forgotten_month',
            },
        ),
        migrations.CreateModel(
            name='ForgottenPosting',
            fields=[
                ('pk', models.CompositePrimaryKey('posting_id', 'tenant_id', blank=True, editable=False, primary_key=True, serialize=False)),
                ('posting_id', models.UUIDField()),
                ('tenant_id', models.BigIntegerField()),
                ('amount_nano', models.BigIntegerField()),
            ],
            options={
                'db_table': 'billing_forgotten_posting',
            },
        ),
        migrations.CreateModel(
            name='ReconciliationRun',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('differences', models.IntegerField()),
                ('findings', models.JSONField()),
                ('took_ms', models.BigIntegerField()),
                ('actor', models.CharField(max_length=64)),
            ],
            options={
                'db_table': 'billing_reconciliation_run',
            },
        ),
        migrations.CreateModel(
            name='Announcement',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('uuid', models.UUIDField(default=turnpike.kernel.ids.uuid7, editable=False, unique=True)),
                ('kind', models.CharField(choices=[('notice', 'Notice'), ('maintenance', 'Maintenance'), ('incident', 'Incident')], max_length=11)),
                ('severity', models.CharField(choices=[('info', 'Info'), ('warn', 'Warn'), ('danger', 'Danger')], max_length=6)),
                ('component', models.CharField(blank=True, max_length=40)),
                ('texts', models.JSONField()),
                ('starts_at', models.DateTimeField()),
                ('ends_at', models.DateTimeField(blank=True, null=True)),
                ('withdrawn_at', models.DateTimeField(blank=True, null=True)),
                ('actor', models.CharField(max_length=64)),
            ],
            options={
                'indexes': [models.Index(fields=['-starts_at'], name='announcement_by_start')],
                'constraints': [models.CheckConstraint(condition=models.Q(('kind__in', ['notice', 'maintenance', 'incident'])), name='announcement_kind_is_known'), models.CheckConstraint(condition=models.Q(('severity__in', ['info', 'warn', 'danger'])), name='announcement_severity_is_known'), models.CheckConstraint(condition=models.Q(('ends_at__isnull', True), ('ends_at__gt', models.F('starts_at')), _connector='OR'), name='announcement_ends_after_it_starts')],
            },
        ),
        migrations.CreateModel(
            name='ComponentDay',
            fields=[
                ('pk', models.CompositePrimaryKey('component', 'day', blank=True, editable=False, primary_key=True, serialize=False)),
                ('component', models.CharField(max_length=40)),
                ('day', models.DateField()),
                ('checks', models.IntegerField(default=0)),
                ('failures', models.IntegerField(default=0)),
                ('checked_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now)),
                ('is_up', models.BooleanField(default=True)),
            ],
            options={
                'db_table': 'billing_component_day',
                'constraints': [models.CheckConstraint(condition=models.Q(('checks__gte', models.F('failures')), ('failures__gte', 0)), name='component_day_counts_add_up')],
            },
        ),
        migrations.RunSQL(FORGET, "DROP FUNCTION billing_forget_month(date);"),
    ]
