"""Alerts on budgets and balances."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("billing", "0006_invoices")]

    operations = []
