"""Payments, top-ups and redemption codes."""

import django.db.models.deletion
import django.db.models.expressions
import turnpike.kernel.clock
import turnpike.kernel.ids
from django.db import migrations, models
from turnpike.control.scope import rls_sql

TENANT_OWNED = (
    "billing_payment",
    "billing_payment_reversal",
    "billing_payment_event",
    "billing_credit_plan",
    "billing_redemption",
)

# What was told or given stays; an event's body and an order's money never change.
GUARDS = """
CREATE FUNCTION billing_guard_payment_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' OR (NEW.provider, NEW.event_id, NEW.kind, NEW.body, NEW.received_at)
     IS DISTINCT FROM (OLD.provider, OLD.event_id, OLD.kind, OLD.body, OLD.received_at) THEN
    RAISE EXCEPTION 'payment_event % stays as it came', OLD.id USING ERRCODE = '23001';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON billing_payment_event
  FOR EACH ROW EXECUTE FUNCTION billing_guard_payment_event();

CREATE FUNCTION billing_guard_payment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' OR (NEW.tenant_id, NEW.uuid, NEW.provider, NEW.amount_nano, NEW.currency)
     IS DISTINCT FROM (OLD.tenant_id, OLD.uuid, OLD.provider, OLD.amount_nano, OLD.currency)
     OR OLD.status = 'paid' AND NEW.status <> 'paid' THEN
    RAISE EXCEPTION 'payment % keeps its money', OLD.id USING ERRCODE = '23001';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON billing_payment
  FOR EACH ROW EXECUTE FUNCTION billing_guard_payment();
"""

SQL = "\n".join([GUARDS, *map(rls_sql, TENANT_OWNED)])


class Migration(migrations.Migration):

    dependencies = [
        ("accounts", "0002_walls"),
        ("billing", "0004_batches"),
    ]

    operations = [
        migrations.CreateModel(
            name='CreditPlan',
            fields=[
                ('tenant', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='credit_plan', serialize=False, to='accounts.tenant')),
                ('provider', models.CharField(blank=True, default='', max_length=20)),
                ('customer_ref', models.CharField(blank=True, default='', max_length=200)),
                ('method_ref', models.CharField(blank=True, default='', max_length=200)),
                ('method_label', models.CharField(blank=True, default='', max_length=60)),
                ('is_on', models.BooleanField(default=False)),
                ('threshold_nano', models.BigIntegerField(default=0)),
                ('amount_nano', models.BigIntegerField(default=0)),
                ('monthly_cap_nano', models.BigIntegerField(default=0)),
                ('failures', models.PositiveSmallIntegerField(default=0)),
                ('attempts', models.PositiveIntegerField(default=0)),
                ('warn_days', models.PositiveSmallIntegerField(default=3)),
                ('warned_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'db_table': 'billing_credit_plan',
                'constraints': [models.CheckConstraint(condition=models.Q(('is_on', False), models.Q(('amount_nano__gt', 0), ('threshold_nano__gte', 0), ('monthly_cap_nano__gte', models.F('amount_nano')), models.Q(('method_ref', ''), _negated=True)), _connector='OR'), name='credit_plan_whole')],
            },
        ),
        migrations.CreateModel(
            name='Payment',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('uuid', models.UUIDField(default=turnpike.kernel.ids.uuid7, editable=False, unique=True)),
                ('provider', models.CharField(max_length=20)),
                ('kind', models.CharField(choices=[('checkout', 'Checkout'), ('auto_reload', 'Auto Reload'), ('transfer', 'Transfer')], max_length=20)),
                ('status', models.CharField(choices=[('started', 'Started'), ('paid', 'Paid'), ('failed', 'Failed'), ('expired', 'Expired')], default='started', max_length=10)),
                ('amount_nano', models.BigIntegerField()),
                ('currency', models.CharField(max_length=3)),
                ('refunded_nano', models.BigIntegerField(default=0)),
                ('disputed_nano', models.BigIntegerField(default=0)),
                ('order_ref', models.CharField(blank=True, default='', max_length=200)),
                ('payment_ref', models.CharField(blank=True, default='', max_length=200)),
                ('idempotency_key', models.CharField(max_length=200, unique=True)),
                ('actor', models.CharField(max_length=200)),
                ('reason', models.CharField(blank=True, default='', max_length=500)),
                ('failure', models.CharField(blank=True, default='', max_length=300)),
                ('settled_at', models.DateTimeField(blank=True, null=True)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='payments', to='accounts.tenant')),
            ],
            options={
                'db_table': 'billing_payment',
                'constraints': [models.CheckConstraint(condition=models.Q(('amount_nano__gt', 0), ('disputed_nano__gte', 0), ('refunded_nano__gte', 0), ('refunded_nano__lte', models.F('amount_nano'))), name='payment_amounts'), models.UniqueConstraint(condition=models.Q(models.Q(('payment_ref', ''), _negated=True), models.Q(('provider', 'manual'), _negated=True)), fields=('provider', 'payment_ref'), name='payment_ref_once')],
                'indexes': [models.Index(fields=['tenant', '-id'], name='payment_of_tenant'), models.Index(condition=models.Q(('status', 'started')), fields=['tenant', 'kind'], name='payment_started')],
            },
        ),
        migrations.CreateModel(
            name='PaymentEvent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('provider', models.CharField(max_length=20)),
                ('event_id', models.CharField(max_length=200)),
                ('kind', models.CharField(max_length=100)),
                ('subject', models.CharField(blank=True, default='', max_length=200)),
                ('body', models.JSONField()),
                ('received_at', models.DateTimeField()),
                ('outcome', models.CharField(choices=[('waiting', 'Waiting'), ('applied', 'Applied'), ('ignored', 'Ignored'), ('refused', 'Refused')], default='waiting', max_length=10)),
                ('error', models.CharField(blank=True, default='', max_length=500)),
                ('tries', models.PositiveIntegerField(default=0)),
                ('handled_at', models.DateTimeField(blank=True, null=True)),
                ('payment', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='events', to='billing.payment')),
                ('tenant', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.tenant')),
            ],
            options={
                'db_table': 'billing_payment_event',
                'constraints': [models.UniqueConstraint(fields=('provider', 'event_id'), name='payment_event_once')],
                'indexes': [models.Index(condition=models.Q(('outcome', 'waiting')), fields=['received_at'], name='payment_event_waits')],
            },
        ),
        migrations.CreateModel(
            name='PaymentReversal',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('uuid', models.UUIDField(default=turnpike.kernel.ids.uuid7, editable=False, unique=True)),
                ('status', models.CharField(choices=[('asked', 'Asked'), ('done', 'Done'), ('failed', 'Failed')], default='asked', max_length=10)),
                ('amount_nano', models.BigIntegerField()),
                ('provider_ref', models.CharField(blank=True, default='', max_length=200)),
                ('idempotency_key', models.CharField(max_length=200, unique=True)),
                ('actor', models.CharField(max_length=200)),
                ('reason', models.CharField(max_length=500)),
                ('payment', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='reversals', to='billing.payment')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.tenant')),
            ],
            options={
                'db_table': 'billing_payment_reversal',
                'constraints': [models.CheckConstraint(condition=models.Q(('amount_nano__gt', 0)), name='payment_reversal_positive')],
            },
        ),
        migrations.CreateModel(
            name='RedemptionCode',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('uuid', models.UUIDField(default=turnpike.kernel.ids.uuid7, editable=False, unique=True)),
                ('digest', models.BinaryField(unique=True)),
                ('hint', models.CharField(max_length=8)),
                ('amount_nano', models.BigIntegerField()),
                ('currency', models.CharField(max_length=3)),
                ('uses_max', models.PositiveIntegerField()),
                ('uses', models.PositiveIntegerField(default=0)),
                ('ends_at', models.DateTimeField(blank=True, null=True)),
                ('credit_days', models.PositiveIntegerField(blank=True, null=True)),
                ('idempotency_key', models.CharField(max_length=200, unique=True)),
                ('actor', models.CharField(max_length=200)),
                ('reason', models.CharField(max_length=500)),
                ('withdrawn_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'db_table': 'billing_redemption_code',
                'constraints': [models.CheckConstraint(condition=models.Q(('amount_nano__gt', 0), ('uses_max__gte', 1), ('uses__lte', models.F('uses_max'))), name='redemption_code_bounds')],
            },
        ),
        migrations.CreateModel(
            name='Redemption',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('actor', models.CharField(max_length=200)),
                ('grant', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='billing.creditgrant')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.tenant')),
                ('code', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='redemptions', to='billing.redemptioncode')),
            ],
            options={
                'db_table': 'billing_redemption',
                'constraints': [models.UniqueConstraint(fields=('tenant', 'code'), name='redemption_once')],
            },
        ),
        migrations.RunSQL(SQL, migrations.RunSQL.noop),
    ]
