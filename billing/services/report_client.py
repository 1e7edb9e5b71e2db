"""What upstreams' Admin APIs report of usage and costs, asked with the credential named ``admin``.

Every answer is bounded in time, bytes and pages. Raises one of REPORT_ERRORS where there is no
report to be had.
"""

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlencode, urlsplit

from billing.models.upstreams import Upstream, UpstreamCredential
from turnpike.contracts.snapshots import credential_place
from turnpike.env import env
from turnpike.kernel import sealing

USAGE_PATH = "/v1/organizations/usage_report/messages"
COST_PATH = "/v1/organizations/cost_report"
SECONDS_MAX = 10.0
BYTES_MAX = 8 * 1024 * 1024
PAGES_MAX = 50
DAYS_AT_ONCE = 31
NANO_PER_CENT = 10_000_000
COST_CURRENCY = "USD"
REPORT_ERRORS = (
    *(OSError, http.client.HTTPException, ValueError, sealing.CannotOpen),
    # A document of another shape than a report's.
    *(LookupError, TypeError, AttributeError),
)
# UTC day, model, kind of token.
Sums = dict[tuple[str, str, str], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a report says that a model cost on a day, and of how many rounded lines it is a sum."""

    nano: int = 0
    lines: int = 0


# UTC day, model; what has no model, such as a container's time, stands under the empty one.
Costs = dict[tuple[str, str], Cost]


def read_usage(row: UpstreamCredential, *, since: datetime, until: datetime) -> Sums:
    """How much was used, by UTC day, model and kind of token."""
    sums: Sums = {}
    for day, result in _results(row, USAGE_PATH, "model", since=since, until=until):
        for kind, count in _counts(result):
            name = (day, str(result["model"]), kind)
            sums[name] = sums.get(name, 0) + count
    return sums


def read_costs(row: UpstreamCredential, *, since: datetime, until: datetime) -> Costs:
    """What it cost, in nanos of a dollar, by UTC day and model."""
    costs: Costs = {}
    for day, result in _results(row, COST_PATH, "description", since=since, until=until):
        if result.get("currency") != COST_CURRENCY:
            raise ValueError("a cost report in another currency")
        place = (day, str(result.get("model") or ""))
        before = costs.get(place, Cost())
        costs[place] = Cost(nano=before.nano + _nano(result["amount"]), lines=before.lines + 1)
    return costs


def _nano(cents: Any) -> int:
    try:
        return int((Decimal(str(cents)) * NANO_PER_CENT).to_integral_value())
    except (InvalidOperation, OverflowError) as error:
        raise ValueError("an amount that is no number") from error


def _counts(result: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    writes = result.get("cache_creation") or {}
    yield "uncached_input", int(result.get("uncached_input_tokens") or 0)
    yield "output", int(result.get("output_tokens") or 0)
    yield "cache_read", int(result.get("cache_read_input_tokens") or 0)
    yield "cache_write_5m", int(writes.get("ephemeral_5m_input_tokens") or 0)
    yield "cache_write_1h", int(writes.get("ephemeral_1h_input_tokens") or 0)
    yield "web_search", int((result.get("server_tool_use") or {}).get("web_search_requests") or 0)


def _results(
    row: UpstreamCredential, path: str, group_by: str, *, since: datetime, until: datetime
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each result with its UTC day, of the days that were asked for."""
    first, last = since.date().isoformat(), until.date().isoformat()
    for bucket in _buckets(row, path, group_by, since=since, until=until):
        day = str(bucket["starting_at"])[:10]
        if first <= day < last:
            for result in bucket["results"]:
                yield day, result


def _buckets(
    row: UpstreamCredential, path: str, group_by: str, *, since: datetime, until: datetime
) -> Iterator[dict[str, Any]]:
    secret = sealing.unseal(
        row.sealed, place=credential_place(row.pk), master_keys=env().sealing_keys
    )
    query = {
        "starting_at": since.strftime("%Y-%m-%dT00:00:00Z"),
        "ending_at": until.strftime("%Y-%m-%dT00:00:00Z"),
        "bucket_width": "1d",
        "limit": str(DAYS_AT_ONCE),
        "group_by[]": group_by,
    }
    for _ in range(PAGES_MAX):
        answer = _ask(row.upstream, secret, f"{path}?{urlencode(query)}")
        if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
            raise ValueError("no report")  # noqa: TRY004 - a bad answer, not a bad argument
        yield from answer["data"]
        if not answer.get("has_more"):
            return
        query["page"] = str(answer["next_page"])
    raise ValueError("the report does not end")


def _ask(upstream: Upstream, secret: str, target: str) -> Any:
    parts = urlsplit(upstream.base_url)
    link: http.client.HTTPConnection
    if parts.scheme == "https":
        link = http.client.HTTPSConnection(
            parts.hostname or "",
            parts.port,
            timeout=SECONDS_MAX,
            context=ssl.create_default_context(),
        )
    else:
        link = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=SECONDS_MAX)
    headers = {"x-api-key": secret, "anthropic-version": "2023-06-01"}
    try:
        link.request("GET", f"{parts.path.rstrip('/')}{target}", headers=headers)
        answer = link.getresponse()
        if answer.status != 200:
            raise ValueError(f"status {answer.status}")
        return json.loads(answer.read(BYTES_MAX))
    finally:
        link.close()
