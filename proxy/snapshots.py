"""Reads snapshots from Redis, with a local cache by version.

A reader takes the version first and the values after it, so values are never older than the version
that admission compares. What is cached ends after half a minute even so; while Redis is away a
cached view may serve the fallback for a minute, never longer.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from proxy.redis_link import RedisLink
from proxy.redis_pipe import RedisAway
from turnpike.contracts.naming import canonical_name, index_names
from turnpike.contracts.snapshots import (
    PLANE_DEFAULTS,
    PLANE_FIELDS,
    KeySnapshot,
    ModelSnapshot,
    PlaneSnapshot,
    PriceSet,
    TenantTerms,
    TenantWho,
    TierSnapshot,
)
from turnpike.kernel import clock, codec, keyspace

CACHE_SECONDS = 30.0
STALE_SECONDS = 60.0
VIEWS_MAX = 50_000
OPENS_RETRY_SECONDS = 2
FOREVER_US = 2**63


class PlaneCold(Exception):
    """No full snapshot is published, or the fence after a loss of data still stands."""


class KeyUnknown(Exception):
    """Redis is warm and has no such key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """The plane's snapshot with its version and the look-ups that requests need."""

    snapshot: PlaneSnapshot
    version: int
    aliases: dict[str, str]
    sets_by_book: dict[int, list[PriceSet]]
    sets_by_number: dict[int, PriceSet]

    def find_model(self, name: str) -> ModelSnapshot | None:
        """The model behind an id, an alias, a dotted or prefixed form of either; or None."""
        found = canonical_name(self.aliases, name)
        return None if found is None else self.snapshot.models.get(found)

    def find_price_set(self, *, book: int, at_us: int) -> PriceSet | None:
        """The prices in force in a book at an instant, or None."""
        for price_set in self.sets_by_book.get(book, ()):
            if price_set.from_us <= at_us and (
                price_set.until_us is None or at_us < price_set.until_us
            ):
                return price_set
        return None

    def price_span(self, *, book: int, at_us: int) -> tuple[int, int]:
        """The time around an instant in which the answer of `find_price_set` is the same."""
        price_sets = self.sets_by_book.get(book, ())
        edges = [price_set.from_us for price_set in price_sets]
        edges += [item.until_us for item in price_sets if item.until_us is not None]
        return (
            max((edge for edge in edges if edge <= at_us), default=at_us),
            min((edge for edge in edges if edge > at_us), default=FOREVER_US),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything admission needs to know about one key, read at one version."""

    digest: str
    key: KeySnapshot
    who: TenantWho
    terms: TenantTerms
    tier: TierSnapshot
    plane: Plane
    tenant_version: int
    read_at: float = field(compare=False)
    expires_at: float = field(compare=False)


class SnapshotStore:
    """The worker's cache of views. All methods may raise RedisAway, PlaneCold or KeyUnknown."""

    def __init__(
        self, pipe: RedisLink, *, monotonic: Callable[[], float] = clock.monotonic_seconds
    ) -> None:
        self._pipe = pipe
        self._monotonic = monotonic
        self._views: dict[str, View] = {}
        self._plane: Plane | None = None

    @property
    def plane(self) -> Plane | None:
        """The newest plane that was read, if any."""
        return self._plane

    def cached(self, digest: str) -> View | None:
        """The cached view of a key while it is fresh and of the current plane."""
        view = self._views.get(digest)
        if view is None or view.plane is not self._plane or self._monotonic() >= view.expires_at:
            return None
        return view

    def stale(self, digest: str) -> View | None:
        """A view that may serve the fallback while Redis is away: read within the last minute."""
        view = self._views.get(digest)
        if view is None or self._monotonic() - view.read_at > STALE_SECONDS:
            return None
        return view

    async def read(self, digest: str) -> View:
        """Read a key's view afresh and cache it."""
        key = await self._read_key(digest)
        shard = keyspace.shard_of(key.tenant)
        policy, raw_key, raw_tenant = await self._pipe.execute_in_order(
            [
                (
                    "HMGET",
                    keyspace.policy(shard),
                    keyspace.GLOBAL_VERSION,
                    str(key.tenant),
                    "opens_at_ms",
                ),
                ("GET", keyspace.key_snapshot(digest)),
                ("HMGET", keyspace.tenant_snapshot(key.tenant), "who", "terms"),
            ]
        )
        versions = _replies(policy)
        tenant = _replies(raw_tenant)
        if raw_key is None:
            # Revoked, or lost together with everything else: then nobody may call it unknown.
            self.forget(digest)
            await self._refuse_unknown()
        if versions[0] is None or versions[1] is None or tenant[0] is None or tenant[1] is None:
            await self.mark_cold(key.tenant)
            raise PlaneCold
        if versions[2] is not None and clock.now_ms() < int(versions[2]):
            raise PlaneCold
        plane = await self._plane_at(int(versions[0]))
        terms = codec.from_json(TenantTerms, tenant[1])
        now = self._monotonic()
        view = View(
            digest=digest,
            key=codec.from_json(KeySnapshot, raw_key),
            who=codec.from_json(TenantWho, tenant[0]),
            terms=terms,
            tier=plane.snapshot.tiers[terms.tier],
            plane=plane,
            tenant_version=int(versions[1]),
            read_at=now,
            # Jitter, so that the workers of a fleet do not all read in the same instant.
            expires_at=now + CACHE_SECONDS * random.uniform(0.8, 1.0),  # noqa: S311
        )
        self._remember(view)
        return view

    async def versions(self, tenant: int) -> tuple[int, int]:
        """The tenant's and the plane's version now: for what needs no admission."""
        shard = keyspace.shard_of(tenant)
        reply = _replies(
            await self._pipe.execute(
                "HMGET", keyspace.policy(shard), keyspace.GLOBAL_VERSION, str(tenant)
            )
        )
        if reply[0] is None or reply[1] is None:
            raise PlaneCold
        return int(reply[1]), int(reply[0])

    async def read_plane(self) -> Plane:
        """The plane at its current version, whatever the tenant: for recovery and readiness."""
        version = await self._pipe.execute("HGET", keyspace.policy(0), keyspace.GLOBAL_VERSION)
        if version is None:
            raise PlaneCold
        return await self._plane_at(int(version))

    async def mark_cold(self, tenant: int) -> None:
        """Ask the control plane to publish a tenant whose wallet or terms are missing."""
        shard = keyspace.shard_of(tenant)
        await self._pipe.execute("SADD", keyspace.cold_tenants(shard), str(tenant))

    def forget(self, digest: str) -> None:
        """Drop a key's view, so that the next request reads it afresh."""
        self._views.pop(digest, None)

    async def _read_key(self, digest: str) -> KeySnapshot:
        known = self._views.get(digest)
        if known is not None:
            return known.key
        raw = await self._pipe.execute("GET", keyspace.key_snapshot(digest))
        if raw is None:
            await self._refuse_unknown()
        return codec.from_json(KeySnapshot, raw)

    async def _refuse_unknown(self) -> NoReturn:
        """An absent key means something only while every shard is warm."""
        replies = await self._pipe.execute_many(
            [
                ("HMGET", keyspace.policy(shard), keyspace.GLOBAL_VERSION)
                for shard in range(keyspace.SHARDS)
            ]
        )
        if any(_replies(reply)[0] is None for reply in replies):
            raise PlaneCold
        raise KeyUnknown

    async def _plane_at(self, version: int) -> Plane:
        if self._plane is not None and self._plane.version == version:
            return self._plane
        fields = tuple(PLANE_FIELDS)
        raw = _replies(await self._pipe.execute("HMGET", keyspace.PLANE, *fields))
        found = {name: value for name, value in zip(fields, raw, strict=True) if value is not None}
        if any(name not in found and name not in PLANE_DEFAULTS for name in fields):
            raise PlaneCold
        values = {
            **PLANE_DEFAULTS,
            **{name: codec.from_json(PLANE_FIELDS[name], value) for name, value in found.items()},
        }
        self._plane = index_plane(PlaneSnapshot(**values), version=version)
        return self._plane

    def _remember(self, view: View) -> None:
        if len(self._views) >= VIEWS_MAX:
            # Oldest first: dictionaries keep the order of insertion.
            self._views.pop(next(iter(self._views)))
        self._views.pop(view.digest, None)
        self._views[view.digest] = view


def index_plane(snapshot: PlaneSnapshot, *, version: int) -> Plane:
    """Build the look-ups of a plane."""
    books: dict[int, list[PriceSet]] = {}
    for price_set in snapshot.prices:
        books.setdefault(price_set.book, []).append(price_set)
    return Plane(
        snapshot=snapshot,
        version=version,
        aliases=index_names(snapshot.models.values()),
        sets_by_book=books,
        sets_by_number={price_set.price_set: price_set for price_set in snapshot.prices},
    )


def _replies(reply: Any) -> Sequence[Any]:
    """The reply of one command of many; an error in its place means that Redis is not itself."""
    if isinstance(reply, Exception):
        raise RedisAway(str(reply)) from reply
    assert isinstance(reply, list)
    return reply
