"""The control plane's connection to Redis, and its scripts.

A service publishes through here in the call that changed something. What cannot be published now is
repaired by the periodic full publication.
"""

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import redis
from django.conf import settings
from redis.backoff import ConstantBackoff
from redis.retry import Retry

if TYPE_CHECKING:
    from redis.commands.core import Script

TIMEOUT_SECONDS = 2.0
# One more try at once for a connection that broke while it was idle; a caller waits for an answer.
RETRIES = 1
RETRY_AFTER_SECONDS = 0.05


@cache
def redis_client() -> "redis.Redis":
    """One client for the process; it pools its connections and is safe in threads."""
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        health_check_interval=15,
        retry=Retry(ConstantBackoff(RETRY_AFTER_SECONDS), RETRIES),
    )


@cache
def script(name: str) -> "Script":
    """A script of the control plane by file name, for example ``publish``; called by hash."""
    source = resources.files("turnpike.control").joinpath("lua", f"{name}.lua").read_text()
    return redis_client().register_script(source)


def text_of(value: Any) -> str:
    """A reply of Redis as text."""
    return value.decode() if isinstance(value, bytes) else str(value)
