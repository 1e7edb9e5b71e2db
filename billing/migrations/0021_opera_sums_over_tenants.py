"""Indexes for sums over all tenants: rollups by time, and daily counters of whole tenants."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("billing", "0020_opera_own_prices")]

    operations = [
        AddIndexConcurrently(
            "usagerollup", models.Index(fields=["bucket_at"], name="usage_rollup_by_time")
        ),
        AddIndexConcurrently(
            "spendcounter",
            models.Index(
                fields=["period", "tenant_id"],
                condition=Q(scope="t"),
                include=["spent_nano"],
                name="spend_counter_of_tenants",
            ),
        ),
    ]
