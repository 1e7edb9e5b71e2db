"""CatalogModel, ModelAlias, PriceBook, PriceSet, Price: what is sold and what it costs.

Prices are versions: a set is complete when it is made and never changes; a new price is a new set.
"""

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import DateTimeRangeField, RangeOperators
from django.db import models
from django.db.models import F, Func, Q, Value

from turnpike.contracts.rating import STANDARD
from turnpike.control.models import TimestampedModel

DEFAULT_BOOK = "list"


class CatalogModel(TimestampedModel):
    """A model by its canonical id."""

    class Lifecycle(models.TextChoices):
        """Where the model stands at its maker."""

        ACTIVE = "active"
        DEPRECATED = "deprecated"
        RETIRED = "retired"

    model = models.CharField(max_length=200, unique=True)
    display_name = models.CharField(max_length=200)
    line = models.CharField(max_length=50, null=True, blank=True)  # noqa: DJ001 - null on the wire
    limit_group = models.CharField(max_length=100, blank=True, default="")
    released_at = models.DateTimeField()
    lifecycle = models.CharField(max_length=20, choices=Lifecycle.choices)
    deprecated_at = models.DateTimeField(null=True, blank=True)
    retires_at = models.DateTimeField(null=True, blank=True)
    max_input_tokens = models.PositiveIntegerField(null=True, blank=True)
    max_tokens = models.PositiveIntegerField(null=True, blank=True)
    capabilities = models.JSONField(null=True, blank=True)
    successor = models.CharField(max_length=200, blank=True, default="")
    # The operator's own switches: an import leaves them alone.
    is_successor_allowed = models.BooleanField(default=False)
    is_enabled = models.BooleanField(default=True)

    class Meta:
        db_table = "billing_model"
        constraints = [
            models.CheckConstraint(
                condition=Q(lifecycle__in=["active", "deprecated", "retired"]),
                name="model_lifecycle",
            ),
        ]

    def __str__(self) -> str:
        return self.model


class ModelAlias(models.Model):
    """Another name that clients use for a model."""

    alias = models.CharField(max_length=200, unique=True)
    model = models.ForeignKey(CatalogModel, on_delete=models.CASCADE, related_name="aliases")
    # Added by an operator: an import leaves it alone.
    is_own = models.BooleanField(default=False)

    class Meta:
        db_table = "billing_model_alias"

    def __str__(self) -> str:
        return self.alias


class PriceBook(TimestampedModel):
    """A named list of prices over time; a tenant may have one of its own."""

    name = models.CharField(max_length=100, unique=True)
    currency = models.CharField(max_length=3, default="USD")
    # Models whose prices an operator set: an import leaves them alone.
    own_models = models.JSONField(default=list, blank=True)

    class Meta:
        db_table = "billing_price_book"

    def __str__(self) -> str:
        return self.name


class PriceSet(TimestampedModel):
    """All prices of a book in one span of time. Spans of a book never overlap."""

    book = models.ForeignKey(PriceBook, on_delete=models.PROTECT, related_name="sets")
    effective = DateTimeRangeField()

    class Meta:
        db_table = "billing_price_set"
        constraints = [
            # The book as a range of one number: GiST knows ranges without an extension.
            ExclusionConstraint(
                name="price_set_no_overlap",
                expressions=[
                    (
                        Func(F("book_id"), F("book_id"), Value("[]"), function="int8range"),
                        RangeOperators.OVERLAPS,
                    ),
                    ("effective", RangeOperators.OVERLAPS),
                ],
            ),
        ]

    def __str__(self) -> str:
        return f"{self.book_id} {self.effective}"


class Price(models.Model):
    """The price of one component of one model; `*` is every model. Never changes."""

    price_set = models.ForeignKey(PriceSet, on_delete=models.PROTECT, related_name="prices")
    model = models.CharField(max_length=200)
    component = models.CharField(max_length=50)
    variant = models.CharField(max_length=50, default=STANDARD)
    min_input = models.PositiveIntegerField(default=0)
    nano_per_mtok = models.BigIntegerField(null=True, blank=True)
    nano_per_unit = models.BigIntegerField(null=True, blank=True)

    class Meta:
        db_table = "billing_price"
        constraints = [
            models.UniqueConstraint(
                fields=["price_set", "model", "component", "variant", "min_input"],
                name="price_one_per_bracket",
            ),
            models.CheckConstraint(
                condition=Q(nano_per_mtok__gte=0, nano_per_unit__isnull=True)
                | Q(nano_per_unit__gte=0, nano_per_mtok__isnull=True),
                name="price_one_rate",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model} {self.component} {self.variant}"
