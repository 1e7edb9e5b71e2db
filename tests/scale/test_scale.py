"""Both consoles over a million events: every page is quick, and none reads what grows."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.db import connection

from billing.services.catalog import import_catalog
from tests.console.console_world import make_document, make_world
from tests.scale.bulk import analyze, fill, make_crowd
from tests.scale.rounds import Tour, make_tour, table
from tests.support.redis_clients import connect
from turnpike.control.scope import platform_scope

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(600)]
EVENTS = int(os.environ.get("SCALE_EVENTS", "1000000"))
KEYS = 500
PAGES_MIN = 40
ROUNDS = 5
MEDIAN_MS_MAX = 300
QUERIES_MAX = 60
LINE_ROWS_MAX = 100


@pytest.fixture(scope="module")
def tour(django_db_setup: None, django_db_blocker: Any) -> Iterator[Tour]:
    """The pages over a full database, which goes with the session."""
    client: redis.Redis = connect(os.environ["REDIS_URL"])
    client.flushdb()
    with django_db_blocker.unblock():
        with platform_scope("tests"):
            import_catalog()
        world = make_world(client)
        make_document(world)
        fill(make_crowd(world.shop, keys=KEYS), events=EVENTS)
        analyze()
        yield make_tour(world)
    client.close()


def test_every_page_is_quick(tour: Tour) -> None:
    for path in tour.paths:
        tour.open(path)

    costs = [tour.measure(path, rounds=ROUNDS) for path in tour.paths]

    print(f"\n{table(costs)}")  # noqa: T201 - the report of this target
    slow = {cost.path: cost.server_ms for cost in costs if cost.server_ms >= MEDIAN_MS_MAX}
    assert slow == {}
    assert {cost.path: cost.queries for cost in costs if cost.queries > QUERIES_MAX} == {}
    assert len(costs) > PAGES_MIN


def test_no_page_reads_what_grows(tour: Tour) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples > 10000")
        large = {name for (name,) in cursor.fetchall()}
    problems = []
    for path in tour.paths:
        asked = tour.ask(path)
        problems += [f"{path} {text}" for text in asked.scans() if text.split(":")[0] in large]

    assert "billing_ledger_txn" in large
    assert problems == []


def test_a_line_reads_what_it_shows(tour: Tour) -> None:
    lines = [path for path in tour.paths if "/lines/" in path]
    read = {path: tour.ask(path, are_run=True).events_read() for path in lines}

    assert lines
    assert {path: rows for path, rows in read.items() if rows > LINE_ROWS_MAX} == {}
