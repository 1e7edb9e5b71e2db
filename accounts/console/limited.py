"""BudgetsForm, LimitedForm: budgets, and the limits of what lies below an organization."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from accounts.models import ApiKey, Tenant, Workspace
from turnpike.control.forms import AmountField, ConsoleForm, short_amount

AMOUNTS = ("daily_budget_nano", "monthly_budget_nano")
MODES = ("daily_budget_blocks", "monthly_budget_blocks")
BLOCK, NOTIFY = "block", "notify"
LIMITED = (
    *AMOUNTS,
    *MODES,
    *("requests_per_minute", "tokens_per_minute", "concurrency"),
)


def mode_field() -> forms.TypedChoiceField:
    """Whether a budget refuses what could pass it, or only tells; left out, nothing changes."""
    return forms.TypedChoiceField(
        label=_("When it is reached"),
        choices=((BLOCK, _("Refuse requests")), (NOTIFY, _("Only tell us"))),
        coerce=lambda value: value == BLOCK,
        empty_value=None,
        required=False,
        initial=BLOCK,
    )


class BudgetsForm(ConsoleForm):
    """What may be spent in a UTC day and month. Mails go out at 50, 80, 95 and 100 %."""

    daily_budget_nano = AmountField(label=_("Budget for a day"), required=False)
    daily_budget_blocks = mode_field()
    monthly_budget_nano = AmountField(label=_("Budget for a month"), required=False)
    monthly_budget_blocks = mode_field()

    def clean(self) -> dict[str, Any]:
        """What was not asked for is not changed."""
        values = super().clean() or self.cleaned_data
        for name in MODES:
            if values.get(name) is None:
                values.pop(name, None)
        return values


class LimitedForm(BudgetsForm):
    """The limits and budgets that keys and workspaces may have below the organization's."""

    daily_budget_nano = AmountField(
        label=_("Daily limit"),
        required=False,
        help_text=_("In dollars; empty: only the organization's own."),
    )
    monthly_budget_nano = AmountField(
        label=_("Monthly limit"),
        required=False,
        help_text=_("In dollars; empty: only the organization's own."),
    )
    requests_per_minute = forms.IntegerField(
        label=_("Requests per minute"), required=False, min_value=1
    )
    tokens_per_minute = forms.IntegerField(
        label=_("Tokens per minute"), required=False, min_value=1
    )
    concurrency = forms.IntegerField(label=_("At once"), required=False, min_value=1)


def limited_initial(row: ApiKey | Workspace) -> dict[str, Any]:
    """The limits and budgets of a row as its form shows them."""
    return {name: _shown(name, getattr(row, name)) for name in LIMITED}


def budgets_initial(row: Tenant) -> dict[str, Any]:
    """The budgets of an organization as its form shows them."""
    return {name: _shown(name, getattr(row, name)) for name in (*AMOUNTS, *MODES)}


def _shown(name: str, value: Any) -> Any:
    if name in AMOUNTS:
        return short_amount(value)
    return (BLOCK if value else NOTIFY) if name in MODES else value
