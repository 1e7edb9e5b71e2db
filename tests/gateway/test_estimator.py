"""Estimates of input tokens follow what upstreams report, in bounded steps."""

import dataclasses
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.body import read_messages_body
from proxy.demand import demand_of
from proxy.estimator import (
    DEFAULTS,
    HELD_MARGIN_MAX,
    HIGHEST,
    LOWEST,
    MODELS_MAX,
    OUTPUT,
    STEP_MAX,
    Estimator,
)
from proxy.redis_pipe import RedisPipe
from tests.gateway.conftest import HELLO, SONNET, TENANT
from turnpike.contracts.measure import DEFAULT_RATIOS, SCRIPTS, Measure, measure
from turnpike.kernel import keyspace

TEXTS = {
    "latin": "The toll of the road is paid at the gate and nowhere else. ",
    "cyrillic": "Платят за дорогу возле заставы и больше нигде, таков порядок. ",
    "cjk": "过路费在收费站支付其他地方都不收",
    "code": "if (a[i] == b[j]) { total += cost(a[i], b[j]) & 0xff; } else { i++; } ",
}


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        self.now += 2.0
        return self.now


@pytest.fixture
async def pipe() -> AsyncIterator[RedisPipe]:
    """A connection to Redis."""
    link = RedisPipe(os.environ["REDIS_URL"])
    await link.start()
    yield link
    await link.stop()


@pytest.fixture
def estimator(redis_client: Any, pipe: RedisPipe) -> Estimator:
    """A worker's ratios, with nothing learned."""
    return Estimator(pipe, monotonic=Clock())


def raw_of(text: str) -> bytes:
    fields = {**HELLO, "messages": [{"role": "user", "content": text}]}
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


def teach(estimator: Estimator, size: Measure, tokens: int, *, tenant: int = TENANT) -> None:
    estimator.learn(
        tenant=tenant,
        model=SONNET,
        size=size,
        estimate=size.plain_tokens(),
        usage={"input_tokens": tokens, "output_tokens": 1},
        output_chars=0,
    )


@pytest.mark.parametrize("script", sorted(TEXTS))
def test_a_text_is_measured_by_its_script(script: str) -> None:
    size = measure([json.dumps(TEXTS[script] * 40, ensure_ascii=False).encode()])
    escaped = measure([json.dumps(TEXTS[script] * 40).encode()])

    units = {name: getattr(size, name) for name in SCRIPTS}
    assert max(units, key=lambda name: units[name] * DEFAULT_RATIOS[name]) == script
    if script in ("cyrillic", "cjk"):
        assert getattr(escaped, script) == getattr(size, script)


@pytest.mark.parametrize("script", ["latin", "cyrillic", "code"])
async def test_estimates_converge_on_what_the_simulator_counts(
    simulator: int, estimator: Estimator, script: str
) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{simulator}") as client:
        seen: list[tuple[Measure, int]] = []
        for number in range(20):
            raw = raw_of(TEXTS[script] * (30 + number))
            answer = await client.post(
                "/v1/messages",
                content=raw,
                headers={"x-api-key": "x", "anthropic-version": "2023-06-01"},
            )
            tokens = answer.json()["usage"]["input_tokens"]
            seen.append((demand_of(read_messages_body(raw)).measure, tokens))

    for _ in range(15):
        for size, tokens in seen:
            teach(estimator, size, tokens)

    errors = [abs(estimator.input_tokens(SONNET, size) / tokens - 1) for size, tokens in seen]
    assert max(errors) < 0.02
    assert estimator.input_tokens("another-model", seen[0][0]) == seen[0][0].plain_tokens()


def test_one_sample_moves_little_and_no_flood_moves_beyond_the_ends(estimator: Estimator) -> None:
    size = Measure(latin=40_000)

    teach(estimator, size, 10_000_000)
    once = estimator.input_tokens(SONNET, size)
    for _ in range(2_000):
        teach(estimator, size, 10_000_000)
    flooded = estimator.input_tokens(SONNET, size)
    for _ in range(2_000):
        teach(estimator, size, 1)
    starved = estimator.input_tokens(SONNET, size)

    assert once <= size.plain_tokens() * (1 + STEP_MAX) + 1
    assert flooded <= HIGHEST * size.plain_tokens()
    assert starved >= LOWEST * (size.plain_tokens() - 8)


def test_a_tenant_is_heard_once_a_second_and_a_model_twenty_times(pipe: RedisPipe) -> None:
    clock = Clock()
    estimator = Estimator(pipe, monotonic=lambda: clock.now)
    size = Measure(latin=40_000)

    for _ in range(100):
        teach(estimator, size, 20_000)
    one_tenant = estimator.input_tokens(SONNET, size)
    for tenant in range(100):
        teach(estimator, size, 20_000, tenant=tenant)

    assert 1 < one_tenant / size.plain_tokens() <= 1 + STEP_MAX
    assert estimator.input_tokens(SONNET, size) == one_tenant


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["latin", "code", "cjk", "cyrillic", "other"]),
            st.integers(0, 200_000),
            st.integers(0, 2**31 - 1),
        ),
        max_size=60,
    )
)
def test_learning_never_lowers_a_hold(samples: list[tuple[str, int, int]]) -> None:
    estimator = Estimator(RedisPipe(os.environ["REDIS_URL"]), monotonic=Clock())
    demand = demand_of(read_messages_body(raw_of(TEXTS["latin"] * 50)))

    for script, units, tokens in samples:
        teach(estimator, msgspec.convert({script: units}, Measure), tokens)
    fitted = estimator.fitted(demand, SONNET)

    held = max(fitted.held_input, fitted.input_estimate)
    assert held >= demand.input_estimate
    assert fitted.input_estimate <= HIGHEST * demand.input_estimate + 1
    assert held <= (1 + HELD_MARGIN_MAX) * HIGHEST * demand.input_estimate + 1


def test_pictures_and_mixtures_teach_nothing(estimator: Estimator) -> None:
    teach(estimator, Measure(latin=4_000, media_tokens=5_000), 9_000)
    teach(estimator, Measure(latin=4_000, cjk=500), 9_000)
    teach(estimator, Measure(latin=100), 9_000)

    assert estimator.input_tokens(SONNET, Measure(latin=4_000)) == 1_008


async def test_what_is_learned_outlives_the_worker_and_workers_add_up(
    pipe: RedisPipe, estimator: Estimator
) -> None:
    size = Measure(latin=40_000)
    other = Estimator(pipe, monotonic=Clock())
    for worker in (estimator, other):
        teach(worker, size, 20_000)
    alone = estimator.input_tokens(SONNET, size)

    await estimator.sync()
    await other.sync()
    reborn = Estimator(pipe, monotonic=Clock())
    await reborn.sync()
    await estimator.sync()

    both = reborn.input_tokens(SONNET, size)
    assert both - alone == pytest.approx(alone - size.plain_tokens(), abs=2)
    assert estimator.input_tokens(SONNET, size) == other.input_tokens(SONNET, size) == both


@pytest.mark.parametrize("text", ["", "{", '{"latin":5}', '{"latin":["x",1,2]}', "[]"])
async def test_nonsense_in_redis_is_as_if_nothing_were_there(
    redis_client: Any, estimator: Estimator, text: str
) -> None:
    redis_client.hset(keyspace.RATIOS, SONNET, text)
    redis_client.hset(keyspace.RATIOS, "wild", '{"latin":[1e300,7.0,1],"odd":[1,1,1]}')

    await estimator.sync()

    assert estimator.input_tokens(SONNET, Measure(latin=4_000)) == 1_008
    assert estimator.input_tokens("wild", Measure(latin=4_000)) == 4_008


def test_models_are_bounded(estimator: Estimator) -> None:
    for number in range(MODELS_MAX + 50):
        estimator.learn(
            tenant=1,
            model=f"m{number}",
            size=Measure(latin=40_000),
            estimate=1,
            usage={"input_tokens": 20_000},
            output_chars=0,
        )

    assert len(estimator._learned) == MODELS_MAX


def test_the_ratio_of_cut_answers_is_learned_and_rounding_is_no_news(estimator: Estimator) -> None:
    def tell(tokens: int, characters: int, thinking: int = 0) -> float:
        details = {"output_tokens_details": {"thinking_tokens": thinking}}
        estimator.learn(
            tenant=TENANT,
            model=SONNET,
            size=Measure(),
            estimate=1,
            usage={"input_tokens": 1, "output_tokens": tokens, **details},
            output_chars=characters,
        )
        return estimator.output_ratio(SONNET)

    assert [tell(251, 1_001), tell(63, 249), tell(900, 1_000, 500), tell(90, 100)] == [0.25] * 4
    for _ in range(200):
        tell(330, 1_000)
    assert tell(330, 1_000) == pytest.approx(0.33, rel=0.01)
    assert DEFAULTS[OUTPUT] == 0.25


async def test_admission_uses_what_was_learned_and_the_metric_tells_the_error(
    gateway: Any, world: Any
) -> None:
    text = TEXTS["cyrillic"] * 20
    world.redis.hset(keyspace.RATIOS, SONNET, '{"cyrillic":[0.25,0.05,90]}')
    before = await gateway.post(raw_of(text))
    await gateway.app._gateway._estimator.sync()
    after = await gateway.post(raw_of(text))
    metrics = (await gateway.client.get("/metrics")).text

    def taken(answer: Any) -> int:
        return 400_000 - int(answer.headers["anthropic-ratelimit-tokens-remaining"])

    first, second = taken(before), taken(after)
    assert first > 1_333 > second - first + 200
    assert f'turnpike_input_estimate_ratio_count{{model="{SONNET}"}}' in metrics
    events = world.events()
    # The hold of the second is no lower, though its buckets bear less.
    assert events[1].hold_micro >= events[0].hold_micro


async def test_counting_where_no_upstream_can_uses_what_was_learned(
    gateway: Any, world: Any
) -> None:
    upstream = dataclasses.replace(world.plane.upstreams["9"], kind="openai")
    world.publish_plane(upstreams={"9": upstream})
    body = json.loads(raw_of(TEXTS["cyrillic"] * 20))
    del body["max_tokens"]

    async def count() -> int:
        answer = await gateway.post(body, path="/v1/messages/count_tokens")
        return int(answer.json()["input_tokens"])

    before = await count()
    world.redis.hset(keyspace.RATIOS, SONNET, '{"cyrillic":[0.25,0.05,90]}')
    await gateway.app._gateway._estimator.sync()

    assert await count() < before / 3
