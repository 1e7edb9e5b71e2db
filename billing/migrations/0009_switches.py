"""Switches and announcements of the operator."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("billing", "0008_evidence")]

    operations = []
