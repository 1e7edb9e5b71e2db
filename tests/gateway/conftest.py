"""A data plane on a socket, the simulator behind it, and snapshots written by hand: no Django."""

import asyncio
import contextlib
import dataclasses
import json
import os
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import redis
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from proxy.app import App
from proxy.config import ProxyConfig
from proxy.http_protocol import HttpProtocol
from simulator.__main__ import EagerProtocol
from simulator.app import Simulator
from simulator.state import State
from tests.support.plain_http import NO_AUTHORITIES
from turnpike.contracts.snapshots import (
    Candidate,
    CredentialSnapshot,
    KeySnapshot,
    Limits,
    ModelSnapshot,
    PlaneSnapshot,
    Price,
    PriceSet,
    TenantTerms,
    TenantWho,
    TierSnapshot,
    UpstreamSnapshot,
    WorkspaceSnapshot,
    credential_place,
)
from turnpike.contracts.usage import UsageEvent
from turnpike.kernel import codec, hashing, keyspace, sealing

_T = TypeVar("_T")

PEPPERS = hashing.parse_peppers("p1:" + "pepper" * 8)
MASTER_KEYS = {"m1": bytes(range(32))}
TENANT, WORKSPACE, KEY = 7, 70, 700
SONNET = "claude-sonnet-4-6"
HELLO: Mapping[str, Any] = {
    "model": SONNET,
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Hello there"}],
}
# Dollars per million tokens, as in the catalogue.
SONNET_PRICES = {
    "input": 3,
    "output": 15,
    "cache_write_5m": 3.75,
    "cache_write_1h": 6,
    "cache_read": 0.3,
}


class World:
    """What the control plane would have published; change it and the versions rise."""

    def __init__(self, client: redis.Redis, *, simulator_port: int) -> None:
        self.redis = client
        self.secret = hashing.new_key(hashing.API_KEY_PREFIX)
        self.version = 0
        self.global_version = 0
        self.key = KeySnapshot(
            key=KEY, key_id="apikey_01x", tenant=TENANT, workspace=WORKSPACE, member="user_01x"
        )
        self.who = TenantWho(
            tenant_id="ten_01x",
            workspaces={str(WORKSPACE): WorkspaceSnapshot(workspace_id="wrkspc_01x")},
        )
        self.terms = TenantTerms(tier="pro", book=1)
        self.plane = plane_of(simulator_port)
        self.set_wallet(posted_micro=100_000_000)
        self.publish_plane()
        self.publish()

    def publish(self, **changes: Any) -> None:
        """Publish key, who and terms; names of `changes` are fields of any of them."""
        for name in ("key", "who", "terms"):
            value = getattr(self, name)
            mine = {k: v for k, v in changes.items() if hasattr(value, k) and k != name}
            setattr(self, name, dataclasses.replace(value, **mine))
        digest = hashing.digest_key(self.secret, pepper=PEPPERS["p1"])
        self.version += 1
        self.redis.set(keyspace.key_snapshot(digest), codec.to_json(self.key))
        self.redis.hset(
            keyspace.tenant_snapshot(TENANT),
            mapping={"who": codec.to_json(self.who), "terms": codec.to_json(self.terms)},
        )
        self.redis.hset(keyspace.policy(keyspace.shard_of(TENANT)), str(TENANT), str(self.version))

    def publish_plane(self, **changes: Any) -> None:
        """Publish the plane with some of its fields replaced."""
        self.plane = dataclasses.replace(self.plane, **changes)
        fields: dict[Any, Any] = {
            field.name: codec.to_json(getattr(self.plane, field.name))
            for field in dataclasses.fields(self.plane)
        }
        self.global_version += 1
        self.redis.hset(keyspace.PLANE, mapping=fields)
        for shard in range(keyspace.SHARDS):
            self.redis.hset(
                keyspace.policy(shard), mapping={"*": str(self.global_version), "epoch": "1"}
            )

    def revoke_key(self) -> None:
        """Delete the key and raise the tenant's version, as a revocation does."""
        self.publish()
        digest = hashing.digest_key(self.secret, pepper=PEPPERS["p1"])
        self.redis.delete(keyspace.key_snapshot(digest))

    def set_tier_limits(self, **limits: Any) -> None:
        """Change the tier's limits."""
        tier = self.plane.tiers["pro"]
        changed = dataclasses.replace(tier, limits=dataclasses.replace(tier.limits, **limits))
        self.publish_plane(tiers={"pro": changed})

    def set_wallet(self, *, posted_micro: int) -> None:
        """Set the posted balance."""
        self.redis.hset(
            keyspace.wallet(TENANT), mapping={"posted": posted_micro, "ver": 1, "limit": 0}
        )

    def events(self) -> list[UsageEvent]:
        """The usage events in the stream, in order."""
        stream = keyspace.usage_stream(keyspace.shard_of(TENANT))
        entries: Any = self.redis.xrange(stream)
        return [codec.from_json(UsageEvent, entry[b"e"]) for _, entry in entries]

    def event_count(self) -> int:
        """How many events there are."""
        return int(self.redis.xlen(keyspace.usage_stream(keyspace.shard_of(TENANT))))

    def held_micro(self) -> int:
        """What the wallet holds now."""
        return int(self.redis.hget(keyspace.wallet(TENANT), "held") or 0)

    def slots_taken(self) -> int:
        """How many requests hold a slot of the tenant."""
        return int(self.redis.zcard(keyspace.slots(TENANT, "t")))

    def open_records(self) -> int:
        """How many requests are open."""
        return int(self.redis.zcard(keyspace.open_requests(keyspace.shard_of(TENANT))))


def plane_of(simulator_port: int) -> PlaneSnapshot:
    """One tier, three models of which one has no price, and the simulator."""
    sealed = sealing.seal("upstream-secret", place=credential_place(5), master_keys=MASTER_KEYS)
    return PlaneSnapshot(
        tiers={
            "pro": TierSnapshot(
                tier="pro",
                name="Pro",
                limits=Limits(requests_per_minute=200, tokens_per_minute=400_000, concurrency=40),
            )
        },
        models=_models(),
        prices=(
            PriceSet(
                price_set=3,
                book=1,
                from_us=0,
                prices={
                    SONNET: prices_of(SONNET_PRICES),
                    "claude-3-5-sonnet-20241022": prices_of(SONNET_PRICES),
                    "*": (Price(component="web_search", nano_per_unit=10_000_000),),
                },
            ),
        ),
        routes={
            SONNET: (Candidate(upstream=9, upstream_model=SONNET),),
            "claude-unpriced-1": (Candidate(upstream=9, upstream_model="claude-unpriced-1"),),
        },
        upstreams={
            "9": UpstreamSnapshot(
                upstream=9,
                name="simulator",
                kind="anthropic",
                base_url=f"http://127.0.0.1:{simulator_port}",
                credentials=(CredentialSnapshot(credential=5, sealed=sealed),),
                is_simulator=True,
                send_request_id=True,
            )
        },
    )


def _models() -> dict[str, ModelSnapshot]:
    return {
        SONNET: ModelSnapshot(
            model=SONNET,
            display_name="Sonnet 4.6",
            created_at="2026-02-17T00:00:00Z",
            aliases=("claude-sonnet-latest",),
        ),
        "claude-3-5-sonnet-20241022": ModelSnapshot(
            model="claude-3-5-sonnet-20241022",
            display_name="Sonnet 3.5",
            created_at="2024-10-22T00:00:00Z",
            lifecycle="retired",
            aliases=("claude-3-5-sonnet-latest", "claude-3.5-sonnet"),
            successor=SONNET,
        ),
        "claude-unpriced-1": ModelSnapshot(model="claude-unpriced-1", display_name="Unpriced"),
    }


def prices_of(dollars: Mapping[str, float], variant: str = "standard") -> tuple[Price, ...]:
    """Price rows from dollars per million tokens."""
    return tuple(
        Price(component=name, variant=variant, nano_per_mtok=round(value * 1_000_000_000))
        for name, value in dollars.items()
    )


class Door:
    """Before the simulator's inference: while it is shut, who comes waits, and nobody is told."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._is_open = asyncio.Event()
        self._is_open.set()

    def shut(self) -> None:
        """Whoever comes from now on waits."""
        self._is_open.clear()

    def open(self) -> None:
        """Let in all who wait."""
        self._is_open.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            await self._is_open.wait()
        await self._app(scope, receive, send)


class Gateway:
    """A running data plane and a client for it."""

    def __init__(
        self, app: App, port: int, world: World, client: httpx.AsyncClient, door: Door
    ) -> None:
        self.app = app
        self.port = port
        self.world = world
        self.client = client
        self.door = door

    async def post(
        self, body: Any = HELLO, /, path: str = "/v1/messages", **headers: str
    ) -> httpx.Response:
        """Post a body; keyword arguments are headers, underscores for dashes."""
        content = (
            body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
        )
        return await self.client.post(path, content=content, headers=self.headers(**headers))

    def headers(self, **more: str) -> dict[str, str]:
        """The usual headers and more; an empty value leaves one out."""
        usual = {
            "x-api-key": self.world.secret,
            "anthropic-version": "2023-06-01",
            "content-type": "application/json",
        }
        usual |= {name.replace("_", "-"): value for name, value in more.items()}
        return {name: value for name, value in usual.items() if value}

    async def gather(self, asked: Iterable[Awaitable[_T]], *, held: int) -> list[_T]:
        """All at once: until all but `held` are answered, the simulator answers nobody."""
        self.door.shut()
        running = [asyncio.ensure_future(item) for item in asked]
        try:
            refused = len(running) - held
            await self.until(lambda: sum(task.done() for task in running) >= refused)
        finally:
            self.door.open()
        return await asyncio.gather(*running)

    async def until(self, condition: Any, *, seconds: float = 30.0) -> None:
        """Wait until something is so; fails after some seconds."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - what is waited for happens in Redis
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def served(app: Any, protocol: type[HttpToolsProtocol] = HttpProtocol) -> AsyncIterator[int]:
    """Serve an ASGI app on a free port of loopback, as the production worker does."""
    config = Config(
        app, http="httptools", ws="none", lifespan="off", log_config=None, proxy_headers=False
    )
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: protocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in list(state.connections):
            connection.shutdown()
        for task in list(state.tasks):
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)
        await asyncio.sleep(0)


@pytest.fixture
def proxy_config(tmp_path: Path) -> ProxyConfig:
    """A worker's configuration with short rounds."""
    return ProxyConfig(
        redis_url=os.environ["REDIS_URL"],
        peppers=PEPPERS,
        master_keys=MASTER_KEYS,
        journal_dir=tmp_path / "journal",
        metrics_dir=tmp_path / "metrics",
        worker="worker-1",
        journal_fsync="off",
        simulator_control=True,
        redis_timeout_ms=1_000,
    )


@pytest.fixture
def door() -> Door:
    """The simulator behind a door that is open."""
    return Door(Simulator(State(pace_ms=0, is_static=False)))


@pytest.fixture
async def simulator(door: Door) -> AsyncIterator[int]:
    """The simulator on a port of its own."""
    async with served(door, EagerProtocol) as port:
        yield port


@pytest.fixture
async def gateway(
    redis_client: redis.Redis, simulator: int, door: Door, proxy_config: ProxyConfig
) -> AsyncIterator[Gateway]:
    """A data plane with one tenant, one key and the simulator as its upstream."""
    world = World(redis_client, simulator_port=simulator)
    app = App(proxy_config)
    await app.startup()
    async with (
        served(app) as port,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=20, verify=NO_AUTHORITIES
        ) as client,
    ):
        yield Gateway(app, port, world, client, door)
    await app.shutdown()


@pytest.fixture
def world(gateway: Gateway) -> World:
    """The snapshots behind the gateway."""
    return gateway.world


async def billed(simulator_port: int) -> list[dict[str, Any]]:
    """The simulator's own record."""
    async with httpx.AsyncClient(verify=NO_AUTHORITIES) as client:
        rows: list[dict[str, Any]] = (
            await client.get(f"http://127.0.0.1:{simulator_port}/_billed")
        ).json()
        return rows
