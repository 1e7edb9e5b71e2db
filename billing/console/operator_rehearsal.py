"""Rehearsal: what another price, discount or tier would have done to usage that happened."""

from datetime import timedelta
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy

from accounts.console.operators import OperatorPage
from billing.models.tiers import Tier
from billing.queries.documents import COMPONENTS as TITLES
from billing.services.catalog_file import PriceRow
from billing.services.periods import month_of
from billing.services.rehearsal import Proposal, rehearse
from turnpike.contracts.rating import COMPONENTS, WEB_SEARCH
from turnpike.control.forms import AmountField, ConsoleForm
from turnpike.kernel import clock
from turnpike.kernel.errors import InvalidInput

OUTCOMES_SHOWN = 200
LAST_MONTH, THIS_MONTH, LAST_WEEK = "last_month", "this_month", "7d"


class RehearsalForm(ConsoleForm):
    """A proposal; what is empty stays as it was."""

    span = forms.ChoiceField(
        label=gettext_lazy("Usage of"),
        choices=(
            (LAST_MONTH, gettext_lazy("Last month")),
            (THIS_MONTH, gettext_lazy("This month")),
            (LAST_WEEK, gettext_lazy("Last 7 days")),
        ),
    )
    model = forms.CharField(label=gettext_lazy("Model"), required=False, max_length=200)
    component = forms.ChoiceField(
        label=gettext_lazy("Component"),
        choices=[(name, TITLES[name]) for name in COMPONENTS],
        required=False,
    )
    price = AmountField(
        label=gettext_lazy("New price"),
        required=False,
        help_text=gettext_lazy("Of a million tokens, or of one search."),
    )
    discount_bp = forms.IntegerField(
        label=gettext_lazy("Discount in basis points"),
        required=False,
        min_value=0,
        max_value=10_000,
    )
    tier = forms.ChoiceField(label=gettext_lazy("Tier"), required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        tiers = [(row.code, row.name) for row in Tier.objects.order_by("pk")]
        self.fields["tier"].choices = [("", "–"), *tiers]  # type: ignore[attr-defined]


class RehearsalPage(OperatorPage):
    """A proposal, and what would have become of it."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """The form; with a proposal in the address, its outcome. Nothing is written."""
        if "span" not in request.GET:
            return self._page(RehearsalForm())
        form = RehearsalForm(request.GET)
        if not form.is_valid():
            return self._page(form, status=400)
        try:
            outcomes = rehearse(**_span(form.cleaned_data["span"]), proposal=_proposal(form))
        except InvalidInput as error:
            form.refuse(error)
            return self._page(form, status=400)
        return self._page(
            form,
            outcomes=[
                (item, item.after_nano - item.before_nano) for item in outcomes[:OUTCOMES_SHOWN]
            ],
            has_tier=bool(form.cleaned_data["tier"]),
        )

    def _page(self, form: RehearsalForm, *, status: int = 200, **context: Any) -> HttpResponse:
        return self.page(
            "billing/operator_rehearsal.html",
            {"form": form, "section": "operator-prices", "outcomes": None, **context},
            status=status,
        )


def _proposal(form: RehearsalForm) -> Proposal:
    values = form.cleaned_data
    rows = []
    if values["model"] and values["price"] is not None:
        is_unit = values["component"] == WEB_SEARCH
        rows.append(
            PriceRow(
                model="*" if is_unit else values["model"],
                component=values["component"],
                nano_per_mtok=None if is_unit else values["price"],
                nano_per_unit=values["price"] if is_unit else None,
            )
        )
    return Proposal(rows=rows, discount_bp=values["discount_bp"], tier=values["tier"])


def _span(name: str) -> dict[str, Any]:
    now = clock.utc_now()
    this_month = month_of(now)
    return {
        LAST_MONTH: {"since": month_of(this_month - timedelta(days=1)), "until": this_month},
        THIS_MONTH: {"since": this_month, "until": now},
        LAST_WEEK: {"since": now - timedelta(days=7), "until": now},
    }[name]
