"""UsageEvent, UpstreamAttempt, UsageRollup, SpendCounter, DeadLetter: what requests used.

Events are append-only, a row for each request and revision. A revision's numbers are differences,
so that the sum over a request's rows is what is known best; its other columns are the newest facts.
Numbers of tenant, workspace and key are those of their tables, without a foreign key: the data
plane stamps them, and an event outlives what it names.
"""

from collections.abc import Mapping

from django.db import models

from turnpike.contracts import rating
from turnpike.kernel import clock, ids

# Numbers that revisions carry as differences and rollups as sums.
TOKEN_COLUMNS: Mapping[str, str] = {
    rating.INPUT: "input_tokens",
    rating.OUTPUT: "output_tokens",
    rating.CACHE_WRITE_5M: "cache_write_5m_tokens",
    rating.CACHE_WRITE_1H: "cache_write_1h_tokens",
    rating.CACHE_READ: "cache_read_tokens",
    rating.WEB_SEARCH: "web_search_requests",
}
# What each component was charged; together they are `amount_nano`.
CHARGE_COLUMNS: Mapping[str, str] = {name: f"{name}_nano" for name in rating.COMPONENTS}
NUMBER_COLUMNS = (
    *TOKEN_COLUMNS.values(),
    "thinking_tokens",
    *CHARGE_COLUMNS.values(),
    "amount_nano",
    "waived_nano",
)


class UsageNumbers(models.Model):
    """The counts and amounts that events carry and rollups sum."""

    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cache_write_5m_tokens = models.BigIntegerField(default=0)
    cache_write_1h_tokens = models.BigIntegerField(default=0)
    cache_read_tokens = models.BigIntegerField(default=0)
    web_search_requests = models.BigIntegerField(default=0)
    thinking_tokens = models.BigIntegerField(default=0)
    input_nano = models.BigIntegerField(default=0)
    output_nano = models.BigIntegerField(default=0)
    cache_write_5m_nano = models.BigIntegerField(default=0)
    cache_write_1h_nano = models.BigIntegerField(default=0)
    cache_read_nano = models.BigIntegerField(default=0)
    web_search_nano = models.BigIntegerField(default=0)
    amount_nano = models.BigIntegerField(default=0)
    waived_nano = models.BigIntegerField(default=0)

    class Meta:
        abstract = True


class UsageEvent(UsageNumbers):
    """One revision of what a request used and was charged. Partitioned by month of `request_id`."""

    pk = models.CompositePrimaryKey("request_id", "revision")
    request_id = models.UUIDField()
    revision = models.SmallIntegerField(default=0)
    tenant_id = models.BigIntegerField()
    workspace_id = models.BigIntegerField()
    api_key_id = models.BigIntegerField()
    member = models.TextField(null=True)  # noqa: DJ001 - null: the event did not say
    period_id = models.BigIntegerField()
    status = models.TextField()
    rank = models.SmallIntegerField()
    is_late = models.BooleanField(default=False)
    model = models.TextField()
    requested_model = models.TextField(default="")
    upstream_model = models.TextField(default="")
    tier = models.TextField()
    context_window = models.TextField()
    is_batch = models.BooleanField(default=False)
    is_stream = models.BooleanField(default=False)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField()
    ttft_us = models.BigIntegerField(null=True)
    http_status = models.SmallIntegerField(null=True)
    stop_reason = models.TextField(null=True)  # noqa: DJ001
    error_type = models.TextField(null=True)  # noqa: DJ001
    output_chars = models.BigIntegerField(default=0)
    price_set_id = models.BigIntegerField()
    discount_bp = models.IntegerField(default=0)
    hold_micro = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    components = models.JSONField(default=list)
    posting_id = models.UUIDField()
    fingerprint = models.BinaryField()
    raw_usage = models.JSONField(default=dict)
    ingested_at = models.DateTimeField(default=clock.utc_now)

    class Meta:
        db_table = "billing_usage_event"

    def __str__(self) -> str:
        return f"{self.request_id}.{self.revision}"

    @property
    def public_id(self) -> str:
        """The request's id as its response header named it."""
        return ids.public_id(ids.REQUEST, self.request_id)


class UpstreamAttempt(models.Model):
    """One try of a request at an upstream, billed or not: the upstream's report counts these."""

    pk = models.CompositePrimaryKey("request_id", "attempt")
    request_id = models.UUIDField()
    attempt = models.SmallIntegerField()
    tenant_id = models.BigIntegerField()
    upstream_id = models.BigIntegerField()
    credential_id = models.BigIntegerField(null=True)
    upstream_request_id = models.TextField(null=True)  # noqa: DJ001
    outcome = models.TextField()
    is_billed = models.BooleanField()
    usage = models.JSONField(null=True)
    cost_nano = models.BigIntegerField(null=True)
    started_at = models.DateTimeField()

    class Meta:
        db_table = "billing_upstream_attempt"

    def __str__(self) -> str:
        return f"{self.request_id}/{self.attempt}"


class UsageRollup(UsageNumbers):
    """Sums over a quarter of an hour (UTC) of requests' starts; hours and days are its sums."""

    pk = models.CompositePrimaryKey(
        "tenant_id", "bucket_at", "workspace_id", "api_key_id", "model", "tier", "context_window"
    )
    tenant_id = models.BigIntegerField()
    bucket_at = models.DateTimeField()
    workspace_id = models.BigIntegerField()
    api_key_id = models.BigIntegerField()
    model = models.TextField()
    tier = models.TextField()
    context_window = models.TextField()
    requests = models.BigIntegerField(default=0)

    class Meta:
        db_table = "billing_usage_rollup"
        indexes = [models.Index(fields=["bucket_at"], name="usage_rollup_by_time")]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.bucket_at:%Y-%m-%dT%H:%M} {self.model}"


class SpendCounter(models.Model):
    """What a scope (`t`, `w<n>`, `k<n>`) was charged in a UTC day or month; budgets compare it."""

    pk = models.CompositePrimaryKey("tenant_id", "period", "scope")
    tenant_id = models.BigIntegerField()
    scope = models.CharField(max_length=21)
    period = models.CharField(max_length=10)
    spent_nano = models.BigIntegerField(default=0)

    class Meta:
        db_table = "billing_spend_counter"
        indexes = [
            models.Index(
                fields=["period", "tenant_id"],
                condition=models.Q(scope="t"),
                include=["spent_nano"],
                name="spend_counter_of_tenants",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.scope} {self.period}"


class DeadLetter(models.Model):
    """A stream entry that could not be posted, whole, until a person retries or discards it."""

    class Resolution(models.TextChoices):
        """What a person decided."""

        POSTED = "posted"
        DISCARDED = "discarded"

    stream = models.TextField()
    stream_id = models.TextField()
    # The same body again is the same letter: it counts a try.
    fingerprint = models.BinaryField(unique=True)
    body = models.BinaryField()
    request_id = models.UUIDField(null=True, db_index=True)
    error = models.TextField()
    first_at = models.DateTimeField(default=clock.utc_now)
    tries = models.IntegerField(default=1)
    resolved_at = models.DateTimeField(null=True)
    resolution = models.CharField(max_length=10, choices=Resolution.choices, default="", blank=True)

    class Meta:
        db_table = "billing_dead_letter"
        indexes = [
            models.Index(
                fields=["id"], name="dead_letter_open", condition=models.Q(resolved_at=None)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.stream} {self.stream_id}"
