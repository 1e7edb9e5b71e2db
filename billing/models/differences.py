"""ReconciliationItem, UpstreamReportDay, UsageReview: what a person decides about differences.

Items and reports belong to the platform. A review belongs to the tenant whose request it is about.
"""

from django.db import models
from django.db.models import Q

from accounts.models import REASON_LENGTH_MAX
from turnpike.control.models import PublicModel, TimestampedModel
from turnpike.kernel import clock

KIND_LENGTH_MAX = 40
CAUSE_LENGTH_MAX = 400


class ReconciliationItem(PublicModel):
    """A difference that a comparison found: one for each cause, open until a person closes it.

    It is opened again when its cause comes back after it was gone, or with other figures.
    """

    public_prefix = "diff"

    class State(models.TextChoices):
        """Whether somebody has to look at it."""

        OPEN = "open"
        CLOSED = "closed"

    # Which row of the reconciliation found it, and what it is about within that row.
    kind = models.CharField(max_length=KIND_LENGTH_MAX)
    cause = models.CharField(max_length=CAUSE_LENGTH_MAX)
    # Pairs of name and value in the order of the comparison, as they were seen last.
    evidence = models.JSONField()
    state = models.CharField(max_length=6, choices=State.choices, default=State.OPEN)
    seen_at = models.DateTimeField(default=clock.utc_now)
    times_seen = models.IntegerField(default=1)
    # When a comparison that would have found it no longer did; null: it is still there.
    gone_at = models.DateTimeField(null=True, blank=True)
    times_reopened = models.IntegerField(default=0)
    closed_at = models.DateTimeField(null=True, blank=True)
    closed_by = models.CharField(max_length=200, blank=True)
    reason = models.CharField(max_length=REASON_LENGTH_MAX, blank=True)

    class Meta:
        db_table = "billing_reconciliation_item"
        constraints = [
            models.UniqueConstraint(fields=["kind", "cause"], name="reconciliation_item_once"),
            models.CheckConstraint(
                condition=Q(state="open", closed_at__isnull=True)
                | Q(state="closed", closed_at__isnull=False) & ~Q(reason="") & ~Q(closed_by=""),
                name="reconciliation_item_closed_by_somebody",
            ),
        ]
        indexes = [
            models.Index(
                fields=["kind"], condition=Q(state="open"), name="reconciliation_item_open"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind}: {self.cause}"


class UpstreamReportDay(models.Model):
    """What an upstream's usage report said of a UTC day, beside what our attempts say.

    `figures`: model -> kind of token -> [ours, reported].
    """

    upstream = models.ForeignKey(
        "billing.Upstream", on_delete=models.PROTECT, related_name="report_days"
    )
    day = models.DateField()
    read_at = models.DateTimeField(default=clock.utc_now)
    figures = models.JSONField(default=dict)

    class Meta:
        db_table = "billing_upstream_report_day"
        constraints = [
            models.UniqueConstraint(fields=["upstream", "day"], name="upstream_report_day_once"),
        ]

    def __str__(self) -> str:
        return f"{self.upstream_id} {self.day}"


class UsageReview(TimestampedModel):
    """What a person decided about usage in doubt: once for each request and attempt.

    Attempt 0 stands for what a request's hold did not cover.
    """

    class Decision(models.TextChoices):
        """Accepted: the operator bears it. Charged: the tenant pays, at most the hold."""

        ACCEPTED = "accepted"
        CHARGED = "charged"

    tenant = models.ForeignKey("accounts.Tenant", on_delete=models.PROTECT, related_name="reviews")
    request_id = models.UUIDField()
    attempt = models.SmallIntegerField()
    decision = models.CharField(max_length=8, choices=Decision.choices)
    # What the upstream is held to have billed, in its own shape; null: nothing.
    usage = models.JSONField(null=True, blank=True)
    # What the decision changed in the charge, and what it left to the operator.
    charged_nano = models.BigIntegerField(default=0)
    accepted_nano = models.BigIntegerField(default=0)
    currency = models.CharField(max_length=3)
    reason = models.CharField(max_length=REASON_LENGTH_MAX)
    actor = models.CharField(max_length=200)

    class Meta:
        db_table = "billing_usage_review"
        constraints = [
            models.UniqueConstraint(fields=["request_id", "attempt"], name="usage_review_once"),
            models.CheckConstraint(
                condition=Q(decision__in=["accepted", "charged"]), name="usage_review_decision"
            ),
            models.CheckConstraint(condition=Q(attempt__gte=0), name="usage_review_attempt"),
            models.CheckConstraint(
                condition=Q(decision="charged") | Q(charged_nano=0), name="usage_review_accepted"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.request_id}/{self.attempt}: {self.decision}"
