"""Announcement, ComponentDay, ReconciliationRun, ForgottenPosting: what operators tell and keep.

None of it belongs to a tenant.
"""

from django.db import models
from django.db.models import F, Q

from turnpike.control.models import PublicModel, TimestampedModel
from turnpike.kernel import clock

TITLE_LENGTH_MAX = 120
TEXT_LENGTH_MAX = 1_000
COMPONENT_LENGTH_MAX = 40


class Announcement(PublicModel):
    """Something that all tenants should know between two times, in each language."""

    public_prefix = "note"

    class Kind(models.TextChoices):
        """A notice is a banner; maintenance and incidents stand on the status page, too."""

        NOTICE = "notice"
        MAINTENANCE = "maintenance"
        INCIDENT = "incident"

    class Severity(models.TextChoices):
        """How loud it is."""

        INFO = "info"
        WARN = "warn"
        DANGER = "danger"

    kind = models.CharField(max_length=11, choices=Kind.choices)
    severity = models.CharField(max_length=6, choices=Severity.choices)
    component = models.CharField(max_length=COMPONENT_LENGTH_MAX, blank=True)
    # language code -> {"title", "text"}; English is always there.
    texts = models.JSONField()
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(null=True, blank=True)
    withdrawn_at = models.DateTimeField(null=True, blank=True)
    actor = models.CharField(max_length=64)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=["notice", "maintenance", "incident"]),
                name="announcement_kind_is_known",
            ),
            models.CheckConstraint(
                condition=Q(severity__in=["info", "warn", "danger"]),
                name="announcement_severity_is_known",
            ),
            models.CheckConstraint(
                condition=Q(ends_at__isnull=True) | Q(ends_at__gt=F("starts_at")),
                name="announcement_ends_after_it_starts",
            ),
        ]
        indexes = [models.Index(fields=["-starts_at"], name="announcement_by_start")]

    def __str__(self) -> str:
        return self.public_id


class ComponentDay(models.Model):
    """How often a component was looked at on a UTC day, and how often it did not answer."""

    pk = models.CompositePrimaryKey("component", "day")
    component = models.CharField(max_length=COMPONENT_LENGTH_MAX)
    day = models.DateField()
    checks = models.IntegerField(default=0)
    failures = models.IntegerField(default=0)
    checked_at = models.DateTimeField(default=clock.utc_now)
    is_up = models.BooleanField(default=True)

    class Meta:
        db_table = "billing_component_day"
        constraints = [
            models.CheckConstraint(
                condition=Q(failures__gte=0, checks__gte=F("failures")),
                name="component_day_counts_add_up",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.component} {self.day}"


class ReconciliationRun(TimestampedModel):
    """What one comparison of events, ledger, rollups, counters and Redis found."""

    differences = models.IntegerField()
    findings = models.JSONField()
    took_ms = models.BigIntegerField()
    actor = models.CharField(max_length=64)

    class Meta:
        db_table = "billing_reconciliation_run"

    def __str__(self) -> str:
        return f"{self.created_at:%Y-%m-%d %H:%M}: {self.differences}"


class ForgottenMonth(models.Model):
    """A month whose events were dropped after their time; nothing is posted into it any more."""

    month = models.DateField(primary_key=True)
    events = models.BigIntegerField()
    dropped_at = models.DateTimeField(default=clock.utc_now)

    class Meta:
        db_table = "billing_forgotten_month"

    def __str__(self) -> str:
        return f"{self.month:%Y-%m}"


class ForgottenPosting(models.Model):
    """What dropped events had come to by posting, so that the ledger's proof still adds up."""

    pk = models.CompositePrimaryKey("posting_id", "tenant_id")
    posting_id = models.UUIDField()
    tenant_id = models.BigIntegerField()
    amount_nano = models.BigIntegerField()

    class Meta:
        db_table = "billing_forgotten_posting"

    def __str__(self) -> str:
        return f"{self.posting_id}: {self.amount_nano}"
