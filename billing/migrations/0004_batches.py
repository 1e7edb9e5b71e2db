"""Message batches, and holds that outlive a request."""

import django.db.models.deletion
import django.db.models.expressions
import turnpike.kernel.clock
import turnpike.kernel.ids
from django.db import migrations, models

from turnpike.control.scope import rls_sql

# A hold is pending and becomes exactly one of posted, voided, expired. What is pending stands on
# its account, and the wallet's version rises with it: publications of the balance are ordered by it.
HOLDS = """
CREATE FUNCTION billing_guard_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.state <> 'pending' THEN
    RAISE EXCEPTION 'ledger_hold % has ended as %', OLD.id, OLD.state USING ERRCODE = '23001';
  END IF;
  IF (OLD.id, OLD.tenant_id, OLD.account_id, OLD.workspace_id, OLD.api_key_id, OLD.ref,
      OLD.amount_nano, OLD.created_at) IS DISTINCT FROM
     (NEW.id, NEW.tenant_id, NEW.account_id, NEW.workspace_id, NEW.api_key_id, NEW.ref,
      NEW.amount_nano, NEW.created_at) THEN
    RAISE EXCEPTION 'ledger_hold %: its identity never changes', OLD.id USING ERRCODE = '23001';
  END IF;
  IF NEW.remaining_nano > OLD.remaining_nano OR NEW.posted_nano < OLD.posted_nano THEN
    RAISE EXCEPTION 'ledger_hold % can only shrink', OLD.id USING ERRCODE = '23001';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE UPDATE ON billing_ledger_hold
  FOR EACH ROW EXECUTE FUNCTION billing_guard_hold();

CREATE FUNCTION billing_apply_hold() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  change bigint := NEW.remaining_nano;
BEGIN
  IF TG_OP = 'UPDATE' THEN
    change := NEW.remaining_nano - OLD.remaining_nano;
  END IF;
  IF change = 0 THEN RETURN NULL; END IF;
  UPDATE billing_ledger_account SET pending = pending + change
   WHERE id = NEW.account_id AND tenant_id = NEW.tenant_id;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'ledger_account % is not of tenant %', NEW.account_id, NEW.tenant_id
      USING ERRCODE = '23503';
  END IF;
  UPDATE billing_wallet SET version = version + 1 WHERE tenant_id = NEW.tenant_id;
  RETURN NULL;
END $$;
CREATE TRIGGER apply AFTER INSERT OR UPDATE ON billing_ledger_hold
  FOR EACH ROW EXECUTE FUNCTION billing_apply_hold();
CREATE TRIGGER refuse_delete BEFORE DELETE ON billing_ledger_hold
  FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON billing_ledger_hold
  FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change();
"""

TENANT_OWNED = (
    "billing_message_batch",
    "billing_batch_part",
    "billing_batch_item",
    "billing_ledger_hold",
)


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0003_upstream_controls'),
    ]

    operations = [
        migrations.AddField(
            model_name='upstream',
            name='has_batches',
            field=models.BooleanField(default=False),
        ),
        migrations.CreateModel(
            name='LedgerHold',
            fields=[
                ('id', models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ('tenant_id', models.BigIntegerField()),
                ('account_id', models.BigIntegerField()),
                ('workspace_id', models.BigIntegerField()),
                ('api_key_id', models.BigIntegerField()),
                ('ref', models.CharField(max_length=100, unique=True)),
                ('amount_nano', models.BigIntegerField()),
                ('remaining_nano', models.BigIntegerField()),
                ('posted_nano', models.BigIntegerField(default=0)),
                ('state', models.CharField(choices=[('pending', 'Pending'), ('posted', 'Posted'), ('voided', 'Voided'), ('expired', 'Expired')], default='pending', max_length=7)),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now)),
                ('expires_at', models.DateTimeField()),
                ('resolved_at', models.DateTimeField(null=True)),
            ],
            options={
                'db_table': 'billing_ledger_hold',
                'indexes': [models.Index(condition=models.Q(('state', 'pending')), fields=['tenant_id'], name='ledger_hold_pending')],
                'constraints': [models.CheckConstraint(condition=models.Q(('amount_nano__gte', 0), ('posted_nano__gte', 0), ('remaining_nano__gte', 0)), name='ledger_hold_not_negative'), models.CheckConstraint(condition=models.Q(('amount_nano__gte', django.db.models.expressions.CombinedExpression(models.F('remaining_nano'), '+', models.F('posted_nano')))), name='ledger_hold_never_exceeded'), models.CheckConstraint(condition=models.Q(models.Q(('resolved_at__isnull', True), ('state', 'pending')), models.Q(('remaining_nano', 0), ('resolved_at__isnull', False), ('state__in', ['posted', 'voided', 'expired'])), _connector='OR'), name='ledger_hold_state')],
            },
        ),
        migrations.CreateModel(
            name='MessageBatch',
            fields=[
                ('id', models.UUIDField(default=turnpike.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('tenant_id', models.BigIntegerField()),
                ('workspace_id', models.BigIntegerField()),
                ('api_key_id', models.BigIntegerField()),
                ('member', models.TextField(blank=True, default='')),
                ('state', models.CharField(choices=[('in_progress', 'In Progress'), ('canceling', 'Canceling'), ('ended', 'Ended')], default='in_progress', max_length=11)),
                ('created_at', models.DateTimeField()),
                ('expires_at', models.DateTimeField()),
                ('ended_at', models.DateTimeField(null=True)),
                ('cancel_initiated_at', models.DateTimeField(null=True)),
                ('archived_at', models.DateTimeField(null=True)),
                ('api_version', models.CharField(max_length=40)),
                ('betas', models.TextField(blank=True, default='')),
                ('price_set_id', models.BigIntegerField()),
                ('discount_bp', models.IntegerField(default=0)),
                ('sealed_key', models.TextField(blank=True, default='')),
                ('item_count', models.IntegerField()),
                ('succeeded', models.IntegerField(default=0)),
                ('errored', models.IntegerField(default=0)),
                ('canceled', models.IntegerField(default=0)),
                ('expired', models.IntegerField(default=0)),
            ],
            options={
                'db_table': 'billing_message_batch',
                'indexes': [models.Index(fields=['tenant_id', 'workspace_id', '-id'], name='batch_of_workspace'), models.Index(condition=models.Q(('archived_at', None)), fields=['created_at'], name='batch_to_archive')],
                'constraints': [models.CheckConstraint(condition=models.Q(('state__in', ['in_progress', 'canceling', 'ended'])), name='batch_state'), models.CheckConstraint(condition=models.Q(models.Q(('ended_at__isnull', False), ('state', 'ended')), models.Q(models.Q(('state', 'ended'), _negated=True), ('ended_at__isnull', True)), _connector='OR'), name='batch_ended_at')],
            },
        ),
        migrations.CreateModel(
            name='BatchPart',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('tenant_id', models.BigIntegerField()),
                ('number', models.IntegerField()),
                ('upstream_id', models.BigIntegerField(null=True)),
                ('credential_id', models.BigIntegerField(null=True)),
                ('upstream_batch', models.CharField(blank=True, default='', max_length=200)),
                ('state', models.CharField(choices=[('waiting', 'Waiting'), ('submitting', 'Submitting'), ('submitted', 'Submitted'), ('done', 'Done')], default='waiting', max_length=10)),
                ('is_cancel_sent', models.BooleanField(default=False)),
                ('submitted_at', models.DateTimeField(null=True)),
                ('failures', models.IntegerField(default=0)),
                ('due_at', models.DateTimeField()),
                ('leased_until', models.DateTimeField(null=True)),
                ('lease', models.UUIDField(null=True)),
                ('batch', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='parts', to='billing.messagebatch')),
            ],
            options={
                'db_table': 'billing_batch_part',
                'indexes': [models.Index(condition=models.Q(('state', 'done'), _negated=True), fields=['due_at'], name='batch_part_due')],
                'constraints': [models.UniqueConstraint(fields=('batch', 'number'), name='batch_part_number'), models.CheckConstraint(condition=models.Q(('state__in', ['waiting', 'submitting', 'submitted', 'done'])), name='batch_part_state')],
            },
        ),
        migrations.CreateModel(
            name='BatchItem',
            fields=[
                ('pk', models.CompositePrimaryKey('batch_id', 'number', blank=True, editable=False, primary_key=True, serialize=False)),
                ('number', models.IntegerField()),
                ('tenant_id', models.BigIntegerField()),
                ('part', models.IntegerField()),
                ('request_id', models.UUIDField()),
                ('custom_id', models.CharField(max_length=64)),
                ('model', models.TextField(blank=True, default='')),
                ('requested_model', models.TextField(blank=True, default='')),
                ('upstream_model', models.TextField(blank=True, default='')),
                ('hold_micro', models.BigIntegerField(default=0)),
                ('state', models.CharField(choices=[('waiting', 'Waiting'), ('succeeded', 'Succeeded'), ('errored', 'Errored'), ('canceled', 'Canceled'), ('expired', 'Expired')], default='waiting', max_length=9)),
                ('attempts', models.SmallIntegerField(default=0)),
                ('params', models.BinaryField(null=True)),
                ('result', models.BinaryField(null=True)),
                ('batch', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='items', to='billing.messagebatch')),
            ],
            options={
                'db_table': 'billing_batch_item',
                'indexes': [models.Index(condition=models.Q(('state', 'waiting')), fields=['batch', 'part', 'number'], name='batch_item_waiting')],
                'constraints': [models.UniqueConstraint(fields=('batch', 'custom_id'), name='batch_item_custom_id'), models.CheckConstraint(condition=models.Q(('state__in', ['waiting', 'succeeded', 'errored', 'canceled', 'expired'])), name='batch_item_state'), models.CheckConstraint(condition=models.Q(('hold_micro__gte', 0)), name='batch_item_hold')],
            },
        ),
        migrations.RunSQL(
            "\n".join([HOLDS, *map(rls_sql, TENANT_OWNED)]), migrations.RunSQL.noop
        ),
        migrations.RunSQL(
            "UPDATE billing_upstream SET has_batches = (kind = 'anthropic')",
            migrations.RunSQL.noop,
        ),
    ]
