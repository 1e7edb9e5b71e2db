"""provider_named, checkout_provider: who is set up to move money here."""

from functools import cache

from billing.services.payments.manual import MANUAL, ManualProvider
from billing.services.payments.provider import Provider
from turnpike.env import env
from turnpike.kernel.errors import NotFound

STRIPE = "stripe"


def has_stripe() -> bool:
    """Whether payments by card are set up."""
    return bool(env().stripe_api_key)


def provider_named(name: str) -> Provider:
    """A provider that is set up. Raises NotFound."""
    if name == MANUAL:
        return ManualProvider()
    if name == STRIPE and has_stripe():
        settings = env()
        return _stripe(
            settings.stripe_api_key, settings.stripe_webhook_secrets, settings.stripe_api_base
        )
    raise NotFound(f"No payment provider {name[:20]!r} is set up.")


def checkout_provider() -> Provider:
    """Who takes a top-up: Stripe where it is set up, else one transfers."""
    return provider_named(STRIPE if has_stripe() else MANUAL)


@cache
def _stripe(api_key: str, secrets: tuple[str, ...], base: str) -> Provider:
    # The library takes a while to load, which only those pay who use it.
    from billing.services.payments.stripe_api import StripeProvider

    return StripeProvider(api_key=api_key, secrets=secrets, base=base)
