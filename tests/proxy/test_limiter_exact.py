"""Exactness by random cases: the retry hint, what remains, and what any window of time admits."""

from functools import partial

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.proxy.limiter_world import SECOND_US, START_US, Asked, MakeWorld, published_world
from turnpike.contracts.snapshots import Limits

PROPERTY = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def make_world(redis_client: redis.Redis) -> MakeWorld:
    """Make a tenant in an empty Redis."""
    return partial(published_world, redis_client)


@PROPERTY
@given(
    limit=st.integers(min_value=1, max_value=2_000_000),
    burst_seconds=st.sampled_from([1, 10, 60, 600]),
    seed=st.lists(st.integers(min_value=1, max_value=3_000), min_size=1, max_size=12),
    last=st.integers(min_value=1, max_value=3_000),
)
def test_the_retry_hint_is_exact(
    make_world: MakeWorld, limit: int, burst_seconds: int, seed: list[int], last: int
) -> None:
    """P8: denied one microsecond before, admitted at it."""
    world = make_world(
        Asked(tenant=Limits(tokens_per_minute=limit, burst_seconds=burst_seconds)),
    )
    for tokens in seed:
        world.admit(world.spec(input_estimate=tokens, max_tokens=0))
        world.now_us += tokens
    spec = world.spec(input_estimate=last, max_tokens=0)

    answer = world.admit(spec)

    if answer.reason.startswith("oversize"):
        assert last * 60 > limit * burst_seconds
        return
    if answer.is_granted:
        return
    world.now_us += answer.wait_us - 1
    assert world.admit(spec).reason == "rate:t:tokens"
    world.now_us += 1
    assert world.admit(spec).is_granted


@PROPERTY
@given(
    limit=st.integers(min_value=1, max_value=2_000_000),
    used=st.lists(st.integers(min_value=1, max_value=400_000), max_size=5),
    pause_us=st.integers(min_value=0, max_value=70 * SECOND_US),
)
def test_the_remaining_tokens_are_exact(
    make_world: MakeWorld, limit: int, used: list[int], pause_us: int
) -> None:
    """What the header says is admitted now; one token more is not."""
    world = make_world(Asked(tenant=Limits(tokens_per_minute=limit)))
    left_us = 60 * SECOND_US
    for tokens in used:
        left_us = world.admit(world.spec(input_estimate=tokens, max_tokens=0)).remaining_us[0]
    world.now_us += pause_us
    (bucket,) = world.spec().buckets
    left = bucket.units_in(min(left_us + pause_us, bucket.burst_us))

    more = world.admit(world.spec(input_estimate=left + 1, max_tokens=0))
    exactly = world.admit(world.spec(input_estimate=left, max_tokens=0))

    assert not more.is_granted
    assert exactly.is_granted


@PROPERTY
@given(limit=st.integers(min_value=1, max_value=400))
def test_a_full_bucket_holds_exactly_its_limit_of_requests(
    make_world: MakeWorld, limit: int
) -> None:
    world = make_world(Asked(tenant=Limits(requests_per_minute=limit)))
    (bucket,) = world.spec().buckets
    assert bucket.units_in(bucket.burst_us) == limit

    lefts = [world.admit(world.spec()).remaining_us[0] for _ in range(min(limit, 20))]

    assert [bucket.units_in(left) for left in lefts] == [
        limit - number for number in range(1, len(lefts) + 1)
    ]
    world.client.hset(world.keys.buckets, bucket.name, START_US + bucket.cost_us(1) * limit)
    assert world.admit(world.spec()).reason == "rate:t:requests"


@PROPERTY
@given(
    limits=st.tuples(
        st.integers(min_value=60, max_value=5_000), st.integers(min_value=60, max_value=5_000)
    ),
    steps=st.lists(
        st.tuples(
            st.integers(min_value=0, max_value=1),
            st.integers(min_value=1, max_value=300),
            st.integers(min_value=0, max_value=20 * SECOND_US),
        ),
        min_size=1,
        max_size=30,
    ),
)
def test_no_window_admits_more_than_burst_and_rate_of_the_larger_limit(
    make_world: MakeWorld, limits: tuple[int, int], steps: list[tuple[int, int, int]]
) -> None:
    """P1 and P9, in tokens, while the limit changes between requests."""
    world = make_world()
    granted: list[tuple[int, int]] = []

    for which, tokens, pause_us in steps:
        world.now_us += pause_us
        asked = Asked(tenant=Limits(tokens_per_minute=limits[which]))
        spec = world.spec(asked=asked, input_estimate=tokens, max_tokens=0)
        if world.admit(spec).is_granted:
            granted.append((world.now_us, tokens))

    for start, (from_us, _) in enumerate(granted):
        total = 0
        for to_us, tokens in granted[start:]:
            total += tokens
            assert total * 60 * SECOND_US <= max(limits) * (60 * SECOND_US + to_us - from_us)
