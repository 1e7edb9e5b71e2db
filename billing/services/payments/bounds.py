"""check_amount: which amounts a tenant may order."""

from turnpike.kernel.errors import InvalidInput
from turnpike.kernel.money import NANOS_PER_UNIT, minor_unit

AMOUNT_MIN = 5 * NANOS_PER_UNIT
AMOUNT_MAX = 10_000 * NANOS_PER_UNIT


def check_amount(amount: int, currency: str) -> None:
    """Raise InvalidInput for an amount that no provider would take, or that nobody means."""
    if not AMOUNT_MIN <= amount <= AMOUNT_MAX or amount % minor_unit(currency):
        low, high = AMOUNT_MIN // NANOS_PER_UNIT, AMOUNT_MAX // NANOS_PER_UNIT
        raise InvalidInput(
            f"The amount must be between {low} and {high} {currency}, in whole cents.",
            field="amount",
        )
