"""Idempotency-Key: one charge and one answer for as many tries as it takes."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from proxy.idempotency import ANSWER_BYTES_MAX, Claim, Idempotency, fingerprint_of
from proxy.redis_pipe import RedisPipe
from tests.gateway.conftest import HELLO, SONNET, TENANT, WORKSPACE, billed
from turnpike.contracts.snapshots import Limits
from turnpike.kernel import clock, ids, keyspace

KEY = "order-4711"
STREAM = {**HELLO, "stream": True}
RAW = json.dumps(HELLO, separators=(",", ":")).encode()


def bills_of(gateway: Any) -> Any:
    return billed(int(gateway.world.plane.upstreams["9"].base_url.rsplit(":", 1)[1]))


def entries(world: Any) -> list[Any]:
    return sorted(world.redis.scan_iter(match="*:once:*"))


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
async def test_the_same_request_is_answered_twice_and_charged_once(
    gateway: Any, world: Any, path: str
) -> None:
    first = await gateway.post(path=path, idempotency_key=KEY)
    second = await gateway.post(path=path, idempotency_key=KEY)
    plain = await gateway.post(path=path)

    assert [first.status_code, second.status_code, plain.status_code] == [200, 200, 200]
    assert second.content == first.content
    assert second.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    name = "request-id" if path == "/v1/messages" else "x-request-id"
    assert second.headers[name] == first.headers[name] != plain.headers[name]
    assert "anthropic-ratelimit-requests-limit" not in second.headers
    await gateway.until(lambda: len(world.events()) == 2)
    assert len(await bills_of(gateway)) == 2


async def test_another_body_with_the_same_key_is_refused(gateway: Any, world: Any) -> None:
    await gateway.post(idempotency_key=KEY)

    other = await gateway.post({**HELLO, "max_tokens": 99}, idempotency_key=KEY)
    face = await gateway.post(path="/v1/chat/completions", idempotency_key=KEY)

    assert (other.status_code, face.status_code) == (400, 400)
    assert "came before with another request" in other.json()["error"]["message"]
    assert len(await bills_of(gateway)) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there"])
async def test_a_key_that_is_none_is_refused(gateway: Any, key: str) -> None:
    headers = {**gateway.headers(), "idempotency-key": key}

    answer = await gateway.client.post("/v1/messages", content=RAW, headers=headers)

    assert answer.status_code == 400
    assert "1 to 255 printable" in answer.json()["error"]["message"]


async def test_twenty_at_once_are_one(gateway: Any, world: Any) -> None:
    world.publish(overrides=Limits(concurrency=100, requests_per_minute=1_000))

    answers = await gateway.gather([gateway.post(idempotency_key=KEY) for _ in range(20)], held=1)

    statuses = sorted(answer.status_code for answer in answers)
    refused = [answer for answer in answers if answer.status_code == 409]
    assert (statuses.count(200), statuses.count(409)) == (1, 19)
    for answer in refused:
        assert answer.json()["error"]["type"] == "conflict_error"
        assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("1", "true")
    assert (await gateway.post(idempotency_key=KEY)).headers["idempotency-replayed"] == "true"
    await gateway.until(lambda: len(world.events()) == 1)
    assert len(await bills_of(gateway)) == 1


async def test_the_sdk_retries_until_it_has_the_one_answer(gateway: Any, world: Any) -> None:
    client = anthropic.AsyncAnthropic(
        api_key=world.secret, base_url=f"http://127.0.0.1:{gateway.port}", max_retries=5
    )
    headers = {"Idempotency-Key": KEY, "x-simulator": "delay_ms=300"}

    async def ask() -> str:
        message = await client.messages.create(
            model=SONNET,
            max_tokens=50,
            messages=[{"role": "user", "content": "Hello"}],
            extra_headers=headers,
        )
        return message.id

    found = await asyncio.gather(*[ask() for _ in range(3)])
    await client.close()

    assert len(set(found)) == 1
    await gateway.until(lambda: len(world.events()) == 1)
    assert len(await bills_of(gateway)) == 1


@pytest.mark.parametrize("orders", ["status=529", "status=400", "drop"])
async def test_what_was_refused_was_not_charged_and_frees_the_key(
    gateway: Any, world: Any, orders: str
) -> None:
    refused = await gateway.post(idempotency_key=KEY, x_simulator=orders)
    assert entries(world) == []

    again = await gateway.post(idempotency_key=KEY)

    assert refused.status_code >= 400
    assert again.status_code == 200
    assert "idempotency-replayed" not in again.headers
    assert len(await bills_of(gateway)) == 1


async def test_a_lack_of_credit_frees_the_key(gateway: Any, world: Any) -> None:
    world.set_wallet(posted_micro=0)
    refused = await gateway.post(idempotency_key=KEY)
    world.set_wallet(posted_micro=100_000_000)

    assert refused.status_code == 402
    assert (await gateway.post(idempotency_key=KEY)).status_code == 200


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
async def test_a_stream_is_charged_once_and_cannot_be_had_again(
    gateway: Any, world: Any, path: str
) -> None:
    first = await gateway.post(STREAM, path=path, idempotency_key=KEY)
    second = await gateway.post(STREAM, path=path, idempotency_key=KEY)

    request_id = first.headers["request-id" if path == "/v1/messages" else "x-request-id"]
    assert (first.status_code, second.status_code) == (200, 409)
    assert second.headers["x-should-retry"] == "false"
    assert request_id in second.json()["error"]["message"]
    assert len(await bills_of(gateway)) == 1


async def test_an_answer_beyond_the_bound_is_charged_once_and_not_kept(
    gateway: Any, world: Any
) -> None:
    body = {**HELLO, "max_tokens": 128_000}
    body["messages"] = [{"role": "user", "content": "[[say=" + "x" * 500_000 + "]]"}]
    world.publish(overrides=Limits(tokens_per_minute=10_000_000))
    await gateway.post(body, idempotency_key="small")
    small = await gateway.post(body, idempotency_key="small")
    counter = keyspace.idempotent_bytes(TENANT, 0).rpartition(":")[0]
    for name in world.redis.scan_iter(match=counter + ":*"):
        world.redis.set(name, 16 * 1024 * 1024)
    await gateway.post(body, idempotency_key="late")
    late = await gateway.post(body, idempotency_key="late")

    assert small.headers["idempotency-replayed"] == "true"
    assert late.status_code == 409
    assert "too large to keep" in late.json()["error"]["message"]
    assert ANSWER_BYTES_MAX < 16 * 1024 * 1024


async def test_a_revoked_key_gets_no_replay(gateway: Any, world: Any) -> None:
    await gateway.post(idempotency_key=KEY)
    world.revoke_key()

    assert (await gateway.post(idempotency_key=KEY)).status_code == 401


async def test_a_suspended_tenant_gets_no_replay(gateway: Any, world: Any) -> None:
    await gateway.post(idempotency_key=KEY)
    world.publish(status="suspended")

    assert (await gateway.post(idempotency_key=KEY)).status_code == 403


async def test_it_is_kept_for_a_day_and_without_secrets(gateway: Any, world: Any) -> None:
    await gateway.post(idempotency_key=KEY)

    (name,) = entries(world)
    fields = world.redis.hgetall(name)
    assert 86_000_000 < world.redis.pttl(name) <= 86_400_000
    assert KEY.encode() not in name + b"".join(fields.values())
    assert world.secret.encode() not in b"".join(fields.values())


async def test_without_redis_nothing_is_promised(gateway: Any) -> None:
    await gateway.post()
    await gateway.app._gateway._pipe.stop()

    answer = await gateway.post(idempotency_key=KEY)

    assert (answer.status_code, answer.json()["error"]["type"]) == (529, "overloaded_error")


# What a killed worker leaves is a claim whose lease ends, and perhaps a record.


@pytest.fixture
def claim() -> Claim:
    """A request of a worker that is dead by now."""
    return Claim(
        key=KEY.encode(),
        tenant=TENANT,
        workspace=WORKSPACE,
        rid=ids.new_request_id(at_ms=clock.now_ms())[0],
        fingerprint=fingerprint_of("/v1/messages", RAW),
    )


@pytest.fixture
async def dead(gateway: Any, claim: Claim) -> AsyncIterator[Claim]:
    """Claims as a worker does that dies a moment later; its lease is over."""
    pipe = RedisPipe(os.environ["REDIS_URL"])
    await pipe.start()
    await Idempotency(pipe, lease_ms=0)._claim(claim)
    yield claim
    await pipe.stop()


def leave_record(world: Any, claim: Claim, **fields: str) -> None:
    world.redis.hset(keyspace.record(TENANT, claim.rid), mapping=fields)


@pytest.mark.parametrize(
    ("record", "status", "should_retry"),
    [
        ({}, 200, None),
        ({"st": "settled", "rank": "0", "hold": "0"}, 200, None),
        ({"st": "settled", "rank": "2", "hold": "0"}, 200, None),
        ({"st": "posted", "rank": "2", "paid": "0"}, 200, None),
        ({"st": "posted", "rank": "0"}, 200, None),
        ({"st": "open", "rank": "0", "hold": "900"}, 409, "true"),
        ({"st": "settled", "rank": "3", "hold": "900"}, 409, "false"),
        ({"st": "posted", "rank": "3", "paid": "900"}, 409, "false"),
        ({"st": "posted", "rank": "3"}, 409, "false"),
    ],
)
async def test_after_a_kill_the_key_is_free_only_where_nothing_was_charged(
    gateway: Any,
    world: Any,
    dead: Claim,
    record: dict[str, str],
    status: int,
    should_retry: str | None,
) -> None:
    if record:
        leave_record(world, dead, **record)

    answer = await gateway.post(RAW, idempotency_key=KEY)

    assert answer.status_code == status
    assert answer.headers.get("x-should-retry") == should_retry
    if status == 200:
        again = await gateway.post(RAW, idempotency_key=KEY)
        assert again.headers["idempotency-replayed"] == "true"


async def test_who_lost_the_key_changes_nothing_any_more(
    gateway: Any, world: Any, dead: Claim
) -> None:
    answer = await gateway.post(RAW, idempotency_key=KEY)
    pipe = RedisPipe(os.environ["REDIS_URL"])
    await pipe.start()

    await Idempotency(pipe)._change(dead, "release")
    await Idempotency(pipe)._change(dead, "finish", "200", "[]", b"forged", 10)

    again = await gateway.post(RAW, idempotency_key=KEY)
    await pipe.stop()
    assert again.content == answer.content
