"""What upstreams report, and differences that people close."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("billing", "0007_alerts")]

    operations = []
