"""Billing periods, invoices and credit notes: tables, and the triggers that freeze them."""

import django.db.models.deletion
import django.db.models.expressions
import turnpike.kernel.clock
import turnpike.kernel.ids
from django.db import migrations, models
from turnpike.control.scope import rls_sql

TENANT_OWNED = (
    "billing_details",
    "billing_invoice",
    "billing_invoice_line",
    "billing_invoice_tax",
    "billing_invoice_file",
    "billing_rating_difference",
)
APPEND_ONLY = ("billing_invoice_file", "billing_rating_difference")

GUARDS = """
CREATE FUNCTION billing_guard_invoice() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  same billing_invoice;
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF OLD.status = 'draft' THEN
      RETURN OLD;
    END IF;
    RAISE EXCEPTION 'invoice % is final: DELETE refused', OLD.id USING ERRCODE = '23001';
  END IF;
  IF OLD.status = 'draft' THEN
    RETURN NEW;
  END IF;
  -- Of what is final the payment state alone may change.
  same := NEW;
  same.status := OLD.status;
  same.paid_nano := OLD.paid_nano;
  same.credited_nano := OLD.credited_nano;
  same.written_off_nano := OLD.written_off_nano;
  same.credit_beyond_nano := OLD.credit_beyond_nano;
  same.is_reopened := OLD.is_reopened;
  same.settled_at := OLD.settled_at;
  IF same IS DISTINCT FROM OLD OR NEW.status = 'draft' OR NEW.paid_nano < OLD.paid_nano
     OR NEW.credited_nano < OLD.credited_nano OR OLD.is_reopened AND NOT NEW.is_reopened
     OR OLD.status = 'void' AND NEW.status <> 'void' THEN
    RAISE EXCEPTION 'invoice % is final', OLD.id USING ERRCODE = '23001';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON billing_invoice
  FOR EACH ROW EXECUTE FUNCTION billing_guard_invoice();

CREATE FUNCTION billing_guard_invoice_part() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  whole bigint; stands text;
BEGIN
  IF TG_OP = 'DELETE' THEN whole := OLD.invoice_id; ELSE whole := NEW.invoice_id; END IF;
  SELECT status INTO stands FROM billing_invoice WHERE id = whole;
  IF stands IS DISTINCT FROM 'draft' OR (TG_OP = 'UPDATE' AND OLD.invoice_id <> NEW.invoice_id) THEN
    RAISE EXCEPTION 'invoice % is final: its parts stay', whole USING ERRCODE = '23001';
  END IF;
  IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE ON billing_invoice_line
  FOR EACH ROW EXECUTE FUNCTION billing_guard_invoice_part();
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE ON billing_invoice_tax
  FOR EACH ROW EXECUTE FUNCTION billing_guard_invoice_part();

CREATE FUNCTION billing_guard_series() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    IF NEW.next <> 1 THEN
      RAISE EXCEPTION 'a number_series begins with 1' USING ERRCODE = '23001';
    END IF;
  ELSIF TG_OP = 'DELETE' OR (NEW.id, NEW.seller_id, NEW.name) <> (OLD.id, OLD.seller_id, OLD.name)
     OR NEW.next <> OLD.next + 1 THEN
    RAISE EXCEPTION 'number_series % rises one by one', OLD.id USING ERRCODE = '23001';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE ON billing_number_series
  FOR EACH ROW EXECUTE FUNCTION billing_guard_series();
"""


def _append_only(table):
    return (
        f"CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON {table}"
        " FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();"
        f"CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON {table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change();"
    )


SQL = "\n".join([GUARDS, *map(_append_only, APPEND_ONLY), *map(rls_sql, TENANT_OWNED)])


class Migration(migrations.Migration):

    dependencies = [
        ("accounts", "0002_walls"),
        ("billing", "0005_payments"),
    ]

    operations = [
        migrations.CreateModel(
            name='NumberSeries',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=40)),
                ('next', models.PositiveIntegerField(default=1)),
            ],
            options={
                'db_table': 'billing_number_series',
            },
        ),
        migrations.CreateModel(
            name='RatingRun',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('uuid', models.UUIDField(default=turnpike.kernel.ids.uuid7, unique=True)),
                ('idempotency_key', models.CharField(max_length=200, unique=True)),
                ('wrong_set_id', models.BigIntegerField()),
                ('right_set_id', models.BigIntegerField()),
                ('since', models.DateTimeField()),
                ('until', models.DateTimeField()),
                ('reason', models.CharField(max_length=500)),
                ('actor', models.CharField(max_length=200)),
                ('finished_at', models.DateTimeField(null=True)),
            ],
            options={
                'db_table': 'billing_rating_run',
            },
        ),
        migrations.CreateModel(
            name='Seller',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('code', models.CharField(max_length=40, unique=True)),
                ('name', models.CharField(max_length=200)),
                ('address', models.CharField(blank=True, default='', max_length=1000)),
                ('country', models.CharField(blank=True, default='', max_length=2)),
                ('tax_id', models.CharField(blank=True, default='', max_length=100)),
                ('email', models.CharField(blank=True, default='', max_length=254)),
                ('payment_details', models.CharField(blank=True, default='', max_length=1000)),
                ('invoice_prefix', models.CharField(default='INV-', max_length=20)),
                ('credit_note_prefix', models.CharField(default='CN-', max_length=20)),
                ('due_days', models.PositiveSmallIntegerField(default=14)),
                ('finalize_after_hours', models.PositiveSmallIntegerField(blank=True, null=True)),
                ('is_default', models.BooleanField(default=False)),
            ],
            options={
                'db_table': 'billing_seller',
            },
        ),
        migrations.CreateModel(
            name='Invoice',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('uuid', models.UUIDField(default=turnpike.kernel.ids.uuid7, editable=False, unique=True)),
                ('kind', models.CharField(choices=[('invoice', 'Invoice'), ('credit_note', 'Credit Note'), ('statement', 'Statement')], max_length=11)),
                ('status', models.CharField(choices=[('draft', 'Draft'), ('open', 'Open'), ('paid', 'Paid'), ('void', 'Void'), ('uncollectible', 'Uncollectible'), ('issued', 'Issued')], default='draft', max_length=13)),
                ('sequence', models.PositiveIntegerField(null=True)),
                ('number', models.CharField(max_length=60, null=True)),
                ('currency', models.CharField(max_length=3)),
                ('exact_nano', models.BigIntegerField(default=0)),
                ('subtotal_nano', models.BigIntegerField(default=0)),
                ('tax_nano', models.BigIntegerField(default=0)),
                ('total_nano', models.BigIntegerField(default=0)),
                ('paid_nano', models.BigIntegerField(default=0)),
                ('credited_nano', models.BigIntegerField(default=0)),
                ('written_off_nano', models.BigIntegerField(default=0)),
                ('credit_beyond_nano', models.BigIntegerField(default=0)),
                ('is_reopened', models.BooleanField(default=False)),
                ('issued_at', models.DateTimeField(null=True)),
                ('due_at', models.DateTimeField(null=True)),
                ('settled_at', models.DateTimeField(null=True)),
                ('language', models.CharField(default='en', max_length=10)),
                ('seller_copy', models.JSONField(default=dict)),
                ('buyer_copy', models.JSONField(default=dict)),
                ('summary', models.JSONField(default=dict)),
                ('reason', models.CharField(blank=True, default='', max_length=500)),
                ('digest', models.CharField(blank=True, default='', max_length=64)),
                ('corrects', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='credit_notes', to='billing.invoice')),
                ('period', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='documents', to='billing.billingperiod')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='invoices', to='accounts.tenant')),
                ('series', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='billing.numberseries')),
                ('seller', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='billing.seller')),
            ],
            options={
                'db_table': 'billing_invoice',
                'constraints': [models.UniqueConstraint(condition=models.Q(('kind__in', ['invoice', 'statement']), models.Q(('status', 'void'), _negated=True)), fields=('period',), name='invoice_once_for_a_period'), models.UniqueConstraint(fields=('series', 'sequence'), name='invoice_number_once'), models.UniqueConstraint(fields=('seller', 'number'), name='invoice_number_of_seller'), models.CheckConstraint(condition=models.Q(('total_nano', django.db.models.expressions.CombinedExpression(models.F('subtotal_nano'), '+', models.F('tax_nano')))), name='invoice_adds_up'), models.CheckConstraint(condition=models.Q(('kind', 'invoice'), models.Q(('credit_beyond_nano', 0), ('credited_nano', 0), ('is_reopened', False), ('paid_nano', 0), ('written_off_nano', 0)), _connector='OR'), name='invoice_alone_is_settled'), models.CheckConstraint(condition=models.Q(('credited_nano__gte', 0), ('paid_nano__gte', 0), ('written_off_nano__gte', 0), models.Q(('credited_nano', 0), ('credited_nano__lte', models.F('total_nano')), _connector='OR')), name='invoice_credit_within_total'), models.CheckConstraint(condition=models.Q(models.Q(('number', None), ('status', 'draft')), models.Q(('kind', 'statement'), ('number', None)), models.Q(models.Q(('status', 'draft'), _negated=True), ('issued_at__isnull', False), ('number__isnull', False)), _connector='OR'), name='invoice_number_when_final'), models.CheckConstraint(condition=models.Q(('kind__in', ['invoice', 'credit_note', 'statement']), ('status__in', ['draft', 'open', 'paid', 'void', 'uncollectible', 'issued'])), name='invoice_words')],
                'indexes': [models.Index(fields=['tenant', '-id'], name='invoice_of_tenant'), models.Index(fields=['status', 'due_at'], name='invoice_by_due')],
            },
        ),
        migrations.AddField(
            model_name='numberseries',
            name='seller',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='series', to='billing.seller'),
        ),
        migrations.CreateModel(
            name='TaxRate',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('code', models.CharField(max_length=40, unique=True)),
                ('title', models.CharField(max_length=200)),
                ('rate_ppm', models.PositiveIntegerField()),
                ('note', models.CharField(blank=True, default='', max_length=1000)),
            ],
            options={
                'db_table': 'billing_tax_rate',
                'constraints': [models.CheckConstraint(condition=models.Q(('rate_ppm__lte', 1000000)), name='tax_rate_at_most_all')],
            },
        ),
        migrations.AddField(
            model_name='seller',
            name='tax_rate',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='billing.taxrate'),
        ),
        migrations.CreateModel(
            name='BillingDetails',
            fields=[
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('tenant', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='billing_details', serialize=False, to='accounts.tenant')),
                ('name', models.CharField(blank=True, default='', max_length=200)),
                ('address', models.CharField(blank=True, default='', max_length=1000)),
                ('country', models.CharField(blank=True, default='', max_length=2)),
                ('tax_id', models.CharField(blank=True, default='', max_length=100)),
                ('email', models.CharField(blank=True, default='', max_length=254)),
                ('reference', models.CharField(blank=True, default='', max_length=100)),
                ('language', models.CharField(choices=[('en', 'English'), ('zh-hans', '简体中文'), ('ru', 'Русский')], default='en', max_length=10)),
                ('seller', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='billing.seller')),
                ('tax_rate', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='billing.taxrate')),
            ],
            options={
                'db_table': 'billing_details',
            },
        ),
        migrations.CreateModel(
            name='InvoiceFile',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('language', models.CharField(max_length=10)),
                ('content', models.BinaryField()),
                ('sha256', models.CharField(max_length=64)),
                ('made_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now)),
                ('invoice', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='files', to='billing.invoice')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.tenant')),
            ],
            options={
                'db_table': 'billing_invoice_file',
                'constraints': [models.UniqueConstraint(fields=('invoice', 'language'), name='invoice_file_once')],
            },
        ),
        migrations.CreateModel(
            name='InvoiceLine',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('position', models.PositiveIntegerField()),
                ('kind', models.CharField(choices=[('usage', 'Usage'), ('correction', 'Correction'), ('paid_ahead', 'Paid Ahead'), ('credit', 'Credit')], max_length=10)),
                ('model', models.TextField(default='')),
                ('component', models.TextField(default='')),
                ('tier', models.TextField(default='')),
                ('price_set_id', models.BigIntegerField(null=True)),
                ('discount_bp', models.IntegerField(default=0)),
                ('is_late', models.BooleanField(default=False)),
                ('text', models.CharField(blank=True, default='', max_length=500)),
                ('quantity', models.BigIntegerField(default=0)),
                ('price_nano', models.BigIntegerField(null=True)),
                ('exact_nano', models.BigIntegerField()),
                ('amount_nano', models.BigIntegerField()),
                ('tax_code', models.CharField(blank=True, default='', max_length=40)),
                ('tax_ppm', models.PositiveIntegerField(default=0)),
                ('invoice', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='lines', to='billing.invoice')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.tenant')),
            ],
            options={
                'db_table': 'billing_invoice_line',
                'constraints': [models.UniqueConstraint(fields=('invoice', 'position'), name='invoice_line_once')],
            },
        ),
        migrations.CreateModel(
            name='InvoiceTax',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('code', models.CharField(max_length=40)),
                ('title', models.CharField(max_length=200)),
                ('note', models.CharField(blank=True, default='', max_length=1000)),
                ('rate_ppm', models.PositiveIntegerField()),
                ('base_nano', models.BigIntegerField()),
                ('amount_nano', models.BigIntegerField()),
                ('invoice', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='taxes', to='billing.invoice')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.tenant')),
            ],
            options={
                'db_table': 'billing_invoice_tax',
                'constraints': [models.UniqueConstraint(fields=('invoice', 'code'), name='invoice_tax_once')],
            },
        ),
        migrations.CreateModel(
            name='RatingDifference',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('request_id', models.UUIDField()),
                ('posting_key', models.CharField(max_length=200)),
                ('before_nano', models.BigIntegerField()),
                ('after_nano', models.BigIntegerField()),
                ('difference_nano', models.BigIntegerField()),
                ('credit_note', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='differences', to='billing.invoice')),
                ('period', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='billing.billingperiod')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.tenant')),
                ('run', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='differences', to='billing.ratingrun')),
            ],
            options={
                'db_table': 'billing_rating_difference',
                'indexes': [models.Index(fields=['request_id'], name='rating_difference_of_request')],
                'constraints': [models.UniqueConstraint(fields=('run', 'request_id'), name='rating_difference_once'), models.CheckConstraint(condition=models.Q(('difference_nano', django.db.models.expressions.CombinedExpression(models.F('after_nano'), '-', models.F('before_nano')))), name='rating_difference_adds_up'), models.CheckConstraint(condition=models.Q(models.Q(('credit_note__isnull', True), ('period__isnull', False)), models.Q(('credit_note__isnull', False), ('period__isnull', True)), _connector='OR'), name='rating_difference_one_place')],
            },
        ),
        migrations.AddConstraint(
            model_name='numberseries',
            constraint=models.UniqueConstraint(fields=('seller', 'name'), name='number_series_once'),
        ),
        migrations.AddConstraint(
            model_name='seller',
            constraint=models.UniqueConstraint(condition=models.Q(('is_default', True)), fields=('is_default',), name='seller_one_default'),
        ),
        migrations.AddConstraint(
            model_name='seller',
            constraint=models.CheckConstraint(condition=models.Q(('name', ''), _negated=True), name='seller_has_a_name'),
        ),
        migrations.RunSQL(SQL, migrations.RunSQL.noop),
    ]
