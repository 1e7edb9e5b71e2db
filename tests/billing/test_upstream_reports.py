"""What an upstream's usage report says, against our attempts: one request too many is named."""

import json
from datetime import timedelta
from io import StringIO
from typing import Any

import httpx
import pytest
import redis
from django.core.management import call_command

from billing.models.upstreams import Upstream, UpstreamCredential
from billing.services.reconciliation import reconcile_and_keep
from billing.services.upstream_reports import compare_upstreams
from billing.services.upstreams import set_credential
from tests.billing.usage_world import MODEL, append, ingest, make_event, make_shop
from turnpike.contracts.usage import Attempt
from turnpike.kernel import clock

pytestmark = pytest.mark.django_db


def ask(url: str, words: str) -> dict[str, Any]:
    """One request that the upstream bills; its usage."""
    body = {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": words}]}
    headers = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
    usage: dict[str, Any] = httpx.post(f"{url}/v1/messages", json=body, headers=headers).json()[
        "usage"
    ]
    return usage


def test_a_request_that_only_the_upstream_knows_is_named(
    simulator_url: str, redis_client: redis.Redis
) -> None:
    httpx.post(f"{simulator_url}/_reset").raise_for_status()
    upstream = Upstream.objects.create(name="there", kind="anthropic", base_url=simulator_url)
    set_credential(upstream=upstream, secret="sk-ant-admin-of-the-tests", name="admin")
    shop = make_shop(credit=1_000_000_000)
    for words in ("one", "two words"):
        attempt = Attempt(
            n=1, upstream=upstream.pk, outcome="answered", usage=ask(simulator_url, words)
        )
        append(redis_client, make_event(shop, usage=attempt.usage, attempts=(attempt,)))
    ingest(redis_client)
    today = clock.utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    span = {"since": today - timedelta(days=1), "until": today + timedelta(days=2)}

    assert compare_upstreams(**span) == []
    more = ask(simulator_url, "three words more")
    found = compare_upstreams(**span)

    assert [line.split(":")[0].rsplit(", ", 1)[1] for line in found] == ["output", "uncached_input"]
    assert all(line.startswith("there, ") and MODEL in line for line in found)
    ours, theirs = (int(word) for word in found[0].rsplit(": ", 1)[1].split(", says "))
    assert theirs - ours == more["output_tokens"]
    output = StringIO()
    days = [f"--{name}={at:%Y-%m-%d}" for name, at in span.items()]
    with pytest.raises(SystemExit):
        call_command("compare_upstreams", "--json", *days, stdout=output)
    assert json.loads(output.getvalue()) == {"ok": False, "differences": found}


def test_an_upstream_that_does_not_answer_is_a_difference(redis_client: redis.Redis) -> None:
    upstream = Upstream.objects.create(name="away", kind="anthropic", base_url="http://127.0.0.1:1")
    set_credential(upstream=upstream, secret="sk-ant-admin-of-the-tests", name="admin")
    today = clock.utc_now().replace(hour=0, minute=0, second=0, microsecond=0)

    assert compare_upstreams(since=today, until=today + timedelta(days=1)) == [
        "away: no report, ConnectionRefusedError"
    ]
    findings = {row["check"]: row for row in reconcile_and_keep(actor="tests").findings}
    assert findings["upstreams"]["differences"] == 1
    UpstreamCredential.objects.all().delete()
    assert compare_upstreams(since=today, until=today + timedelta(days=1)) == []
