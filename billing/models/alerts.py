"""BudgetAlert: a threshold of a budget that was reached, told once."""

from django.db import models
from django.db.models import Q

from turnpike.control.models import TimestampedModel

THRESHOLDS = (50, 80, 95, 100)


class BudgetAlert(TimestampedModel):
    """What a scope has spent reached a share of its budget: once in a day or month.

    Another amount is another budget, with thresholds of its own.
    """

    tenant = models.ForeignKey(
        "accounts.Tenant", on_delete=models.PROTECT, related_name="budget_alerts"
    )
    # `t`, `w<number>`, `k<number>`, and a UTC day or month: as the spend counters name them.
    scope = models.CharField(max_length=21)
    period = models.CharField(max_length=10)
    threshold = models.SmallIntegerField()
    budget_nano = models.BigIntegerField()
    spent_nano = models.BigIntegerField()
    blocks = models.BooleanField()
    told_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "billing_budget_alert"
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "scope", "period", "threshold", "budget_nano"],
                name="budget_alert_once",
            ),
            models.CheckConstraint(
                condition=Q(threshold__in=list(THRESHOLDS)), name="budget_alert_threshold"
            ),
        ]
        indexes = [
            models.Index(fields=["id"], condition=Q(told_at=None), name="budget_alert_to_tell"),
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.scope} {self.period}: {self.threshold} %"
