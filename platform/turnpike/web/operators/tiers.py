"""Tiers: what each allows, who is on it, and how it came to be so."""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.console import audit
from accounts.console.operators import OperatorPage, ReasonForm
from accounts.models import NAME_LENGTH_MAX, AuditEvent, TenantStatus
from billing.models.catalog import CatalogModel
from billing.models.tiers import Subscription, Tier
from billing.services.selling import save_group_limits, save_tier
from turnpike.contracts.snapshots import LIMIT_NAMES, Limits
from turnpike.kernel.errors import InvalidInput, NotFound
from turnpike.web.operators.words import LIMITS

HISTORY_SHOWN = 20
LIMIT_MAX = 2_000_000_000
DENIED_MAX = 64
TEXT_LENGTH_MAX = 4_000


class LimitFields(ReasonForm):
    """A field for each limit."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in LIMIT_NAMES:
            self.fields[name] = forms.IntegerField(
                label=LIMITS[name],
                required=False,
                min_value=1,
                max_value=LIMIT_MAX,
                widget=forms.NumberInput(attrs={"class": "input", "placeholder": "–"}),
            )

    @property
    def limits(self) -> Limits:
        """What was entered; empty: not limited."""
        return Limits(**{name: self.cleaned_data[name] for name in LIMIT_NAMES})


class TierForm(LimitFields):
    """All of a tier but its code."""

    name = forms.CharField(label=gettext_lazy("Name"), max_length=NAME_LENGTH_MAX)
    count_tokens_per_minute = forms.IntegerField(
        label=gettext_lazy("Token counts per minute"),
        min_value=0,
        max_value=LIMIT_MAX,
        initial=2_000,
    )
    output_reserve_max = forms.IntegerField(
        label=gettext_lazy("Output reserved at most"),
        required=False,
        min_value=1,
        max_value=LIMIT_MAX,
        initial=4_096,
        help_text=gettext_lazy("Of max_tokens, what counts against token limits while it runs."),
    )
    denied_models = forms.CharField(
        label=gettext_lazy("Models it may not use"),
        required=False,
        max_length=TEXT_LENGTH_MAX,
        help_text=gettext_lazy("Separated by spaces."),
    )
    denied_betas = forms.CharField(
        label=gettext_lazy("Betas it may not use"),
        required=False,
        max_length=TEXT_LENGTH_MAX,
        help_text=gettext_lazy("Values of anthropic-beta, separated by spaces."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        rest = [name for name in self.fields if name not in {"name", *LIMIT_NAMES, "reason"}]
        self.order_fields(["code", "name", *LIMIT_NAMES, *rest, "reason"])

    @property
    def values(self) -> Mapping[str, Any]:
        """What was entered beside the limits."""
        names = ("name", "count_tokens_per_minute", "output_reserve_max")
        lists = ("denied_models", "denied_betas")
        return {name: self.cleaned_data[name] for name in names} | {
            name: self.cleaned_data[name].split()[:DENIED_MAX] for name in lists
        }


class NewTierForm(TierForm):
    """A tier with its code."""

    code = forms.SlugField(
        label=gettext_lazy("Code"),
        max_length=50,
        help_text=gettext_lazy("What programs call it. It never changes."),
    )


class GroupForm(LimitFields):
    """Limits of a group of models; none at all take them away."""

    limit_group = forms.ChoiceField(label=gettext_lazy("Group of models"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        groups = CatalogModel.objects.exclude(limit_group="").order_by("limit_group")
        names = groups.values_list("limit_group", flat=True).distinct()
        field = self.fields["limit_group"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [(name, name) for name in names]
        self.order_fields(["limit_group", *LIMIT_NAMES, "reason"])


class TiersPage(OperatorPage):
    """All tiers."""

    def get(self, _request: HttpRequest) -> HttpResponse:
        """Side by side."""
        return self._show()

    def post(self, request: HttpRequest) -> HttpResponse:
        """Make one."""
        form = NewTierForm(request.POST)
        if form.is_valid() and Tier.objects.filter(code=form.cleaned_data["code"]).exists():
            form.add_error("code", _("There is a tier of that code already."))
        if not form.is_valid():
            return self._show(form=form, status=400)
        save_tier(
            caller=self.caller,
            code=form.cleaned_data["code"],
            limits=form.limits,
            values=form.values,
            reason=form.cleaned_data["reason"],
        )
        return self.done(_("The tier was created."))

    def _show(self, *, form: NewTierForm | None = None, status: int = 200) -> HttpResponse:
        rows = Tier.objects.prefetch_related("group_limits").order_by("pk")
        counts = count_tenants()
        return self.page(
            "operator/tiers.html",
            {
                "tiers": [
                    {"row": row, "limits": list_limits(row.limits), "count": counts.get(row.pk, 0)}
                    for row in rows
                ],
                "form": form or NewTierForm(),
                "is_new": form is not None,
            },
            status=status,
        )


class TierPage(OperatorPage):
    """One tier."""

    def get(self, _request: HttpRequest, code: str) -> HttpResponse:
        """What it allows, and its history."""
        return self._show(get_tier(code))

    def post(self, request: HttpRequest, code: str) -> HttpResponse:
        """Change it for everybody who is on it."""
        tier = get_tier(code)
        form = TierForm(request.POST)
        if not form.is_valid():
            return self._show(tier, form=form, status=400)
        try:
            save_tier(
                caller=self.caller,
                code=code,
                limits=form.limits,
                values=form.values,
                reason=form.cleaned_data["reason"],
            )
        except InvalidInput as error:
            form.refuse(error)
            return self._show(tier, form=form, status=400)
        return self.done(_("The tier was changed. It holds from the next request on."))

    def _show(self, tier: Tier, *, form: TierForm | None = None, status: int = 200) -> HttpResponse:
        on_it = Subscription.objects.filter(tier=tier).exclude(tenant__status=TenantStatus.CLOSED)
        return self.page(
            "operator/tier.html",
            {
                "tier": tier,
                "section": "operator-tiers",
                "limits": list_limits(tier.limits),
                "groups": [
                    {"name": row.limit_group, "limits": list_limits(row.limits)}
                    for row in tier.group_limits.order_by("limit_group")
                ],
                "form": form or TierForm(initial=_initial(tier), auto_id="tier_%s"),
                "group_form": GroupForm(auto_id="group_%s"),
                "is_edited": form is not None,
                "count": count_tenants().get(tier.pk, 0),
                "overridden": on_it.exclude(overrides={}).count(),
                "events": history_of(f"tier/{tier.code}"),
            },
            status=status,
        )


class TierGroupPage(OperatorPage):
    """The limits of a group of models within a tier."""

    def back(self) -> str:
        """The tier."""
        return reverse("operator-tier", args=[self.kwargs["code"]])

    def post(self, request: HttpRequest, code: str) -> HttpResponse:
        """Set them, or take them away."""
        tier = get_tier(code)
        form = GroupForm(request.POST)
        if not form.is_valid():
            return self.refused(form)
        save_group_limits(
            caller=self.caller,
            tier=tier.code,
            limit_group=form.cleaned_data["limit_group"],
            limits=form.limits,
            reason=form.cleaned_data["reason"],
        )
        return self.done(_("The limits of the group hold from the next request on."))


def get_tier(code: str) -> Tier:
    """A tier by its code. Raises NotFound."""
    tier = Tier.objects.filter(code=code).first()
    if tier is None:
        raise NotFound(f"There is no tier {code!r}.")
    return tier


def count_tenants() -> dict[int, int]:
    """How many tenants that are not closed are on each tier."""
    is_open = ~Q(tenant__status=TenantStatus.CLOSED)
    rows = Subscription.objects.filter(is_open).order_by("tier").values("tier")
    return {row["tier"]: row["count"] for row in rows.annotate(count=Count("pk"))}


def list_limits(limits: Limits) -> list[dict[str, Any]]:
    """Limits with their names."""
    return [{"title": LIMITS[name], "value": getattr(limits, name)} for name in LIMIT_NAMES]


def history_of(target: str) -> list[dict[str, Any]]:
    """What was done to something of the platform's own, newest first."""
    rows = AuditEvent.objects.filter(tenant=None, target=target).order_by("-pk")
    return audit.describe(list(rows[:HISTORY_SHOWN]))


def _initial(tier: Tier) -> dict[str, Any]:
    return {
        "name": tier.name,
        "count_tokens_per_minute": tier.count_tokens_per_minute,
        "output_reserve_max": tier.output_reserve_max,
        "denied_models": " ".join(tier.denied_models),
        "denied_betas": " ".join(tier.denied_betas),
        **{name: getattr(tier, name) for name in LIMIT_NAMES},
    }
