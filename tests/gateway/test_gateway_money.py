"""Credit and limits at admission, over the real path."""

import asyncio
import dataclasses
from typing import Any

from proxy.body import read_messages_body
from proxy.demand import demand_of
from proxy.pricing import hold_micro
from turnpike.contracts.snapshots import Limits

BODY = (
    b'{"model":"claude-sonnet-4-6","max_tokens":100,'
    b'"messages":[{"role":"user","content":"Hello there"}]}'
)


def hold_of(world: Any, body: bytes) -> int:
    """What the gateway holds for a body."""
    hold = hold_micro(
        demand_of(read_messages_body(body)),
        price_set=world.plane.prices[0],
        model="claude-sonnet-4-6",
        discount_bp=0,
    )
    assert hold is not None
    return hold


async def test_50_parallel_requests_on_credit_for_5_admit_5(gateway: Any, world: Any) -> None:
    world.publish(overrides=Limits(concurrency=1_000, requests_per_minute=1_000))
    world.set_wallet(posted_micro=5 * hold_of(world, BODY))

    answers = await gateway.gather([gateway.post(BODY) for _ in range(50)], held=5)

    statuses = [answer.status_code for answer in answers]
    refused = next(answer for answer in answers if answer.status_code == 402)
    assert sorted(set(statuses)) == [200, 402]
    assert statuses.count(200) == 5
    assert refused.json()["error"]["type"] == "billing_error"
    assert refused.headers["x-should-retry"] == "false"


async def test_server_that_forgets_its_scripts_is_told_them_at_both_ends_of_a_request(
    gateway: Any, world: Any
) -> None:
    await gateway.post()
    world.redis.script_flush()

    gateway.door.shut()
    running = asyncio.ensure_future(gateway.post())
    await gateway.until(lambda: world.slots_taken() == 1)
    world.redis.script_flush()
    gateway.door.open()

    assert (await running).status_code == 200
    await gateway.until(lambda: world.event_count() == 2)
    assert (world.slots_taken(), world.open_records()) == (0, 0)


async def test_refused_request_takes_nothing_from_any_limit(gateway: Any, world: Any) -> None:
    world.set_wallet(posted_micro=1)

    first = await gateway.post()
    second = await gateway.post()

    assert first.headers["anthropic-ratelimit-requests-remaining"] == "200"
    assert second.headers["anthropic-ratelimit-requests-remaining"] == "200"
    assert second.headers["anthropic-ratelimit-tokens-remaining"] == "400000"
    assert (world.held_micro(), world.slots_taken(), world.events()) == (0, 0, [])


async def test_slots_are_never_more_than_the_limit(gateway: Any, world: Any) -> None:
    world.publish(overrides=Limits(concurrency=3, requests_per_minute=1_000))

    answers = await gateway.gather([gateway.post(BODY) for _ in range(12)], held=3)

    statuses = [answer.status_code for answer in answers]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert statuses.count(200) == 3
    assert refused.headers["retry-after"] == "1"
    assert "concurrent" in refused.json()["error"]["message"]
    await gateway.until(lambda: world.slots_taken() == 0)


async def test_requests_per_minute_are_exact_and_the_wait_is_told(gateway: Any, world: Any) -> None:
    world.publish(overrides=Limits(requests_per_minute=5))

    answers = [await gateway.post() for _ in range(6)]

    remaining = [answer.headers["anthropic-ratelimit-requests-remaining"] for answer in answers]
    refused = answers[-1]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert remaining == ["4", "3", "2", "1", "0", "0"]
    assert 1 <= int(refused.headers["retry-after"]) <= 12
    assert int(refused.headers["retry-after-ms"]) <= 12_000
    assert refused.headers["x-should-retry"] == "true"


async def test_tokens_are_trued_up_when_the_answer_is_known(gateway: Any, world: Any) -> None:
    first = await gateway.post()
    usage = first.json()["usage"]
    await gateway.until(lambda: len(world.events()) == 1)

    second = await gateway.post()

    used = usage["input_tokens"] + usage["output_tokens"]
    reserved_again = 400_000 - int(first.headers["anthropic-ratelimit-tokens-remaining"])
    # The bucket refills 6,667 tokens a second, so a little of what was used is back already.
    left = int(second.headers["anthropic-ratelimit-tokens-remaining"])
    assert 400_000 - used - reserved_again <= left <= 400_000 - reserved_again


async def test_charge_never_exceeds_the_hold(gateway: Any, world: Any) -> None:
    """The upstream counts far more input than anybody could estimate, and the credit is short."""
    world.set_wallet(posted_micro=hold_of(world, BODY) + 100)

    response = await gateway.post(BODY, x_simulator="usage=inflated")
    await gateway.until(lambda: len(world.events()) == 1)

    event = world.events()[0]
    assert response.status_code == 200
    assert event.hold_micro == hold_of(world, BODY) + 100
    assert world.held_micro() == event.hold_micro


async def test_hold_covers_the_dearest_cache_write_that_the_body_can_cause(
    gateway: Any, world: Any
) -> None:
    text = "x" * 4_000
    plain = (
        b'{"model":"claude-sonnet-4-6","max_tokens":1,"messages":[{"role":"user","content":[{"type":"text","text":"%b"}]}]}'
        % text.encode()
    )
    hour = plain.replace(b'"text":"', b'"cache_control":{"type":"ephemeral","ttl":"1h"},"text":"')

    plain_hold, hour_hold = hold_of(world, plain), hold_of(world, hour)

    assert plain_hold > 1_000 * 3
    assert hour_hold > 1_000 * 6


async def test_hold_covers_web_searches(gateway: Any, world: Any) -> None:
    tool = b'"tools":[{"type":"web_search_20250305","name":"web_search"%b}],'
    head, tail = BODY[:1], BODY[1:]

    unbounded = hold_of(world, head + tool % b"" + tail)
    three = hold_of(world, head + tool % b',"max_uses":3' + tail)

    # Seven searches more, and seven more calls that read a result of 5,000 tokens; the prompt that
    # each of them reads again is small.
    assert 175_000 <= unbounded - three <= 176_000


async def test_discount_of_the_tenant_lowers_the_hold(gateway: Any, world: Any) -> None:
    demand = demand_of(read_messages_body(BODY))
    full = hold_micro(
        demand, price_set=world.plane.prices[0], model="claude-sonnet-4-6", discount_bp=0
    )
    half = hold_micro(
        demand, price_set=world.plane.prices[0], model="claude-sonnet-4-6", discount_bp=5_000
    )

    assert full is not None
    assert half is not None
    assert abs(full - 2 * half) <= 2


async def test_unpriced_component_refuses_the_request(gateway: Any, world: Any) -> None:
    prices = {name: rows for name, rows in world.plane.prices[0].prices.items() if name != "*"}
    world.publish_plane(prices=(dataclasses.replace(world.plane.prices[0], prices=prices),))
    tool = b'"tools":[{"type":"web_search_20250305","name":"web_search"}],'

    response = await gateway.post(BODY[:1] + tool + BODY[1:])

    assert response.status_code == 404
    assert "has no price" in response.json()["error"]["message"]
    assert world.events() == []
