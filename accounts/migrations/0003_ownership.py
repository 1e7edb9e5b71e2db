"""Which tenant owns an object of an upstream."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("accounts", "0002_walls")]

    operations = []
