"""compare_upstreams: what attempts say of usage, against what upstreams' usage reports say.

An upstream is asked where it has a credential named ``admin``, which serves no requests.
Sums are compared by UTC day, model and kind of token.
"""

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

from django.db import connection

from billing.models.upstreams import ADMIN_CREDENTIAL, Upstream, UpstreamCredential
from turnpike.contracts.snapshots import credential_place
from turnpike.control.scope import platform_scope
from turnpike.env import env
from turnpike.kernel import ids, sealing

PATH = "/v1/organizations/usage_report/messages"
SECONDS_MAX = 10.0
BYTES_MAX = 8 * 1024 * 1024
PAGES_MAX = 50
DAYS_AT_ONCE = 31
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


def compare_upstreams(*, since: datetime, until: datetime) -> list[str]:
    """Each difference in words, upstream by upstream; `since` and `until` begin UTC days."""
    found = []
    rows = UpstreamCredential.objects.filter(name=ADMIN_CREDENTIAL).select_related("upstream")
    for row in rows.order_by("upstream_id"):
        try:
            reported = _reported(row, since=since, until=until)
        except (OSError, http.client.HTTPException, ValueError, sealing.CannotOpen) as error:
            found.append(f"{row.upstream.name}: no report, {type(error).__name__}")
            continue
        ours = _ours(row.upstream, since=since, until=until)
        for day, model, kind in sorted(ours.keys() | reported.keys()):
            here, there = ours.get((day, model, kind), 0), reported.get((day, model, kind), 0)
            if here != there:
                found.append(f"{row.upstream.name}, {day}, {model}, {kind}: {here}, says {there}")
    return found


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
