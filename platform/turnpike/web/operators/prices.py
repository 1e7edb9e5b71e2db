"""Prices: books, what is in force and to come, and new versions with a date. Nothing is edited."""

from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.db import connection
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.console.operators import OperatorPage, ReasonForm
from accounts.models import NAME_LENGTH_MAX, TenantStatus
from billing.models.catalog import DEFAULT_BOOK, CatalogModel, Price, PriceBook, PriceSet
from billing.models.tiers import Subscription
from billing.services.selling import change_prices, create_book, list_rates
from turnpike.contracts.rating import ANY_MODEL, STANDARD, TOKEN_COMPONENTS
from turnpike.control.forms import AmountField, set_choices, short_amount
from turnpike.kernel import clock
from turnpike.kernel.errors import InvalidInput, NotFound
from turnpike.web.operators.tiers import history_of
from turnpike.web.operators.words import COMPONENTS

VERSIONS_SHOWN = 12
TOUCHED_DAYS = timedelta(days=30)
SEPARATOR = "__"


class PriceForm(ReasonForm):
    """New standard prices of a model, from an instant on."""

    begins_at = forms.DateTimeField(
        label=gettext_lazy("In force from"),
        required=False,
        help_text=gettext_lazy("UTC. Empty: from the next request on."),
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}),
    )

    def __init__(self, *args: Any, rates: list[Price], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        places = [
            (row.component, row.min_input, row.nano_per_mtok)
            for row in rates
            if row.variant == STANDARD and row.nano_per_mtok is not None
        ]
        order = {name: place for place, name in enumerate(TOKEN_COMPONENTS)}
        places.sort(key=lambda place: (place[1], order.get(place[0], len(order))))
        for component, min_input, nanos in places or [(name, 0, 0) for name in TOKEN_COMPONENTS]:
            name = f"{component}{SEPARATOR}{min_input}"
            self.fields[name] = AmountField(
                label=bracket_title(component, min_input),
                initial=short_amount(nanos or 0),
                widget=forms.TextInput(attrs={"class": "input nums", "inputmode": "decimal"}),
            )
        self.order_fields([*self.rate_names, "begins_at", "reason"])

    @property
    def rate_names(self) -> list[str]:
        """The fields that hold prices."""
        return [name for name in self.fields if SEPARATOR in name]

    @property
    def rates(self) -> dict[tuple[str, int], int]:
        """What was entered, by component and bracket."""
        found = {}
        for name in self.rate_names:
            component, _separator, min_input = name.partition(SEPARATOR)
            found[component, int(min_input)] = int(self.cleaned_data[name] or 0)
        return found


class BookForm(ReasonForm):
    """A book of one's own, made from another one."""

    name = forms.CharField(label=gettext_lazy("Name"), max_length=NAME_LENGTH_MAX)
    based_on = forms.ChoiceField(label=gettext_lazy("Made from"), initial=DEFAULT_BOOK)
    percent = forms.DecimalField(
        label=gettext_lazy("Percent of those prices"),
        min_value=0,
        max_value=1_000,
        decimal_places=2,
        initial=100,
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = PriceBook.objects.order_by("pk").values_list("name", flat=True)
        set_choices(self, "based_on", [(name, name) for name in names])


class PricesPage(OperatorPage):
    """A book: what each model costs now."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """The book that is chosen, with its versions."""
        return self._show(request.GET.get("book", DEFAULT_BOOK)[:NAME_LENGTH_MAX])

    def post(self, request: HttpRequest) -> HttpResponse:
        """Make a book from another one."""
        form = BookForm(request.POST)
        if not form.is_valid():
            return self._show(DEFAULT_BOOK, form=form, status=400)
        values = form.cleaned_data
        book = create_book(
            caller=self.caller,
            name=values["name"],
            based_on=values["based_on"],
            factor_bp=int(values["percent"] * 100),
            reason=values["reason"],
        )
        return self.done(
            _("The book was created. Put tenants on it under their billing."),
            to=f"{reverse('operator-prices')}?book={book.pk}",
        )

    def _show(self, name: str, *, form: BookForm | None = None, status: int = 200) -> HttpResponse:
        books = list(PriceBook.objects.order_by("pk"))
        chosen = next((row for row in books if name in {row.name, str(row.pk)}), None)
        sets = list_sets(chosen) if chosen is not None else []
        current = next((row for row in sets if row["is_current"]), None)
        return self.page(
            "operator/prices.html",
            {
                "books": books,
                "book": chosen,
                "sets": sets[:VERSIONS_SHOWN],
                "current": current,
                "models": list_models(current["row"] if current is not None else None),
                "components": [(name, COMPONENTS[name]) for name in TOKEN_COMPONENTS],
                "pieces": list_pieces(current["row"]) if current is not None else [],
                "touched": count_tenants(chosen) if chosen is not None else 0,
                "form": form or BookForm(),
                "is_new": form is not None,
                "events": history_of(f"book/{chosen.name}"[:64]) if chosen is not None else [],
            },
            status=status,
        )


class PricePage(OperatorPage):
    """A model's prices in a book, and a new version of them."""

    def get(self, _request: HttpRequest, book: str, model: str) -> HttpResponse:
        """What holds, what is to come, what held."""
        row = get_book(book)
        return self._show(row, model, PriceForm(rates=list_rates(book=row.name, model=model)))

    def post(self, request: HttpRequest, book: str, model: str) -> HttpResponse:
        """Show who would be touched; then, once confirmed, begin a new version."""
        row = get_book(book)
        if not CatalogModel.objects.filter(model=model).exists():
            raise NotFound(f"There is no model {model!r}.")
        form = PriceForm(request.POST, rates=list_rates(book=row.name, model=model))
        if not form.is_valid():
            return self._show(row, model, form, status=400)
        begins_at: datetime | None = form.cleaned_data["begins_at"]
        if begins_at is not None and begins_at <= clock.utc_now():
            form.add_error("begins_at", _("Prices begin now or later, never in the past."))
            return self._show(row, model, form, status=400)
        if request.POST.get("confirmed") != "1":
            return self._show(row, model, form, is_preview=True)
        try:
            change_prices(
                caller=self.caller,
                book=row.name,
                model=model,
                rates=form.rates,
                reason=form.cleaned_data["reason"],
                begins_at=begins_at,
            )
        except InvalidInput as error:
            form.refuse(error)
            return self._show(row, model, form, status=400)
        return self.done(_("The new prices are written down and hold from their date on."))

    def _show(
        self,
        book: PriceBook,
        model: str,
        form: PriceForm,
        *,
        is_preview: bool = False,
        status: int = 200,
    ) -> HttpResponse:
        current = list_rates(book=book.name, model=model)
        if not current and not CatalogModel.objects.filter(model=model).exists():
            raise NotFound(f"There is no model {model!r}.")
        context: dict[str, Any] = {
            "book": book,
            "model": model,
            "section": "operator-prices",
            "form": form,
            "is_own": model in book.own_models,
            "rows": [_rate(row) for row in current],
            "versions": list_versions(book, model),
            "is_preview": is_preview,
        }
        if is_preview:
            used = count_users(model)
            context |= {
                "differences": differences(current, form.rates),
                "touched": count_tenants(book),
                "users": used,
            }
        return self.page("operator/price.html", context, status=status)


def get_book(number: str) -> PriceBook:
    """A book by its number. Raises NotFound."""
    is_number = number.isdecimal() and len(number) < 19
    row = PriceBook.objects.filter(pk=int(number)).first() if is_number else None
    if row is None:
        raise NotFound("There is no such price book.")
    return row


def list_sets(book: PriceBook) -> list[dict[str, Any]]:
    """The versions of a book that were or will be in force, the newest first."""
    now = clock.utc_now()
    rows = PriceSet.objects.filter(book=book, effective__isempty=False).order_by("-effective")
    found = []
    for row in rows[: VERSIONS_SHOWN * 2]:
        begin, end = row.effective.lower, row.effective.upper
        has_begun = begin is None or begin <= now
        is_over = end is not None and end <= now
        found.append(
            {
                "row": row,
                "begins_at": begin,
                "ends_at": end,
                "is_current": has_begun and not is_over,
                "is_to_come": not has_begun,
            }
        )
    return found


def list_models(price_set: PriceSet | None) -> list[dict[str, Any]]:
    """All models with their standard prices in a version; those without any can get them."""
    prices: dict[str, dict[str, int]] = {}
    if price_set is not None:
        rows = Price.objects.filter(price_set=price_set, variant=STANDARD, min_input=0)
        for row in rows.exclude(nano_per_mtok=None):
            prices.setdefault(row.model, {})[row.component] = int(row.nano_per_mtok or 0)
    models = CatalogModel.objects.order_by("-is_enabled", "-released_at")
    return [{"row": row, "prices": prices.get(row.model, {})} for row in models]


def list_pieces(price_set: PriceSet) -> list[dict[str, Any]]:
    """What costs the same for every model, by piece."""
    rows = Price.objects.filter(price_set=price_set, model=ANY_MODEL)
    return [
        {"title": COMPONENTS.get(row.component, row.component), "nano": row.nano_per_unit}
        for row in rows.exclude(nano_per_unit=None).order_by("component")
    ]


def list_versions(book: PriceBook, model: str) -> list[dict[str, Any]]:
    """The standard prices of a model in each version of a book, the newest first."""
    sets = list_sets(book)[:VERSIONS_SHOWN]
    rows = Price.objects.filter(
        price_set__in=[item["row"].pk for item in sets], model=model, variant=STANDARD, min_input=0
    ).exclude(nano_per_mtok=None)
    prices: dict[int, dict[str, int]] = {}
    for row in rows:
        prices.setdefault(row.price_set_id, {})[row.component] = int(row.nano_per_mtok or 0)
    return [
        {
            **item,
            "prices": [
                (COMPONENTS[name], prices[item["row"].pk].get(name)) for name in TOKEN_COMPONENTS
            ],
        }
        for item in sets
        if item["row"].pk in prices
    ]


def count_tenants(book: PriceBook) -> int:
    """How many tenants that are not closed pay by a book."""
    chosen = Q(book=book) | Q(book=None) if book.name == DEFAULT_BOOK else Q(book=book)
    rows = Subscription.objects.filter(chosen)
    return rows.exclude(tenant__status=TenantStatus.CLOSED).count()


def count_users(model: str) -> int:
    """How many tenants used a model in the last 30 days; from the rollups."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(DISTINCT tenant_id) FROM billing_usage_rollup"
            " WHERE bucket_at >= %s AND model = %s",
            [clock.utc_now() - TOUCHED_DAYS, model],
        )
        (count,) = cursor.fetchone()
    return int(count)


def differences(current: list[Price], rates: dict[tuple[str, int], int]) -> list[dict[str, Any]]:
    """What each price was and will be."""
    before = {
        (row.component, row.min_input): row.nano_per_mtok
        for row in current
        if row.variant == STANDARD
    }
    return [
        {
            "title": bracket_title(component, min_input),
            "before": before.get((component, min_input)),
            "after": nanos,
            "is_same": before.get((component, min_input)) == nanos,
        }
        for (component, min_input), nanos in rates.items()
    ]


def bracket_title(component: str, min_input: int) -> str:
    """What a price is called; brackets say from which length of prompt on."""
    title = str(COMPONENTS.get(component, component))
    if not min_input:
        return title
    return _("%(title)s, prompts above %(count)d tokens") % {"title": title, "count": min_input}


def _rate(row: Price) -> dict[str, Any]:
    return {
        "title": bracket_title(row.component, row.min_input),
        "variant": row.variant,
        "nano": row.nano_per_mtok if row.nano_per_mtok is not None else row.nano_per_unit,
        "is_by_piece": row.nano_per_unit is not None,
    }
