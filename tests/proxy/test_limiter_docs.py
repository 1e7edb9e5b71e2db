"""docs/limits.md is true: its tables are replayed against the real scripts."""

import re
from collections.abc import Callable

import pytest
import redis

from proxy.limiter.answers import refusal_of
from proxy.limiter.fallback import LocalLimiter
from proxy.limiter.limits import running_charges, settle_charges
from proxy.limiter.plans import make_bucket
from tests.proxy.limiter_world import ROOT, SECOND_US, Asked, World
from turnpike.contracts.snapshots import Limits, TenantTerms

PAGE = (ROOT / "docs" / "limits.md").read_text()
Row = list[str]


def table(name: str) -> tuple[dict[str, int], list[Row]]:
    """The settings and the rows of the table that follows a marker."""
    found = re.search(rf"<!-- replay: {name}([^>]*)-->\n\n((?:\|[^\n]*\n)+)", PAGE)
    assert found is not None
    settings = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", found[1])}
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in found[2].splitlines()
    ]
    assert len(lines) > 3
    return settings, lines[2:]


def number(text: str) -> int:
    """A number as the page writes it."""
    return int(text.replace(",", ""))


@pytest.fixture
def make_world(redis_client: redis.Redis) -> Callable[[Limits], World]:
    """Make a tenant with these limits."""

    def make(limits: Limits) -> World:
        world = World(client=redis_client, asked=Asked(tenant=limits))
        world.open_up()
        return world

    return make


def test_every_table_with_a_marker_is_replayed() -> None:
    assert re.findall(r"<!-- replay: ([\w-]+)", PAGE) == [
        "costs",
        "worst-minute",
        "retry",
        "tokens",
        "fallback",
    ]


@pytest.mark.parametrize("row", table("costs")[1], ids=lambda row: "-".join(row[:3]))
def test_costs_and_capacities(row: Row) -> None:
    _, limit, kind, cost_us, capacity = row
    bucket = make_bucket(name="x", kind=kind, limit_per_minute=number(limit), burst_seconds=None)

    assert bucket.cost_us(1) == number(cost_us)
    assert bucket.units_in(bucket.burst_us) == number(capacity)


def test_the_worst_minute_after_a_pause(make_world: Callable[[Limits], World]) -> None:
    settings, rows = table("worst-minute")
    world = make_world(Limits(requests_per_minute=settings["limit"]))
    start_us, total = world.now_us, 0

    for second, asked, admitted, in_all in rows:
        world.now_us = start_us + number(second) * SECOND_US
        granted = sum(world.admit(world.spec()).is_granted for _ in range(number(asked)))
        total += granted
        assert (granted, total) == (number(admitted), number(in_all)), second

    assert number(rows[2][3]) == 2 * settings["limit"]
    assert number(rows[2][0]) == 60


def test_the_retry_hint(make_world: Callable[[Limits], World]) -> None:
    settings, rows = table("retry")
    world = make_world(Limits(requests_per_minute=settings["limit"]))
    for _ in range(settings["limit"]):
        assert world.admit(world.spec()).is_granted

    spec = world.spec()
    admission = world.admit(spec)
    headers = {name.decode(): value.decode() for name, value in refusal_of(admission, spec).headers}

    expected = {field: number(value) for field, value in rows}
    assert expected["wait (us)"] == admission.wait_us
    assert str(expected["retry-after"]) == headers["retry-after"]
    assert str(expected["retry-after-ms"]) == headers["retry-after-ms"]


def test_the_life_of_a_reservation(make_world: Callable[[Limits], World]) -> None:
    settings, rows = table("tokens")
    world = make_world(Limits(tokens_per_minute=settings["limit"]))
    steps = {step: [number(cell) for cell in cells] for step, *cells in rows}
    spec = world.spec(input_estimate=steps["admitted"][0], max_tokens=128_000)
    (bucket,) = spec.buckets

    def remaining() -> int:
        return bucket.units_in(bucket.burst_us - (world.tat(bucket.name) - world.now_us))

    assert world.admit(spec).is_granted
    assert [spec.output_reserve, remaining()] == steps["admitted"][1:]
    for step in ("begun", "running"):
        input_tokens, output_tokens, left = steps[step]
        charges = running_charges(
            spec, input_tokens=input_tokens, output_tokens=1 if step == "begun" else output_tokens
        )
        world.beat(spec, charges=charges)
        assert remaining() == left, step
    input_tokens, output_tokens, left = steps["ended"]
    charges = settle_charges(spec, input_tokens=input_tokens, output_tokens=output_tokens)
    world.settle(spec, charges=charges)
    assert remaining() == left


def test_the_share_of_one_worker(make_world: Callable[[Limits], World]) -> None:
    settings, rows = table("fallback")
    terms = TenantTerms(tier="t", book=1, is_in_good_standing=True, balance_micro=10**9)
    limits = {
        "requests per minute": "requests_per_minute",
        "tokens per minute": "tokens_per_minute",
        "concurrent requests": "concurrency",
    }

    for name, value, share in rows:
        world = make_world(Limits(**{limits[name]: number(value)}))
        fallback = LocalLimiter(cap_micro=10**6, live_workers=lambda: settings["workers"])
        is_tokens = name == "tokens per minute"
        tokens = number(share) // 5 if is_tokens else 1
        granted = 0
        while fallback.admit(world.spec(input_estimate=tokens, max_tokens=0, hold_micro=1), terms):
            granted += tokens
        assert granted == number(share), name
