"""What a test asks the simulator to do wrong, written in the header `x-simulator`.

For example ``x-simulator: status=529; retry_after=2`` or ``x-simulator: cut_after_events=3``.
"""

from dataclasses import dataclass

HEADER = b"x-simulator"

USAGE_FAULTS = frozenset({"missing", "negative", "decreasing", "inflated", "unknown", "priority"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """One request's orders. Nothing set: behave.

    `status` refuses with that status, `retry_after` goes with it; `delay_ms` waits before anything
    happens; `drop` closes without a byte; `hang` never answers; the `*_after_events` cut, silence
    or fail a stream once so many events are out (a JSON answer is cut in its middle); `bad_json`
    breaks one document; `usage` misreports; `report` does so in usage and cost reports; `pace_ms`
    and `tokens` set pace and length; `static` asks for the precomputed answer.
    """

    status: int = 0
    retry_after: str = ""
    delay_ms: int = 0
    drop: bool = False
    hang: bool = False
    bad_json: bool = False
    static: bool = False
    cut_after_events: int = -1
    hang_after_events: int = -1
    error_after_events: int = -1
    usage: str = ""
    report: str = ""
    pace_ms: int = -1
    tokens: int = 0


NONE = Faults()
_FLAGS = frozenset({"drop", "hang", "bad_json", "static"})
_NUMBERS = frozenset(
    {
        "status",
        "delay_ms",
        "cut_after_events",
        "hang_after_events",
        "error_after_events",
        "pace_ms",
        "tokens",
    }
)
_WORDS = frozenset({"retry_after", "usage", "report"})


def parse_faults(header: bytes | None) -> Faults:
    """The orders of one request. Raises ValueError for an order nobody knows."""
    if not header:
        return NONE
    orders: dict[str, int | str | bool] = {}
    for part in header.decode("latin-1").replace(",", ";").split(";"):
        name, _, value = part.strip().partition("=")
        if name:
            orders.update(_order(name.strip(), value.strip()))
    return Faults(**orders)  # type: ignore[arg-type]  # _order knows each field's type


def _order(name: str, value: str) -> dict[str, int | str | bool]:
    if name.isdigit() and not value:
        return {"status": int(name)}
    if name in _FLAGS:
        return {name: value not in {"0", "false"}}
    if name in _NUMBERS:
        return {name: int(value)}
    if name == "usage" and value not in USAGE_FAULTS:
        raise ValueError(f"x-simulator: usage={value} is none of {sorted(USAGE_FAULTS)}.")
    if name in _WORDS:
        return {name: value}
    raise ValueError(f"x-simulator: nobody knows {name!r}.")
