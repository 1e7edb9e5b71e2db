"""Payments, top-ups and redemption codes."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("billing", "0004_batches")]

    operations = []
