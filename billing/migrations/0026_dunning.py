"""Steps of dunning, each once for an invoice; saved cards that pay invoices."""

import django.db.models.deletion
import turnpike.kernel.clock
from django.db import migrations, models

from turnpike.control.scope import rls_sql


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0022_user_language'),
        ('billing', '0023_alerts_invoice_payments'),
    ]

    operations = [
        migrations.CreateModel(
            name='InvoiceReminder',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ('step', models.PositiveSmallIntegerField()),
            ],
            options={
                'db_table': 'billing_invoice_reminder',
            },
        ),
        migrations.AddField(
            model_name='creditplan',
            name='pays_invoices',
            field=models.BooleanField(default=False),
        ),
        migrations.AddConstraint(
            model_name='creditplan',
            constraint=models.CheckConstraint(condition=models.Q(('pays_invoices', False), models.Q(('method_ref', ''), _negated=True), _connector='OR'), name='credit_plan_pays_by_card'),
        ),
        migrations.AddField(
            model_name='invoicereminder',
            name='invoice',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='reminders', to='billing.invoice'),
        ),
        migrations.AddField(
            model_name='invoicereminder',
            name='tenant',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.tenant'),
        ),
        migrations.AddConstraint(
            model_name='invoicereminder',
            constraint=models.UniqueConstraint(fields=('invoice', 'step'), name='invoice_reminder_once'),
        ),
        migrations.RunSQL(
            rls_sql("billing_invoice_reminder"),
            "DROP POLICY tenant_rows ON billing_invoice_reminder",
        ),
    ]
