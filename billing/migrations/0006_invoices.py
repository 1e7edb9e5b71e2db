"""Billing periods, invoices and credit notes."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("billing", "0005_payments")]

    operations = []
