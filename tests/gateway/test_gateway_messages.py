"""One request through the data plane: the answer, the headers, the event."""

import asyncio
import dataclasses
import json
from typing import Any

from turnpike.kernel import keyspace


async def test_answer_is_the_upstreams_own_with_our_headers(
    gateway: Any, world: Any, simulator: int
) -> None:
    response = await gateway.post()

    message = response.json()
    assert response.status_code == 200
    assert message["type"] == "message"
    assert message["model"] == "claude-sonnet-4-6"
    assert response.headers["request-id"].startswith("req_01")
    assert response.headers["anthropic-organization-id"] == "ten_01x"
    assert response.headers["anthropic-workspace-id"] == "wrkspc_01x"
    assert response.headers["anthropic-ratelimit-requests-limit"] == "200"
    assert response.headers["anthropic-ratelimit-requests-remaining"] == "199"


async def test_answer_is_settled_with_the_upstreams_usage(gateway: Any, world: Any) -> None:
    response = await gateway.post()
    await gateway.until(lambda: len(world.events()) == 1)

    event = world.events()[0]
    usage = response.json()["usage"]
    worth_nanos = usage["input_tokens"] * 3_000 + usage["output_tokens"] * 15_000
    assert (event.rank, event.status, event.http_status) == (3, "reported", 200)
    assert event.usage == usage
    assert event.attempts[0].outcome == "answered"
    assert event.attempts[0].upstream_request_id is not None
    assert (event.tenant, event.workspace, event.key, event.price_set) == (7, 70, 700, 3)
    assert world.held_micro() == -(-worth_nanos // 1_000)
    assert (world.slots_taken(), world.open_records()) == (0, 0)


async def test_stream_comes_as_the_upstream_writes_it(gateway: Any, world: Any) -> None:
    body = {
        "model": "claude-sonnet-4-6",
        "max_tokens": 40,
        "stream": True,
        "messages": [{"role": "user", "content": "Count"}],
    }

    response = await gateway.post(body)
    await gateway.until(lambda: len(world.events()) == 1)

    names = [line[7:] for line in response.text.splitlines() if line.startswith("event: ")]
    event = world.events()[0]
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert names[0] == "message_start"
    assert names[-1] == "message_stop"
    assert (event.rank, event.stream, event.stop_reason) == (3, True, "max_tokens")
    assert event.usage["output_tokens"] == 40
    assert event.ttft_us is not None


async def test_body_goes_up_byte_for_byte(gateway: Any, world: Any, simulator: int) -> None:
    turn = b'{"role":"user","content":"\xc3\xa9 \\u00e9"}'
    spaced = b'{ "model":"claude-sonnet-4-6", "max_tokens": 5,"messages":[%b] }' % turn

    response = await gateway.post(spaced)

    assert response.status_code == 200


async def test_bearer_and_x_api_key_carry_the_same_keys(gateway: Any, world: Any) -> None:
    bearer = await gateway.post(x_api_key="", authorization=f"Bearer {world.secret}")
    both = await gateway.post(authorization=f"Bearer {world.secret}")
    differ = await gateway.post(authorization="Bearer tpk_live_other")

    assert (bearer.status_code, both.status_code, differ.status_code) == (200, 200, 401)


async def test_beta_query_and_newer_version_are_accepted(gateway: Any) -> None:
    beta = await gateway.post(path="/v1/messages?beta=true")
    newer = await gateway.post(anthropic_version="2026-10-21")

    assert (beta.status_code, newer.status_code) == (200, 200)


async def test_upstream_judges_its_own_schema(gateway: Any, world: Any) -> None:
    response = await gateway.post(
        {
            "model": "claude-sonnet-4-6",
            "max_tokens": 5,
            "messages": [{"role": "user", "content": "x"}],
            "surprise": 1,
        }
    )
    await gateway.until(lambda: len(world.events()) == 1)

    error = response.json()
    assert response.status_code == 400
    assert "surprise: Extra inputs are not permitted" in error["error"]["message"]
    assert error["request_id"] == response.headers["request-id"]
    assert (world.events()[0].rank, world.events()[0].http_status) == (0, 400)
    assert world.held_micro() == 0


async def test_alias_is_served_as_the_canonical_model(gateway: Any, world: Any) -> None:
    response = await gateway.post(
        {
            "model": "claude-sonnet-latest",
            "max_tokens": 5,
            "messages": [{"role": "user", "content": "x"}],
        }
    )
    await gateway.until(lambda: len(world.events()) == 1)

    event = world.events()[0]
    assert response.json()["model"] == "claude-sonnet-4-6"
    assert (event.model, event.requested_model) == ("claude-sonnet-4-6", "claude-sonnet-latest")


async def test_retired_model_is_refused_until_its_successor_is_allowed(
    gateway: Any, world: Any
) -> None:
    body = {
        "model": "claude-3.5-sonnet",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "x"}],
    }

    refused = await gateway.post(body)
    retired = world.plane.models["claude-3-5-sonnet-20241022"]
    world.publish_plane(
        models={**world.plane.models, retired.model: _replace(retired, is_successor_allowed=True)}
    )
    served = await gateway.post(body)

    assert (refused.status_code, refused.json()["error"]["type"]) == (404, "not_found_error")
    assert served.status_code == 200
    assert served.headers["x-turnpike-served-model"] == "claude-sonnet-4-6"
    assert served.json()["model"] == "claude-sonnet-4-6"


async def test_retired_model_is_served_as_itself_where_an_upstream_has_it(
    gateway: Any, world: Any
) -> None:
    name = "claude-3-5-sonnet-20241022"
    routes = {
        **world.plane.routes,
        name: (_replace(world.plane.routes["claude-sonnet-4-6"][0], upstream_model=name),),
    }
    world.publish_plane(routes=routes)

    response = await gateway.post(
        {
            "model": "claude-3.5-sonnet",
            "max_tokens": 5,
            "messages": [{"role": "user", "content": "x"}],
        }
    )

    assert response.json()["model"] == name
    assert "x-turnpike-served-model" not in response.headers


async def test_count_tokens_costs_nothing_and_has_a_rate_of_its_own(
    gateway: Any, world: Any
) -> None:
    body = {"model": "claude-sonnet-4-6", "messages": [{"role": "user", "content": "Hello there"}]}

    response = await gateway.post(body, path="/v1/messages/count_tokens")

    assert response.status_code == 200
    assert response.json()["input_tokens"] > 0
    assert response.headers["anthropic-ratelimit-requests-limit"] == "2000"
    assert world.events() == []
    assert (world.held_micro(), world.open_records()) == (0, 0)


async def test_models_lists_what_the_key_may_use(gateway: Any, world: Any) -> None:
    headers = gateway.headers()

    page = (await gateway.client.get("/v1/models", headers=headers)).json()
    one = (await gateway.client.get("/v1/models/claude-sonnet-latest", headers=headers)).json()
    absent = await gateway.client.get("/v1/models/claude-unpriced-1", headers=headers)

    assert [model["id"] for model in page["data"]] == ["claude-sonnet-4-6"]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (
        False,
        "claude-sonnet-4-6",
        "claude-sonnet-4-6",
    )
    assert one["id"] == "claude-sonnet-4-6"
    assert absent.status_code == 404


async def test_hello_needs_no_key(gateway: Any) -> None:
    response = await gateway.client.head("/api/hello")

    assert response.status_code == 200


async def test_ready_and_metrics_answer_loopback(gateway: Any) -> None:
    await gateway.post()

    ready = await gateway.client.get("/readyz")
    metrics = await gateway.client.get("/metrics")
    forwarded = await gateway.client.get("/metrics", headers={"x-forwarded-for": "10.0.0.1"})

    assert ready.status_code == 200
    assert "turnpike_" in metrics.text
    assert forwarded.status_code == 404


async def test_client_that_leaves_a_stream_pays_for_what_was_written(
    gateway: Any, world: Any, simulator: int
) -> None:
    body = {
        "model": "claude-sonnet-4-6",
        "max_tokens": 2_000,
        "stream": True,
        "messages": [{"role": "user", "content": "[[tokens=2000]]"}],
    }
    seen = b""
    content = json.dumps(body, separators=(",", ":")).encode()
    async with gateway.client.stream(
        "POST", "/v1/messages", content=content, headers=gateway.headers(x_simulator="pace_ms=5")
    ) as response:
        async for chunk in response.aiter_raw():
            seen += chunk
            if seen.count(b"text_delta") >= 5:
                break

    await gateway.until(lambda: len(world.events()) == 1)

    event = world.events()[0]
    assert (event.rank, event.status) == (2, "observed")
    assert event.attempts[0].outcome == "cut"
    assert event.usage["output_tokens"] * 4 >= _chars_in(seen)
    assert event.usage["output_tokens"] < 500
    assert (world.slots_taken(), world.open_records()) == (0, 0)


async def test_client_that_leaves_before_a_json_answer_pays_for_it(
    gateway: Any, world: Any
) -> None:
    _reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    body = (
        b'{"model":"claude-sonnet-4-6","max_tokens":50,"messages":[{"role":"user","content":"x"}]}'
    )
    head = (
        f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {world.secret}\r\n"
        "anthropic-version: 2023-06-01\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    gateway.door.shut()
    writer.write(head.encode() + body)
    await writer.drain()
    await gateway.until(lambda: world.open_records() == 1)
    writer.close()
    gateway.door.open()

    await gateway.until(lambda: len(world.events()) == 1)

    assert world.events()[0].status == "reported"


async def test_refusals_and_acceptances_can_be_read(gateway: Any, world: Any) -> None:
    world.publish(status="suspended")

    await gateway.post()
    key = keyspace.refusals(7)
    await gateway.until(lambda: world.redis.llen(key) == 1)

    row = json.loads(world.redis.lindex(key, 0))
    assert (row["status"], row["type"], row["key"]) == (403, "permission_error", "apikey_01x")
    assert row["request_id"].startswith("req_01")


def _chars_in(seen: bytes) -> int:
    texts = [
        json.loads(line[6:])["delta"]["text"]
        for line in seen.decode().splitlines()
        if line.startswith('data: {"type":"content_block_delta"') and line.endswith("}")
    ]
    return sum(map(len, texts))


def _replace(value: Any, **changes: Any) -> Any:
    return dataclasses.replace(value, **changes)
