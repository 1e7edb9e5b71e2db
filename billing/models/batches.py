"""MessageBatch, BatchPart, BatchItem, LedgerHold: work that outlives the request that ordered it.

A batch is split into parts that one worker at a time carries out. Bodies and results are sealed
under a key of the batch, which is itself sealed and thrown away with the batch. Numbers of tenant,
workspace and key have no foreign key, as in usage events.
"""

from django.db import models
from django.db.models import F, Q

from turnpike.kernel import clock, ids


class MessageBatch(models.Model):
    """A batch as its tenant sees it, and the terms that it was admitted under."""

    class State(models.TextChoices):
        """The words of the API."""

        IN_PROGRESS = "in_progress"
        CANCELING = "canceling"
        ENDED = "ended"

    id = models.UUIDField(primary_key=True, default=ids.uuid7, editable=False)
    tenant_id = models.BigIntegerField()
    workspace_id = models.BigIntegerField()
    api_key_id = models.BigIntegerField()
    member = models.TextField(default="", blank=True)
    state = models.CharField(max_length=11, choices=State.choices, default=State.IN_PROGRESS)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    cancel_initiated_at = models.DateTimeField(null=True)
    archived_at = models.DateTimeField(null=True)
    api_version = models.CharField(max_length=40)
    betas = models.TextField(default="", blank=True)
    price_set_id = models.BigIntegerField()
    discount_bp = models.IntegerField(default=0)
    sealed_key = models.TextField(default="", blank=True)
    item_count = models.IntegerField()
    succeeded = models.IntegerField(default=0)
    errored = models.IntegerField(default=0)
    canceled = models.IntegerField(default=0)
    expired = models.IntegerField(default=0)

    class Meta:
        db_table = "billing_message_batch"
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["in_progress", "canceling", "ended"]), name="batch_state"
            ),
            models.CheckConstraint(
                condition=Q(state="ended", ended_at__isnull=False)
                | Q(~Q(state="ended"), ended_at__isnull=True),
                name="batch_ended_at",
            ),
        ]
        indexes = [
            models.Index(fields=["tenant_id", "workspace_id", "-id"], name="batch_of_workspace"),
            models.Index(
                fields=["created_at"], condition=Q(archived_at=None), name="batch_to_archive"
            ),
        ]

    def __str__(self) -> str:
        return self.public_id

    @property
    def public_id(self) -> str:
        """The id on the wire."""
        return ids.public_id(ids.BATCH, self.id)


class BatchPart(models.Model):
    """Items that go the same way: to one upstream as a batch of its own, or one by one."""

    class State(models.TextChoices):
        """Where a part stands; only `submitting` needs care when its worker died."""

        WAITING = "waiting"
        SUBMITTING = "submitting"
        SUBMITTED = "submitted"
        DONE = "done"

    tenant_id = models.BigIntegerField()
    batch = models.ForeignKey(MessageBatch, on_delete=models.CASCADE, related_name="parts")
    number = models.IntegerField()
    # Null: its items are sent one by one through the data plane.
    upstream_id = models.BigIntegerField(null=True)
    credential_id = models.BigIntegerField(null=True)
    upstream_batch = models.CharField(max_length=200, default="", blank=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    is_cancel_sent = models.BooleanField(default=False)
    submitted_at = models.DateTimeField(null=True)
    failures = models.IntegerField(default=0)
    due_at = models.DateTimeField()
    leased_until = models.DateTimeField(null=True)
    lease = models.UUIDField(null=True)

    class Meta:
        db_table = "billing_batch_part"
        constraints = [
            models.UniqueConstraint(fields=["batch", "number"], name="batch_part_number"),
            models.CheckConstraint(
                condition=Q(state__in=["waiting", "submitting", "submitted", "done"]),
                name="batch_part_state",
            ),
        ]
        indexes = [
            models.Index(fields=["due_at"], condition=~Q(state="done"), name="batch_part_due"),
        ]

    def __str__(self) -> str:
        return f"{self.batch_id}/{self.number}"


class BatchItem(models.Model):
    """One request of a batch. `request_id` names its usage event, today and after any repeat."""

    class State(models.TextChoices):
        """The words of the API's results, and `waiting` before."""

        WAITING = "waiting"
        SUCCEEDED = "succeeded"
        ERRORED = "errored"
        CANCELED = "canceled"
        EXPIRED = "expired"

    pk = models.CompositePrimaryKey("batch_id", "number")
    batch = models.ForeignKey(MessageBatch, on_delete=models.CASCADE, related_name="items")
    number = models.IntegerField()
    tenant_id = models.BigIntegerField()
    part = models.IntegerField()
    request_id = models.UUIDField()
    custom_id = models.CharField(max_length=64)
    model = models.TextField(default="", blank=True)
    requested_model = models.TextField(default="", blank=True)
    upstream_model = models.TextField(default="", blank=True)
    hold_micro = models.BigIntegerField(default=0)
    state = models.CharField(max_length=9, choices=State.choices, default=State.WAITING)
    attempts = models.SmallIntegerField(default=0)
    params = models.BinaryField(null=True)
    result = models.BinaryField(null=True)

    class Meta:
        db_table = "billing_batch_item"
        constraints = [
            models.UniqueConstraint(fields=["batch", "custom_id"], name="batch_item_custom_id"),
            models.CheckConstraint(
                condition=Q(state__in=["waiting", "succeeded", "errored", "canceled", "expired"]),
                name="batch_item_state",
            ),
            models.CheckConstraint(condition=Q(hold_micro__gte=0), name="batch_item_hold"),
        ]
        indexes = [
            models.Index(
                fields=["batch", "part", "number"],
                condition=Q(state="waiting"),
                name="batch_item_waiting",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.batch_id}/{self.custom_id}"


class LedgerHold(models.Model):
    """A hold that outlives a request. What is pending is no longer to be spent.

    `remaining_nano` shrinks as work is charged or found free; the account's `pending` and the
    wallet's version move with it, by trigger. A pending hold becomes exactly one of the others.
    """

    class State(models.TextChoices):
        """Pending, or how it ended: charged, charged nothing, out of time."""

        PENDING = "pending"
        POSTED = "posted"
        VOIDED = "voided"
        EXPIRED = "expired"

    id = models.UUIDField(primary_key=True, editable=False)
    tenant_id = models.BigIntegerField()
    account_id = models.BigIntegerField()
    workspace_id = models.BigIntegerField()
    api_key_id = models.BigIntegerField()
    ref = models.CharField(max_length=100, unique=True)
    amount_nano = models.BigIntegerField()
    remaining_nano = models.BigIntegerField()
    posted_nano = models.BigIntegerField(default=0)
    state = models.CharField(max_length=7, choices=State.choices, default=State.PENDING)
    created_at = models.DateTimeField(default=clock.utc_now)
    expires_at = models.DateTimeField()
    resolved_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "billing_ledger_hold"
        constraints = [
            models.CheckConstraint(
                condition=Q(remaining_nano__gte=0, posted_nano__gte=0, amount_nano__gte=0),
                name="ledger_hold_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(amount_nano__gte=F("remaining_nano") + F("posted_nano")),
                name="ledger_hold_never_exceeded",
            ),
            models.CheckConstraint(
                condition=Q(state="pending", resolved_at__isnull=True)
                | Q(
                    state__in=["posted", "voided", "expired"],
                    resolved_at__isnull=False,
                    remaining_nano=0,
                ),
                name="ledger_hold_state",
            ),
        ]
        indexes = [
            models.Index(
                fields=["tenant_id"], condition=Q(state="pending"), name="ledger_hold_pending"
            ),
        ]

    def __str__(self) -> str:
        return self.ref
