"""ConsoleForm: forms in the look of the consoles, and fields for money and choices."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from turnpike.kernel import money
from turnpike.kernel.errors import InvalidInput

AMOUNT_LENGTH_MAX = 24


class ConsoleForm(forms.Form):
    """A form whose fields look like those of the consoles."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.label_suffix = ""
        for field in self.fields.values():
            style(field.widget)

    def refuse(self, error: InvalidInput, *, columns: dict[str, str] | None = None) -> None:
        """Show a service's refusal at the field that it names."""
        name = (columns or {}).get(error.field, error.field)
        self.add_error(name if name in self.fields else None, error.message)


def style(widget: forms.Widget) -> None:
    """Give a widget the class of its look; boxes that are ticked keep their own."""
    ticked = (forms.CheckboxInput, forms.CheckboxSelectMultiple, forms.RadioSelect)
    if not isinstance(widget, ticked):
        widget.attrs.setdefault("class", "input")


def set_choices(form: forms.Form, name: str, choices: list[tuple[str, Any]]) -> None:
    """Give a field of choices what can be chosen now."""
    field = form.fields[name]
    assert isinstance(field, forms.ChoiceField)
    field.choices = choices


def short_amount(nanos: int | None) -> str:
    """An amount as people type it: two decimals, more only where they say something."""
    if nanos is None:
        return ""
    units, _point, decimals = money.format_amount(nanos).partition(".")
    return f"{units}.{decimals.rstrip('0').ljust(2, '0')}"


class AmountField(forms.CharField):
    """Money in major units as people type it; nanos inside, None when left empty."""

    default_error_messages = {"amount": _("Enter an amount like 25 or 12.50.")}

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("widget", forms.TextInput(attrs={"inputmode": "decimal"}))
        super().__init__(max_length=AMOUNT_LENGTH_MAX, **kwargs)

    def clean(self, value: Any) -> Any:
        """The nanos of what was typed."""
        text = super().clean(value).replace(",", ".").strip()
        if not text:
            return None
        try:
            nanos = money.parse_amount(text)
        except ValueError as error:
            raise forms.ValidationError(self.error_messages["amount"], code="amount") from error
        if nanos < 0:
            raise forms.ValidationError(self.error_messages["amount"], code="amount")
        return nanos
