"""Differences become items that a person closes; usage in doubt is accepted or charged, once."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
import redis
from django.db import IntegrityError, connection, transaction

from billing.models.differences import ReconciliationItem, UsageReview
from billing.models.upstreams import Upstream
from billing.models.usage import UpstreamAttempt
from billing.queries.doubts import find_doubt, list_unknown, list_waived, read_evidence
from billing.services.book_checks import POSTGRES_CHECKS
from billing.services.differences import close_difference, keep_differences
from billing.services.doubts import accept_doubt, charge_doubt, rehearse_charge
from billing.services.findings import Difference, finding_of
from billing.services.reconciliation import check, reconcile, reconcile_and_keep
from billing.services.upstream_reports import compare_reports
from billing.services.upstreams import set_credential
from tests.billing.test_corruptions import as_owner
from tests.billing.usage_world import (
    MODEL,
    Shop,
    append,
    ingest,
    make_event,
    make_shop,
    rows_of,
    sums_agree,
)
from tests.operator_console.operator_world import audited
from turnpike.contracts.usage import Attempt
from turnpike.control.caller import Caller
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids
from turnpike.kernel.errors import Conflict, InvalidInput, NotFound

pytestmark = pytest.mark.django_db

OPERATOR = Caller(actor="user_op", is_operator=True)
NOW = clock.utc_now()
CREDIT = 1_000_000_000
IN, OUT = 3_000, 15_000


def difference(cause: str, figure: str = "1") -> Difference:
    return Difference(cause=(cause,), evidence=(("of", cause), ("figure", figure)), text=cause)


def keep(*rows: Difference, minutes: int = 0, covered: frozenset[Any] | None = None) -> int:
    found = finding_of("tests", rows, covered=covered)
    return keep_differences([found], at=NOW + timedelta(minutes=minutes))


def item(cause: str) -> ReconciliationItem:
    return ReconciliationItem.objects.get(kind="tests", cause=cause)


@pytest.fixture
def shop(redis_client: redis.Redis) -> Shop:
    return make_shop(credit=CREDIT)


@pytest.fixture
def upstream() -> Upstream:
    return Upstream.objects.create(name="there", kind="anthropic", base_url="http://127.0.0.1:1")


def lose(shop: Shop, upstream: Upstream, client: "redis.Redis", **changes: Any) -> UUID:
    """A request whose worker died before it read anything: charged nothing."""
    attempt = Attempt(n=1, upstream=upstream.pk, outcome="unknown")
    event = make_event(shop, rank=2, **{"usage": {}, "attempts": (attempt,), **changes})
    append(client, event)
    ingest(client)
    return UUID(event.rid)


class TestItems:
    """What comparisons find, until a person decides."""

    def test_one_cause_is_one_item_that_stays_open_after_it_is_gone(self) -> None:
        assert keep(difference("a"), difference("b")) == 2
        assert keep(difference("a", "2"), minutes=60) == 0
        first, second = item("a"), item("b")

        assert (first.state, first.times_seen, first.gone_at) == ("open", 2, None)
        assert first.evidence == [["of", "a"], ["figure", "2"]]
        assert (second.state, second.gone_at) == ("open", NOW + timedelta(minutes=60))

    def test_a_closed_one_stays_quiet_until_its_figures_change_or_it_comes_back(self) -> None:
        keep(difference("a"))
        close_difference(caller=OPERATOR, item=item("a").pk, reason="a known loss")
        keep(difference("a"), minutes=60)
        assert item("a").state == "closed"

        keep(difference("a", "2"), minutes=120)
        assert (item("a").state, item("a").times_reopened) == ("open", 1)
        close_difference(caller=OPERATOR, item=item("a").pk, reason="grew")
        keep(minutes=180)
        assert item("a").state == "closed"
        keep(difference("a", "2"), minutes=240)

        assert (item("a").state, item("a").times_reopened) == ("open", 2)
        assert item("a").reason == "grew"  # what was said of it is not lost
        assert [row.reason for row in audited("difference.closed")] == ["a known loss", "grew"]
        assert len(audited("difference.reopened")) == 2

    def test_what_was_not_looked_at_is_not_gone(self) -> None:
        keep(difference("monday"), difference("tuesday"))

        keep(minutes=60, covered=frozenset({("tuesday",)}))

        assert item("monday").gone_at is None
        assert item("tuesday").gone_at is not None

    def test_it_is_closed_once_with_a_reason(self) -> None:
        keep(difference("a"))
        with pytest.raises(InvalidInput):
            close_difference(caller=OPERATOR, item=item("a").pk, reason=" ")
        close_difference(caller=OPERATOR, item=item("a").pk, reason="known")
        with pytest.raises(Conflict):
            close_difference(caller=OPERATOR, item=item("a").pk, reason="again")
        with pytest.raises(NotFound):
            close_difference(caller=OPERATOR, item=0, reason="what?")
        with pytest.raises(IntegrityError), transaction.atomic():
            ReconciliationItem.objects.filter(pk=item("a").pk).update(reason="")

    def test_a_flood_is_counted_whole_and_listed_in_part(self) -> None:
        assert keep(*(difference(f"n{n}") for n in range(230))) == 200
        assert keep(*(difference(f"n{n}") for n in range(230)), minutes=1) == 30

    def test_every_row_that_is_not_zero_becomes_one(
        self, shop: Shop, redis_client: redis.Redis
    ) -> None:
        append(redis_client, event := make_event(shop))
        ingest(redis_client)
        as_owner(
            "billing_usage_event",
            "UPDATE billing_usage_event SET amount_nano = amount_nano + 1,"
            " input_nano = input_nano + 1 WHERE request_id = %s",
            [event.rid],
        )

        run = reconcile_and_keep(actor="tests")
        reconcile_and_keep(actor="tests")

        kinds = {row["check"] for row in run.findings if row["differences"]}
        found = {row.kind: dict(row.evidence) for row in ReconciliationItem.objects.all()}
        assert set(found) == kinds == {"events_and_ledger", "rated_again", "rollups", "counters"}
        assert found["rated_again"]["request_id"] == event.rid
        posted = found["events_and_ledger"]
        assert int(posted["events_nano"]) == int(posted["ledger_nano"]) + 1

    def test_every_query_of_the_books_names_its_columns(self) -> None:
        with platform_scope("tests"), connection.cursor() as cursor:
            for name, query in POSTGRES_CHECKS.items():
                cursor.execute(query, {"wallet_kinds": ["prepaid"]})
                names = [column.name for column in cursor.description or ()]
                assert len(set(names)) == len(names), name
                assert not {"coalesce", "count", "sum", "?column?", "id"} & set(names), name


class TestDoubts:
    """Attempts without an answer, and what holds did not cover."""

    @pytest.fixture(autouse=True)
    def _as_an_operator(self, db: None) -> Iterator[None]:
        with platform_scope("tests"):
            yield

    def test_an_accepted_one_leaves_the_charge_and_counts_the_attempt(
        self, shop: Shop, upstream: Upstream, redis_client: redis.Redis
    ) -> None:
        request = lose(shop, upstream, redis_client)
        assert [(row.request, row.attempt) for row in list_unknown(limit=9)] == [(request, 1)]
        wanted: dict[str, Any] = {
            "caller": OPERATOR,
            "request": request,
            "attempt": 1,
            "counts": {"uncached_input": 100, "output": 20},
            "reason": "in the report",
        }

        review = accept_doubt(**wanted)
        again = accept_doubt(**wanted)

        assert again.pk == review.pk
        assert (review.charged_nano, review.accepted_nano) == (0, 100 * IN + 20 * OUT)
        attempt = UpstreamAttempt.objects.get(request_id=request)
        assert (attempt.outcome, attempt.is_billed) == ("reconciled", True)
        assert attempt.usage is not None
        assert attempt.usage["output_tokens"] == 20
        assert sum(row.amount_nano for row in rows_of(request)) == 0
        assert list_unknown(limit=9) == []
        with pytest.raises(Conflict, match="another way"):
            charge_doubt(**wanted)
        with pytest.raises(Conflict, match="another way"):
            accept_doubt(**{**wanted, "counts": {}})
        assert len(audited("usage.accepted", tenant=shop.number)) == 1
        sums_agree()

    def test_a_charged_one_is_the_last_word_and_twice_does_nothing(
        self, shop: Shop, upstream: Upstream, redis_client: redis.Redis
    ) -> None:
        request = lose(shop, upstream, redis_client)
        wanted: dict[str, Any] = {
            "caller": OPERATOR,
            "request": request,
            "attempt": 1,
            "counts": {"uncached_input": 1_000, "output": 10, "cache_write_1h": 3},
            "reason": "in the report",
        }
        worth = 1_000 * IN + 10 * OUT + 3 * 6_000
        assert rehearse_charge(request=request, counts=wanted["counts"]) == (worth, 0)

        review = charge_doubt(**wanted)
        assert charge_doubt(**wanted).pk == review.pk

        first, second = rows_of(request)
        assert (second.rank, second.status, second.amount_nano) == (4, "reconciled", worth)
        assert (first.amount_nano, review.charged_nano, review.accepted_nano) == (0, worth, 0)
        # Whatever a journal still says of it comes too late.
        append(redis_client, make_event(shop, rid=request))
        ingest(redis_client)
        assert len(rows_of(request)) == 2
        sums_agree()
        assert [row for row in reconcile() if row.differences] == []
        with pytest.raises(Conflict):
            accept_doubt(**wanted)

    def test_a_charge_never_exceeds_the_hold(
        self, shop: Shop, upstream: Upstream, redis_client: redis.Redis
    ) -> None:
        request = lose(shop, upstream, redis_client, hold_micro=2)

        review = charge_doubt(
            caller=OPERATOR,
            request=request,
            attempt=1,
            counts={"uncached_input": 5},
            reason="in the report",
        )

        assert (review.charged_nano, review.accepted_nano) == (2_000, 5 * IN - 2_000)
        # What lies beyond is a doubt of its own, which can only be accepted.
        (left,) = list_waived(limit=9)
        assert (left.request, left.attempt, left.waived_nano) == (request, 0, 5 * IN - 2_000)
        with pytest.raises(Conflict, match="settled for good"):
            charge_doubt(
                caller=OPERATOR, request=request, attempt=0, counts={"output": 9}, reason="more"
            )
        accept_doubt(caller=OPERATOR, request=request, attempt=0, counts={}, reason="ours")
        assert list_waived(limit=9) == []

    def test_what_another_attempt_was_paid_for_is_not_charged_again(
        self, shop: Shop, upstream: Upstream, redis_client: redis.Redis
    ) -> None:
        answered = Attempt(n=2, upstream=upstream.pk, outcome="answered", usage={"input_tokens": 9})
        lost = Attempt(n=1, upstream=upstream.pk, outcome="unknown")
        append(redis_client, event := make_event(shop, attempts=(lost, answered)))
        ingest(redis_client)
        wanted: dict[str, Any] = {"caller": OPERATOR, "request": UUID(event.rid), "reason": "seen"}

        with pytest.raises(Conflict, match="was paid"):
            charge_doubt(**wanted, attempt=1, counts={"output": 1})
        with pytest.raises(NotFound):
            accept_doubt(**wanted, attempt=3, counts={})
        with pytest.raises(NotFound):
            accept_doubt(
                caller=OPERATOR, request=ids.uuid7(), attempt=1, counts={}, reason="no such"
            )
        with pytest.raises(InvalidInput):
            charge_doubt(**wanted, attempt=1, counts={})
        assert accept_doubt(**wanted, attempt=1, counts={}).accepted_nano == 0
        attempt = UpstreamAttempt.objects.get(request_id=event.rid, attempt=1)
        assert (attempt.outcome, attempt.is_billed) == ("reconciled", False)

    def test_a_decision_is_never_changed(
        self, shop: Shop, upstream: Upstream, redis_client: redis.Redis
    ) -> None:
        request = lose(shop, upstream, redis_client)
        accept_doubt(caller=OPERATOR, request=request, attempt=1, counts={}, reason="nothing")

        with platform_scope("tests"):
            for change in (
                lambda: UsageReview.objects.update(reason="something"),
                lambda: UsageReview.objects.all().delete(),
            ):
                with pytest.raises(IntegrityError), transaction.atomic():
                    change()

    def test_the_report_says_what_it_was_and_then_agrees(
        self, simulator_url: str, shop: Shop, redis_client: redis.Redis
    ) -> None:
        httpx.post(f"{simulator_url}/_reset").raise_for_status()
        there = Upstream.objects.create(name="sim", kind="anthropic", base_url=simulator_url)
        set_credential(upstream=there, secret="sk-ant-admin-of-the-tests", name="admin")
        body = {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}
        headers = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
        usage = httpx.post(f"{simulator_url}/v1/messages", json=body, headers=headers).json()[
            "usage"
        ]
        request = lose(shop, there, redis_client)
        today = clock.utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
        span = {"since": today - timedelta(days=1), "until": today + timedelta(days=1)}

        compared = compare_reports(**span)
        doubt = find_doubt(request=request, attempt=1)
        assert doubt is not None
        evidence = read_evidence(doubt)
        assert evidence is not None
        assert evidence.is_its_own
        assert evidence.missing["output"] == usage["output_tokens"]
        charge_doubt(
            caller=OPERATOR, request=request, attempt=1, counts=evidence.missing, reason="report"
        )

        assert {row.cause[:3] for row in compared.differences} == {
            ("sim", f"{doubt.started_at:%Y-%m-%d}", MODEL)
        }
        assert compare_reports(**span).differences == ()
        assert check("events_and_ledger").differences == 0
