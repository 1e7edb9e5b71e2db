"""The forms with which operators change what a tenant is and may; those about money lie beside."""

from typing import Any, ClassVar, TypedDict

from django import forms
from django.utils.translation import gettext_lazy as _

from accounts.console.operators import ReasonForm
from accounts.models import Tenant
from accounts.services import tenants
from billing.models.tiers import Tier
from billing.services import tiers
from billing.snapshots import terms_of
from turnpike.contracts.snapshots import (
    LIMIT_NAMES,
    ON_DISCONNECT_CANCEL,
    ON_DISCONNECT_DRAIN,
    Limits,
)
from turnpike.control.caller import Caller
from turnpike.control.forms import set_choices
from turnpike.kernel.errors import InvalidInput
from turnpike.web.operators.words import LIMITS

LIMIT_MAX = 2_000_000_000


class Ordered(TypedDict):
    """Whose terms change, who changes them and why, as services of terms ask for it."""

    tenant: int
    actor: Caller
    reason: str


class TenantForm(ReasonForm):
    """A change of a tenant: where it stands and how it looks, what it asks, and what it does."""

    tab: ClassVar[str] = "overview"
    title: ClassVar[Any]
    note: ClassVar[Any]
    icon: ClassVar[str]
    tone: ClassVar[str] = ""
    # What is said when it was done.
    done: ClassVar[Any]

    def apply(self, caller: Caller, tenant: Tenant) -> None:
        """Do it, with what was entered."""

    @property
    def why(self) -> str:
        """Why."""
        return str(self.cleaned_data["reason"])

    def ordered(self, caller: Caller, tenant: Tenant) -> Ordered:
        """Whose terms, by whom, why."""
        return {"tenant": tenant.pk, "actor": caller, "reason": self.why}


class SuspendForm(TenantForm):
    """Refusing its requests."""

    title = _("Suspend")
    note = _("Its requests are refused with 403 from the next one on")
    icon = "ban"
    tone = "danger"
    done = _("The tenant is suspended. Its next request is refused.")

    def apply(self, caller: Caller, tenant: Tenant) -> None:
        """Refuse its requests."""
        tenants.suspend_tenant(caller=caller, tenant=tenant, reason=self.why)


class RestoreForm(TenantForm):
    """Serving it again."""

    title = _("Restore")
    note = _("Its requests are served again from the next one on")
    icon = "play"
    done = _("The tenant is served again.")

    def apply(self, caller: Caller, tenant: Tenant) -> None:
        """Serve it again."""
        tenants.resume_tenant(caller=caller, tenant=tenant, reason=self.why)


class CloseForm(TenantForm):
    """Ending a tenant for good takes its name."""

    title = _("Close for good")
    note = _("Its keys are unknown from the next request on; its records stay")
    icon = "trash-2"
    tone = "danger"
    done = _("The tenant is closed.")

    typed = forms.CharField(
        label=_("The tenant's name"), widget=forms.TextInput(attrs={"autocomplete": "off"})
    )

    def apply(self, caller: Caller, tenant: Tenant) -> None:
        """End it for good."""
        if self.cleaned_data["typed"].strip() != tenant.name:
            raise InvalidInput(str(_("Type the tenant's name to close it.")), field="typed")
        tenants.close_tenant(caller=caller, tenant=tenant, reason=self.why)


class TierForm(TenantForm):
    """Another tier."""

    tab = "limits"
    title = _("Change the tier")
    note = _("Limits of the tier hold from the next request on")
    icon = "gauge"
    done = _("The tier was changed. It holds from the next request on.")

    tier = forms.ChoiceField(label=_("Tier"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        set_choices(self, "tier", list(Tier.objects.order_by("pk").values_list("code", "name")))

    def apply(self, caller: Caller, tenant: Tenant) -> None:
        """Put it on the tier."""
        tiers.set_tier(tier=self.cleaned_data["tier"], **self.ordered(caller, tenant))


class LimitsForm(TenantForm):
    """Limits of the tenant's own above its tier's; empty: those of the tier."""

    tab = "limits"
    title = _("Override limits")
    note = _("Stand above those of the tier; an empty field is the tier's")
    icon = "pencil"
    done = _("The limits hold from the next request on.")

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

    def apply(self, caller: Caller, tenant: Tenant) -> None:
        """Give it limits of its own; those of groups of models stay."""
        tiers.set_overrides(
            limits=Limits(**{name: self.cleaned_data[name] for name in LIMIT_NAMES}),
            group_limits=terms_of([tenant.pk])[tenant.pk].group_overrides,
            **self.ordered(caller, tenant),
        )


class DisconnectForm(TenantForm):
    """What happens when a client leaves its stream."""

    tab = "limits"
    title = _("When clients leave")
    note = _("Stop the stream at once, or read it on and charge it")
    icon = "log-out"
    done = _("It holds for streams that begin from now on.")

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
        max_value=tiers.DRAIN_SECONDS_MAX,
    )

    def apply(self, caller: Caller, tenant: Tenant) -> None:
        """Change it for streams that begin from now on."""
        tiers.set_disconnect(
            on_disconnect=self.cleaned_data["on_disconnect"],
            drain_seconds=self.cleaned_data["drain_seconds"],
            **self.ordered(caller, tenant),
        )
