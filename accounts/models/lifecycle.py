"""Mail, DataExport, ExportPart, TenantClosing, AuditAnchor, PlatformSetting: what has an end.

Mail waits here until it was sent; an export until it was fetched; a closed account until its
personal data may be erased; the audit log remembers where it was cut.
"""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from accounts.models.people import EMAIL_LENGTH_MAX, REASON_LENGTH_MAX, Tenant, User
from turnpike.control.models import PublicModel, TimestampedModel

MAIL_KEY_LENGTH_MAX = 200
SUBJECT_LENGTH_MAX = 200
ERROR_LENGTH_MAX = 300
SETTING_NAME_LENGTH_MAX = 64


class Mail(TimestampedModel):
    """One message to one address, known by its key. What it says is sealed, and gone once sent."""

    class State(models.TextChoices):
        """Waiting is tried again; failed was given up."""

        WAITING = "waiting"
        SENT = "sent"
        FAILED = "failed"

    tenant = models.ForeignKey(
        Tenant, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    key = models.CharField(max_length=MAIL_KEY_LENGTH_MAX, unique=True)
    kind = models.CharField(max_length=40)
    recipient = models.EmailField(max_length=EMAIL_LENGTH_MAX)
    language = models.CharField(max_length=10)
    subject = models.CharField(max_length=SUBJECT_LENGTH_MAX)
    sealed = models.TextField(blank=True)
    state = models.CharField(max_length=7, choices=State.choices, default=State.WAITING)
    tries = models.SmallIntegerField(default=0)
    next_try_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True, blank=True)
    error = models.CharField(max_length=ERROR_LENGTH_MAX, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["waiting", "sent", "failed"]), name="mail_state_is_known"
            ),
            models.CheckConstraint(
                condition=Q(state="waiting") | Q(sealed=""), name="mail_says_nothing_once_it_ended"
            ),
        ]
        indexes = [
            models.Index(fields=["next_try_at"], condition=Q(state="waiting"), name="mail_to_send"),
            models.Index(fields=["recipient", "created_at"], name="mail_by_recipient"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"


class DataExport(PublicModel):
    """A copy of a tenant's data that its owner asked for; fetched with its id until it expires."""

    public_prefix = "export"

    class State(models.TextChoices):
        """Pending is being built; ready can be fetched; failed and expired hold nothing."""

        PENDING = "pending"
        READY = "ready"
        FAILED = "failed"
        EXPIRED = "expired"

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="exports")
    requested_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    state = models.CharField(max_length=7, choices=State.choices, default=State.PENDING)
    finished_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    size_bytes = models.BigIntegerField(default=0)
    rows = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["pending", "ready", "failed", "expired"]),
                name="dataexport_state_is_known",
            ),
            models.UniqueConstraint(
                fields=["tenant"], condition=Q(state="pending"), name="dataexport_one_at_a_time"
            ),
        ]

    def __str__(self) -> str:
        return self.public_id


class ExportPart(models.Model):
    """A piece of an export's file: any machine that answers can serve it."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    export = models.ForeignKey(DataExport, on_delete=models.CASCADE, related_name="parts")
    place = models.IntegerField()
    data = models.BinaryField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["export", "place"], name="exportpart_once"),
        ]

    def __str__(self) -> str:
        return f"{self.export_id}/{self.place}"


class TenantClosing(TimestampedModel):
    """When an account was closed, and when its personal data goes."""

    tenant = models.OneToOneField(
        Tenant, primary_key=True, on_delete=models.PROTECT, related_name="closing"
    )
    closed_by = models.CharField(max_length=64)
    reason = models.CharField(max_length=REASON_LENGTH_MAX, blank=True)
    erase_at = models.DateTimeField()
    erased_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["erase_at"], condition=Q(erased_at__isnull=True), name="closing_to_erase"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id} until {self.erase_at:%Y-%m-%d}"


class AuditAnchor(models.Model):
    """Where a log was cut: the digest of the last row that went, which the first one left names."""

    tenant = models.ForeignKey(
        Tenant, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    digest = models.CharField(max_length=64)
    removed = models.BigIntegerField()
    removed_before = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant"], name="auditanchor_once", nulls_distinct=False
            ),
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id or 'platform'}: {self.removed} before {self.removed_before:%Y-%m}"


class PlatformSetting(models.Model):
    """A setting of the platform that is data; a name without a row has its default."""

    name = models.CharField(max_length=SETTING_NAME_LENGTH_MAX, primary_key=True)
    value = models.JSONField()
    changed_at = models.DateTimeField()
    changed_by = models.CharField(max_length=64)

    def __str__(self) -> str:
        return self.name


class RetentionRun(TimestampedModel):
    """What the daily job removed, by kind of data, and what it kept back."""

    removed = models.JSONField(default=dict)
    failed = ArrayField(models.CharField(max_length=40), default=list)
    took_ms = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.created_at:%Y-%m-%d}: {sum(self.removed.values())}"
