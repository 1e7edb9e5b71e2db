"""Redis full, slow or gone: what the limiter then does, on a server of the test's own."""

import asyncio
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from proxy.limiter.fallback import LocalLimiter
from proxy.limiter.limiter import Limiter
from proxy.redis_pipe import RedisAway, RedisPipe
from tests.proxy.limiter_world import Asked, World, tenant_keys_free
from turnpike.contracts.snapshots import Limits, TenantTerms
from turnpike.embedded.engines import find_valkey

CAP_MICRO = 1_000_000
GOOD = TenantTerms(tier="test", book=1, is_in_good_standing=True, balance_micro=CAP_MICRO * 2)


@dataclass(kw_only=True)
class Server:
    """A Redis of one's own, which may be filled, paused and killed."""

    process: subprocess.Popen[bytes]
    url: str
    client: redis.Redis


@pytest.fixture
def server() -> Iterator[Server]:
    """Start one on a socket; gone when the test ends."""
    with tempfile.TemporaryDirectory(prefix="tt-") as folder:
        socket = Path(folder) / "s"
        process = subprocess.Popen(
            [
                find_valkey().program,
                "--port",
                "0",
                "--unixsocket",
                socket,
                "--save",
                "",
                "--dir",
                folder,
            ],
            stdout=subprocess.DEVNULL,
        )
        client = redis.Redis(unix_socket_path=str(socket), socket_timeout=5)
        for _ in range(10_000):
            with suppress(redis.ConnectionError):
                client.ping()
                break
        yield Server(process=process, url=f"unix://{socket}", client=client)
        client.close()
        process.kill()
        process.wait()


@pytest.fixture
async def pipe(server: Server) -> AsyncIterator[RedisPipe]:
    """A real connection to it."""
    connection = RedisPipe(server.url, timeout_seconds=0.05)
    await connection.start()
    yield connection
    await connection.stop()


def tenant_of(server: Server, asked: Asked | None = None) -> World:
    """The test's tenant, published."""
    world = World(client=server.client, asked=asked or Asked(tenant=Limits(concurrency=10)))
    world.open_up()
    return world


async def test_when_memory_is_full_admissions_stop_and_what_runs_still_ends(
    server: Server, pipe: RedisPipe
) -> None:
    world, limiter = tenant_of(server), Limiter(pipe, timeout_seconds=5.0)
    spec = world.spec(hold_micro=1_000)
    assert (await limiter.admit(spec)).is_granted
    server.client.config_set("maxmemory", 1)

    refused = await limiter.admit(world.spec())
    beat = await limiter.beat(spec, charges={}, hold_micro=900)
    settled = await limiter.settle(spec, charges={}, hold_micro=800, event=b"{}", rank=3)
    server.client.config_set("maxmemory", 0)
    world.publish(posted_micro=5, version=2, ranks={spec.rid: 3})

    assert (refused.is_granted, refused.reason) == (False, "full")
    assert (beat.is_open, beat.hold_micro) == (True, 900)
    assert settled.is_appended
    assert tenant_keys_free(server.client)
    assert world.held() == 0


async def test_a_lost_answer_is_found_again_and_charged_once(
    server: Server, pipe: RedisPipe
) -> None:
    world, limiter = tenant_of(server), Limiter(pipe, timeout_seconds=0.02)
    assert world.admit(world.spec(hold_micro=5)).is_granted  # the server knows the script now
    spec = world.spec(hold_micro=1_000)
    server.client.client_pause(200)

    lost = await limiter.admit(spec)
    server.client.ping()  # answered when the pause is over, and after what waited before it
    found = await Limiter(pipe, timeout_seconds=5.0).admit(spec)

    assert (lost.is_granted, lost.reason) == (False, "away")
    assert (found.is_granted, found.is_known) == (True, True)
    assert world.held() == 1_005


async def test_without_redis_a_tenant_in_good_standing_gets_its_share_and_others_nothing(
    server: Server, pipe: RedisPipe
) -> None:
    """The three ways of ADR 0005: allowed, refused, unavailable."""
    world = tenant_of(server, Asked(tenant=Limits(requests_per_minute=8)))
    fallback = LocalLimiter(cap_micro=CAP_MICRO, live_workers=lambda: 2)
    limiter = Limiter(pipe, fallback=fallback, timeout_seconds=5.0)
    running = world.spec(hold_micro=10)

    online = await limiter.admit(running, terms=GOOD)
    server.process.kill()
    server.process.wait()
    allowed = [await limiter.admit(world.spec(hold_micro=10), terms=GOOD) for _ in range(2)]
    refused = await limiter.admit(world.spec(hold_micro=10), terms=GOOD)
    poor = TenantTerms(tier="test", book=1, is_in_good_standing=True, balance_micro=1)
    unavailable = await limiter.admit(world.spec(hold_micro=10), terms=poor)

    assert (online.is_granted, online.is_local) == (True, False)
    assert [(one.is_granted, one.is_local) for one in allowed] == [(True, True)] * 2
    assert (refused.is_granted, refused.reason) == (False, "away")
    assert (unavailable.is_granted, unavailable.reason) == (False, "away")
    with pytest.raises(RedisAway):
        await limiter.beat(running, charges={})
    with pytest.raises(RedisAway):
        await limiter.settle(running, charges={}, hold_micro=1, event=b"{}", rank=3)


async def test_a_cold_shard_is_served_like_an_absent_one(server: Server, pipe: RedisPipe) -> None:
    world = World(client=server.client, asked=Asked())
    fallback = LocalLimiter(cap_micro=CAP_MICRO, live_workers=lambda: 1)
    limiter = Limiter(pipe, fallback=fallback, timeout_seconds=5.0)

    without_terms = await limiter.admit(world.spec())
    admission = await limiter.admit(world.spec(), terms=GOOD)

    assert (without_terms.is_granted, without_terms.is_cold) == (False, True)
    assert (admission.is_granted, admission.is_local) == (True, True)


async def test_after_an_answer_of_redis_the_next_outage_gives_a_new_share(
    server: Server, pipe: RedisPipe
) -> None:
    world = World(client=server.client, asked=Asked(tenant=Limits(requests_per_minute=2)))
    now = [0.0]
    fallback = LocalLimiter(cap_micro=CAP_MICRO, live_workers=lambda: 1, monotonic=lambda: now[0])
    limiter = Limiter(pipe, fallback=fallback, timeout_seconds=5.0)

    async def ask() -> bool:
        return (await limiter.admit(world.spec(), terms=GOOD)).is_local

    first = [await ask(), await ask()]
    now[0] += 61
    same_outage = await ask()
    world.open_up()
    online = await limiter.admit(world.spec(), terms=GOOD)
    server.client.flushall()
    next_outage = await ask()

    assert first == [True, False]
    assert same_outage is False
    assert (online.is_granted, online.is_local) == (True, False)
    assert next_outage is True


async def test_a_local_grant_is_adopted_when_redis_is_back(server: Server, pipe: RedisPipe) -> None:
    world = World(client=server.client, asked=Asked(tenant=Limits(concurrency=2)))
    fallback = LocalLimiter(cap_micro=CAP_MICRO, live_workers=lambda: 1)
    limiter = Limiter(pipe, fallback=fallback, timeout_seconds=5.0)
    spec = world.spec(hold_micro=CAP_MICRO)
    assert (await limiter.admit(spec, terms=GOOD)).is_local
    assert not (await limiter.admit(world.spec(), terms=GOOD)).is_granted

    beat = await limiter.beat(spec, charges={})

    assert beat.is_adopted
    assert world.held() == CAP_MICRO
    settled = await asyncio.gather(
        *(limiter.settle(spec, charges={}, hold_micro=7, event=b"{}", rank=3) for _ in range(2))
    )
    assert sorted(one.is_appended for one in settled) == [False, True]
    assert world.held() == 7
