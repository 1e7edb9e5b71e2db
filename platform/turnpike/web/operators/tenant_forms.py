"""The forms with which operators change a tenant. Each says why."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from accounts.console.operators import ReasonForm
from accounts.models import Tenant
from billing.models.catalog import DEFAULT_BOOK, PriceBook
from billing.models.ledger import Wallet
from billing.models.tiers import Subscription, Tier
from billing.services.tiers import DISCOUNT_BP_MAX, DRAIN_SECONDS_MAX
from turnpike.contracts.snapshots import (
    LIMIT_NAMES,
    ON_DISCONNECT_CANCEL,
    ON_DISCONNECT_DRAIN,
    Limits,
)
from turnpike.control.forms import AmountField
from turnpike.kernel import ids
from turnpike.kernel.money import format_amount
from turnpike.web.operators.words import LIMITS, MODES

LIMIT_MAX = 2_000_000_000
ONCE_LENGTH = 36


class OnceForm(ReasonForm):
    """A form that does its work once, however often it is sent."""

    once = forms.CharField(widget=forms.HiddenInput, max_length=ONCE_LENGTH)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["once"].initial = str(ids.uuid7())


class GrantForm(OnceForm):
    """Credit that is given away."""

    amount_nano = AmountField(label=_("Amount"), help_text=_("In the currency of the wallet."))
    expires_on = forms.DateField(
        label=_("Expires after"),
        required=False,
        help_text=_("Empty: never. What is left is taken back at the end of that day, UTC."),
        widget=forms.DateInput(attrs={"type": "date"}),
    )


class TransferForm(OnceForm):
    """A bank transfer that arrived."""

    amount_nano = AmountField(label=_("Amount"), help_text=_("In the currency of the wallet."))
    reference = forms.CharField(label=_("Reference of the transfer"), max_length=200)


class TierForm(ReasonForm):
    """Another tier."""

    tier = forms.ChoiceField(label=_("Tier"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        set_choices(self, "tier", list(Tier.objects.order_by("pk").values_list("code", "name")))


class LimitsForm(ReasonForm):
    """Limits of the tenant's own above its tier's; empty: those of the tier."""

    def __init__(self, *args: Any, shown: Limits | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in LIMIT_NAMES:
            below = getattr(shown, name) if shown is not None else None
            self.fields[name] = forms.IntegerField(
                label=LIMITS[name],
                required=False,
                min_value=1,
                max_value=LIMIT_MAX,
                widget=forms.NumberInput(
                    attrs={"class": "input", "placeholder": "–" if below is None else below}
                ),
            )
        self.order_fields([*LIMIT_NAMES, "reason"])

    @property
    def limits(self) -> Limits:
        """What was entered."""
        return Limits(**{name: self.cleaned_data[name] for name in LIMIT_NAMES})


class PricesForm(ReasonForm):
    """Which list of prices holds for the tenant, and what is taken off."""

    book = forms.ChoiceField(label=_("Price book"), initial=DEFAULT_BOOK)
    discount_percent = forms.DecimalField(
        label=_("Discount in percent"), min_value=0, max_value=100, decimal_places=2, initial=0
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = PriceBook.objects.filter(upstream__isnull=True).order_by("pk").distinct()
        set_choices(self, "book", [(name, name) for name in names.values_list("name", flat=True)])

    @property
    def discount_bp(self) -> int:
        """The discount in basis points."""
        return min(DISCOUNT_BP_MAX, int(self.cleaned_data["discount_percent"] * 100))


class PaymentForm(ReasonForm):
    """How the tenant pays, and how far below zero it may go."""

    mode = forms.ChoiceField(label=_("Pays"), choices=list(MODES.items()))
    credit_limit_nano = AmountField(
        label=_("Credit line"), help_text=_("How far the balance may go below zero.")
    )


class DisconnectForm(ReasonForm):
    """What happens when a client leaves its stream."""

    on_disconnect = forms.ChoiceField(
        label=_("When a client leaves its stream"),
        required=False,
        choices=[
            ("", _("As each upstream has it")),
            (ON_DISCONNECT_CANCEL, _("Stop at once")),
            (ON_DISCONNECT_DRAIN, _("Read on to the end")),
        ],
    )
    drain_seconds = forms.IntegerField(
        label=_("Read on for at most, seconds"),
        required=False,
        min_value=1,
        max_value=DRAIN_SECONDS_MAX,
    )


class CloseForm(ReasonForm):
    """Ending a tenant for good takes its name."""

    typed = forms.CharField(
        label=_("The tenant's name"), widget=forms.TextInput(attrs={"autocomplete": "off"})
    )


def initial_of(tenant: Tenant, wallet: Wallet, subscription: Subscription | None) -> dict[str, Any]:
    """What the forms begin with: what holds now."""
    bp = subscription.discount_bp if subscription is not None else 0
    book = subscription.book if subscription is not None else None
    return {
        "mode": wallet.mode,
        "credit_limit_nano": amount_text(wallet.credit_limit_nano),
        "tier": subscription.tier.code if subscription is not None else "",
        "book": book.name if book is not None else DEFAULT_BOOK,
        "discount_percent": f"{bp // 100}.{bp % 100:02d}",
        "on_disconnect": subscription.on_disconnect if subscription is not None else "",
        "drain_seconds": subscription.drain_seconds if subscription is not None else None,
        **(subscription.overrides if subscription is not None else {}),
    }


def amount_text(nanos: int) -> str:
    """An amount as one types it."""
    units, _point, decimals = format_amount(nanos).partition(".")
    return f"{units}.{decimals.rstrip('0').ljust(2, '0')}"


def set_choices(form: forms.Form, name: str, choices: list[tuple[str, Any]]) -> None:
    """Give a field of choices what can be chosen now."""
    field = form.fields[name]
    assert isinstance(field, forms.ChoiceField)
    field.choices = choices
