"""What the simulator billed: one row for each attempt, kept up to date while it writes.

This record is the oracle of the tests that charge every request exactly once, so it is written
before the bytes it counts go out, and by nobody else.
"""

from collections import deque
from datetime import datetime
from typing import Any

from simulator.prices import cost_lines
from simulator.wire import Json, now_seconds, timestamp

ROWS_MAX = 100_000
CHARACTERS_PER_TOKEN = 4
DAY_SECONDS = 86_400


def tokens_of(characters: int) -> int:
    """Four characters are a token; a started one counts."""
    return -(-characters // CHARACTERS_PER_TOKEN)


class Row:
    """One billed attempt. `usage` holds everything but the output, which grows."""

    __slots__ = (
        "at_us",
        "custom_id",
        "is_complete",
        "is_stream",
        "model",
        "output_characters",
        "output_tokens_least",
        "request_id",
        "turnpike_request_id",
        "usage",
    )

    def __init__(
        self,
        *,
        request_id: str,
        turnpike_request_id: str | None,
        model: str,
        usage: Json,
        output_characters: int,
        is_stream: bool,
        custom_id: str | None = None,
    ) -> None:
        self.custom_id = custom_id
        self.request_id = request_id
        self.turnpike_request_id = turnpike_request_id
        self.model = model
        self.usage = usage
        self.output_characters = output_characters
        # What message_start announces is billed, even when nothing follows.
        self.output_tokens_least = int(usage.get("output_tokens", 0)) if is_stream else 0
        self.is_stream = is_stream
        self.is_complete = not is_stream
        self.at_us = int(now_seconds() * 1_000_000)

    @property
    def output_tokens(self) -> int:
        """What this attempt costs in output so far."""
        return max(self.output_tokens_least, tokens_of(self.output_characters))

    def as_json(self) -> Json:
        """The row as `GET /_billed` shows it; `usage` has the shape of the Messages API."""
        return {
            "upstream_request_id": self.request_id,
            "turnpike_request_id": self.turnpike_request_id,
            "model": self.model,
            "usage": {**self.usage, "output_tokens": self.output_tokens},
            "at": timestamp(self.at_us / 1_000_000),
            "stream": self.is_stream,
            "complete": self.is_complete,
            "custom_id": self.custom_id,
        }


class Record:
    """The rows of all billed attempts, oldest first, the last 100,000 of them."""

    def __init__(self) -> None:
        self._rows: deque[Row] = deque(maxlen=ROWS_MAX)

    def bill(self, row: Row) -> Row:
        """Add an attempt, at the moment its answer starts to be written."""
        self._rows.append(row)
        return row

    def reset(self) -> None:
        """Forget everything."""
        self._rows.clear()

    def rows(self, *, since_us: int = 0) -> list[Json]:
        """The rows billed after an instant."""
        return [row.as_json() for row in self._rows if row.at_us > since_us]

    def usage_report(self, *, bucket_seconds: int, is_wrong: bool = False) -> list[Json]:
        """Usage by bucket and model, in the shape of the Admin API; wrong on demand."""
        totals = self._totals(bucket_seconds, factor=2 if is_wrong else 1)
        sums_of: dict[tuple[int, str], dict[str, int]] = {}
        for (bucket, model, _), sums in totals.items():
            whole = sums_of.setdefault((bucket, model), dict.fromkeys(_REPORT_COLUMNS, 0))
            for column, amount in sums.items():
                whole[column] += amount
        results = [
            (bucket, [_report_result(model, sums)])
            for (bucket, model), sums in sorted(sums_of.items())
        ]
        return _buckets(results, bucket_seconds=bucket_seconds)

    def cost_report(self, *, is_wrong: bool = False) -> list[Json]:
        """Costs by day, grouped by description, in the shape of the Admin API; wrong on demand."""
        results = [
            (bucket, cost_lines(model, sums, is_batch=is_batch, factor=2 if is_wrong else 1))
            for (bucket, model, is_batch), sums in sorted(self._totals(DAY_SECONDS).items())
        ]
        return _buckets(results, bucket_seconds=DAY_SECONDS)

    def _totals(
        self, bucket_seconds: int, *, factor: int = 1
    ) -> dict[tuple[int, str, bool], dict[str, int]]:
        """What was used by bucket, model and whether in a batch."""
        totals: dict[tuple[int, str, bool], dict[str, int]] = {}
        for row in self._rows:
            bucket = row.at_us // 1_000_000 // bucket_seconds * bucket_seconds
            place = (bucket, row.model, row.custom_id is not None)
            sums = totals.setdefault(place, dict.fromkeys(_REPORT_COLUMNS, 0))
            for column, amount in _report_amounts(row).items():
                sums[column] += amount * factor
        return totals


def _buckets(results: list[tuple[int, list[Json]]], *, bucket_seconds: int) -> list[Json]:
    buckets: dict[int, list[Json]] = {}
    for bucket, found in results:
        buckets.setdefault(bucket, []).extend(found)
    return [
        {
            "starting_at": _second(bucket),
            "ending_at": _second(bucket + bucket_seconds),
            "results": found,
        }
        for bucket, found in buckets.items()
    ]


_REPORT_COLUMNS = ("uncached", "write_5m", "write_1h", "read", "output", "searches")


def _report_amounts(row: Row) -> dict[str, int]:
    creation: dict[str, Any] = row.usage.get("cache_creation") or {}
    server: dict[str, Any] = row.usage.get("server_tool_use") or {}
    return {
        "uncached": row.usage.get("input_tokens", 0),
        "write_5m": creation.get("ephemeral_5m_input_tokens", 0),
        "write_1h": creation.get("ephemeral_1h_input_tokens", 0),
        "read": row.usage.get("cache_read_input_tokens", 0),
        "output": row.output_tokens,
        "searches": server.get("web_search_requests", 0),
    }


def _report_result(model: str, sums: dict[str, int]) -> Json:
    return {
        "model": model,
        "uncached_input_tokens": sums["uncached"],
        "cache_creation": {
            "ephemeral_5m_input_tokens": sums["write_5m"],
            "ephemeral_1h_input_tokens": sums["write_1h"],
        },
        "cache_read_input_tokens": sums["read"],
        "output_tokens": sums["output"],
        "server_tool_use": {"web_search_requests": sums["searches"]},
    }


def _second(at_seconds: int) -> str:
    return timestamp(at_seconds)[:19] + "Z"


def parse_since_us(text: str) -> int:
    """Microseconds since 1970, from seconds or RFC 3339. Raises ValueError for anything else."""
    try:
        return round(float(text) * 1_000_000)
    except ValueError:
        return round(datetime.fromisoformat(text).timestamp() * 1_000_000)
