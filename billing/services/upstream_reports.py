"""compare_reports: what attempts say of usage, against what upstreams' usage reports say.

An upstream is asked where it has a credential named ``admin``, which serves no requests. Sums are
compared by UTC day, model and kind of token, and kept: they are the evidence for what is in doubt.
"""

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

from django.db import connection

from billing.models.differences import UpstreamReportDay
from billing.models.upstreams import ADMIN_CREDENTIAL, Upstream, UpstreamCredential
from billing.services.findings import Difference
from turnpike.contracts.snapshots import credential_place
from turnpike.control.scope import platform_scope
from turnpike.env import env
from turnpike.kernel import clock, ids, sealing

PATH = "/v1/organizations/usage_report/messages"
SECONDS_MAX = 10.0
BYTES_MAX = 8 * 1024 * 1024
PAGES_MAX = 50
DAYS_AT_ONCE = 31
NO_REPORT = "no report"
Sums = dict[tuple[str, str, str], int]

_KINDS: Mapping[str, str] = {
    "uncached_input": "usage->'input_tokens'",
    "output": "usage->'output_tokens'",
    "cache_read": "usage->'cache_read_input_tokens'",
    "cache_write_5m": "usage->'cache_creation'->'ephemeral_5m_input_tokens'",
    "cache_write_1h": "usage->'cache_creation'->'ephemeral_1h_input_tokens'",
    "web_search": "usage->'server_tool_use'->'web_search_requests'",
}
_SUMS = ", ".join(
    f"coalesce(sum(CASE WHEN jsonb_typeof({place}) = 'number' THEN ({place})::bigint END), 0)"
    for place in _KINDS.values()
)
_ATTEMPTS = f"""
SELECT to_char(attempt.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD'), event.upstream_model, {_SUMS}
FROM billing_upstream_attempt AS attempt JOIN billing_usage_event AS event
  ON event.request_id = attempt.request_id AND event.revision = 0
WHERE attempt.upstream_id = %(upstream)s AND attempt.is_billed
  AND attempt.started_at >= %(since)s AND attempt.started_at < %(until)s
  AND attempt.request_id >= %(first)s AND event.request_id >= %(first)s
GROUP BY 1, 2"""  # noqa: S608 - our names


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What differs, and the upstreams and days whose reports could be read."""

    differences: tuple[Difference, ...]
    covered: frozenset[tuple[str, ...]]


def compare_upstreams(*, since: datetime, until: datetime) -> list[str]:
    """Each difference in words, upstream by upstream; `since` and `until` begin UTC days."""
    return [row.text for row in compare_reports(since=since, until=until).differences]


def compare_reports(*, since: datetime, until: datetime) -> Compared:
    """Compare whole UTC days, and keep what both sides say of each."""
    found: list[Difference] = []
    covered: set[tuple[str, ...]] = set()
    days = [(since + timedelta(days=n)).date() for n in range((until - since).days)]
    rows = UpstreamCredential.objects.filter(name=ADMIN_CREDENTIAL).select_related("upstream")
    for row in rows.order_by("upstream_id"):
        name = row.upstream.name
        try:
            reported = _reported(row, since=since, until=until)
        except (OSError, http.client.HTTPException, ValueError, sealing.CannotOpen) as error:
            found.append(_no_report(name, error))
            continue
        covered |= {(name, NO_REPORT), *((name, day.isoformat()) for day in days)}
        ours = _ours(row.upstream, since=since, until=until)
        _keep_days(row.upstream, days, ours=ours, reported=reported)
        for place in sorted(ours.keys() | reported.keys()):
            here, there = ours.get(place, 0), reported.get(place, 0)
            if here != there:
                found.append(_difference(name, place, here, there))
    return Compared(differences=tuple(found), covered=frozenset(covered))


def _no_report(name: str, error: Exception) -> Difference:
    problem = type(error).__name__
    return Difference(
        cause=(name, NO_REPORT),
        evidence=(("upstream", name), ("problem", problem)),
        text=f"{name}: no report, {problem}",
    )


def _difference(name: str, place: tuple[str, str, str], here: int, there: int) -> Difference:
    day, model, kind = place
    return Difference(
        cause=(name, day, model, kind),
        evidence=(
            ("upstream", name),
            ("day", day),
            ("model", model),
            ("kind", kind),
            ("ours", str(here)),
            ("reported", str(there)),
        ),
        text=f"{name}, {day}, {model}, {kind}: {here}, says {there}",
    )


def _keep_days(upstream: Upstream, days: list[date], *, ours: Sums, reported: Sums) -> None:
    figures: dict[str, dict[str, dict[str, list[int]]]] = {day.isoformat(): {} for day in days}
    for day, model, kind in ours.keys() | reported.keys():
        place = (day, model, kind)
        pair = [ours.get(place, 0), reported.get(place, 0)]
        if any(pair) and day in figures:
            figures[day].setdefault(model, {})[kind] = pair
    now = clock.utc_now()
    UpstreamReportDay.objects.bulk_create(
        [
            UpstreamReportDay(
                upstream=upstream, day=day, read_at=now, figures=figures[day.isoformat()]
            )
            for day in days
        ],
        update_conflicts=True,
        unique_fields=["upstream", "day"],
        update_fields=["read_at", "figures"],
    )


def _ours(upstream: Upstream, *, since: datetime, until: datetime) -> Sums:
    values: dict[str, Any] = {
        "upstream": upstream.pk,
        "since": since,
        "until": until,
        "first": ids.uuid7_floor(since),
    }
    with platform_scope("compare upstreams"), connection.cursor() as cursor:
        cursor.execute(_ATTEMPTS, values)
        return {
            (day, model, kind): int(count)
            for day, model, *counts in cursor.fetchall()
            for kind, count in zip(_KINDS, counts, strict=True)
        }


def _reported(row: UpstreamCredential, *, since: datetime, until: datetime) -> Sums:
    sums: Sums = {}
    first, last = since.date().isoformat(), until.date().isoformat()
    for bucket in _buckets(row, since=since, until=until):
        day = str(bucket["starting_at"])[:10]
        if first <= day < last:
            for result in bucket["results"]:
                for kind, count in _counts(result):
                    name = (day, str(result["model"]), kind)
                    sums[name] = sums.get(name, 0) + count
    return sums


def _counts(result: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    writes = result.get("cache_creation") or {}
    yield "uncached_input", int(result.get("uncached_input_tokens") or 0)
    yield "output", int(result.get("output_tokens") or 0)
    yield "cache_read", int(result.get("cache_read_input_tokens") or 0)
    yield "cache_write_5m", int(writes.get("ephemeral_5m_input_tokens") or 0)
    yield "cache_write_1h", int(writes.get("ephemeral_1h_input_tokens") or 0)
    yield "web_search", int((result.get("server_tool_use") or {}).get("web_search_requests") or 0)


def _buckets(
    row: UpstreamCredential, *, since: datetime, until: datetime
) -> Iterator[dict[str, Any]]:
    secret = sealing.unseal(
        row.sealed, place=credential_place(row.pk), master_keys=env().sealing_keys
    )
    query = {
        "starting_at": since.strftime("%Y-%m-%dT00:00:00Z"),
        "ending_at": until.strftime("%Y-%m-%dT00:00:00Z"),
        "bucket_width": "1d",
        "limit": str(DAYS_AT_ONCE),
        "group_by[]": "model",
    }
    for _ in range(PAGES_MAX):
        answer = _ask(row.upstream, secret, query)
        if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
            raise ValueError("no report")  # noqa: TRY004 - a bad answer, not a bad argument
        yield from answer["data"]
        if not answer.get("has_more"):
            return
        query["page"] = str(answer["next_page"])
    raise ValueError("the report does not end")


def _ask(upstream: Upstream, secret: str, query: Mapping[str, str]) -> Any:
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
        link.request("GET", f"{parts.path.rstrip('/')}{PATH}?{urlencode(query)}", headers=headers)
        answer = link.getresponse()
        if answer.status != 200:
            raise ValueError(f"status {answer.status}")
        return json.loads(answer.read(BYTES_MAX))
    finally:
        link.close()
