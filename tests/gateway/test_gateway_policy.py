"""A change of policy holds from the very next request, both ways; nothing here waits for time."""

import asyncio
import dataclasses
import json
from typing import Any

from tests.gateway.conftest import HELLO
from turnpike.contracts.snapshots import Budget, Limits
from turnpike.kernel import clock, keyspace


async def test_revoked_key_is_refused_at_the_next_request(gateway: Any, world: Any) -> None:
    before = await gateway.post()

    world.revoke_key()
    after = await gateway.post()

    assert (before.status_code, after.status_code) == (200, 401)


async def test_revoked_key_is_refused_where_the_head_of_its_request_is_known(
    gateway: Any, world: Any
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    body = json.dumps(HELLO).encode()
    statuses: list[int] = []
    for secret in (world.secret, world.secret, "sk-tp-other", world.secret, world.secret):
        if len(statuses) == 4:
            world.revoke_key()
        # In one write, so that the gateway may know it by its head.
        head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {secret}\r\n"
        head += f"anthropic-version: 2023-06-01\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in answer.split(b"\r\n")[1:-2])
        await reader.readexactly(int(fields[b"content-length"]))
        statuses.append(int(answer.split()[1]))
    writer.close()

    assert statuses == [200, 200, 401, 200, 401]


async def test_key_that_comes_back_is_served_at_the_next_request(gateway: Any, world: Any) -> None:
    await gateway.post()
    world.revoke_key()
    await gateway.post()

    world.publish()

    assert (await gateway.post()).status_code == 200


async def test_suspended_tenant_is_refused_and_served_again(gateway: Any, world: Any) -> None:
    statuses = [(await gateway.post()).status_code]
    for status in ("suspended", "active", "suspended", "active"):
        world.publish(status=status)
        statuses.append((await gateway.post()).status_code)

    assert statuses == [200, 403, 200, 403, 200]


async def test_lowered_limit_holds_at_the_next_request(gateway: Any, world: Any) -> None:
    await gateway.post()

    world.publish(overrides=Limits(requests_per_minute=1))
    refused = await gateway.post()

    assert refused.status_code == 429
    assert refused.headers["anthropic-ratelimit-requests-limit"] == "1"


async def test_tier_of_everyone_changes_at_the_next_request(gateway: Any, world: Any) -> None:
    await gateway.post()

    world.set_tier_limits(requests_per_minute=500)
    response = await gateway.post()

    assert response.headers["anthropic-ratelimit-requests-limit"] == "500"


async def test_model_of_the_key_changes_at_the_next_request(gateway: Any, world: Any) -> None:
    statuses = [(await gateway.post()).status_code]
    for models in (("claude-opus-5",), None, ("claude-sonnet-latest",)):
        world.publish(key=None, models=models)
        statuses.append((await gateway.post()).status_code)

    assert statuses == [200, 403, 200, 200]


async def test_expired_key_is_refused_and_prolonged_one_served(gateway: Any, world: Any) -> None:
    world.publish(expires_at_us=clock.now_us() - 1)
    expired = await gateway.post()
    world.publish(expires_at_us=clock.now_us() + 60_000_000)
    prolonged = await gateway.post()

    assert (expired.status_code, prolonged.status_code) == (401, 200)


async def test_management_key_cannot_call_models(gateway: Any, world: Any) -> None:
    world.publish(kind="management")

    response = await gateway.post()

    assert (response.status_code, response.json()["error"]["type"]) == (403, "permission_error")


async def test_scope_and_address_are_checked(gateway: Any, world: Any) -> None:
    world.publish(scopes=("models",))
    scope = await gateway.post()
    world.publish(scopes=("messages",), ip_ranges=("10.0.0.0/8",))
    address = await gateway.post()
    world.publish(ip_ranges=("127.0.0.0/8",))
    served = await gateway.post()

    assert (scope.status_code, address.status_code, served.status_code) == (403, 403, 200)


async def test_denied_beta_is_refused_and_others_pass(gateway: Any, world: Any) -> None:
    tier = dataclasses.replace(world.plane.tiers["pro"], denied_betas=("danger-2026-01-01",))
    world.publish_plane(tiers={"pro": tier})

    refused = await gateway.post(anthropic_beta="other-1,danger-2026-01-01")
    passed = await gateway.post(anthropic_beta="other-1")

    assert refused.status_code == 400
    assert "`danger-2026-01-01`" in refused.json()["error"]["message"]
    assert passed.status_code == 200


async def test_budget_of_the_key_blocks_at_once(gateway: Any, world: Any) -> None:
    month = clock.utc_now().strftime("%Y-%m")
    world.redis.hset(keyspace.budgets(7), mapping={"ver": 1, f"s:k700:{month}": 999_000})
    world.publish(key=None)
    world.key = dataclasses.replace(
        world.key, budgets=(Budget(period="month", limit_micro=1_000_000),)
    )
    world.publish()

    refused = await gateway.post()

    assert refused.status_code == 402
    assert "budget" in refused.json()["error"]["message"]
    assert world.held_micro() == 0


async def test_revoked_key_ends_its_running_stream(gateway: Any, world: Any) -> None:
    keeper = gateway.app._gateway.keeper
    body = (
        b'{"model":"claude-sonnet-4-6","max_tokens":5000,"stream":true,'
        b'"messages":[{"role":"user","content":"[[tokens=4000]]"}]}'
    )
    async with gateway.client.stream(
        "POST", "/v1/messages", content=body, headers=gateway.headers(x_simulator="pace_ms=5")
    ) as response:
        chunks = response.aiter_raw()
        await anext(chunks)
        world.revoke_key()
        await keeper.beat_all()
        rest = b"".join([chunk async for chunk in chunks])

    assert b"event: error" in rest
    assert b"permission_error" in rest
    await gateway.until(lambda: len(world.events()) == 1)
    assert world.events()[0].status == "observed"


async def test_cold_plane_answers_529_and_caches_nobody_as_unknown(
    gateway: Any, world: Any
) -> None:
    world.redis.flushdb()
    cold = await gateway.post()

    world.set_wallet(posted_micro=1_000_000)
    world.publish_plane()
    world.publish()
    warm = await gateway.post()

    assert (cold.status_code, cold.json()["error"]["type"]) == (529, "overloaded_error")
    assert "retry-after" in cold.headers
    assert warm.status_code == 200


async def test_missing_wallet_answers_529_and_asks_for_it(gateway: Any, world: Any) -> None:
    world.redis.delete(keyspace.wallet(7))

    response = await gateway.post()

    assert response.status_code == 529
    assert world.redis.smembers(keyspace.cold_tenants(keyspace.shard_of(7))) == {b"7"}
