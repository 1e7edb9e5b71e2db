"""Webhooks: endpoints, events, deliveries and tries; what a member is told; budgets that warn."""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

import turnpike.kernel.clock
import turnpike.kernel.ids
from turnpike.control.scope import rls_sql

TABLES = (
    "accounts_webhookendpoint",
    "accounts_webhookevent",
    "accounts_webhookdelivery",
    "accounts_webhookattempt",
    "accounts_noticepreference",
)


class Migration(migrations.Migration):
    dependencies = [("accounts", "0002_walls")]

    operations = [
        migrations.AddField(
            model_name="apikey",
            name="daily_budget_blocks",
            field=models.BooleanField(db_default=True, default=True),
        ),
        migrations.AddField(
            model_name="apikey",
            name="monthly_budget_blocks",
            field=models.BooleanField(db_default=True, default=True),
        ),
        migrations.AddField(
            model_name="tenant",
            name="daily_budget_blocks",
            field=models.BooleanField(db_default=True, default=True),
        ),
        migrations.AddField(
            model_name="tenant",
            name="monthly_budget_blocks",
            field=models.BooleanField(db_default=True, default=True),
        ),
        migrations.AddField(
            model_name="workspace",
            name="daily_budget_blocks",
            field=models.BooleanField(db_default=True, default=True),
        ),
        migrations.AddField(
            model_name="workspace",
            name="monthly_budget_blocks",
            field=models.BooleanField(db_default=True, default=True),
        ),
        migrations.CreateModel(
            name="NoticePreference",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False),
                ),
                (
                    "muted",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=20),
                        blank=True,
                        default=list,
                        size=None,
                    ),
                ),
                (
                    "member",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="notices",
                        to="accounts.member",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="accounts.tenant",
                    ),
                ),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="WebhookEndpoint",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False),
                ),
                (
                    "uuid",
                    models.UUIDField(
                        default=turnpike.kernel.ids.uuid7, editable=False, unique=True
                    ),
                ),
                ("url", models.CharField(max_length=500)),
                ("description", models.CharField(blank=True, max_length=100)),
                (
                    "event_types",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=40),
                        blank=True,
                        default=list,
                        size=None,
                    ),
                ),
                ("sealed", models.TextField()),
                ("previous_sealed", models.TextField(blank=True)),
                ("previous_ends_at", models.DateTimeField(blank=True, null=True)),
                (
                    "disabled",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("", "No"),
                            ("by_hand", "By Hand"),
                            ("failing", "Failing"),
                            ("gone", "Gone"),
                        ],
                        default="",
                        max_length=7,
                    ),
                ),
                ("disabled_at", models.DateTimeField(blank=True, null=True)),
                ("failures", models.IntegerField(default=0)),
                ("failing_since", models.DateTimeField(blank=True, null=True)),
                ("rests_until", models.DateTimeField(blank=True, null=True)),
                ("dropped", models.BigIntegerField(default=0)),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="webhooks",
                        to="accounts.tenant",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("event_types__len__lte", 32)),
                        name="webhookendpoint_types_are_bounded",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("disabled", ""), ("disabled_at__isnull", True)),
                            models.Q(
                                ("disabled__in", ["by_hand", "failing", "gone"]),
                                ("disabled_at__isnull", False),
                            ),
                            _connector="OR",
                        ),
                        name="webhookendpoint_disabled_is_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("previous_ends_at__isnull", True), ("previous_sealed", "")),
                            models.Q(
                                models.Q(("previous_sealed", ""), _negated=True),
                                ("previous_ends_at__isnull", False),
                            ),
                            _connector="OR",
                        ),
                        name="webhookendpoint_overlap_ends",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="WebhookEvent",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False),
                ),
                (
                    "uuid",
                    models.UUIDField(
                        default=turnpike.kernel.ids.uuid7, editable=False, unique=True
                    ),
                ),
                ("key", models.CharField(max_length=200)),
                ("type", models.CharField(max_length=40)),
                ("body", models.TextField()),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="accounts.tenant",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("tenant", "key"), name="webhookevent_once")
                ],
                "indexes": [models.Index(fields=["created_at"], name="webhookevent_by_age")],
            },
        ),
        migrations.CreateModel(
            name="WebhookDelivery",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(default=turnpike.kernel.clock.utc_now, editable=False),
                ),
                (
                    "uuid",
                    models.UUIDField(
                        default=turnpike.kernel.ids.uuid7, editable=False, unique=True
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("waiting", "Waiting"),
                            ("delivered", "Delivered"),
                            ("failed", "Failed"),
                        ],
                        default="waiting",
                        max_length=9,
                    ),
                ),
                ("tries", models.SmallIntegerField(default=0)),
                ("next_try_at", models.DateTimeField()),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="accounts.tenant",
                    ),
                ),
                (
                    "endpoint",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="deliveries",
                        to="accounts.webhookendpoint",
                    ),
                ),
                (
                    "event",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="deliveries",
                        to="accounts.webhookevent",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("endpoint", "event"), name="webhookdelivery_once"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("finished_at__isnull", True), ("state", "waiting")),
                            models.Q(
                                ("finished_at__isnull", False),
                                ("state__in", ["delivered", "failed"]),
                            ),
                            _connector="OR",
                        ),
                        name="webhookdelivery_state_is_known",
                    ),
                ],
                "indexes": [
                    models.Index(
                        condition=models.Q(("state", "waiting")),
                        fields=["endpoint", "next_try_at"],
                        name="webhookdelivery_due",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="WebhookAttempt",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("number", models.SmallIntegerField()),
                ("at", models.DateTimeField()),
                ("took_ms", models.IntegerField()),
                ("status", models.SmallIntegerField(blank=True, null=True)),
                ("error", models.CharField(blank=True, max_length=20)),
                ("response", models.CharField(blank=True, max_length=2000)),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="accounts.tenant",
                    ),
                ),
                (
                    "delivery",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="attempts",
                        to="accounts.webhookdelivery",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("delivery", "number"), name="webhookattempt_once"
                    )
                ],
            },
        ),
        *(
            migrations.RunSQL(
                rls_sql(table),
                f"DROP POLICY tenant_rows ON {table};"
                f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY;"
                f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY;",
            )
            for table in TABLES
        ),
    ]
