"""What the simulator asks for its answers: list prices, without brackets for long prompts."""

from decimal import Decimal

from simulator.wire import Json

# Dollars for a million tokens: input, output, cache write of 5 minutes and of an hour, cache read.
# The longest beginning that a model's id has counts; any other id costs what a Sonnet does.
_DOLLARS = {
    "claude-": ("3", "15", "3.75", "6", "0.30"),
    "claude-3-haiku": ("0.25", "1.25", "0.30", "0.50", "0.03"),
    "claude-3-5-haiku": ("0.80", "4", "1", "1.60", "0.08"),
    "claude-3-opus": ("15", "75", "18.75", "30", "1.50"),
    "claude-opus-4-": ("15", "75", "18.75", "30", "1.50"),
    "claude-opus-4-5": ("5", "25", "6.25", "10", "0.50"),
    "claude-opus-4-6": ("5", "25", "6.25", "10", "0.50"),
    "claude-opus-4-7": ("5", "25", "6.25", "10", "0.50"),
    "claude-opus-4-8": ("5", "25", "6.25", "10", "0.50"),
    "claude-opus-5": ("5", "25", "6.25", "10", "0.50"),
    "claude-opus-5-5": ("4", "20", "5", "8", "0.20"),
    "claude-sonnet-5": ("2", "10", "2.50", "4", "0.20"),
    "claude-haiku-4-5": ("1", "5", "1.25", "2", "0.10"),
    "claude-haiku-5-5": ("0.10", "0.50", "0.125", "0.20", "0.01"),
    "claude-mythos": ("10", "50", "12.50", "20", "1"),
    "claude-fable": ("10", "50", "12.50", "20", "1"),
}
_SEARCHES_DOLLARS = "10"  # a thousand of them
_CENTS = 100
_DIGITS = Decimal("0.00001")
_BATCH_SHARE = Decimal("0.5")
# What a cost report calls each kind of token, in the order of the prices above.
_TOKEN_TYPES = (
    ("uncached", "uncached_input_tokens"),
    ("output", "output_tokens"),
    ("write_5m", "cache_creation.ephemeral_5m_input_tokens"),
    ("write_1h", "cache_creation.ephemeral_1h_input_tokens"),
    ("read", "cache_read_input_tokens"),
)


def cost_lines(model: str, sums: dict[str, int], *, is_batch: bool, factor: int = 1) -> list[Json]:
    """The lines of a cost report for these sums, in cents; what was not used has none."""
    share = (_BATCH_SHARE if is_batch else Decimal(1)) * factor
    name = max((name for name in _DOLLARS if model.startswith(name)), key=len, default="claude-")
    lines = [
        _line(model, amount, is_batch=is_batch, cost_type="tokens", token_type=token_type)
        for (kind, token_type), dollars in zip(_TOKEN_TYPES, _DOLLARS[name], strict=True)
        if (amount := sums[kind] * Decimal(dollars) * _CENTS / 1_000_000 * share)
    ]
    searches = sums["searches"] * Decimal(_SEARCHES_DOLLARS) * _CENTS / 1_000 * factor
    if searches:
        lines.append(_line(model, searches, is_batch=is_batch, cost_type="web_search"))
    return lines


def _line(
    model: str, cents: Decimal, *, is_batch: bool, cost_type: str, token_type: str | None = None
) -> Json:
    return {
        "amount": str(cents.quantize(_DIGITS)),
        "currency": "USD",
        "workspace_id": None,
        "description": f"{model} {token_type or cost_type}",
        "cost_type": cost_type,
        "model": model,
        "token_type": token_type,
        "service_tier": "batch" if is_batch else "standard",
        "context_window": "0-200k",
        "inference_geo": "global",
    }
