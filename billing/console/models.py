"""Models and prices: what an organization may call, and what each kind of token costs it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy

from accounts.console.pages import TenantPage
from billing.models import CatalogModel
from billing.models.catalog import PriceSet
from billing.models.upstreams import Route
from billing.services.prices import load_price_sets
from billing.snapshots import tier_of_tenant
from turnpike.contracts import rating
from turnpike.contracts.snapshots import PriceSet as Prices
from turnpike.control.caller import Power
from turnpike.kernel import clock
from turnpike.kernel.errors import NotFound
from turnpike.kernel.money import half_even_div

BASIS_POINTS = 10_000
COLUMNS: Mapping[str, Any] = {
    rating.INPUT: gettext_lazy("Input"),
    rating.CACHE_WRITE_5M: gettext_lazy("Cache write, 5 min"),
    rating.CACHE_WRITE_1H: gettext_lazy("Cache write, 1 h"),
    rating.CACHE_READ: gettext_lazy("Cache read"),
    rating.OUTPUT: gettext_lazy("Output"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bracket:
    """What a million tokens cost by component, for prompts longer than `min_input`."""

    min_input: int
    prices: Mapping[str, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A model with the organization's own prices; `is_open`: its tier has it and somebody serves.

    The prices are those that the next request is charged, the discount taken off.
    """

    model: CatalogModel
    aliases: tuple[str, ...]
    brackets: tuple[Bracket, ...]
    is_open: bool

    @property
    def can_think(self) -> str:
        """How the model thinks when asked: `adaptive`, `enabled`, or nothing."""
        thinking = (self.model.capabilities or {}).get("thinking") or {}
        types = thinking.get("types") or {}
        for kind in ("adaptive", "enabled"):
            if (types.get(kind) or {}).get("supported"):
                return kind
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """All offers to an organization, newest first, and what holds for all of them."""

    offers: tuple[Offer, ...]
    currency: str
    tier_name: str
    discount_bp: int
    since: datetime | None

    @property
    def open_offers(self) -> tuple[Offer, ...]:
        """Those that can be called now."""
        return tuple(offer for offer in self.offers if offer.is_open)


class ModelsPage(TenantPage):
    """The models and their prices."""

    powers = {"GET": Power.USAGE_READ}

    def get(self, _request: HttpRequest) -> HttpResponse:
        """One table."""
        prices = list_offers(self.tenant)
        return self.page("billing/models.html", {"list": prices, "columns": COLUMNS})


def list_offers(tenant: int) -> PriceList:
    """What a tenant may call and at which prices; empty before the first catalogue."""
    try:
        bought = tier_of_tenant(tenant)
    except NotFound:
        return PriceList(offers=(), currency="USD", tier_name="", discount_bp=0, since=None)
    row = PriceSet.objects.filter(
        book_id=bought.terms.book, effective__contains=clock.utc_now()
    ).first()
    prices = None if row is None else load_price_sets([row.pk])[row.pk]
    served = set(
        Route.objects.filter(is_enabled=True, upstream__is_enabled=True, weight__gt=0).values_list(
            "model_id", flat=True
        )
    )
    discount = bought.terms.discount_bp
    offers = []
    for model in CatalogModel.objects.filter(is_enabled=True).prefetch_related("aliases"):
        brackets = _brackets(prices, model.model, discount_bp=discount) if prices else ()
        is_allowed = model.model not in bought.tier.denied_models
        offers.append(
            Offer(
                model=model,
                aliases=tuple(sorted(alias.alias for alias in model.aliases.all())),
                brackets=brackets,
                is_open=bool(brackets) and is_allowed and model.pk in served,
            )
        )
    offers.sort(key=lambda offer: (offer.model.released_at, offer.model.model), reverse=True)
    return PriceList(
        offers=tuple(offers),
        currency="USD" if prices is None else prices.currency,
        tier_name=bought.tier.name,
        discount_bp=discount,
        since=None if row is None else row.effective.lower,
    )


def _brackets(prices: Prices, model: str, *, discount_bp: int) -> tuple[Bracket, ...]:
    rows = [row for row in prices.prices.get(model, ()) if row.variant == rating.STANDARD]
    found = []
    for start in sorted({row.min_input for row in rows}):
        in_force = rating.prices_of(
            prices, model=model, variant=rating.STANDARD, prompt_tokens=start + 1
        )
        amounts = {name: _amount(in_force.get(name), discount_bp) for name in COLUMNS}
        found.append(Bracket(min_input=start, prices=amounts))
    return tuple(found)


def _amount(row: Any, discount_bp: int) -> int | None:
    if row is None or row.nano_per_mtok is None:
        return None
    return half_even_div(row.nano_per_mtok * (BASIS_POINTS - discount_bp), BASIS_POINTS)
