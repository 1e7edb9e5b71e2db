"""The control plane's connection to Redis, and its scripts.

A service publishes through here in the call that changed something. What cannot be published now is
repaired by the periodic full publication. A cluster's client takes the place of a server's: it has
the same methods, and `redis.RedisError` is all that callers need to know of its troubles.
"""

from collections.abc import Callable
from functools import cache, wraps
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeVar, cast

import redis
from django.conf import settings
from redis.backoff import ConstantBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisClusterException
from redis.retry import Retry

from turnpike.kernel.cluster_url import is_cluster_url, parse_cluster_url

if TYPE_CHECKING:
    from redis.commands.core import Script

TIMEOUT_SECONDS = 2.0
# One more try at once for a connection that broke while it was idle; a caller waits for an answer.
RETRIES = 1
RETRY_AFTER_SECONDS = 0.05

Call = TypeVar("Call", bound=Callable[..., Any])


@cache
def redis_client() -> "redis.Redis":
    """One client for the process; it pools its connections and is safe in threads."""
    if is_cluster_url(settings.REDIS_URL):
        return make_cluster_client(settings.REDIS_URL)
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        health_check_interval=15,
        retry=_retry(),
    )


def make_cluster_client(url: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> "redis.Redis":
    """A client of the cluster that a URL names. Raises redis.ConnectionError where it is away."""
    parsed = parse_cluster_url(url)
    options: dict[str, Any] = {"ssl": True, "ssl_ca_certs": parsed.ca_file} if parsed.is_tls else {}
    client = _as_away(_ClusterClient)(
        startup_nodes=[ClusterNode(host, port) for host, port in parsed.seeds],
        username=parsed.username,
        password=parsed.password,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        health_check_interval=15,
        # Each refusal teaches it the whole map: a failover moves many slots at once.
        reinitialize_steps=1,
        retry=_retry(),
        **options,
    )
    return cast("redis.Redis", client)


@cache
def script(name: str) -> "Script":
    """A script of the control plane by file name, for example ``publish``; called by hash."""
    source = resources.files("turnpike.control").joinpath("lua", f"{name}.lua").read_text()
    return redis_client().register_script(source)


def time_at(key: str) -> tuple[int, int]:
    """The clock of the server that has a key: seconds and microseconds."""
    client: Any = redis_client()
    if isinstance(client, RedisCluster):
        client = client.get_redis_connection(client.get_node_from_key(key))
    seconds, microseconds = client.time()
    return int(seconds), int(microseconds)


def servers() -> "list[redis.Redis]":
    """A client of each server that holds data: the one, or a cluster's primaries."""
    client: Any = redis_client()
    if isinstance(client, RedisCluster):
        return [client.get_redis_connection(node) for node in client.get_primaries()]
    return [client]


def text_of(value: Any) -> str:
    """A reply of Redis as text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _retry() -> Retry:
    return Retry(ConstantBackoff(RETRY_AFTER_SECONDS), RETRIES)


def _as_away(call: Call) -> Call:
    """What a cluster's client says when no node can be reached is no `redis.RedisError`."""

    @wraps(call)
    def translated(*args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except RedisClusterException as error:
            raise redis.ConnectionError(str(error)) from error

    return cast("Call", translated)


class _ClusterClient(RedisCluster):
    """A cluster's client that fails as a server's does."""

    @_as_away
    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        cluster: Any = super()
        return cluster.execute_command(*args, **kwargs)

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> Any:
        cluster: Any = super()
        made = cluster.pipeline(transaction, shard_hint)
        made.execute = _as_away(made.execute)
        return made
