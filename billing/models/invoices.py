"""Seller, TaxRate, BillingDetails, NumberSeries, Invoice and its parts: what is sent to be paid.

Drafts change; what was finalized never does, but for its payment state. Triggers in the migration
hold that, and that numbers rise one by one. Amounts are nanos, rounded to the currency's minor unit
where people pay them; `exact_nano` is what the ledger has.
"""

from django.db import models
from django.db.models import F, Q

from turnpike.control.models import PublicModel, TimestampedModel
from turnpike.kernel import clock, ids

RATE_PPM_MAX = 1_000_000
NAME_LENGTH_MAX = 200
TEXT_LENGTH_MAX = 1_000
LANGUAGES = (("en", "English"), ("zh-hans", "简体中文"), ("ru", "Русский"))


class TaxRate(TimestampedModel):
    """A tax that the operator charges, in millionths of the net amount."""

    code = models.CharField(max_length=40, unique=True)
    title = models.CharField(max_length=NAME_LENGTH_MAX)
    rate_ppm = models.PositiveIntegerField()
    # Printed below the taxes: why nothing is charged, for example.
    note = models.CharField(max_length=TEXT_LENGTH_MAX, blank=True, default="")

    class Meta:
        db_table = "billing_tax_rate"
        constraints = [
            models.CheckConstraint(
                condition=Q(rate_ppm__lte=RATE_PPM_MAX), name="tax_rate_at_most_all"
            ),
        ]

    def __str__(self) -> str:
        return self.code


class Seller(TimestampedModel):
    """Who writes invoices. Each seller has number series of its own; one of them is the default."""

    code = models.CharField(max_length=40, unique=True)
    name = models.CharField(max_length=NAME_LENGTH_MAX)
    address = models.CharField(max_length=TEXT_LENGTH_MAX, blank=True, default="")
    country = models.CharField(max_length=2, blank=True, default="")
    tax_id = models.CharField(max_length=100, blank=True, default="")
    email = models.CharField(max_length=254, blank=True, default="")
    payment_details = models.CharField(max_length=TEXT_LENGTH_MAX, blank=True, default="")
    invoice_prefix = models.CharField(max_length=20, default="INV-")
    credit_note_prefix = models.CharField(max_length=20, default="CN-")
    due_days = models.PositiveSmallIntegerField(default=14)
    # Hours after which a draft finalizes itself; null: a person does it.
    finalize_after_hours = models.PositiveSmallIntegerField(null=True, blank=True)
    tax_rate = models.ForeignKey(
        TaxRate, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    is_default = models.BooleanField(default=False)

    class Meta:
        db_table = "billing_seller"
        constraints = [
            models.UniqueConstraint(
                fields=["is_default"], condition=Q(is_default=True), name="seller_one_default"
            ),
            models.CheckConstraint(condition=~Q(name=""), name="seller_has_a_name"),
        ]

    def __str__(self) -> str:
        return self.code


class BillingDetails(TimestampedModel):
    """Whom a tenant's invoices are addressed to. Seller and tax are the operator's to choose."""

    tenant = models.OneToOneField(
        "accounts.Tenant",
        primary_key=True,
        on_delete=models.PROTECT,
        related_name="billing_details",
    )
    name = models.CharField(max_length=NAME_LENGTH_MAX, blank=True, default="")
    address = models.CharField(max_length=TEXT_LENGTH_MAX, blank=True, default="")
    country = models.CharField(max_length=2, blank=True, default="")
    tax_id = models.CharField(max_length=100, blank=True, default="")
    email = models.CharField(max_length=254, blank=True, default="")
    reference = models.CharField(max_length=100, blank=True, default="")
    language = models.CharField(max_length=10, choices=LANGUAGES, default="en")
    seller = models.ForeignKey(
        Seller, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    tax_rate = models.ForeignKey(
        TaxRate, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )

    class Meta:
        db_table = "billing_details"

    def __str__(self) -> str:
        return f"{self.tenant_id}: {self.name}"


class NumberSeries(models.Model):
    """Numbers of one seller without a gap: `next` rises in the transaction that uses it."""

    seller = models.ForeignKey(Seller, on_delete=models.PROTECT, related_name="series")
    name = models.CharField(max_length=40)
    next = models.PositiveIntegerField(default=1)

    class Meta:
        db_table = "billing_number_series"
        constraints = [
            models.UniqueConstraint(fields=["seller", "name"], name="number_series_once"),
        ]

    def __str__(self) -> str:
        return f"{self.seller_id} {self.name}: {self.next}"


class Invoice(PublicModel):
    """An invoice, a credit note, or the monthly statement of a tenant that pays ahead."""

    public_prefix = ids.INVOICE

    class Kind(models.TextChoices):
        """What the document is."""

        INVOICE = "invoice"
        CREDIT_NOTE = "credit_note"
        STATEMENT = "statement"

    class Status(models.TextChoices):
        """Where it stands; credit notes and statements are issued and stay so."""

        DRAFT = "draft"
        OPEN = "open"
        PAID = "paid"
        VOID = "void"
        UNCOLLECTIBLE = "uncollectible"
        ISSUED = "issued"

    tenant = models.ForeignKey("accounts.Tenant", on_delete=models.PROTECT, related_name="invoices")
    kind = models.CharField(max_length=11, choices=Kind.choices)
    status = models.CharField(max_length=13, choices=Status.choices, default=Status.DRAFT)
    period = models.ForeignKey(
        "billing.BillingPeriod", null=True, on_delete=models.PROTECT, related_name="documents"
    )
    corrects = models.ForeignKey(
        "self", null=True, on_delete=models.PROTECT, related_name="credit_notes"
    )
    seller = models.ForeignKey(Seller, null=True, on_delete=models.PROTECT, related_name="+")
    series = models.ForeignKey(NumberSeries, null=True, on_delete=models.PROTECT, related_name="+")
    sequence = models.PositiveIntegerField(null=True)
    number = models.CharField(max_length=60, null=True)  # noqa: DJ001 - drafts have none
    currency = models.CharField(max_length=3)
    exact_nano = models.BigIntegerField(default=0)
    subtotal_nano = models.BigIntegerField(default=0)
    tax_nano = models.BigIntegerField(default=0)
    total_nano = models.BigIntegerField(default=0)
    paid_nano = models.BigIntegerField(default=0)
    credited_nano = models.BigIntegerField(default=0)
    written_off_nano = models.BigIntegerField(default=0)
    # The part of `credited_nano` that had been paid and became credit to spend.
    credit_beyond_nano = models.BigIntegerField(default=0)
    # Voided so that its usage is invoiced anew.
    is_reopened = models.BooleanField(default=False)
    issued_at = models.DateTimeField(null=True)
    due_at = models.DateTimeField(null=True)
    settled_at = models.DateTimeField(null=True)
    language = models.CharField(max_length=10, default="en")
    seller_copy = models.JSONField(default=dict)
    buyer_copy = models.JSONField(default=dict)
    # A statement's balances and movements.
    summary = models.JSONField(default=dict)
    reason = models.CharField(max_length=500, blank=True, default="")
    digest = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        db_table = "billing_invoice"
        constraints = [
            models.UniqueConstraint(
                fields=["period"],
                condition=Q(kind__in=["invoice", "statement"]) & ~Q(status="void"),
                name="invoice_once_for_a_period",
            ),
            models.UniqueConstraint(fields=["series", "sequence"], name="invoice_number_once"),
            models.UniqueConstraint(fields=["seller", "number"], name="invoice_number_of_seller"),
            models.CheckConstraint(
                condition=Q(total_nano=F("subtotal_nano") + F("tax_nano")),
                name="invoice_adds_up",
            ),
            models.CheckConstraint(
                condition=Q(kind="invoice")
                | Q(
                    paid_nano=0,
                    credited_nano=0,
                    written_off_nano=0,
                    credit_beyond_nano=0,
                    is_reopened=False,
                ),
                name="invoice_alone_is_settled",
            ),
            models.CheckConstraint(
                condition=Q(paid_nano__gte=0, credited_nano__gte=0, written_off_nano__gte=0)
                & (Q(credited_nano=0) | Q(credited_nano__lte=F("total_nano"))),
                name="invoice_credit_within_total",
            ),
            models.CheckConstraint(
                condition=Q(status="draft", number=None)
                | Q(kind="statement", number=None)
                | (~Q(status="draft") & Q(number__isnull=False, issued_at__isnull=False)),
                name="invoice_number_when_final",
            ),
            models.CheckConstraint(
                condition=Q(kind__in=["invoice", "credit_note", "statement"])
                & Q(status__in=["draft", "open", "paid", "void", "uncollectible", "issued"]),
                name="invoice_words",
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "-id"], name="invoice_of_tenant"),
            models.Index(fields=["status", "due_at"], name="invoice_by_due"),
        ]

    def __str__(self) -> str:
        return self.number or self.public_id

    @property
    def open_nano(self) -> int:
        """What is still to be paid; nothing of a draft, a credit note or a statement."""
        if self.kind != self.Kind.INVOICE or self.status == self.Status.DRAFT:
            return 0
        settled = self.paid_nano + self.credited_nano - self.credit_beyond_nano
        return self.total_nano - settled - self.written_off_nano


class InvoiceReminder(TimestampedModel):
    """A step of dunning: 0 says that an invoice is there, those after it that it is overdue."""

    SUSPENDED = 4  # the last step: its tenant is served no more

    tenant = models.ForeignKey("accounts.Tenant", on_delete=models.PROTECT, related_name="+")
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="reminders")
    step = models.PositiveSmallIntegerField()

    class Meta:
        db_table = "billing_invoice_reminder"
        constraints = [
            models.UniqueConstraint(fields=["invoice", "step"], name="invoice_reminder_once"),
        ]

    def __str__(self) -> str:
        return f"{self.invoice_id}: {self.step}"


class InvoiceLine(models.Model):
    """One line, rounded once. Usage lines name the group of events that they sum."""

    class Kind(models.TextChoices):
        """What a line stands for."""

        USAGE = "usage"
        CORRECTION = "correction"
        PAID_AHEAD = "paid_ahead"
        CREDIT = "credit"

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="lines")
    tenant = models.ForeignKey("accounts.Tenant", on_delete=models.PROTECT, related_name="+")
    position = models.PositiveIntegerField()
    kind = models.CharField(max_length=10, choices=Kind.choices)
    model = models.TextField(default="")
    component = models.TextField(default="")
    tier = models.TextField(default="")
    price_set_id = models.BigIntegerField(null=True)
    discount_bp = models.IntegerField(default=0)
    is_late = models.BooleanField(default=False)
    text = models.CharField(max_length=500, blank=True, default="")
    quantity = models.BigIntegerField(default=0)
    # The price of a million, or of one; null where several prices were in force.
    price_nano = models.BigIntegerField(null=True)
    exact_nano = models.BigIntegerField()
    amount_nano = models.BigIntegerField()
    tax_code = models.CharField(max_length=40, blank=True, default="")
    tax_ppm = models.PositiveIntegerField(default=0)

    class Meta:
        db_table = "billing_invoice_line"
        constraints = [
            models.UniqueConstraint(fields=["invoice", "position"], name="invoice_line_once"),
        ]

    def __str__(self) -> str:
        return f"{self.invoice_id}.{self.position}"


class InvoiceTax(models.Model):
    """One tax of a document: on the sum of the lines that carry its code, rounded once."""

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="taxes")
    tenant = models.ForeignKey("accounts.Tenant", on_delete=models.PROTECT, related_name="+")
    code = models.CharField(max_length=40)
    title = models.CharField(max_length=NAME_LENGTH_MAX)
    note = models.CharField(max_length=TEXT_LENGTH_MAX, blank=True, default="")
    rate_ppm = models.PositiveIntegerField()
    base_nano = models.BigIntegerField()
    amount_nano = models.BigIntegerField()

    class Meta:
        db_table = "billing_invoice_tax"
        constraints = [
            models.UniqueConstraint(fields=["invoice", "code"], name="invoice_tax_once"),
        ]

    def __str__(self) -> str:
        return f"{self.invoice_id} {self.code}"


class InvoiceFile(models.Model):
    """A rendered document in one language, made once and kept with its hash."""

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="files")
    tenant = models.ForeignKey("accounts.Tenant", on_delete=models.PROTECT, related_name="+")
    language = models.CharField(max_length=10)
    content = models.BinaryField()
    sha256 = models.CharField(max_length=64)
    made_at = models.DateTimeField(default=clock.utc_now)

    class Meta:
        db_table = "billing_invoice_file"
        constraints = [
            models.UniqueConstraint(fields=["invoice", "language"], name="invoice_file_once"),
        ]

    def __str__(self) -> str:
        return f"{self.invoice_id} {self.language}"


class RatingRun(TimestampedModel):
    """One re-rating after a price error: which price set was wrong and which is right."""

    uuid = models.UUIDField(default=ids.uuid7, unique=True)
    idempotency_key = models.CharField(max_length=200, unique=True)
    wrong_set_id = models.BigIntegerField()
    right_set_id = models.BigIntegerField()
    since = models.DateTimeField()
    until = models.DateTimeField()
    reason = models.CharField(max_length=500)
    actor = models.CharField(max_length=200)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "billing_rating_run"

    def __str__(self) -> str:
        return f"{self.wrong_set_id} → {self.right_set_id}"


class RatingDifference(models.Model):
    """What one request should have been charged, beyond or below what it was."""

    run = models.ForeignKey(RatingRun, on_delete=models.PROTECT, related_name="differences")
    tenant = models.ForeignKey("accounts.Tenant", on_delete=models.PROTECT, related_name="+")
    request_id = models.UUIDField()
    # The period that takes it, or the credit note that shows it.
    period = models.ForeignKey(
        "billing.BillingPeriod", null=True, on_delete=models.PROTECT, related_name="+"
    )
    credit_note = models.ForeignKey(
        Invoice, null=True, on_delete=models.PROTECT, related_name="differences"
    )
    posting_key = models.CharField(max_length=200)
    before_nano = models.BigIntegerField()
    after_nano = models.BigIntegerField()
    difference_nano = models.BigIntegerField()

    class Meta:
        db_table = "billing_rating_difference"
        constraints = [
            models.UniqueConstraint(fields=["run", "request_id"], name="rating_difference_once"),
            models.CheckConstraint(
                condition=Q(difference_nano=F("after_nano") - F("before_nano")),
                name="rating_difference_adds_up",
            ),
            models.CheckConstraint(
                condition=Q(period__isnull=False, credit_note__isnull=True)
                | Q(period__isnull=True, credit_note__isnull=False),
                name="rating_difference_one_place",
            ),
        ]
        indexes = [
            models.Index(fields=["request_id"], name="rating_difference_of_request"),
            models.Index(fields=["period", "-request_id"], name="rating_difference_of_period"),
            models.Index(fields=["credit_note", "-request_id"], name="rating_difference_of_note"),
        ]

    def __str__(self) -> str:
        return f"{self.request_id}: {self.difference_nano}"
