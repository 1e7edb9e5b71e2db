"""Partitions of events and attempts open to the platform's scope, as a backup reads each by itself.

They stood under row level security without any policy, so that a dump by the tables' owner would
have left them out without a word.
"""

from django.db import migrations

from turnpike.control.scope import PLATFORM_SETTING

POLICY = (
    "CREATE POLICY platform_rows ON %I USING"
    f" ((SELECT current_setting(''{PLATFORM_SETTING}'', true)) = ''on'')"
)

PARTITIONS = f"""
CREATE OR REPLACE FUNCTION billing_make_partitions(first_month date, months_ahead integer)
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '10s' AS $$
DECLARE parent text; month timestamp; part text; lower_id uuid; upper_id uuid; made integer := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('billing_make_partitions'));
  FOREACH parent IN ARRAY ARRAY['billing_usage_event', 'billing_upstream_attempt'] LOOP
    FOR ahead IN 0..months_ahead LOOP
      month := date_trunc('month', first_month::timestamp) + make_interval(months => ahead);
      part := parent || '_' || to_char(month, 'YYYYMM');
      CONTINUE WHEN to_regclass(part) IS NOT NULL;
      lower_id := billing_uuid7_floor(month);
      upper_id := billing_uuid7_floor(month + interval '1 month');
      EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', part, parent);
      EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', part);
      EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', part);
      EXECUTE format('{POLICY}', part);
      IF parent = 'billing_usage_event' THEN
        EXECUTE format('CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON %I'
          ' FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change()', part);
      END IF;
      EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        parent, part, lower_id, upper_id);
      made := made + 1;
    END LOOP;
  END LOOP;
  RETURN made;
END $$;
"""

EXISTING = f"""
DO $$
DECLARE part text;
BEGIN
  FOR part IN
    SELECT child.relname FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
    WHERE inhparent IN ('billing_usage_event'::regclass, 'billing_upstream_attempt'::regclass)
      AND NOT EXISTS (SELECT 1 FROM pg_policy WHERE polrelid = child.oid)
  LOOP
    EXECUTE format('{POLICY}', part);
  END LOOP;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0007_alerts")]

    operations = [
        migrations.RunSQL([PARTITIONS, EXISTING], reverse_sql=migrations.RunSQL.noop),
    ]
