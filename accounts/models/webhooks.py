"""WebhookEndpoint, WebhookEvent, WebhookDelivery, WebhookAttempt, NoticePreference.

An event is written in the transaction of what it tells of, with a delivery for each endpoint that
wants it; a worker sends what is due. The body is kept as text, so that every try signs the same.
"""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from accounts.models.people import NAME_LENGTH_MAX, Member, Tenant
from turnpike.control.models import PublicModel, TimestampedModel

URL_LENGTH_MAX = 500
EVENT_TYPE_LENGTH_MAX = 40
EVENT_TYPES_MAX = 32
EVENT_KEY_LENGTH_MAX = 200
RESPONSE_CHARACTERS_MAX = 2_000


class WebhookEndpoint(PublicModel):
    """An address that a tenant's events are sent to. No event types: all that there are."""

    public_prefix = "webhook"

    class Disabled(models.TextChoices):
        """Why nothing is sent: by hand, after days without a success, or told by 410."""

        NO = ""
        BY_HAND = "by_hand"
        FAILING = "failing"
        GONE = "gone"

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="webhooks")
    url = models.CharField(max_length=URL_LENGTH_MAX)
    description = models.CharField(max_length=NAME_LENGTH_MAX, blank=True)
    event_types = ArrayField(
        models.CharField(max_length=EVENT_TYPE_LENGTH_MAX), default=list, blank=True
    )
    sealed = models.TextField()
    # What signs beside the new secret until the overlap ends.
    previous_sealed = models.TextField(blank=True)
    previous_ends_at = models.DateTimeField(null=True, blank=True)
    disabled = models.CharField(max_length=7, choices=Disabled.choices, default="", blank=True)
    disabled_at = models.DateTimeField(null=True, blank=True)
    failures = models.IntegerField(default=0)
    failing_since = models.DateTimeField(null=True, blank=True)
    # A receiver that fails rests for a while, so that it holds up nobody else's.
    rests_until = models.DateTimeField(null=True, blank=True)
    dropped = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(event_types__len__lte=EVENT_TYPES_MAX),
                name="webhookendpoint_types_are_bounded",
            ),
            models.CheckConstraint(
                condition=Q(disabled="", disabled_at__isnull=True)
                | Q(disabled__in=["by_hand", "failing", "gone"], disabled_at__isnull=False),
                name="webhookendpoint_disabled_is_known",
            ),
            models.CheckConstraint(
                condition=Q(previous_sealed="", previous_ends_at__isnull=True)
                | (~Q(previous_sealed="") & Q(previous_ends_at__isnull=False)),
                name="webhookendpoint_overlap_ends",
            ),
        ]

    def __str__(self) -> str:
        return self.public_id


class WebhookEvent(PublicModel):
    """Something that happened to a tenant, known by its key: the same cause is one event."""

    public_prefix = "evt"

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    key = models.CharField(max_length=EVENT_KEY_LENGTH_MAX)
    type = models.CharField(max_length=EVENT_TYPE_LENGTH_MAX)
    body = models.TextField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "key"], name="webhookevent_once"),
        ]
        indexes = [models.Index(fields=["created_at"], name="webhookevent_by_age")]

    def __str__(self) -> str:
        return f"{self.type} {self.public_id}"


class WebhookDelivery(PublicModel):
    """An event on its way to one endpoint."""

    public_prefix = "delivery"

    class State(models.TextChoices):
        """Waiting is tried again; failed was given up and can be replayed."""

        WAITING = "waiting"
        DELIVERED = "delivered"
        FAILED = "failed"

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    endpoint = models.ForeignKey(
        WebhookEndpoint, on_delete=models.CASCADE, related_name="deliveries"
    )
    event = models.ForeignKey(WebhookEvent, on_delete=models.CASCADE, related_name="deliveries")
    state = models.CharField(max_length=9, choices=State.choices, default=State.WAITING)
    tries = models.SmallIntegerField(default=0)
    next_try_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["endpoint", "event"], name="webhookdelivery_once"),
            models.CheckConstraint(
                condition=Q(state="waiting", finished_at__isnull=True)
                | Q(state__in=["delivered", "failed"], finished_at__isnull=False),
                name="webhookdelivery_state_is_known",
            ),
        ]
        indexes = [
            models.Index(
                fields=["endpoint", "next_try_at"],
                condition=Q(state="waiting"),
                name="webhookdelivery_due",
            ),
        ]

    def __str__(self) -> str:
        return self.public_id


class WebhookAttempt(models.Model):
    """One try: what was answered, cut short, or why there was no answer."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    delivery = models.ForeignKey(WebhookDelivery, on_delete=models.CASCADE, related_name="attempts")
    number = models.SmallIntegerField()
    at = models.DateTimeField()
    took_ms = models.IntegerField()
    status = models.SmallIntegerField(null=True, blank=True)
    error = models.CharField(max_length=20, blank=True)
    response = models.CharField(max_length=RESPONSE_CHARACTERS_MAX, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["delivery", "number"], name="webhookattempt_once"),
        ]

    def __str__(self) -> str:
        return f"{self.delivery_id}/{self.number}"


class NoticePreference(TimestampedModel):
    """Which notices a member does not want by mail; no row: none is unwanted."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    member = models.OneToOneField(Member, on_delete=models.CASCADE, related_name="notices")
    muted = ArrayField(models.CharField(max_length=20), default=list, blank=True)

    def __str__(self) -> str:
        return f"{self.member_id} without {', '.join(self.muted)}"
