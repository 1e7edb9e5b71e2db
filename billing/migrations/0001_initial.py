"""Everything of billing but usage: tables, and the triggers and policies that guard them."""

import django.contrib.postgres.constraints
import django.contrib.postgres.fields.ranges
import django.db.models.deletion
import turnpike.kernel.clock
import turnpike.kernel.ids
from django.db import migrations, models
from turnpike.control.scope import rls_sql


APPEND_ONLY = ("billing_ledger_txn", "billing_ledger_entry", "billing_price")
TENANT_OWNED = (
    "billing_wallet",
    "billing_credit_grant",
    "billing_subscription",
    "billing_period",
    # Rows of the platform's own have no tenant; no tenant sees them.
    "billing_ledger_account",
    "billing_ledger_txn",
    "billing_ledger_entry",
)

# Deferred checks run at commit, when the scope that posted has ended; so they open one themselves.
GUARDS = """
CREATE FUNCTION billing_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = '23001';
END $$;

ALTER TABLE billing_ledger_txn ALTER COLUMN posted_at SET DEFAULT now();
ALTER TABLE billing_ledger_txn ADD COLUMN xact xid8 NOT NULL DEFAULT pg_current_xact_id();
ALTER TABLE billing_price_set ADD COLUMN xact xid8 NOT NULL DEFAULT pg_current_xact_id();

CREATE FUNCTION billing_stamp_xact() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.xact := pg_current_xact_id();
  RETURN NEW;
END $$;
CREATE TRIGGER stamp_xact BEFORE INSERT ON billing_ledger_txn
  FOR EACH ROW EXECUTE FUNCTION billing_stamp_xact();
CREATE TRIGGER stamp_xact BEFORE INSERT ON billing_price_set
  FOR EACH ROW EXECUTE FUNCTION billing_stamp_xact();

CREATE FUNCTION billing_apply_entry() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  is_ours boolean;
BEGIN
  -- xact names the transaction that made the row; the age rules out a number met again after a restore.
  SELECT xact = pg_current_xact_id() AND age(xmin) <= 0 INTO is_ours
    FROM billing_ledger_txn WHERE id = NEW.txn_id;
  IF is_ours IS DISTINCT FROM true THEN
    RAISE EXCEPTION 'ledger_txn % is not of this transaction', NEW.txn_id USING ERRCODE = '23001';
  END IF;
  UPDATE billing_ledger_account
     SET debits = debits + CASE WHEN NEW.side = 1 THEN NEW.amount ELSE 0 END,
         credits = credits + CASE WHEN NEW.side = -1 THEN NEW.amount ELSE 0 END,
         version = version + 1
   WHERE id = NEW.account_id
  RETURNING version, normal * (debits - credits), tenant_id
       INTO NEW.account_version, NEW.balance_after, NEW.tenant_id;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'ledger_account % does not exist', NEW.account_id USING ERRCODE = '23503';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER apply BEFORE INSERT ON billing_ledger_entry
  FOR EACH ROW EXECUTE FUNCTION billing_apply_entry();

CREATE FUNCTION billing_guard_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- A depth of 1 is a statement of ours; the entries' trigger updates at 2.
  IF pg_trigger_depth() < 2 AND (OLD.debits, OLD.credits, OLD.version) IS DISTINCT FROM
     (NEW.debits, NEW.credits, NEW.version) THEN
    RAISE EXCEPTION 'ledger_account %: sums move with entries alone', OLD.id USING ERRCODE = '23001';
  END IF;
  IF (OLD.tenant_id, OLD.kind, OLD.ref, OLD.currency, OLD.normal) IS DISTINCT FROM
     (NEW.tenant_id, NEW.kind, NEW.ref, NEW.currency, NEW.normal) THEN
    RAISE EXCEPTION 'ledger_account %: its identity never changes', OLD.id USING ERRCODE = '23001';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE UPDATE ON billing_ledger_account
  FOR EACH ROW EXECUTE FUNCTION billing_guard_account();

CREATE FUNCTION billing_empty_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.debits, NEW.credits, NEW.version) IS DISTINCT FROM (0::bigint, 0::bigint, 0::bigint) THEN
    RAISE EXCEPTION 'a ledger_account begins empty' USING ERRCODE = '23001';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER begins_empty BEFORE INSERT ON billing_ledger_account
  FOR EACH ROW EXECUTE FUNCTION billing_empty_account();

CREATE FUNCTION billing_check_balance(checked bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  lines int; total numeric; foreign_lines int;
  scope text := coalesce(current_setting('tp.platform', true), '');
BEGIN
  PERFORM set_config('tp.platform', 'on', true);
  SELECT count(*), sum(e.side::numeric * e.amount), sum((a.currency <> t.currency)::int)
    INTO lines, total, foreign_lines
    FROM billing_ledger_txn t
    JOIN billing_ledger_entry e ON e.txn_id = t.id
    JOIN billing_ledger_account a ON a.id = e.account_id
   WHERE t.id = checked;
  PERFORM set_config('tp.platform', scope, true);
  IF lines < 2 OR total <> 0 OR foreign_lines <> 0 THEN
    RAISE EXCEPTION 'ledger_txn % is not balanced', checked USING ERRCODE = '23514';
  END IF;
END $$;

CREATE FUNCTION billing_txn_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM billing_check_balance(NEW.id);
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER balanced AFTER INSERT ON billing_ledger_txn
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_txn_balanced();

CREATE FUNCTION billing_entry_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM billing_check_balance(NEW.txn_id);
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER balanced AFTER INSERT ON billing_ledger_entry
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_entry_balanced();

CREATE FUNCTION billing_guard_price() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  is_ours boolean;
BEGIN
  SELECT xact = pg_current_xact_id() AND age(xmin) <= 0 INTO is_ours
    FROM billing_price_set WHERE id = NEW.price_set_id;
  IF is_ours IS DISTINCT FROM true THEN
    RAISE EXCEPTION 'price_set % is complete', NEW.price_set_id USING ERRCODE = '23001';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE INSERT ON billing_price
  FOR EACH ROW EXECUTE FUNCTION billing_guard_price();

-- A set may only end sooner, and not in the past; one that has not begun may be withdrawn (empty).
CREATE FUNCTION billing_guard_price_set() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  ends_sooner boolean; is_withdrawn boolean;
BEGIN
  ends_sooner := NEW.effective <@ OLD.effective
    AND lower(NEW.effective) IS NOT DISTINCT FROM lower(OLD.effective)
    AND upper(NEW.effective) >= now();
  is_withdrawn := isempty(NEW.effective) AND lower(OLD.effective) >= now();
  IF NEW.id <> OLD.id OR NEW.book_id <> OLD.book_id OR NEW.xact <> OLD.xact
     OR NOT coalesce(ends_sooner OR is_withdrawn, false) THEN
    RAISE EXCEPTION 'price_set % never changes, it only ends', OLD.id USING ERRCODE = '23001';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE UPDATE ON billing_price_set
  FOR EACH ROW EXECUTE FUNCTION billing_guard_price_set();
CREATE TRIGGER refuse_delete BEFORE DELETE ON billing_price_set
  FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();

CREATE FUNCTION billing_guard_period() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.state = 'closed' THEN
    RAISE EXCEPTION 'billing_period % is closed', OLD.id USING ERRCODE = '23001';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE UPDATE ON billing_period
  FOR EACH ROW EXECUTE FUNCTION billing_guard_period();
"""


def _append_only(table):
    return (
        f"CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON {table}"
        " FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();"
        f"CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON {table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change();"
    )


SQL = "\n".join(
    [
        GUARDS,
        *map(_append_only, APPEND_ONLY),
        *map(rls_sql, TENANT_OWNED),
    ]
)


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('accounts', '__first__'),
    ]

    operations = [
        migrations.CreateModel(
            name='PriceBook',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('name', models.CharField(max_length=100, unique=True)),
                ('currency', models.CharField(default='USD', max_length=3)),
            ],
            options={
                'db_table': 'billing_price_book',
            },
        ),
        migrations.CreateModel(
            name='Tier',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('requests_per_minute', models.PositiveIntegerField(blank=True, null=True)),
                ('tokens_per_minute', models.PositiveIntegerField(blank=True, null=True)),
                ('input_tokens_per_minute', models.PositiveIntegerField(blank=True, null=True)),
                ('output_tokens_per_minute', models.PositiveIntegerField(blank=True, null=True)),
                ('concurrency', models.PositiveIntegerField(blank=True, null=True)),
                ('burst_seconds', models.PositiveIntegerField(blank=True, null=True)),
                ('code', models.SlugField(unique=True)),
                ('name', models.CharField(max_length=100)),
                ('output_reserve_max', models.PositiveIntegerField(blank=True, default=4096, null=True)),
                ('count_tokens_per_minute', models.PositiveIntegerField(default=2000)),
                ('denied_betas', models.JSONField(blank=True, default=list)),
                ('denied_models', models.JSONField(blank=True, default=list)),
            ],
            options={
                'db_table': 'billing_tier',
            },
        ),
        migrations.CreateModel(
            name='CatalogModel',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('model', models.CharField(max_length=200, unique=True)),
                ('display_name', models.CharField(max_length=200)),
                ('line', models.CharField(blank=True, max_length=50, null=True)),
                ('limit_group', models.CharField(blank=True, default='', max_length=100)),
                ('released_at', models.DateTimeField()),
                ('lifecycle', models.CharField(choices=[('active', 'Active'), ('deprecated', 'Deprecated'), ('retired', 'Retired')], max_length=20)),
                ('deprecated_at', models.DateTimeField(blank=True, null=True)),
                ('retires_at', models.DateTimeField(blank=True, null=True)),
                ('max_input_tokens', models.PositiveIntegerField(blank=True, null=True)),
                ('max_tokens', models.PositiveIntegerField(blank=True, null=True)),
                ('capabilities', models.JSONField(blank=True, null=True)),
                ('successor', models.CharField(blank=True, default='', max_length=200)),
                ('is_successor_allowed', models.BooleanField(default=False)),
                ('is_enabled', models.BooleanField(default=True)),
            ],
            options={
                'db_table': 'billing_model',
                'constraints': [models.CheckConstraint(condition=models.Q(('lifecycle__in', ['active', 'deprecated', 'retired'])), name='model_lifecycle')],
            },
        ),
        migrations.CreateModel(
            name='LedgerAccount',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(max_length=30)),
                ('ref', models.CharField(blank=True, default='', max_length=100)),
                ('currency', models.CharField(max_length=3)),
                ('normal', models.SmallIntegerField()),
                ('debits', models.BigIntegerField(default=0)),
                ('credits', models.BigIntegerField(default=0)),
                ('pending', models.BigIntegerField(default=0)),
                ('version', models.BigIntegerField(default=0)),
                ('tenant', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.tenant')),
            ],
            options={
                'db_table': 'billing_ledger_account',
                'constraints': [models.UniqueConstraint(fields=('tenant', 'kind', 'ref', 'currency'), name='ledger_account_once', nulls_distinct=False), models.CheckConstraint(condition=models.Q(('normal__in', [1, -1])), name='ledger_account_normal'), models.CheckConstraint(condition=models.Q(('credits__gte', 0), ('debits__gte', 0), ('pending__gte', 0), ('version__gte', 0)), name='ledger_account_sums_not_negative')],
            },
        ),
        migrations.CreateModel(
            name='CreditGrant',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('uuid', models.UUIDField(default=turnpike.kernel.ids.uuid7, unique=True)),
                ('amount_nano', models.BigIntegerField()),
                ('reason', models.CharField(max_length=500)),
                ('actor', models.CharField(max_length=200)),
                ('idempotency_key', models.CharField(max_length=200, unique=True)),
                ('expires_at', models.DateTimeField(blank=True, null=True)),
                ('expired_at', models.DateTimeField(blank=True, null=True)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='credit_grants', to='accounts.tenant')),
                ('account', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='grant', to='billing.ledgeraccount')),
            ],
            options={
                'db_table': 'billing_credit_grant',
                'constraints': [models.CheckConstraint(condition=models.Q(('amount_nano__gt', 0)), name='credit_grant_positive')],
                'indexes': [models.Index(condition=models.Q(('expired_at', None)), fields=['expires_at'], name='credit_grant_to_expire')],
            },
        ),
        migrations.CreateModel(
            name='LedgerTxn',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('idem_key', models.CharField(max_length=200, unique=True)),
                ('kind', models.CharField(max_length=30)),
                ('currency', models.CharField(max_length=3)),
                ('fingerprint', models.BinaryField()),
                ('actor', models.CharField(max_length=200)),
                ('posted_at', models.DateTimeField()),
                ('memo', models.JSONField(default=dict)),
                ('reverses', models.OneToOneField(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='reversed_by', to='billing.ledgertxn')),
                ('tenant', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.tenant')),
            ],
            options={
                'db_table': 'billing_ledger_txn',
                'indexes': [models.Index(fields=['tenant', '-id'], name='ledger_txn_of_tenant')],
            },
        ),
        migrations.CreateModel(
            name='LedgerEntry',
            fields=[
                ('pk', models.CompositePrimaryKey('txn_id', 'line', blank=True, editable=False, primary_key=True, serialize=False)),
                ('line', models.SmallIntegerField()),
                ('side', models.SmallIntegerField()),
                ('amount', models.BigIntegerField()),
                ('account_version', models.BigIntegerField()),
                ('balance_after', models.BigIntegerField()),
                ('account', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='entries', to='billing.ledgeraccount')),
                ('tenant', models.ForeignKey(db_constraint=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.tenant')),
                ('txn', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='entries', to='billing.ledgertxn')),
            ],
            options={
                'db_table': 'billing_ledger_entry',
                'constraints': [models.UniqueConstraint(fields=('account', 'account_version'), name='ledger_entry_account_version'), models.CheckConstraint(condition=models.Q(('side__in', [1, -1])), name='ledger_entry_side'), models.CheckConstraint(condition=models.Q(('amount__gt', 0)), name='ledger_entry_amount_positive')],
            },
        ),
        migrations.CreateModel(
            name='ModelAlias',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('alias', models.CharField(max_length=200, unique=True)),
                ('model', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='aliases', to='billing.catalogmodel')),
            ],
            options={
                'db_table': 'billing_model_alias',
            },
        ),
        migrations.CreateModel(
            name='PlatformState',
            fields=[
                ('id', models.SmallIntegerField(default=1, primary_key=True, serialize=False)),
                ('policy_version', models.BigIntegerField(default=1)),
                ('epoch', models.BigIntegerField(default=0)),
            ],
            options={
                'db_table': 'billing_platform_state',
                'constraints': [models.CheckConstraint(condition=models.Q(('id', 1)), name='platform_state_one_row'), models.CheckConstraint(condition=models.Q(('epoch__gte', 0), ('policy_version__gte', 1)), name='platform_state_not_negative')],
            },
        ),
        migrations.CreateModel(
            name='PriceSet',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('effective', django.contrib.postgres.fields.ranges.DateTimeRangeField()),
                ('book', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='sets', to='billing.pricebook')),
            ],
            options={
                'db_table': 'billing_price_set',
                'constraints': [django.contrib.postgres.constraints.ExclusionConstraint(expressions=[(models.Func(models.F('book_id'), models.F('book_id'), models.Value('[]'), function='int8range'), '&&'), ('effective', '&&')], name='price_set_no_overlap')],
            },
        ),
        migrations.CreateModel(
            name='Price',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('model', models.CharField(max_length=200)),
                ('component', models.CharField(max_length=50)),
                ('variant', models.CharField(default='standard', max_length=50)),
                ('min_input', models.PositiveIntegerField(default=0)),
                ('nano_per_mtok', models.BigIntegerField(blank=True, null=True)),
                ('nano_per_unit', models.BigIntegerField(blank=True, null=True)),
                ('price_set', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='prices', to='billing.priceset')),
            ],
            options={
                'db_table': 'billing_price',
                'constraints': [models.UniqueConstraint(fields=('price_set', 'model', 'component', 'variant', 'min_input'), name='price_one_per_bracket'), models.CheckConstraint(condition=models.Q(models.Q(('nano_per_mtok__gte', 0), ('nano_per_unit__isnull', True)), models.Q(('nano_per_mtok__isnull', True), ('nano_per_unit__gte', 0)), _connector='OR'), name='price_one_rate')],
            },
        ),
        migrations.CreateModel(
            name='Subscription',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('discount_bp', models.PositiveIntegerField(default=0)),
                ('overrides', models.JSONField(blank=True, default=dict)),
                ('group_overrides', models.JSONField(blank=True, default=dict)),
                ('book', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, to='billing.pricebook')),
                ('tenant', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='subscription', to='accounts.tenant')),
                ('tier', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, to='billing.tier')),
            ],
            options={
                'db_table': 'billing_subscription',
                'constraints': [models.CheckConstraint(condition=models.Q(('discount_bp__lte', 10000)), name='subscription_discount_at_most_all')],
            },
        ),
        migrations.CreateModel(
            name='TierGroupLimit',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('requests_per_minute', models.PositiveIntegerField(blank=True, null=True)),
                ('tokens_per_minute', models.PositiveIntegerField(blank=True, null=True)),
                ('input_tokens_per_minute', models.PositiveIntegerField(blank=True, null=True)),
                ('output_tokens_per_minute', models.PositiveIntegerField(blank=True, null=True)),
                ('concurrency', models.PositiveIntegerField(blank=True, null=True)),
                ('burst_seconds', models.PositiveIntegerField(blank=True, null=True)),
                ('limit_group', models.CharField(max_length=100)),
                ('tier', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='group_limits', to='billing.tier')),
            ],
            options={
                'db_table': 'billing_tier_group_limit',
                'constraints': [models.UniqueConstraint(fields=('tier', 'limit_group'), name='tier_group_limit_once')],
            },
        ),
        migrations.CreateModel(
            name='Upstream',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('name', models.CharField(max_length=100, unique=True)),
                ('kind', models.CharField(choices=[('anthropic', 'Anthropic'), ('openai', 'Openai')], max_length=20)),
                ('base_url', models.CharField(max_length=500)),
                ('is_enabled', models.BooleanField(default=True)),
                ('is_simulator', models.BooleanField(default=False)),
                ('send_request_id', models.BooleanField(default=False)),
                ('on_disconnect', models.CharField(choices=[('cancel', 'Cancel'), ('drain', 'Drain')], default='cancel', max_length=10)),
                ('connect_timeout_ms', models.PositiveIntegerField(default=5000)),
                ('silence_timeout_ms', models.PositiveIntegerField(default=300000)),
                ('answer_timeout_ms', models.PositiveIntegerField(default=660000)),
                ('is_for_all_models', models.BooleanField(default=False)),
                ('default_priority', models.PositiveIntegerField(default=0)),
                ('cost_book', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, to='billing.pricebook')),
            ],
            options={
                'db_table': 'billing_upstream',
                'constraints': [models.CheckConstraint(condition=models.Q(('kind__in', ['anthropic', 'openai'])), name='upstream_kind'), models.CheckConstraint(condition=models.Q(('on_disconnect__in', ['cancel', 'drain'])), name='upstream_on_disconnect')],
            },
        ),
        migrations.CreateModel(
            name='Route',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('upstream_model', models.CharField(max_length=200)),
                ('weight', models.PositiveIntegerField(default=1)),
                ('priority', models.PositiveIntegerField(default=0)),
                ('is_enabled', models.BooleanField(default=True)),
                ('model', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='routes', to='billing.catalogmodel')),
                ('upstream', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='routes', to='billing.upstream')),
            ],
            options={
                'db_table': 'billing_route',
                'constraints': [models.UniqueConstraint(fields=('model', 'upstream'), name='route_model_upstream')],
            },
        ),
        migrations.CreateModel(
            name='UpstreamCredential',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('name', models.CharField(default='default', max_length=100)),
                ('sealed', models.TextField()),
                ('hint', models.CharField(blank=True, default='', max_length=20)),
                ('is_enabled', models.BooleanField(default=True)),
                ('upstream', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='credentials', to='billing.upstream')),
            ],
            options={
                'db_table': 'billing_upstream_credential',
                'constraints': [models.UniqueConstraint(fields=('upstream', 'name'), name='upstream_credential_name')],
            },
        ),
        migrations.CreateModel(
            name='Wallet',
            fields=[
                ('tenant', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='wallet', serialize=False, to='accounts.tenant')),
                ('currency', models.CharField(default='USD', max_length=3)),
                ('balance_nano', models.BigIntegerField(default=0)),
                ('version', models.BigIntegerField(default=1)),
                ('credit_limit_nano', models.BigIntegerField(default=0)),
                ('mode', models.CharField(choices=[('prepaid', 'Prepaid'), ('postpaid', 'Postpaid')], default='prepaid', max_length=10)),
            ],
            options={
                'db_table': 'billing_wallet',
                'constraints': [models.CheckConstraint(condition=models.Q(('credit_limit_nano__gte', 0), ('version__gte', 1)), name='wallet_not_negative'), models.CheckConstraint(condition=models.Q(('mode__in', ['prepaid', 'postpaid'])), name='wallet_mode')],
            },
        ),
        migrations.CreateModel(
            name='BillingPeriod',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('starts_at', models.DateTimeField()),
                ('ends_at', models.DateTimeField()),
                ('state', models.CharField(choices=[('open', 'Open'), ('closing', 'Closing'), ('closed', 'Closed')], default='open', max_length=10)),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='billing_periods', to='accounts.tenant')),
            ],
            options={
                'db_table': 'billing_period',
                'constraints': [models.UniqueConstraint(fields=('tenant', 'starts_at'), name='billing_period_once'), models.CheckConstraint(condition=models.Q(('starts_at__lt', models.F('ends_at'))), name='billing_period_not_empty'), models.CheckConstraint(condition=models.Q(('state__in', ['open', 'closing', 'closed'])), name='billing_period_state')],
            },
        ),
        migrations.RunSQL(SQL, migrations.RunSQL.noop),
    ]
