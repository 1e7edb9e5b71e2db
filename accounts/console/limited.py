"""LimitedForm: the limits and budgets of what lies below an organization."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from accounts.models import ApiKey, Workspace
from turnpike.control.forms import AmountField, ConsoleForm, short_amount

LIMITED = (
    *("daily_budget_nano", "monthly_budget_nano"),
    *("requests_per_minute", "tokens_per_minute", "concurrency"),
)


class LimitedForm(ConsoleForm):
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
    amounts = ("daily_budget_nano", "monthly_budget_nano")
    return {
        name: short_amount(getattr(row, name)) if name in amounts else getattr(row, name)
        for name in LIMITED
    }
