"""Pages and endpoints for differences and usage in doubt: an operator decides, with a reason."""

import json
from typing import Any
from uuid import UUID

import pytest
import redis
from django.test import Client

from accounts.models import Role
from billing.models.differences import ReconciliationItem, UpstreamReportDay, UsageReview
from billing.models.upstreams import Upstream
from billing.services.differences import keep_differences
from billing.services.findings import Difference, finding_of
from billing.services.reconciliation import reconcile
from billing.services.upstreams import set_credential
from tests.accounts.factories import make_member
from tests.billing.usage_world import MODEL, Shop, append, ingest, make_event, make_shop, rows_of
from tests.operator_console.operator_world import REASON, audited, browser_of, make_operator
from turnpike.contracts.usage import Attempt
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids

pytestmark = pytest.mark.django_db
LANGUAGES = ("en", "zh-hans", "ru")
IN, OUT = 3_000, 15_000


@pytest.fixture
def shop(redis_client: redis.Redis) -> Shop:
    return make_shop(credit=1_000_000_000)


@pytest.fixture
def upstream() -> Upstream:
    return Upstream.objects.create(name="there", kind="anthropic", base_url="http://127.0.0.1:1")


@pytest.fixture
def lost(shop: Shop, upstream: Upstream, redis_client: redis.Redis) -> UUID:
    """A request whose answer nobody read, and a report that counts it."""
    attempt = Attempt(n=1, upstream=upstream.pk, outcome="unknown")
    append(redis_client, event := make_event(shop, rank=2, usage={}, attempts=(attempt,)))
    ingest(redis_client)
    UpstreamReportDay.objects.create(
        upstream=upstream,
        day=clock.datetime_of_us(event.started_at_us).date(),
        figures={MODEL: {"uncached_input": [50, 150], "output": [8, 28]}},
    )
    return UUID(event.rid)


@pytest.fixture
def waived(shop: Shop, redis_client: redis.Redis) -> UUID:
    """A request that was worth more than its hold."""
    append(redis_client, event := make_event(shop, hold_micro=100))
    ingest(redis_client)
    return UUID(event.rid)


@pytest.fixture
def item(lost: UUID) -> ReconciliationItem:
    """What a comparison with the upstream's report found."""
    day = clock.datetime_of_us(ids.uuid7_ms(lost) * 1_000).date().isoformat()
    cause = ("there", day, MODEL, "output")
    names = ("upstream", "day", "model", "kind", "ours", "reported")
    evidence = tuple(zip(names, (*cause, "8", "28"), strict=True))
    row = Difference(cause=cause, evidence=evidence, text="there")
    keep_differences([finding_of("upstreams", [row])], at=clock.utc_now())
    return ReconciliationItem.objects.get()


def address(request: UUID) -> str:
    return f"/operator/doubts/{ids.public_id(ids.REQUEST, request)}"


def api(client: Client, path: str, body: Any = None, **headers: str) -> Any:
    whole = f"/api/v1/operator/{path}"
    if body is None:
        return client.get(whole)
    return client.post(
        whole, data=json.dumps(body), content_type="application/json", headers=headers
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_pages_render_in_every_language_without_leftovers(
    language: str, item: ReconciliationItem, lost: UUID, waived: UUID
) -> None:
    client = browser_of(make_operator(), language=language)
    for path in (
        "/operator/differences",
        f"/operator/differences/{item.public_id}",
        "/operator/doubts",
        "/operator/doubts?kind=waived",
        f"{address(lost)}?attempt=1",
        address(waived),
    ):
        answer = client.get(path)
        page = answer.content.decode()

        assert answer.status_code == 200, path
        assert [mark for mark in ("<c-", "{{", "{%", ' style="', "onclick=") if mark in page] == []
        assert answer["cache-control"] == "no-store"


def test_a_difference_shows_its_evidence_and_is_closed_with_a_reason(
    item: ReconciliationItem, lost: UUID
) -> None:
    client = browser_of(make_operator())
    path = f"/operator/differences/{item.public_id}"
    assert item.public_id in client.get("/operator/differences").content.decode()
    page = client.get(path).content.decode()
    assert ids.public_id(ids.REQUEST, lost) in page  # what may explain it

    assert client.post(path, {"reason": ""}).status_code == 400
    assert client.post(path, {"reason": REASON})["location"] == "/operator/differences"

    item.refresh_from_db()
    assert (item.state, item.reason) == ("closed", REASON)
    assert audited("difference.closed")[0].target == item.public_id
    assert item.public_id not in client.get("/operator/differences").content.decode()
    assert item.public_id in client.get("/operator/differences?state=closed").content.decode()
    assert client.get("/operator/differences?before=x&kind=upstreams").status_code == 200
    assert client.get("/operator/differences/diff_nonsense").status_code == 404


def test_an_attempt_is_charged_from_the_upstreams_evidence(lost: UUID) -> None:
    client = browser_of(make_operator())
    public = ids.public_id(ids.REQUEST, lost)
    assert public in client.get("/operator/doubts").content.decode()
    page = client.get(f"{address(lost)}?attempt=1").content.decode()
    # What is missing in the report is suggested, as nothing else can be meant.
    assert 'value="100"' in page
    assert 'value="20"' in page
    body = {"attempt": "1", "uncached_input": "100", "output": "20", "action": "charge"}

    assert client.post(address(lost), body).status_code == 400  # no reason
    for _ in range(2):
        answer = client.post(address(lost), {**body, "reason": REASON})
        assert answer["location"] == "/operator/doubts"

    assert sum(row.amount_nano for row in rows_of(lost)) == 100 * IN + 20 * OUT
    with platform_scope("tests"):
        assert UsageReview.objects.count() == 1
    assert public not in client.get("/operator/doubts").content.decode()
    assert REASON in client.get(f"{address(lost)}?attempt=1").content.decode()
    assert [row for row in reconcile() if row.differences] == []


def test_the_reports_of_its_day_can_be_read_now(
    simulator_url: str, lost: UUID, upstream: Upstream
) -> None:
    UpstreamReportDay.objects.all().delete()
    upstream.base_url = simulator_url
    upstream.save()
    set_credential(upstream=upstream, secret="sk-ant-admin-of-the-tests", name="admin")
    client = browser_of(make_operator())
    assert "No usage report" in client.get(f"{address(lost)}?attempt=1").content.decode()

    answer = client.post(address(lost), {"attempt": "1", "action": "read"})

    assert answer["location"] == f"{address(lost)}?attempt=1"
    row = UpstreamReportDay.objects.get(upstream=upstream)
    assert row.day == clock.datetime_of_us(ids.uuid7_ms(lost) * 1_000).date()
    assert "No usage report" not in client.get(f"{address(lost)}?attempt=1").content.decode()


def test_what_holds_did_not_cover_is_accepted_by_the_page(waived: UUID) -> None:
    client = browser_of(make_operator())
    assert (
        ids.public_id(ids.REQUEST, waived)
        in client.get("/operator/doubts?kind=waived").content.decode()
    )

    client.post("/operator/doubts", {"request": [str(waived), "nonsense"], "reason": REASON})

    with platform_scope("tests"):
        review = UsageReview.objects.get()
    assert (review.attempt, review.decision) == (0, "accepted")
    assert review.accepted_nano == 100 * IN + 20 * OUT - 100_000
    assert (
        ids.public_id(ids.REQUEST, waived)
        not in client.get("/operator/doubts?kind=waived").content.decode()
    )
    assert client.get(f"{address(waived)}?attempt=9").status_code == 404
    assert client.get("/operator/doubts/req_nonsense").status_code == 404


def test_differences_by_api(item: ReconciliationItem) -> None:
    client = browser_of(make_operator())
    found = api(client, "differences?check=upstreams").json()["data"]
    assert [row["id"] for row in found] == [item.public_id]
    assert found[0]["evidence"][-1] == {"name": "reported", "value": "28"}
    assert api(client, f"differences/{item.public_id}").json() == found[0]
    path = f"differences/{item.public_id}/close"

    assert api(client, path, {}).status_code == 400
    closed = api(client, path, {"reason": REASON}).json()
    assert (closed["state"], closed["reason"]) == ("closed", REASON)
    assert api(client, path, {"reason": REASON}).status_code == 409
    assert api(client, "differences").json()["data"] == []
    assert len(api(client, "differences?state=all").json()["data"]) == 1
    assert api(client, "differences?state=odd").status_code == 400
    assert api(client, "differences/diff_1").status_code == 404


def test_doubts_by_api(lost: UUID, waived: UUID) -> None:
    client = browser_of(make_operator())
    public = ids.public_id(ids.REQUEST, lost)
    (row,) = api(client, "doubts").json()["data"]
    assert (row["request_id"], row["attempt"], row["upstream"]) == (public, 1, "there")
    (over,) = api(client, "doubts?kind=waived").json()["data"]
    assert over["waived"] == "0.000500000"
    one = api(client, f"doubts/{public}?attempt=1").json()
    assert one["evidence"]["reported"] == {"uncached_input": 150, "output": 28}
    body = {
        "attempt": 1,
        "decision": "charged",
        "billed": {"uncached_input": 100, "output": 20},
        "reason": REASON,
    }

    def decide(body: Any, key: str) -> Any:
        return api(client, f"doubts/{public}", body, **{"idempotency-key": key})

    assert api(client, f"doubts/{public}", body).status_code == 400  # no key
    first = decide(body, "one").json()
    second = decide(body, "another").json()

    assert first == second
    assert first["charged"] == "0.000600000"
    other = {**body, "decision": "accepted"}
    assert decide(other, "two").status_code == 409
    assert decide({**body, "billed": {"tokens": 1}}, "three").status_code == 400
    assert api(client, "doubts?kind=odd").status_code == 400
    assert api(client, "doubts/req_1?attempt=1").status_code == 404
    assert api(client, f"doubts/{public}?attempt=x").status_code == 400


def test_a_tenants_people_reach_none_of_it(shop: Shop, lost: UUID) -> None:

    member = browser_of(make_member(shop.tenant, Role.OWNER).user)
    public = ids.public_id(ids.REQUEST, lost)

    for path in ("differences", "doubts", f"doubts/{public}?attempt=1"):
        assert api(member, path).status_code in {401, 403}
    assert api(member, f"doubts/{public}", {"decision": "charged"}).status_code in {401, 403}
