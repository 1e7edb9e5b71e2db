"""An upstream that fails in every way: the client gets a clear answer, the charge is right."""

import dataclasses
from typing import Any

import pytest

from turnpike.contracts.snapshots import Candidate

STREAM = (
    b'{"model":"claude-sonnet-4-6","max_tokens":200,"stream":true,'
    b'"messages":[{"role":"user","content":"[[tokens=150]]"}]}'
)
PLAIN = STREAM.replace(b'"stream":true,', b"")


@pytest.mark.parametrize("body", [PLAIN, STREAM], ids=["json", "stream"])
@pytest.mark.parametrize(
    ("fault", "status", "error_type"),
    [
        ("status=429; retry_after=7", 529, "overloaded_error"),
        ("status=529", 529, "overloaded_error"),
        ("status=500", 529, "overloaded_error"),
        ("status=503", 529, "overloaded_error"),
        ("status=401", 529, "overloaded_error"),
        ("status=403", 529, "overloaded_error"),
    ],
)
async def test_refusal_of_ourselves_becomes_overloaded_and_costs_nothing(
    gateway: Any, world: Any, body: bytes, fault: str, status: int, error_type: str
) -> None:
    response = await gateway.post(body, x_simulator=fault)
    await gateway.until(lambda: len(world.events()) == 1)

    event = world.events()[0]
    assert (response.status_code, response.json()["error"]["type"]) == (status, error_type)
    assert response.headers["x-should-retry"] == "true"
    assert int(response.headers["retry-after"]) == (7 if "retry_after" in fault else 2)
    assert "upstream-secret" not in response.text
    assert (event.rank, event.status, event.usage) == (0, "void", {})
    assert event.attempts[0].outcome == "refused"
    assert (world.held_micro(), world.slots_taken(), world.open_records()) == (0, 0, 0)


async def test_failure_of_the_upstream_gives_the_request_back(gateway: Any, world: Any) -> None:
    await gateway.post(x_simulator="status=529")
    await gateway.until(lambda: len(world.events()) == 1)

    served = await gateway.post()

    assert served.headers["anthropic-ratelimit-requests-remaining"] == "199"


async def test_refused_connection_is_529_and_costs_nothing(gateway: Any, world: Any) -> None:
    upstream = dataclasses.replace(world.plane.upstreams["9"], base_url="http://127.0.0.1:1")
    world.publish_plane(upstreams={"9": upstream})

    response = await gateway.post()
    await gateway.until(lambda: len(world.events()) == 1)

    assert response.status_code == 529
    assert world.events()[0].attempts[0].outcome == "failed"
    assert world.held_micro() == 0


async def test_next_upstream_answers_when_the_first_refuses(gateway: Any, world: Any) -> None:
    away = dataclasses.replace(
        world.plane.upstreams["9"], upstream=8, base_url="http://127.0.0.1:1"
    )
    model = "claude-sonnet-4-6"
    world.publish_plane(
        upstreams={**world.plane.upstreams, "8": away},
        routes={
            model: (
                Candidate(upstream=8, upstream_model=model, priority=0),
                Candidate(upstream=9, upstream_model=model, priority=1),
            )
        },
    )

    response = await gateway.post()
    await gateway.until(lambda: len(world.events()) == 1)

    outcomes = [(attempt.upstream, attempt.outcome) for attempt in world.events()[0].attempts]
    assert response.status_code == 200
    assert outcomes == [(8, "failed"), (9, "answered")]


async def test_dropped_connection_is_tried_once_more_and_then_an_api_error(
    gateway: Any, world: Any
) -> None:
    response = await gateway.post(x_simulator="drop")
    await gateway.until(lambda: len(world.events()) == 1)

    event = world.events()[0]
    assert (response.status_code, response.json()["error"]["type"]) == (500, "api_error")
    assert [attempt.outcome for attempt in event.attempts] == ["unknown", "unknown"]
    assert event.usage == {}


async def test_unreadable_answer_is_an_api_error_and_not_charged(gateway: Any, world: Any) -> None:
    response = await gateway.post(x_simulator="bad_json")
    await gateway.until(lambda: len(world.events()) == 1)

    event = world.events()[0]
    assert (response.status_code, response.json()["error"]["type"]) == (500, "api_error")
    assert (event.attempts[0].outcome, event.usage) == ("unknown", {})
    assert world.held_micro() == 0


async def test_cut_stream_ends_with_an_error_event_and_is_charged_as_observed(
    gateway: Any, world: Any
) -> None:
    response = await gateway.post(STREAM, x_simulator="cut_after_events=8")
    await gateway.until(lambda: len(world.events()) == 1)

    event = world.events()[0]
    assert response.status_code == 200
    assert response.text.rstrip().splitlines()[-2] == "event: error"
    assert response.headers["request-id"] in response.text.rstrip().splitlines()[-1]
    assert "message_stop" not in response.text
    assert (event.rank, event.status) == (2, "observed")
    assert event.usage["input_tokens"] > 0
    assert 0 < event.usage["output_tokens"] <= 150
    assert (world.slots_taken(), world.open_records()) == (0, 0)


async def test_error_event_of_the_upstream_is_relayed_as_it_is(gateway: Any, world: Any) -> None:
    response = await gateway.post(STREAM, x_simulator="error_after_events=6")
    await gateway.until(lambda: len(world.events()) == 1)

    assert response.text.count("event: error") == 1
    assert world.events()[0].status == "observed"


async def test_stream_that_fails_before_it_begins_gets_a_real_status(
    gateway: Any, world: Any
) -> None:
    response = await gateway.post(STREAM, x_simulator="error_after_events=0")
    await gateway.until(lambda: len(world.events()) == 1)

    assert response.status_code == 529
    assert response.headers["content-type"] == "application/json"
    assert world.events()[0].status == "void"


async def test_silent_stream_ends_with_a_timeout_error(gateway: Any, world: Any) -> None:
    upstream = dataclasses.replace(world.plane.upstreams["9"], silence_timeout_seconds=0.2)
    world.publish_plane(upstreams={"9": upstream})

    response = await gateway.post(STREAM, x_simulator="hang_after_events=5")
    await gateway.until(lambda: len(world.events()) == 1)

    assert "timeout_error" in response.text
    assert world.events()[0].status == "observed"


async def test_upstream_that_never_answers_is_a_timeout(gateway: Any, world: Any) -> None:
    upstream = dataclasses.replace(world.plane.upstreams["9"], answer_timeout_seconds=0.2)
    world.publish_plane(upstreams={"9": upstream})

    response = await gateway.post(PLAIN, x_simulator="hang")
    await gateway.until(lambda: len(world.events()) == 1)

    assert (response.status_code, response.json()["error"]["type"]) == (504, "timeout_error")
    assert world.events()[0].attempts[0].outcome == "unknown"


@pytest.mark.parametrize("fault", ["missing", "negative", "decreasing"])
@pytest.mark.parametrize("body", [PLAIN, STREAM], ids=["json", "stream"])
async def test_odd_usage_is_charged_by_its_highest_sane_value(
    gateway: Any, world: Any, body: bytes, fault: str
) -> None:
    response = await gateway.post(body, x_simulator=f"usage={fault}")
    await gateway.until(lambda: len(world.events()) == 1)

    event = world.events()[0]
    assert response.status_code == 200
    assert event.rank in (2, 3)
    assert 0 < event.usage["output_tokens"] <= 200
    assert min(v for v in event.usage.values() if isinstance(v, int)) >= 0
