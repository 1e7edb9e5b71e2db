"""No page of either console asks more, or reads more, because more requests were made."""

import pytest
import redis
from django.db import connection

from billing.services.catalog import import_catalog
from tests.console.console_world import make_document, make_world
from tests.scale.bulk import Crowd, analyze, fill, make_crowd
from tests.scale.rounds import Tour, make_tour
from turnpike.control.scope import platform_scope

pytestmark = pytest.mark.django_db
KEYS = 40
FEW, MANY = 200, 2_000
PAGES_MIN = 40
LINE_ROWS_MAX = 100


@pytest.fixture
def crowd(redis_client: redis.Redis) -> tuple[Crowd, Tour]:
    """Tenants with few requests, and the pages over them."""
    with platform_scope("tests"):
        import_catalog()
    world = make_world(redis_client)
    make_document(world)
    crowd = make_crowd(world.shop, keys=KEYS)
    fill(crowd, events=FEW)
    return crowd, make_tour(world)


def test_more_requests_are_no_more_queries_and_no_table_is_read_whole(
    crowd: tuple[Crowd, Tour],
) -> None:
    tenants, tour = crowd
    before = {path: len(tour.ask(path, with_plans=False).queries) for path in tour.paths}
    fill(tenants, events=MANY, known=FEW)
    analyze()
    with connection.cursor() as cursor:
        # So few rows are read fastest from end to end: what is asked is whether an index fits.
        cursor.execute("SET LOCAL enable_seqscan = off")

    after = {path: tour.ask(path) for path in tour.paths}

    assert len(tour.paths) > PAGES_MIN
    grown = {path: (before[path], len(asked.queries)) for path, asked in after.items()}
    assert {path: counts for path, counts in grown.items() if counts[0] != counts[1]} == {}
    assert [f"{path} {scan}" for path, asked in after.items() for scan in asked.scans()] == []
    lines = [path for path in tour.paths if "/lines/" in path]
    assert lines
    with connection.cursor() as cursor:
        # Sorting so few costs as little as reading them in order: whether an index has the order.
        cursor.execute("SET LOCAL enable_sort = off")
    for path in lines:
        assert tour.ask(path, are_run=True).events_read() <= LINE_ROWS_MAX, path
