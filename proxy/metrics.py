"""Counters and histograms, all named here.

On the hot path a metric is a number in a list. Each worker writes its numbers to a file of its own
every second, and whoever is asked adds up the files: a scrape reaches one worker and sees all.
"""

import fcntl
import json
import logging
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from proxy.plain_usage import UsageText
from turnpike.contracts.usage import STATUS_OF_RANK

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0
# A metric that grows beyond this has a label that was not meant to be one.
LABEL_SETS_MAX = 1_000
OTHER = "other"

FAST_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
ANSWER_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
ESTIMATES = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5, 2.0, 4.0)

TOKEN_FIELDS = (
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
)

Values = dict[tuple[str, ...], list[float]]
TokenRows = tuple[tuple[str, list[float]], ...]
COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


class Series:
    """One row of a metric, for fixed label values. Keep it where it is used often."""

    __slots__ = ("_bounds", "_observed", "numbers", "observe")

    def __init__(self, numbers: list[float], bounds: Sequence[float]) -> None:
        self.numbers = numbers
        self._bounds = bounds
        self._observed: list[float] = []
        # Put a value into its bucket. A call into C: it is done some times for each request, and
        # whoever reads the numbers, each second, sorts what came since.
        self.observe: Callable[[float], None] = self._observed.append

    def inc(self, amount: float = 1) -> None:
        """Count something."""
        self.numbers[0] += amount

    def dec(self, amount: float = 1) -> None:
        """Take something back from a gauge."""
        self.numbers[0] -= amount

    def set(self, value: float) -> None:
        """Set a gauge."""
        self.numbers[0] = value

    def fold(self) -> None:
        """Bring what was observed into the numbers: the sum first, then the buckets, +Inf last."""
        observed, numbers = self._observed, self.numbers
        if not observed:
            return
        numbers[0] += sum(observed)
        observed.sort()  # then the buckets are asked for, and not each value
        below = 0
        for place, bound in enumerate(self._bounds, start=1):
            up_to = bisect_right(observed, bound)
            numbers[place] += up_to - below
            below = up_to
        numbers[-1] += len(observed) - below
        observed.clear()


class Metric:
    """A named family of series. Without labels, it is its own only series."""

    inc: Callable[..., None]
    dec: Callable[..., None]
    set: Callable[[float], None]
    observe: Callable[[float], None]

    def __init__(
        self, kind: str, name: str, help_text: str, labels: Sequence[str], bounds: Sequence[float]
    ) -> None:
        self.kind = kind
        self.name = name
        self.help_text = help_text
        self.label_names = tuple(labels)
        self.bounds = tuple(bounds)
        self._values: Values = {}
        self._series: dict[tuple[str, ...], Series] = {}
        if not labels:
            # The metric is its only series: the series' own methods save two calls each time.
            alone = self.labels()
            self.inc, self.dec = alone.inc, alone.dec
            self.set, self.observe = alone.set, alone.observe

    def labels(self, *values: str) -> Series:
        """The series for these label values, in the order of the names."""
        series = self._series.get(values)
        if series is not None:
            return series
        assert len(values) == len(self.label_names)
        if len(self._series) >= LABEL_SETS_MAX:
            values = (OTHER,) * len(values)
            if values in self._series:
                return self._series[values]
        numbers = self._values.setdefault(values, [0.0] * self.width)
        series = self._series[values] = Series(numbers, self.bounds)
        return series

    @property
    def values(self) -> Values:
        """The numbers by label values, up to the moment."""
        if self.kind == HISTOGRAM:
            for series in self._series.values():
                series.fold()
        return self._values

    @property
    def width(self) -> int:
        """How many numbers a series has."""
        return len(self.bounds) + 2 if self.kind == HISTOGRAM else 1

    @property
    def value(self) -> float:
        """The number of a metric without labels (the sum, for a histogram)."""
        return self.values[()][0]


class _Ended(dict[int, list[float]]):
    """The numbers of ended requests by their rank."""

    def __init__(self, events: Metric) -> None:
        super().__init__()
        self._events = events

    def __missing__(self, rank: int) -> list[float]:
        numbers = self[rank] = self._events.labels(STATUS_OF_RANK[rank]).numbers
        return numbers


class Metrics:
    """Every metric of the data plane. No label ever holds an id of a tenant, key or request."""

    def __init__(self) -> None:
        self.all: list[Metric] = []
        counter, gauge, seconds = self._counter, self._gauge, self._histogram
        self._add_guards()
        self.requests = counter("requests", "Requests answered", "path", "status")
        self.request_seconds = seconds("request_seconds", "Whole requests", ANSWER_SECONDS, "path")
        self.first_byte_seconds = seconds(
            "first_byte_seconds", "From the request to the upstream's first byte", ANSWER_SECONDS
        )
        self.own_seconds = seconds(
            "own_seconds", "From the request to its leaving for the upstream", FAST_SECONDS
        )
        self.requests_open = gauge("requests_open", "Requests being served")
        self.cut_streams = counter("cut_streams", "Streams that ended before their message did")
        self.pings = counter("pings", "Pings of our own into silent streams")
        self.refusals = counter("refusals", "Requests refused by us", "reason")
        self.events = counter("events", "Usage events written", "status")
        self.tokens = counter("tokens", "Tokens of usage events", "model", "kind")
        self.usage_flags = counter("usage_flags", "Odd usage reported by upstreams", "flag")
        self.waived_micro = counter("waived_micro", "Cost above the hold, borne by the operator")
        self.admit_seconds = seconds("admit_seconds", "Admission scripts", FAST_SECONDS)
        self.policy_retries = counter("policy_retries", "Admissions repeated for a newer policy")
        self.fallback_admissions = counter(
            "fallback_admissions", "Admissions decided without Redis", "outcome"
        )
        self.retries = counter("upstream_retries", "Attempts after a first one that failed")
        self.upstream_errors = counter(
            "upstream_errors", "Error answers of upstreams", "upstream", "status"
        )
        self.conversation_turns = counter(
            "conversation_turns",
            "Later turns of conversations, at the upstream with their cache (kept) or not (moved)",
            "outcome",
        )
        self.upstream_open = gauge(
            "upstream_open", "Workers that leave an upstream alone because it fails", "upstream"
        )
        self.upstream_cooling = gauge(
            "upstream_cooling", "Credentials that were told to wait, by workers", "upstream"
        )
        self.upstream_in_flight = gauge(
            "upstream_in_flight", "Requests that run at an upstream", "upstream"
        )
        self.upstream_opens = counter("upstream_opens", "Times a breaker opened", "upstream")
        self.upstream_checks = counter(
            "upstream_checks", "Checks of upstreams", "upstream", "outcome"
        )
        self.upstream_capped = counter(
            "upstream_capped", "Attempts that an upstream's caps kept away", "upstream"
        )
        self.upstream_connections = gauge("upstream_connections", "Open upstream connections")
        self.redis_connects = counter("redis_connects", "Connections made to Redis")
        self.beat_errors = counter("beat_errors", "Beats that Redis did not take")
        self.settle_errors = counter("settle_errors", "Settlements put off")
        self.events_resent = counter("events_resent", "Usage events sent again")
        self.events_unconfirmed = gauge("events_unconfirmed", "Usage events not yet posted")
        self.journal_bytes = counter("journal_bytes", "Bytes written to the journal")
        self.journal_errors = counter("journal_errors", "Journal writes or reads that failed")
        self.adopted_journals = counter("adopted_journals", "Journals of dead workers taken over")
        self.clients_gone = counter(
            "clients_gone", "Clients that left before their request was read"
        )
        self.round_errors = counter("round_errors", "Rounds beside the requests that failed")
        self.reaped = counter("reaped", "Requests settled after their lease had ended")
        # Rows that each request asks for, by what it knows of itself.
        self._answered: dict[tuple[str, int], tuple[list[float], Callable[[float], None]]] = {}
        self._ended = _Ended(self.events)
        self._token_rows: dict[str, TokenRows] = {}

    def _add_guards(self) -> None:
        """What the guards of money, of objects and of repeated requests count."""
        counter, gauge, seconds = self._counter, self._gauge, self._histogram
        self.usage_unbilled = counter(
            "usage_unbilled", "Counts in usage that no price is known for", "field"
        )
        self.input_estimate_ratio = seconds(
            "input_estimate_ratio", "Estimated input tokens by the real ones", ESTIMATES, "model"
        )
        self.token_ratio = gauge(
            "token_ratio", "Tokens for each unit of a script, as learned", "model", "script"
        )
        self.objects_not_noted = counter(
            "objects_not_noted", "Upstream objects that no tenant could be noted for"
        )
        self.idempotent = counter("idempotent", "Requests with an Idempotency-Key", "outcome")

    def note_flags(self, flags: Iterable[str]) -> None:
        """Count what was odd about an answer's usage."""
        for flag in flags:
            word, _, field = flag.partition(":")
            self.usage_flags.labels(word).inc()
            if field:
                # Nobody is charged for this: somebody has to look, today.
                self.usage_unbilled.labels(field).inc()
                logger.error("usage.unbilled", extra={"field": field})

    def note_request(self, path: str, status: int, seconds: float) -> None:
        """Count a whole request."""
        known = self._answered.get((path, status))
        if known is None:
            counted = self.requests.labels(path, str(status)).numbers
            known = counted, self.request_seconds.labels(path).observe
            self._answered[path, status] = known
        counted, observe = known
        counted[0] += 1
        observe(seconds)

    def note_end(self, rank: int, model: str, usage: Mapping[str, Any]) -> None:
        """Count a request's end, and its tokens by the top-level counters."""
        ended = self._ended.get(rank) or self._ended[rank]
        ended[0] += 1
        rows = self._token_rows.get(model) or self._rows_of(model)
        if type(usage) is UsageText:
            (_, input_), (_, output), (_, written), (_, read) = rows
            plain = usage.plain
            input_[0] += plain.input_tokens
            output[0] += plain.output_tokens
            if plain.cache_creation_input_tokens:
                written[0] += plain.cache_creation_input_tokens
            if plain.cache_read_input_tokens:
                read[0] += plain.cache_read_input_tokens
            return
        for name, numbers in rows:
            count = usage.get(name)
            if count and type(count) is int and count > 0:  # most are nought
                numbers[0] += count

    def _rows_of(self, model: str) -> TokenRows:
        rows = tuple((name, self.tokens.labels(model, name).numbers) for name in TOKEN_FIELDS)
        if len(self._token_rows) < LABEL_SETS_MAX:
            self._token_rows[model] = rows
        return rows

    def render(self) -> bytes:
        """This worker's metrics as Prometheus text."""
        return render_text(self.all, {metric.name: metric.values for metric in self.all})

    def _add(
        self, kind: str, name: str, help_text: str, labels: tuple[str, ...], bounds: Sequence[float]
    ) -> Metric:
        metric = Metric(kind, f"turnpike_{name}", help_text, labels, bounds)
        self.all.append(metric)
        return metric

    def _counter(self, name: str, help_text: str, *labels: str) -> Metric:
        return self._add(COUNTER, f"{name}_total", help_text, labels, ())

    def _gauge(self, name: str, help_text: str, *labels: str) -> Metric:
        return self._add(GAUGE, name, help_text, labels, ())

    def _histogram(
        self, name: str, help_text: str, bounds: Sequence[float], *labels: str
    ) -> Metric:
        return self._add(HISTOGRAM, name, help_text, labels, bounds)


class SharedMetrics:
    """The metrics of all workers, by way of one file for each in a directory.

    Counters of workers that are gone are kept: their files are added to one and removed.
    """

    def __init__(self, metrics: Metrics, directory: Path) -> None:
        self._metrics = metrics
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / f"{os.getpid()}.json"
        self._ended_path = directory / "ended.json"
        # A file of our number is that of a process before us: in a container, numbers come again.
        with self._locked():
            self._fold([self._path])

    def flush(self) -> None:
        """Write this worker's numbers. Cheap; call it every FLUSH_SECONDS and at the end."""
        rows = {
            metric.name: [[list(labels), numbers] for labels, numbers in metric.values.items()]
            for metric in self._metrics.all
        }
        self._write(self._path, rows)

    def render(self) -> bytes:
        """All workers' metrics as Prometheus text, this one's up to the moment."""
        self.flush()
        totals: dict[str, Values] = {}
        with self._locked():
            self._fold([path for path in self._files() if not _is_alive(path.stem)])
            self._add_file(self._ended_path, totals, has_gauges=False)
            for path in self._files():
                self._add_file(path, totals, has_gauges=True)
        return render_text(self._metrics.all, totals)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._directory / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _fold(self, ended: Sequence[Path]) -> None:
        """Add the counters of workers that are gone to one file."""
        totals: dict[str, Values] = {}
        paths = [path for path in ended if path.exists()]
        if not paths:
            return
        for path in (self._ended_path, *paths):
            self._add_file(path, totals, has_gauges=False)
        self._write(self._ended_path, _rows_of(totals))
        for path in paths:
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(path for path in self._directory.glob("*.json") if path.stem.isdecimal())

    def _write(self, path: Path, rows: dict[str, Any]) -> None:
        # Written beside and moved, so that nobody reads half a file.
        draft = path.with_suffix(f".{os.getpid()}.draft")
        draft.write_text(json.dumps(rows))
        draft.replace(path)

    def _add_file(self, path: Path, totals: dict[str, Values], *, has_gauges: bool) -> None:
        try:
            rows = json.loads(path.read_text())
        except (OSError, ValueError):
            return
        for metric in self._metrics.all:
            if metric.kind == GAUGE and not has_gauges:
                continue
            values = {
                tuple(labels): numbers
                for labels, numbers in rows.get(metric.name, ())
                # Another release may have had other labels or buckets.
                if len(labels) == len(metric.label_names) and len(numbers) == metric.width
            }
            _add_values(totals.setdefault(metric.name, {}), values)


def render_text(metrics: Sequence[Metric], values: dict[str, Values]) -> bytes:
    """Prometheus' text format, version 0.0.4."""
    lines: list[str] = []
    for metric in metrics:
        lines.append(f"# HELP {metric.name} {metric.help_text}.")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        for labels, numbers in sorted(values.get(metric.name, {}).items()):
            lines.extend(_lines_of(metric, labels, numbers))
    return ("\n".join(lines) + "\n").encode()


def _lines_of(metric: Metric, labels: tuple[str, ...], numbers: list[float]) -> Iterator[str]:
    pairs = [f'{name}="{_escaped(v)}"' for name, v in zip(metric.label_names, labels, strict=True)]
    if metric.kind != HISTOGRAM:
        yield f"{metric.name}{_braces(pairs)} {_number(numbers[0])}"
        return
    total = 0.0
    bounds = [f'le="{bound}"' for bound in (*metric.bounds, "+Inf")]
    for bound, count in zip(bounds, numbers[1:], strict=True):
        total += count
        yield f"{metric.name}_bucket{_braces([*pairs, bound])} {_number(total)}"
    yield f"{metric.name}_sum{_braces(pairs)} {_number(numbers[0])}"
    yield f"{metric.name}_count{_braces(pairs)} {_number(total)}"


def _braces(pairs: list[str]) -> str:
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _add_values(total: Values, values: Values) -> None:
    for labels, numbers in values.items():
        known = total.setdefault(labels, [0.0] * len(numbers))
        for index, number in enumerate(numbers):
            known[index] += number


def _rows_of(totals: dict[str, Values]) -> dict[str, Any]:
    return {name: [[list(k), v] for k, v in values.items()] for name, values in totals.items()}


def _is_alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


METRICS = Metrics()
