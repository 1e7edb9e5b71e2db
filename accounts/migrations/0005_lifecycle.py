"""Retention, export and closing of accounts."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("accounts", "0004_webhooks")]

    operations = []
