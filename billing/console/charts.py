"""Pictures that the server draws: stacked bars and sparklines, in whole numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from turnpike.control import formats

WIDTH, HEIGHT = 1_000, 240
GRID_LINES = 4
SERIES_MAX = 6
LABELS_MAX = 8
# Tenths of what a line may stand for: 1, 1.5, 2 and so on, times a power of ten.
STEPS = (10, 15, 20, 25, 30, 40, 50, 60, 80)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One colour of one bar."""

    series: int
    y: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bucket of time; `tip` is what is said of it."""

    left: int
    slot: int
    x: int
    width: int
    parts: tuple[Part, ...]
    tip: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What stands below one bar; `x` is the bar's middle, in percent of the picture's width."""

    x: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Bars, their legend, and what stands at the axes."""

    bars: tuple[Bar, ...]
    legend: tuple[str, ...]
    ticks: tuple[str, ...]
    grid: tuple[int, ...]
    labels: tuple[Label, ...]


def stacked_bars(
    *, labels: Sequence[str], series: Mapping[str, Sequence[int]], is_money: bool = False
) -> Chart:
    """Bars of whole numbers, one for each label; the first series lies at the bottom.

    `series` has a value for each label. Amounts are nanos.
    """
    write = formats.money if is_money else formats.compact
    totals = [sum(values[place] for values in series.values()) for place in range(len(labels))]
    top = ceiling(max(totals, default=0))
    slot = WIDTH // max(1, len(labels))
    bars = []
    for place, label in enumerate(labels):
        numbers = [(name, values[place]) for name, values in series.items()]
        said = [f"{name}: {write(value)}" for name, value in numbers if value]
        left = place * WIDTH // max(1, len(labels))
        bars.append(
            Bar(
                left=left,
                slot=slot,
                x=left + slot // 8,
                width=max(1, slot - slot // 4),
                parts=_parts([value for _name, value in numbers], top),
                tip="\n".join((f"{label} · {write(totals[place])}", *said)),
            )
        )
    every = max(1, -(-len(labels) // LABELS_MAX))
    return Chart(
        bars=tuple(bars),
        legend=tuple(series),
        ticks=tuple(write(top * step // GRID_LINES) for step in reversed(range(GRID_LINES + 1))),
        grid=tuple(HEIGHT * step // GRID_LINES for step in range(GRID_LINES + 1)),
        labels=tuple(
            Label(x=_middle_of(place, len(labels)), text=labels[place])
            for place in range(0, len(labels), every)
        ),
    )


def ceiling(value: int) -> int:
    """A number at or above a value whose quarters are round."""
    scale = 1
    while True:
        for step in STEPS:
            top = GRID_LINES * step * scale // 10
            if top >= value and (step * scale) % 10 == 0:
                return top
        scale *= 10


def sparkline(values: Sequence[int]) -> str:
    """The points of a line through 100 × 40, the largest value near the top."""
    if len(values) < 2:
        return "0,38 100,38"
    top = max(*values, 1)
    last = len(values) - 1
    return " ".join(
        f"{place * 100 // last},{38 - value * 34 // top}" for place, value in enumerate(values)
    )


def _middle_of(place: int, count: int) -> str:
    """Where the middle of a bar is among so many, to a tenth of a percent."""
    tenths = (2 * place + 1) * 500 // count
    return f"{tenths // 10}.{tenths % 10}"


def _parts(values: Sequence[int], top: int) -> tuple[Part, ...]:
    parts, below = [], 0
    for number, value in enumerate(values, start=1):
        if not value:
            continue
        start, end = below * HEIGHT // top, (below + value) * HEIGHT // top
        height = max(1, end - start)
        parts.append(Part(series=number, y=HEIGHT - start - height, height=height))
        below += value
    return tuple(parts)
