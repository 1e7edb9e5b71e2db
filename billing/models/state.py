"""PlatformState: the one row that orders global changes and remembers Redis' epochs."""

from django.db import models

STATE_ID = 1


class PlatformState(models.Model):
    """What the control plane has told the data plane, so that a loss of Redis is noticed."""

    id = models.SmallIntegerField(primary_key=True, default=STATE_ID)
    # Rises with every change of tiers, models, routes, upstreams and prices.
    policy_version = models.BigIntegerField(default=1)
    # Rises with every loss of Redis' data; 0 until the first full publication.
    epoch = models.BigIntegerField(default=0)
    # What an operator decides for all tenants: contracts.snapshots.Switches.
    is_claude_only = models.BooleanField(default=False)
    allowed_features = models.JSONField(default=list, blank=True)

    class Meta:
        db_table = "billing_platform_state"
        constraints = [
            models.CheckConstraint(condition=models.Q(id=STATE_ID), name="platform_state_one_row"),
            models.CheckConstraint(
                condition=models.Q(policy_version__gte=1, epoch__gte=0),
                name="platform_state_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return f"version {self.policy_version}, epoch {self.epoch}"
