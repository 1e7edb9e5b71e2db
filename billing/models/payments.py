"""Payment, PaymentReversal, PaymentEvent, CreditPlan, RedemptionCode: money on its way in or out.

Amounts are nanos. What a payment did to the ledger is posted under the provider's own id; the rows
here say what was asked for, and what became of it.
"""

from typing import ClassVar

from django.db import models
from django.db.models import F, Q

from turnpike.control.models import PublicModel, TimestampedModel

KEY_LENGTH_MAX = 200
REFERENCE_LENGTH_MAX = 200


class Payment(PublicModel):
    """Money that a tenant pays, ahead or for an invoice, from the order to its end."""

    public_prefix: ClassVar[str] = "pay"

    class Status(models.TextChoices):
        """Started is an order; only paid has moved money."""

        STARTED = "started"
        PAID = "paid"
        FAILED = "failed"
        EXPIRED = "expired"

    class Kind(models.TextChoices):
        """How it came about."""

        CHECKOUT = "checkout"
        AUTO_RELOAD = "auto_reload"
        TRANSFER = "transfer"
        INVOICE = "invoice"

    tenant = models.ForeignKey("accounts.Tenant", on_delete=models.PROTECT, related_name="payments")
    provider = models.CharField(max_length=20)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.STARTED)
    # What is paid; without one the money is credit.
    invoice = models.ForeignKey(
        "billing.Invoice", null=True, blank=True, on_delete=models.PROTECT, related_name="payments"
    )
    amount_nano = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    # Given back, and at the moment withdrawn by a bank.
    refunded_nano = models.BigIntegerField(default=0)
    disputed_nano = models.BigIntegerField(default=0)
    # The provider's names for the order and for the money; a bank's reference for transfers.
    order_ref = models.CharField(max_length=REFERENCE_LENGTH_MAX, default="", blank=True)
    payment_ref = models.CharField(max_length=REFERENCE_LENGTH_MAX, default="", blank=True)
    idempotency_key = models.CharField(max_length=KEY_LENGTH_MAX, unique=True)
    actor = models.CharField(max_length=200)
    reason = models.CharField(max_length=500, default="", blank=True)
    failure = models.CharField(max_length=300, default="", blank=True)
    settled_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "billing_payment"
        constraints = [
            models.CheckConstraint(
                condition=Q(amount_nano__gt=0, refunded_nano__gte=0, disputed_nano__gte=0)
                & Q(refunded_nano__lte=F("amount_nano")),
                name="payment_amounts",
            ),
            models.CheckConstraint(
                condition=Q(invoice__isnull=False, kind="invoice")
                | ~Q(kind="invoice") & Q(invoice__isnull=True),
                name="payment_of_an_invoice",
            ),
            models.UniqueConstraint(
                fields=["provider", "payment_ref"],
                name="payment_ref_once",
                condition=~Q(payment_ref="") & ~Q(provider="manual"),
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "-id"], name="payment_of_tenant"),
            models.Index(
                fields=["tenant", "kind"], name="payment_started", condition=Q(status="started")
            ),
        ]

    def __str__(self) -> str:
        return self.public_id

    @property
    def refundable_nano(self) -> int:
        """What could still be given back."""
        return self.amount_nano - self.refunded_nano - self.disputed_nano if self.is_paid else 0

    @property
    def is_paid(self) -> bool:
        """Whether the money arrived."""
        return self.status == self.Status.PAID


class PaymentReversal(PublicModel):
    """Money of a payment that went back: a refund that was asked for, or seen at the provider."""

    public_prefix: ClassVar[str] = "refund"

    class Status(models.TextChoices):
        """Asked has moved nothing; done is posted; failed moved nothing, or was posted back."""

        ASKED = "asked"
        DONE = "done"
        FAILED = "failed"

    tenant = models.ForeignKey("accounts.Tenant", on_delete=models.PROTECT, related_name="+")
    payment = models.ForeignKey(Payment, on_delete=models.PROTECT, related_name="reversals")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.ASKED)
    amount_nano = models.BigIntegerField()
    provider_ref = models.CharField(max_length=REFERENCE_LENGTH_MAX, default="", blank=True)
    idempotency_key = models.CharField(max_length=KEY_LENGTH_MAX, unique=True)
    actor = models.CharField(max_length=200)
    reason = models.CharField(max_length=500)

    class Meta:
        db_table = "billing_payment_reversal"
        constraints = [
            models.CheckConstraint(
                condition=Q(amount_nano__gt=0), name="payment_reversal_positive"
            ),
        ]

    def __str__(self) -> str:
        return self.public_id


class PaymentEvent(models.Model):
    """What a provider told us, kept whole before anything is done about it; each id once."""

    class Outcome(models.TextChoices):
        """Waiting is tried again; refused did not fit the order and is looked at by a person."""

        WAITING = "waiting"
        APPLIED = "applied"
        IGNORED = "ignored"
        REFUSED = "refused"

    provider = models.CharField(max_length=20)
    event_id = models.CharField(max_length=REFERENCE_LENGTH_MAX)
    kind = models.CharField(max_length=100)
    subject = models.CharField(max_length=REFERENCE_LENGTH_MAX, default="", blank=True)
    body = models.JSONField()
    received_at = models.DateTimeField()
    outcome = models.CharField(max_length=10, choices=Outcome.choices, default=Outcome.WAITING)
    error = models.CharField(max_length=500, default="", blank=True)
    tries = models.PositiveIntegerField(default=0)
    handled_at = models.DateTimeField(null=True, blank=True)
    tenant = models.ForeignKey(
        "accounts.Tenant", null=True, on_delete=models.PROTECT, related_name="+"
    )
    payment = models.ForeignKey(Payment, null=True, on_delete=models.PROTECT, related_name="events")

    class Meta:
        db_table = "billing_payment_event"
        constraints = [
            models.UniqueConstraint(fields=["provider", "event_id"], name="payment_event_once"),
        ]
        indexes = [
            models.Index(
                fields=["received_at"], name="payment_event_waits", condition=Q(outcome="waiting")
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider}/{self.event_id}"


class CreditPlan(models.Model):
    """How a tenant keeps its balance up: a saved card, auto-reload, and when it is warned."""

    tenant = models.OneToOneField(
        "accounts.Tenant", primary_key=True, on_delete=models.PROTECT, related_name="credit_plan"
    )
    provider = models.CharField(max_length=20, default="", blank=True)
    customer_ref = models.CharField(max_length=REFERENCE_LENGTH_MAX, default="", blank=True)
    method_ref = models.CharField(max_length=REFERENCE_LENGTH_MAX, default="", blank=True)
    method_label = models.CharField(max_length=60, default="", blank=True)
    is_on = models.BooleanField(default=False)
    threshold_nano = models.BigIntegerField(default=0)
    amount_nano = models.BigIntegerField(default=0)
    monthly_cap_nano = models.BigIntegerField(default=0)
    failures = models.PositiveSmallIntegerField(default=0)
    attempts = models.PositiveIntegerField(default=0)
    # Whether the saved card also pays invoices.
    pays_invoices = models.BooleanField(default=False)
    warn_days = models.PositiveSmallIntegerField(default=3)
    warned_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "billing_credit_plan"
        constraints = [
            models.CheckConstraint(
                condition=Q(is_on=False)
                | Q(amount_nano__gt=0, threshold_nano__gte=0)
                & Q(monthly_cap_nano__gte=F("amount_nano"))
                & ~Q(method_ref=""),
                name="credit_plan_whole",
            ),
            models.CheckConstraint(
                condition=Q(pays_invoices=False) | ~Q(method_ref=""),
                name="credit_plan_pays_by_card",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id}: {'on' if self.is_on else 'off'}"


class RedemptionCode(PublicModel):
    """A code that is worth credit; only its digest is kept."""

    public_prefix: ClassVar[str] = "code"

    digest = models.BinaryField(unique=True)
    # Codes that were made together; null: it was made alone.
    batch = models.UUIDField(null=True, blank=True, db_index=True)
    hint = models.CharField(max_length=8)
    amount_nano = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    uses_max = models.PositiveIntegerField()
    uses = models.PositiveIntegerField(default=0)
    ends_at = models.DateTimeField(null=True, blank=True)
    # How long the credit lives once it was redeemed; null: it does not expire.
    credit_days = models.PositiveIntegerField(null=True, blank=True)
    idempotency_key = models.CharField(max_length=KEY_LENGTH_MAX, unique=True)
    actor = models.CharField(max_length=200)
    reason = models.CharField(max_length=500)
    withdrawn_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "billing_redemption_code"
        constraints = [
            models.CheckConstraint(
                condition=Q(amount_nano__gt=0, uses_max__gte=1) & Q(uses__lte=F("uses_max")),
                name="redemption_code_bounds",
            ),
        ]

    def __str__(self) -> str:
        return self.public_id


class Redemption(TimestampedModel):
    """A code that a tenant turned into credit, once."""

    tenant = models.ForeignKey("accounts.Tenant", on_delete=models.PROTECT, related_name="+")
    code = models.ForeignKey(RedemptionCode, on_delete=models.PROTECT, related_name="redemptions")
    grant = models.OneToOneField("billing.CreditGrant", on_delete=models.PROTECT, related_name="+")
    actor = models.CharField(max_length=200)

    class Meta:
        db_table = "billing_redemption"
        constraints = [
            models.UniqueConstraint(fields=["tenant", "code"], name="redemption_once"),
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.code_id}"
