"""A tenant in Redis for the limiter's tests, under a clock that the test moves.

Scripts and Limiter are the real ones; only the wire between them is replaced by a synchronous
client, so that a property can run thousands of steps without an event loop.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import UUID

import redis

from proxy.limiter.limiter import Admission, Beat, Limiter, Settled
from proxy.limiter.limits import Spec, build_spec, settle_charges
from proxy.limiter.plans import limits_of
from proxy.prepared_call import PreparedCall, Script
from proxy.redis_pipe import RedisPipe, RedisReplyError
from turnpike.contracts.snapshots import (
    Budget,
    KeySnapshot,
    Limits,
    ModelSnapshot,
    TenantTerms,
    TenantWho,
    TierSnapshot,
    WorkspaceSnapshot,
)
from turnpike.kernel import keyspace

T = TypeVar("T")

UNLIMITED = Limits()

ROOT = Path(__file__).resolve().parents[2]
TENANT, WORKSPACE, KEY = 42, 7, 9
START_US = 1_795_257_000_000_000  # 2026-11-21T10:30:00Z
SECOND_US = 1_000_000
LEASE_MS = 30_000
TENANT_VERSION, GLOBAL_VERSION = 5, 9


class DirectPipe:
    """Runs scripts at once over a synchronous client."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    async def run_script(
        self,
        script: Script,
        keys: Sequence[Any],
        args: Sequence[Any],
        *,
        timeout_seconds: float | None = None,
    ) -> Any:
        """As RedisPipe.run_script, errors included."""
        try:
            return self._client.evalsha(script.sha, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            return self._client.eval(script.source, len(keys), *keys, *args)
        except redis.exceptions.ResponseError as error:
            raise RedisReplyError(str(error)) from error

    async def call(
        self, call: PreparedCall, name: str, args: Sequence[bytes], timeout_seconds: float
    ) -> Any:
        """As RedisPipe.call."""
        return await self.run_script(call.script, call.keys(name), args)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return cast(T, stop.value)
    raise AssertionError("it waited for something")


def spec_of(*, key: Any, who: Any, terms: Any, tier: Any, model: Any, **rest: Any) -> Spec:
    """What a key asks for with a model, as admission builds it from their snapshots."""
    plan = limits_of(key=key, who=who, terms=terms, tier=tier, model=model)
    return build_spec(plan=plan, **rest)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a test's tenant is allowed; scopes from wide to narrow."""

    tenant: Limits = UNLIMITED
    group: Limits = UNLIMITED
    workspace: Limits = UNLIMITED
    key: Limits = UNLIMITED
    tenant_budgets: tuple[Budget, ...] = ()
    key_budgets: tuple[Budget, ...] = ()
    output_reserve_max: int | None = 4_096


@dataclass(kw_only=True)
class World:
    """One tenant: publishes for it, asks for it, reads what Redis has of it."""

    client: redis.Redis
    now_us: int = START_US
    asked: Asked = field(default_factory=Asked)
    _count: int = 0

    def __post_init__(self) -> None:
        self.limiter = Limiter(cast(RedisPipe, DirectPipe(self.client)), now_us=lambda: self.now_us)
        self.keys = self.spec().plan.keys

    def open_up(self, *, posted_micro: int = 10**12, version: int = 1) -> None:
        """Publish policy, wallet and budgets."""
        self.client.hset(
            self.keys.policy,
            mapping={"*": GLOBAL_VERSION, str(TENANT): TENANT_VERSION, "epoch": 1},
        )
        self.publish(posted_micro=posted_micro, version=version)

    def publish(
        self,
        *,
        posted_micro: int,
        version: int,
        limit_micro: int = 0,
        spent: Mapping[str, int] | None = None,
        ranks: Mapping[str, int] | None = None,
    ) -> int:
        """Run the control plane's own script for this tenant."""
        ranks = ranks or {}
        names = self.keys
        keys = [names.wallet, names.budgets, names.unposted, names.open]
        keys += [names.record_prefix + rid for rid in ranks]
        amounts = ",".join(f'"{name}":{micros}' for name, micros in (spent or {}).items())
        args: list[int | str] = [posted_micro, version, limit_micro, TENANT, "{" + amounts + "}"]
        args += ranks.values()
        return cast(int, self.client.eval(publish_source(), len(keys), *keys, *args))

    def new_rid(self) -> str:
        """A request id that no other request of this world has."""
        self._count += 1
        return str(UUID(int=(0x7000 << 64) | (0x8 << 60) | self._count))

    def spec(
        self,
        *,
        rid: str | None = None,
        input_estimate: int = 100,
        max_tokens: int = 100,
        hold_micro: int = 1_000,
        asked: Asked | None = None,
        **changes: Any,
    ) -> Spec:
        """A spec of this world's tenant."""
        asked = asked or self.asked
        tier = TierSnapshot(
            tier="test",
            name="Test",
            limits=asked.tenant,
            group_limits={"opus": asked.group},
            output_reserve_max=asked.output_reserve_max,
        )
        workspace = WorkspaceSnapshot(workspace_id="wrkspc_1", limits=asked.workspace)
        arguments: dict[str, Any] = {
            "rid": rid or self.new_rid(),
            "key": KeySnapshot(
                key=KEY,
                key_id="apikey_1",
                tenant=TENANT,
                workspace=WORKSPACE,
                limits=asked.key,
                budgets=asked.key_budgets,
            ),
            "who": TenantWho(
                tenant_id="ten_1",
                workspaces={str(WORKSPACE): workspace},
                budgets=asked.tenant_budgets,
            ),
            "terms": TenantTerms(tier="test", book=1),
            "tier": tier,
            "model": ModelSnapshot(model="opus-5", display_name="Opus 5", limit_group="opus"),
            "input_estimate": input_estimate,
            "max_tokens": max_tokens,
            "hold_micro": hold_micro,
            "base": b'{"model":"opus-5"}',
            "tenant_version": TENANT_VERSION,
            "global_version": GLOBAL_VERSION,
            "lease_ms": LEASE_MS,
            "at_us": self.now_us,
        }
        return spec_of(**{**arguments, **changes})

    def admit(self, spec: Spec) -> Admission:
        """Ask for a request."""
        return run(self.limiter.admit(spec))

    def beat(
        self,
        spec: Spec,
        *,
        charges: Mapping[str, int] | None = None,
        hold_micro: int | None = None,
        progress: bytes | None = None,
    ) -> Beat:
        """Say that a request lives."""
        return run(
            self.limiter.beat(spec, charges=charges or {}, hold_micro=hold_micro, progress=progress)
        )

    def settle(
        self,
        spec: Spec,
        *,
        charges: Mapping[str, int] | None = None,
        hold_micro: int = 0,
        event: bytes = b"{}",
        rank: int = 3,
    ) -> Settled:
        """End a request."""
        if charges is None:
            charges = settle_charges(spec, input_tokens=10, output_tokens=10)
        return run(
            self.limiter.settle(
                spec, charges=charges, hold_micro=hold_micro, event=event, rank=rank
            )
        )

    def tat(self, bucket: str) -> int:
        """The theoretical arrival time of a bucket; 0 where there is none."""
        return int(self.client.hget(self.keys.buckets, bucket) or 0)

    def held(self) -> int:
        """The micros that the wallet holds back."""
        return int(self.client.hget(self.keys.wallet, "held") or 0)

    def record(self, spec: Spec) -> dict[str, str]:
        """A request's record as text."""
        stored: dict[bytes, bytes] = cast(
            Any, self.client.hgetall(self.keys.record_prefix + spec.rid)
        )
        return {name.decode(): value.decode() for name, value in stored.items()}

    def events(self) -> list[bytes]:
        """The events in the stream, oldest first."""
        entries: list[tuple[bytes, dict[bytes, bytes]]] = cast(
            Any, self.client.xrange(self.keys.stream)
        )
        return [fields[b"e"] for _, fields in entries]

    def members(self, index: str) -> set[str]:
        """The members of one of the shard's indexes or of a slot."""
        return {cast(bytes, name).decode() for name in self.client.zrange(index, 0, -1)}

    def everything(self) -> dict[bytes, Any]:
        """All keys of the database with what they hold, to compare before and after."""
        names = cast(list[bytes], sorted(self.client.scan_iter("*")))
        pipeline = self.client.pipeline(transaction=False)
        for name in names:
            if name == self.keys.stream.encode():
                pipeline.xrange(name)
            elif b":c:" in name or name.endswith((b":open", b":unposted")):
                pipeline.zrange(name, 0, -1, withscores=True)
            else:
                pipeline.hgetall(name)
        held = [dict(value) for value in pipeline.execute()]
        return dict(zip(names, held, strict=True))


MakeWorld = Callable[..., World]

BASIC = Asked(tenant=Limits(requests_per_minute=50, tokens_per_minute=100_000, concurrency=10))


def published_world(
    client: redis.Redis, asked: Asked = BASIC, *, posted_micro: int = 10**12
) -> World:
    """The tenant in an emptied Redis, with everything published that admission needs."""
    client.flushdb()
    world = World(client=client, asked=asked)
    world.open_up(posted_micro=posted_micro)
    return world


@cache
def publish_source() -> str:
    """The control plane's script, read as a file: its package needs Django."""
    return (ROOT / "platform/turnpike/control/lua/publish.lua").read_text()


def tenant_keys_free(client: redis.Redis) -> bool:
    """Whether nothing of the test's tenant is open, unposted or in a slot."""
    shard = keyspace.shard_of(TENANT)
    names = [keyspace.open_requests(shard), keyspace.unposted(shard)]
    slots = cast(list[bytes], client.keys(f"{keyspace.tag(shard)}:c:{TENANT}:*"))
    names += [name.decode() for name in slots]
    return not any(client.exists(name) for name in names)
