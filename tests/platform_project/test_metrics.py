"""The control plane's figures, who may read them, and alert rules that name what is exported."""

import re
from typing import Any

import pytest
import redis
import yaml
from django.test import Client, override_settings

from billing.models.usage import UsageRollup
from billing.services.publication import publish_everything
from billing.services.reconciliation import reconcile_and_keep
from proxy.metrics import Metrics
from tests.billing.usage_world import append, append_body, ingest, make_event, make_shop
from tests.support.servers import FIXED, ROOT
from turnpike.control import redis as control_redis
from turnpike.control.scope import platform_scope
from turnpike.kernel import keyspace

pytestmark = pytest.mark.django_db
ALERTS = ROOT / "platform" / "deploy" / "alerts.yml"
AFAR: dict[str, Any] = {"REMOTE_ADDR": "192.0.2.7"}


def scrape(**request: Any) -> dict[str, float]:
    """The figures by name and labels."""
    answer = Client().get("/metrics", **request)
    assert answer.status_code == 200
    lines = [line for line in answer.content.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


@pytest.fixture
def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_rule_names_metrics_that_are_exported(
    redis_client: redis.Redis, rules: list[dict[str, Any]]
) -> None:
    reconcile_and_keep(actor="tests")
    exported = {
        line.split()[2]
        for text in (Client().get("/metrics").content, Metrics().render())
        for line in text.decode().splitlines()
        if line.startswith("# TYPE")
    }

    named = {name for rule in rules for name in re.findall(r"turnpike_\w+", rule["expr"])}

    assert named - exported == set()
    assert "turnpike_reconciliation_differences" in named
    assert all(rule["labels"]["severity"] in {"page", "ticket"} for rule in rules)
    assert all(rule["annotations"]["summary"] for rule in rules)


def test_both_planes_have_names_of_their_own(redis_client: redis.Redis) -> None:
    reconcile_and_keep(actor="tests")
    ours = set(re.findall(r"^# TYPE (\w+)", Client().get("/metrics").content.decode(), re.M))

    assert ours & {metric.name for metric in Metrics().all} == set()


def test_the_figures_say_what_is_wrong(redis_client: redis.Redis) -> None:
    shop = make_shop(credit=1_000_000_000)
    publish_everything()
    append(redis_client, make_event(shop))
    append_body(redis_client, b"no event")
    ingest(redis_client)
    assert reconcile_and_keep(actor="tests").differences == 0
    before = scrape()
    with platform_scope("tests"):
        UsageRollup.objects.update(requests=9)
    reconcile_and_keep(actor="tests")
    old = f"{1_000_000_000_000}-0"
    empty = next(shard for shard in range(1, keyspace.SHARDS) if shard != shop.shard)
    redis_client.xadd(keyspace.usage_stream(empty), {keyspace.EVENT_FIELD: b"{}"}, id=old)
    redis_client.delete(keyspace.policy(3))

    after = scrape()

    row = 'turnpike_reconciliation_differences{check="rollups"}'
    assert (before[row], after[row]) == (0, 1)
    assert (before["turnpike_ingest_oldest_seconds"], before["turnpike_dead_letters"]) == (0, 1)
    assert after["turnpike_ingest_oldest_seconds"] > 60
    assert before['turnpike_shards{state="cold"}'] == 0
    assert after['turnpike_shards{state="cold"}'] == 1
    assert after['turnpike_server_up{server="redis"}'] == 1


def test_only_loopback_or_the_token_may_read(redis_client: redis.Redis) -> None:
    token: dict[str, Any] = {"HTTP_AUTHORIZATION": f"Bearer {FIXED['METRICS_TOKEN']}"}
    client = Client()

    assert client.get("/metrics", **AFAR).status_code == 404
    assert client.get("/metrics", HTTP_X_FORWARDED_FOR="127.0.0.1").status_code == 404
    assert client.get("/metrics", HTTP_AUTHORIZATION="Bearer guess", **AFAR).status_code == 404
    assert client.get("/metrics", **token, **AFAR).status_code == 200
    assert client.post("/metrics").status_code == 405


@override_settings(REDIS_URL="redis://127.0.0.1:1/0")
def test_a_server_that_is_away_costs_its_own_figures_only() -> None:
    control_redis.redis_client.cache_clear()
    try:
        figures = scrape()
    finally:
        control_redis.redis_client.cache_clear()

    assert figures['turnpike_server_up{server="redis"}'] == 0
    assert figures['turnpike_server_up{server="postgres"}'] == 1
    assert "turnpike_dead_letters" in figures
    assert "turnpike_gateways" not in figures
