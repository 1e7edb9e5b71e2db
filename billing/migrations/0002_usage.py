"""Usage: events and attempts partitioned by the month of their id, rollups, counters, dead letters."""

import turnpike.kernel.clock
from django.db import migrations, models
from turnpike.control.scope import PLATFORM_SETTING, rls_sql

NUMBERS = """
  input_tokens bigint NOT NULL, output_tokens bigint NOT NULL,
  cache_write_5m_tokens bigint NOT NULL, cache_write_1h_tokens bigint NOT NULL,
  cache_read_tokens bigint NOT NULL, web_search_requests bigint NOT NULL,
  thinking_tokens bigint NOT NULL,
  input_nano bigint NOT NULL, output_nano bigint NOT NULL,
  cache_write_5m_nano bigint NOT NULL, cache_write_1h_nano bigint NOT NULL,
  cache_read_nano bigint NOT NULL, web_search_nano bigint NOT NULL,
  amount_nano bigint NOT NULL, waived_nano bigint NOT NULL
"""

TABLES = f"""
CREATE TABLE billing_usage_event (
  request_id uuid NOT NULL, revision smallint NOT NULL CHECK (revision >= 0),
  tenant_id bigint NOT NULL, workspace_id bigint NOT NULL, api_key_id bigint NOT NULL,
  member text, period_id bigint NOT NULL,
  status text NOT NULL, rank smallint NOT NULL CHECK (rank BETWEEN 0 AND 4),
  is_late boolean NOT NULL,
  model text NOT NULL, requested_model text NOT NULL, upstream_model text NOT NULL,
  tier text NOT NULL, context_window text NOT NULL,
  is_batch boolean NOT NULL, is_stream boolean NOT NULL,
  started_at timestamptz NOT NULL, finished_at timestamptz NOT NULL CHECK (finished_at >= started_at),
  ttft_us bigint, http_status smallint, stop_reason text, error_type text,
  output_chars bigint NOT NULL,
  price_set_id bigint NOT NULL, discount_bp integer NOT NULL, hold_micro bigint NOT NULL,
  currency varchar(3) NOT NULL, components jsonb NOT NULL,
  posting_id uuid NOT NULL, fingerprint bytea NOT NULL, raw_usage jsonb NOT NULL,
  ingested_at timestamptz NOT NULL DEFAULT now(), {NUMBERS},
  PRIMARY KEY (request_id, revision),
  CONSTRAINT usage_event_parts CHECK (amount_nano = input_nano + output_nano + cache_write_5m_nano
    + cache_write_1h_nano + cache_read_nano + web_search_nano)
) PARTITION BY RANGE (request_id);
CREATE INDEX usage_event_of_tenant ON billing_usage_event (tenant_id, request_id DESC);
CREATE INDEX usage_event_of_period ON billing_usage_event (period_id);
CREATE INDEX usage_event_of_posting ON billing_usage_event (posting_id);

CREATE TABLE billing_upstream_attempt (
  request_id uuid NOT NULL, attempt smallint NOT NULL, tenant_id bigint NOT NULL,
  upstream_id bigint NOT NULL, credential_id bigint, upstream_request_id text,
  outcome text NOT NULL, is_billed boolean NOT NULL, usage jsonb, cost_nano bigint,
  started_at timestamptz NOT NULL,
  PRIMARY KEY (request_id, attempt)
) PARTITION BY RANGE (request_id);
"""

FLOOR = """
CREATE FUNCTION billing_uuid7_floor(at timestamp) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
  SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;
"""

# Runs as the owner of the tables, so that the application's role may call it. A partition is built
# beside the table and attached, which does not stop writers. Nobody reads a partition directly, so
# there it stands under row level security without any policy.
PARTITIONS = """
CREATE FUNCTION billing_make_partitions(first_month date, months_ahead integer) RETURNS integer
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

# A dead letter belongs to nobody until a person has read it.
PLATFORM_ONLY = f"""
ALTER TABLE billing_dead_letter ENABLE ROW LEVEL SECURITY;
ALTER TABLE billing_dead_letter FORCE ROW LEVEL SECURITY;
CREATE POLICY platform_rows ON billing_dead_letter
  USING ((SELECT current_setting('{PLATFORM_SETTING}', true)) = 'on');
"""

TENANT_OWNED = (
    "billing_usage_event",
    "billing_usage_event_default",
    "billing_upstream_attempt",
    "billing_upstream_attempt_default",
    "billing_usage_rollup",
    "billing_spend_counter",
)

# Rows of the default partitions are strays; reconciliation watches that there are none.
STRAYS = """
CREATE TABLE billing_usage_event_default PARTITION OF billing_usage_event DEFAULT;
CREATE TABLE billing_upstream_attempt_default PARTITION OF billing_upstream_attempt DEFAULT;
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON billing_usage_event
  FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON billing_usage_event
  FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON billing_usage_event_default
  FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change();
"""

GUARDS = "\n".join(
    [
        STRAYS,
        FLOOR,
        PARTITIONS,
        *map(rls_sql, TENANT_OWNED),
        PLATFORM_ONLY,
        "SELECT billing_make_partitions((now() AT TIME ZONE 'UTC')::date, 3);",
    ]
)


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0001_initial'),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            # Django cannot make partitioned tables.
            database_operations=[migrations.RunSQL(TABLES, migrations.RunSQL.noop)],
            state_operations=[
                migrations.CreateModel(
                    name='UsageEvent',
                    fields=[
                        ('input_tokens', models.BigIntegerField(default=0)),
                        ('output_tokens', models.BigIntegerField(default=0)),
                        ('cache_write_5m_tokens', models.BigIntegerField(default=0)),
                        ('cache_write_1h_tokens', models.BigIntegerField(default=0)),
                        ('cache_read_tokens', models.BigIntegerField(default=0)),
                        ('web_search_requests', models.BigIntegerField(default=0)),
                        ('thinking_tokens', models.BigIntegerField(default=0)),
                        ('input_nano', models.BigIntegerField(default=0)),
                        ('output_nano', models.BigIntegerField(default=0)),
                        ('cache_write_5m_nano', models.BigIntegerField(default=0)),
                        ('cache_write_1h_nano', models.BigIntegerField(default=0)),
                        ('cache_read_nano', models.BigIntegerField(default=0)),
                        ('web_search_nano', models.BigIntegerField(default=0)),
                        ('amount_nano', models.BigIntegerField(default=0)),
                        ('waived_nano', models.BigIntegerField(default=0)),
                        ('pk', models.CompositePrimaryKey('request_id', 'revision', blank=True, editable=False, primary_key=True, serialize=False)),
                        ('request_id', models.UUIDField()),
                        ('revision', models.SmallIntegerField(default=0)),
                        ('tenant_id', models.BigIntegerField()),
                        ('workspace_id', models.BigIntegerField()),
                        ('api_key_id', models.BigIntegerField()),
                        ('member', models.TextField(null=True)),
                        ('period_id', models.BigIntegerField()),
                        ('status', models.TextField()),
                        ('rank', models.SmallIntegerField()),
                        ('is_late', models.BooleanField(default=False)),
                        ('model', models.TextField()),
                        ('requested_model', models.TextField(default='')),
                        ('upstream_model', models.TextField(default='')),
                        ('tier', models.TextField()),
                        ('context_window', models.TextField()),
                        ('is_batch', models.BooleanField(default=False)),
                        ('is_stream', models.BooleanField(default=False)),
                        ('started_at', models.DateTimeField()),
                        ('finished_at', models.DateTimeField()),
                        ('ttft_us', models.BigIntegerField(null=True)),
                        ('http_status', models.SmallIntegerField(null=True)),
                        ('stop_reason', models.TextField(null=True)),
                        ('error_type', models.TextField(null=True)),
                        ('output_chars', models.BigIntegerField(default=0)),
                        ('price_set_id', models.BigIntegerField()),
                        ('discount_bp', models.IntegerField(default=0)),
                        ('hold_micro', models.BigIntegerField()),
                        ('currency', models.CharField(max_length=3)),
                        ('components', models.JSONField(default=list)),
                        ('posting_id', models.UUIDField()),
                        ('fingerprint', models.BinaryField()),
                        ('raw_usage', models.JSONField(default=dict)),
                        ('ingested_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now)),
                    ],
                    options={
                        'db_table': 'billing_usage_event',
                    },
                ),
                migrations.CreateModel(
                    name='UpstreamAttempt',
                    fields=[
                        ('pk', models.CompositePrimaryKey('request_id', 'attempt', blank=True, editable=False, primary_key=True, serialize=False)),
                        ('request_id', models.UUIDField()),
                        ('attempt', models.SmallIntegerField()),
                        ('tenant_id', models.BigIntegerField()),
                        ('upstream_id', models.BigIntegerField()),
                        ('credential_id', models.BigIntegerField(null=True)),
                        ('upstream_request_id', models.TextField(null=True)),
                        ('outcome', models.TextField()),
                        ('is_billed', models.BooleanField()),
                        ('usage', models.JSONField(null=True)),
                        ('cost_nano', models.BigIntegerField(null=True)),
                        ('started_at', models.DateTimeField()),
                    ],
                    options={
                        'db_table': 'billing_upstream_attempt',
                    },
                ),
            ],
        ),
        migrations.CreateModel(
            name='SpendCounter',
            fields=[
                ('pk', models.CompositePrimaryKey('tenant_id', 'period', 'scope', blank=True, editable=False, primary_key=True, serialize=False)),
                ('tenant_id', models.BigIntegerField()),
                ('scope', models.CharField(max_length=21)),
                ('period', models.CharField(max_length=10)),
                ('spent_nano', models.BigIntegerField(default=0)),
            ],
            options={
                'db_table': 'billing_spend_counter',
            },
        ),
        migrations.CreateModel(
            name='UsageRollup',
            fields=[
                ('input_tokens', models.BigIntegerField(default=0)),
                ('output_tokens', models.BigIntegerField(default=0)),
                ('cache_write_5m_tokens', models.BigIntegerField(default=0)),
                ('cache_write_1h_tokens', models.BigIntegerField(default=0)),
                ('cache_read_tokens', models.BigIntegerField(default=0)),
                ('web_search_requests', models.BigIntegerField(default=0)),
                ('thinking_tokens', models.BigIntegerField(default=0)),
                ('input_nano', models.BigIntegerField(default=0)),
                ('output_nano', models.BigIntegerField(default=0)),
                ('cache_write_5m_nano', models.BigIntegerField(default=0)),
                ('cache_write_1h_nano', models.BigIntegerField(default=0)),
                ('cache_read_nano', models.BigIntegerField(default=0)),
                ('web_search_nano', models.BigIntegerField(default=0)),
                ('amount_nano', models.BigIntegerField(default=0)),
                ('waived_nano', models.BigIntegerField(default=0)),
                ('pk', models.CompositePrimaryKey('tenant_id', 'bucket_at', 'workspace_id', 'api_key_id', 'model', 'tier', 'context_window', blank=True, editable=False, primary_key=True, serialize=False)),
                ('tenant_id', models.BigIntegerField()),
                ('bucket_at', models.DateTimeField()),
                ('workspace_id', models.BigIntegerField()),
                ('api_key_id', models.BigIntegerField()),
                ('model', models.TextField()),
                ('tier', models.TextField()),
                ('context_window', models.TextField()),
                ('requests', models.BigIntegerField(default=0)),
            ],
            options={
                'db_table': 'billing_usage_rollup',
            },
        ),
        migrations.CreateModel(
            name='DeadLetter',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('stream', models.TextField()),
                ('stream_id', models.TextField()),
                ('fingerprint', models.BinaryField(unique=True)),
                ('body', models.BinaryField()),
                ('request_id', models.UUIDField(db_index=True, null=True)),
                ('error', models.TextField()),
                ('first_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now)),
                ('tries', models.IntegerField(default=1)),
                ('resolved_at', models.DateTimeField(null=True)),
                ('resolution', models.CharField(blank=True, choices=[('posted', 'Posted'), ('discarded', 'Discarded')], default='', max_length=10)),
            ],
            options={
                'db_table': 'billing_dead_letter',
                'indexes': [models.Index(condition=models.Q(('resolved_at', None)), fields=['id'], name='dead_letter_open')],
            },
        ),
        migrations.RunSQL(GUARDS, migrations.RunSQL.noop),
    ]
