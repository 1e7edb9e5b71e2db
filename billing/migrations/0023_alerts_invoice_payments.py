"""Payments by card of an invoice, beside those of credit."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0025_pages_lines_and_codes")]

    operations = [
        migrations.AddField(
            model_name="payment",
            name="invoice",
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name="payments", to="billing.invoice"),
        ),
        migrations.AlterField(
            model_name="payment",
            name="kind",
            field=models.CharField(choices=[("checkout", "Checkout"), ("auto_reload", "Auto Reload"), ("transfer", "Transfer"), ("invoice", "Invoice")], max_length=20),
        ),
        migrations.AddConstraint(
            model_name="payment",
            constraint=models.CheckConstraint(condition=models.Q(models.Q(("invoice__isnull", False), ("kind", "invoice")), models.Q(models.Q(("kind", "invoice"), _negated=True), ("invoice__isnull", True)), _connector="OR"), name="payment_of_an_invoice"),
        ),
    ]
