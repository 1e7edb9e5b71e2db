"""Upstream, UpstreamCredential, Route: who answers for which model, and with which secret."""

from django.db import models

from billing.models.catalog import CatalogModel, PriceBook
from turnpike.control.models import TimestampedModel

# The credential of this name opens usage reports and serves no requests.
ADMIN_CREDENTIAL = "admin"


class Upstream(TimestampedModel):
    """A server that speaks the Messages API or chat completions."""

    class Kind(models.TextChoices):
        """Which API it speaks."""

        ANTHROPIC = "anthropic"
        OPENAI = "openai"

    class Disconnect(models.TextChoices):
        """What to do with the upstream when the client hangs up."""

        CANCEL = "cancel"
        DRAIN = "drain"

    name = models.CharField(max_length=100, unique=True)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    base_url = models.CharField(max_length=500)
    is_enabled = models.BooleanField(default=True)
    # Keeps the conversations that it has, and gets no new ones.
    is_draining = models.BooleanField(default=False)
    is_simulator = models.BooleanField(default=False)
    send_request_id = models.BooleanField(default=False)
    on_disconnect = models.CharField(
        max_length=10, choices=Disconnect.choices, default=Disconnect.CANCEL
    )
    connect_timeout_ms = models.PositiveIntegerField(default=5_000)
    silence_timeout_ms = models.PositiveIntegerField(default=300_000)
    answer_timeout_ms = models.PositiveIntegerField(default=660_000)
    # Models that an import adds later are routed here too, as far as the upstream has them.
    is_for_all_models = models.BooleanField(default=False)
    default_priority = models.PositiveIntegerField(default=0)
    default_weight = models.PositiveIntegerField(default=1)
    # Caps of ours over all tenants; null: none.
    requests_per_minute = models.PositiveIntegerField(null=True, blank=True)
    concurrency = models.PositiveIntegerField(null=True, blank=True)
    # Takes message batches; those of others are sent one by one.
    has_batches = models.BooleanField(default=False)
    cost_book = models.ForeignKey(PriceBook, null=True, blank=True, on_delete=models.PROTECT)

    class Meta:
        db_table = "billing_upstream"
        constraints = [
            models.CheckConstraint(
                condition=models.Q(kind__in=["anthropic", "openai"]), name="upstream_kind"
            ),
            models.CheckConstraint(
                condition=models.Q(on_disconnect__in=["cancel", "drain"]),
                name="upstream_on_disconnect",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class UpstreamCredential(TimestampedModel):
    """A secret of an upstream, sealed for this very row; opened in a gateway's memory alone."""

    upstream = models.ForeignKey(Upstream, on_delete=models.PROTECT, related_name="credentials")
    name = models.CharField(max_length=100, default="default")
    sealed = models.TextField()
    hint = models.CharField(max_length=20, blank=True, default="")
    is_enabled = models.BooleanField(default=True)
    requests_per_minute = models.PositiveIntegerField(null=True, blank=True)
    concurrency = models.PositiveIntegerField(null=True, blank=True)

    class Meta:
        db_table = "billing_upstream_credential"
        constraints = [
            models.UniqueConstraint(fields=["upstream", "name"], name="upstream_credential_name"),
        ]

    def __str__(self) -> str:
        return f"{self.upstream_id}/{self.name}"


class Route(TimestampedModel):
    """A model that an upstream answers for, and the name it knows the model by."""

    model = models.ForeignKey(CatalogModel, on_delete=models.CASCADE, related_name="routes")
    upstream = models.ForeignKey(Upstream, on_delete=models.CASCADE, related_name="routes")
    upstream_model = models.CharField(max_length=200)
    weight = models.PositiveIntegerField(default=1)
    priority = models.PositiveIntegerField(default=0)
    is_enabled = models.BooleanField(default=True)

    class Meta:
        db_table = "billing_route"
        constraints = [
            models.UniqueConstraint(fields=["model", "upstream"], name="route_model_upstream"),
        ]

    def __str__(self) -> str:
        return f"{self.model_id} by {self.upstream_id}"
