"""Alerts on budgets: which threshold was reached in which day or month, each once."""

import django.db.models.deletion
import turnpike.kernel.clock
from django.db import migrations, models
from turnpike.control.scope import rls_sql


class Migration(migrations.Migration):
    dependencies = [("billing", "0006_invoices")]

    operations = [
        migrations.CreateModel(
            name="BudgetAlert",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("created_at", models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ("scope", models.CharField(max_length=21)),
                ("period", models.CharField(max_length=10)),
                ("threshold", models.SmallIntegerField()),
                ("budget_nano", models.BigIntegerField()),
                ("spent_nano", models.BigIntegerField()),
                ("blocks", models.BooleanField()),
                ("told_at", models.DateTimeField(blank=True, null=True)),
                ("tenant", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="budget_alerts", to="accounts.tenant")),
            ],
            options={
                "db_table": "billing_budget_alert",
                "indexes": [models.Index(condition=models.Q(("told_at", None)), fields=["id"], name="budget_alert_to_tell")],
                "constraints": [
                    models.UniqueConstraint(fields=("tenant", "scope", "period", "threshold", "budget_nano"), name="budget_alert_once"),
                    models.CheckConstraint(condition=models.Q(("threshold__in", [50, 80, 95, 100])), name="budget_alert_threshold"),
                ],
            },
        ),
        migrations.RunSQL(rls_sql("billing_budget_alert"), migrations.RunSQL.noop),
    ]
