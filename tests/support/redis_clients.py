"""Clients of whatever Redis the tests run on: a server's, or a cluster's."""

import redis

from turnpike.control.redis import make_cluster_client
from turnpike.kernel.cluster_url import is_cluster_url


def connect(url: str, *, seconds: float = 5.0) -> redis.Redis:
    """A client that looks from outside; `seconds` is how long it waits for an answer."""
    if is_cluster_url(url):
        return make_cluster_client(url, timeout_seconds=seconds)
    return redis.Redis.from_url(url, socket_timeout=seconds)
