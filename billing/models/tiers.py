"""Tier, TierGroupLimit, Subscription: what a tenant bought and how far it reaches."""

from django.db import models
from django.db.models import Q

from billing.models.catalog import PriceBook
from turnpike.contracts.snapshots import LIMIT_NAMES, Limits
from turnpike.control.models import TimestampedModel

DEFAULT_TIER = "basic"


class LimitColumns(models.Model):
    """The limits of one scope; null: not limited here."""

    requests_per_minute = models.PositiveIntegerField(null=True, blank=True)
    tokens_per_minute = models.PositiveIntegerField(null=True, blank=True)
    input_tokens_per_minute = models.PositiveIntegerField(null=True, blank=True)
    output_tokens_per_minute = models.PositiveIntegerField(null=True, blank=True)
    concurrency = models.PositiveIntegerField(null=True, blank=True)
    burst_seconds = models.PositiveIntegerField(null=True, blank=True)

    class Meta:
        abstract = True

    @property
    def limits(self) -> Limits:
        """The columns as a value."""
        return Limits(**{name: getattr(self, name) for name in LIMIT_NAMES})


class Tier(LimitColumns, TimestampedModel):
    """A plan: limits of the whole tenant, and what it may not use."""

    code = models.SlugField(max_length=50, unique=True)
    name = models.CharField(max_length=100)
    output_reserve_max = models.PositiveIntegerField(null=True, blank=True, default=4_096)
    count_tokens_per_minute = models.PositiveIntegerField(default=2_000)
    denied_betas = models.JSONField(default=list, blank=True)
    denied_models = models.JSONField(default=list, blank=True)
    allowed_features = models.JSONField(default=list, blank=True)

    class Meta:
        db_table = "billing_tier"

    def __str__(self) -> str:
        return self.code


class TierGroupLimit(LimitColumns):
    """Limits of a tier for one group of models, below the tier's own."""

    tier = models.ForeignKey(Tier, on_delete=models.CASCADE, related_name="group_limits")
    limit_group = models.CharField(max_length=100)

    class Meta:
        db_table = "billing_tier_group_limit"
        constraints = [
            models.UniqueConstraint(fields=["tier", "limit_group"], name="tier_group_limit_once"),
        ]

    def __str__(self) -> str:
        return f"{self.tier_id}/{self.limit_group}"


class Subscription(TimestampedModel):
    """A tenant's terms. Prepaid or postpaid stands on its wallet, where charging locks it."""

    tenant = models.OneToOneField(
        "accounts.Tenant", on_delete=models.PROTECT, related_name="subscription"
    )
    tier = models.ForeignKey(Tier, on_delete=models.PROTECT)
    book = models.ForeignKey(PriceBook, null=True, blank=True, on_delete=models.PROTECT)
    discount_bp = models.PositiveIntegerField(default=0)
    overrides = models.JSONField(default=dict, blank=True)
    group_overrides = models.JSONField(default=dict, blank=True)
    # When a client leaves its stream; empty: as the upstream has it. Null: a drain has no end.
    on_disconnect = models.CharField(max_length=10, blank=True, default="")
    drain_seconds = models.PositiveIntegerField(null=True, blank=True)

    class Meta:
        db_table = "billing_subscription"
        constraints = [
            models.CheckConstraint(
                condition=Q(on_disconnect__in=["", "cancel", "drain"]),
                name="subscription_on_disconnect",
            ),
            models.CheckConstraint(
                condition=Q(discount_bp__lte=10_000), name="subscription_discount_at_most_all"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id} on {self.tier_id}"
