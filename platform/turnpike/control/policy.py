"""Policy versions and epochs in Redis: what every admission compares its snapshots with.

Values are published first and their version last, so whoever reads a version finds values at least
as new. A shard without a global version is cold: it admits nobody.
"""

from dataclasses import dataclass

from turnpike.control.redis import redis_client, script, text_of, time_at
from turnpike.kernel import keyspace

EPOCH = "epoch"
OPENS_AT = "opens_at_ms"
FENCE_MS = 15_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPolicy:
    """What a shard says of itself; a version of None means that it is cold."""

    version: int | None
    epoch: int
    opens_at_ms: int
    now_ms: int

    @property
    def is_open(self) -> bool:
        """Whether the shard admits requests."""
        return self.version is not None and self.now_ms >= self.opens_at_ms


def raise_tenant_version(tenant: int, version: int) -> bool:
    """Make a tenant's version known; False where a version as new was known already."""
    return _raise(keyspace.shard_of(tenant), str(tenant), version) == 1


def raise_global_version(version: int) -> int:
    """Make the global version known to every shard that is not cold; how many had an older one.

    A cold shard stays cold: only `open_shard`, after a full publication, may open it.
    """
    return sum(
        _raise(shard, keyspace.GLOBAL_VERSION, version)
        for shard in range(keyspace.SHARDS)
        if read_policy(shard).version is not None
    )


def open_shard(shard: int, *, version: int, epoch: int, fence_ms: int) -> None:
    """End a full publication: the shard admits again, after the fence if the epoch is new."""
    _raise(shard, keyspace.GLOBAL_VERSION, version, epoch=epoch, fence_ms=fence_ms)


def read_policy(shard: int) -> ShardPolicy:
    """A shard's version, epoch and opening time, beside the server's clock."""
    name = keyspace.policy(shard)
    values = redis_client().hmget(name, [keyspace.GLOBAL_VERSION, EPOCH, OPENS_AT])
    version, epoch, opens_at = (None if value is None else int(text_of(value)) for value in values)
    seconds, microseconds = time_at(name)
    return ShardPolicy(
        version=version,
        epoch=epoch or 0,
        opens_at_ms=opens_at or 0,
        now_ms=seconds * 1_000 + microseconds // 1_000,
    )


def _raise(
    shard: int, name: str, version: int, *, epoch: int | None = None, fence_ms: int = 0
) -> int:
    arguments = ["" if epoch is None else epoch, fence_ms, name, version]
    return int(script("policy")(keys=[keyspace.policy(shard)], args=arguments))
