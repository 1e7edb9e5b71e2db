"""What an upstream's usage report says, against our attempts: one request too many is named."""

import json
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any
from unittest.mock import ANY

import httpx
import pytest
import redis
from django.core.management import call_command
from django.db.models import F, Sum

from billing.models.catalog import PriceSet
from billing.models.differences import ReconciliationItem
from billing.models.upstreams import Upstream, UpstreamCredential
from billing.models.usage import UpstreamAttempt
from billing.services.costs import set_cost_book
from billing.services.differences import keep_differences
from billing.services.findings import finding_of
from billing.services.reconciliation import reconcile_and_keep
from billing.services.upstream_reports import compare_reports, compare_upstreams
from billing.services.upstreams import set_credential
from tests.billing.usage_world import MODEL, append, ingest, make_event, make_price_set, make_shop
from turnpike.contracts.usage import Attempt
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, money

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


@pytest.fixture
def costed(simulator_url: str) -> Iterator[Upstream]:
    """An upstream with reports, and a cost book that has what it asks for a Sonnet's answers."""
    httpx.post(f"{simulator_url}/_reset").raise_for_status()
    upstream = Upstream.objects.create(name="there", kind="anthropic", base_url=simulator_url)
    set_credential(upstream=upstream, secret="sk-ant-admin-of-the-tests", name="admin")
    book = PriceSet.objects.select_related("book").get(pk=make_price_set()).book
    set_cost_book(upstream=upstream.pk, book=book.name, actor="tests", reason="tests")
    with platform_scope("tests"):
        yield upstream


def use(upstream: Upstream, client: redis.Redis, *, words: str) -> None:
    """A request that the upstream and we know of."""
    shop = make_shop(name=words, credit=1_000_000_000)
    usage = ask(upstream.base_url, words)
    attempt = Attempt(n=1, upstream=upstream.pk, outcome="answered", usage=usage)
    append(client, make_event(shop, usage=usage, attempts=(attempt,)))
    ingest(client)


def test_costs_by_the_book_are_held_against_the_cost_report(
    costed: Upstream, redis_client: redis.Redis
) -> None:
    use(costed, redis_client, words="one")
    use(costed, redis_client, words="two words")
    today = clock.utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    span = {"since": today - timedelta(days=1), "until": today + timedelta(days=2)}
    assert UpstreamAttempt.objects.filter(cost_nano__gt=0).count() == 2
    assert compare_upstreams(**span) == []

    # A price in the book that is not the one that is asked for.
    first = UpstreamAttempt.objects.order_by("request_id")[0]
    exact = UpstreamAttempt.objects.aggregate(sum=Sum("cost_nano"))["sum"]
    UpstreamAttempt.objects.filter(pk=first.pk).update(cost_nano=F("cost_nano") + 1_000_000)
    (found,) = compare_reports(**span).differences

    assert found.cause == ("there", "costs", f"{first.started_at:%Y-%m-%d}", MODEL)
    assert dict(found.evidence) == {
        "upstream": "there",
        "day": ANY,
        "model": MODEL,
        "kind": "costs",
        "ours": money.format_amount(exact + 1_000_000),
        "reported": money.format_amount(exact),
        "currency": "USD",
        "attempts": "2",
        "without_price": "0",
    }


def test_what_had_no_price_is_named_and_days_before_the_book_are_not(
    costed: Upstream, redis_client: redis.Redis
) -> None:
    use(costed, redis_client, words="one")
    use(costed, redis_client, words="two words")
    today = clock.utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    span = {"since": today - timedelta(days=1), "until": today + timedelta(days=2)}

    first = UpstreamAttempt.objects.order_by("request_id")[0]
    UpstreamAttempt.objects.filter(pk=first.pk).update(cost_nano=None)
    (found,) = compare_reports(**span).differences
    UpstreamAttempt.objects.update(cost_nano=None)

    assert dict(found.evidence)["without_price"] == "1"
    assert compare_upstreams(**span) == []


def test_a_cost_report_that_is_away_leaves_its_differences_open(
    costed: Upstream, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(costed, redis_client, words="one")
    UpstreamAttempt.objects.update(cost_nano=1)
    today = clock.utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    span = {"since": today - timedelta(days=1), "until": today + timedelta(days=2)}

    def compare_and_keep() -> None:
        compared = compare_reports(**span)
        found = finding_of("upstreams", compared.differences, covered=compared.covered)
        keep_differences([found], at=clock.utc_now())

    compare_and_keep()
    monkeypatch.setattr("billing.services.report_client.COST_PATH", "/v1/nothing")
    compare_and_keep()
    away = ReconciliationItem.objects.get(cause__contains="no cost report")
    costs = ReconciliationItem.objects.get(cause__contains="costs")
    monkeypatch.undo()
    compare_and_keep()

    assert costs.gone_at is None
    away.refresh_from_db()
    assert away.gone_at is not None
