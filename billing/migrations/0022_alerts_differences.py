"""Differences that a person closes, what upstreams' reports said, and usage in doubt.

The two indexes make what is in doubt a short read; building them holds up writers for as long as
it takes to read the events once.
"""

import django.db.models.deletion
import turnpike.kernel.clock
import turnpike.kernel.ids
from django.db import migrations, models
from turnpike.control.scope import rls_sql

IN_DOUBT = """
CREATE INDEX upstream_attempt_unknown ON billing_upstream_attempt (request_id)
  WHERE outcome = 'unknown';
CREATE INDEX usage_event_waived ON billing_usage_event (request_id) WHERE waived_nano > 0;
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON billing_usage_review
  FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON billing_usage_review
  FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change();
"""
UNDO = """
DROP INDEX upstream_attempt_unknown;
DROP INDEX usage_event_waived;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0020_tenant_playground"),
        ("billing", "0021_opera_sums_over_tenants"),
    ]

    operations = [
        migrations.CreateModel(
            name="ReconciliationItem",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("created_at", models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ("uuid", models.UUIDField(default=turnpike.kernel.ids.uuid7, editable=False, unique=True)),
                ("kind", models.CharField(max_length=40)),
                ("cause", models.CharField(max_length=400)),
                ("evidence", models.JSONField()),
                ("state", models.CharField(choices=[("open", "Open"), ("closed", "Closed")], default="open", max_length=6)),
                ("seen_at", models.DateTimeField(default=turnpike.kernel.clock.utc_now)),
                ("times_seen", models.IntegerField(default=1)),
                ("gone_at", models.DateTimeField(blank=True, null=True)),
                ("times_reopened", models.IntegerField(default=0)),
                ("closed_at", models.DateTimeField(blank=True, null=True)),
                ("closed_by", models.CharField(blank=True, max_length=200)),
                ("reason", models.CharField(blank=True, max_length=500)),
            ],
            options={
                "db_table": "billing_reconciliation_item",
                "indexes": [models.Index(condition=models.Q(("state", "open")), fields=["kind"], name="reconciliation_item_open")],
                "constraints": [
                    models.UniqueConstraint(fields=("kind", "cause"), name="reconciliation_item_once"),
                    models.CheckConstraint(condition=models.Q(models.Q(("closed_at__isnull", True), ("state", "open")), models.Q(("closed_at__isnull", False), ("state", "closed"), models.Q(("reason", ""), _negated=True), models.Q(("closed_by", ""), _negated=True)), _connector="OR"), name="reconciliation_item_closed_by_somebody"),
                ],
            },
        ),
        migrations.CreateModel(
            name="UpstreamReportDay",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("day", models.DateField()),
                ("read_at", models.DateTimeField(default=turnpike.kernel.clock.utc_now)),
                ("figures", models.JSONField(default=dict)),
                ("upstream", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="report_days", to="billing.upstream")),
            ],
            options={
                "db_table": "billing_upstream_report_day",
                "constraints": [models.UniqueConstraint(fields=("upstream", "day"), name="upstream_report_day_once")],
            },
        ),
        migrations.CreateModel(
            name="UsageReview",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("created_at", models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False)),
                ("request_id", models.UUIDField()),
                ("attempt", models.SmallIntegerField()),
                ("decision", models.CharField(choices=[("accepted", "Accepted"), ("charged", "Charged")], max_length=8)),
                ("usage", models.JSONField(blank=True, null=True)),
                ("charged_nano", models.BigIntegerField(default=0)),
                ("accepted_nano", models.BigIntegerField(default=0)),
                ("currency", models.CharField(max_length=3)),
                ("reason", models.CharField(max_length=500)),
                ("actor", models.CharField(max_length=200)),
                ("tenant", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="reviews", to="accounts.tenant")),
            ],
            options={
                "db_table": "billing_usage_review",
                "constraints": [
                    models.UniqueConstraint(fields=("request_id", "attempt"), name="usage_review_once"),
                    models.CheckConstraint(condition=models.Q(("decision__in", ["accepted", "charged"])), name="usage_review_decision"),
                    models.CheckConstraint(condition=models.Q(("attempt__gte", 0)), name="usage_review_attempt"),
                    models.CheckConstraint(condition=models.Q(("decision", "charged"), ("charged_nano", 0), _connector="OR"), name="usage_review_accepted"),
                ],
            },
        ),
        migrations.RunSQL([rls_sql("billing_usage_review"), IN_DOUBT], UNDO),
    ]
