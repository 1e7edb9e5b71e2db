"""Run in a cluster's environment: the periodic tasks, at distances that suit a test.

What a killed ingest process had in hand is taken over after seconds instead of a minute.
"""

import logging
import signal
import threading
from collections.abc import Callable

import django

django.setup()

import redis  # noqa: E402
from django.db import Error, connection  # noqa: E402

from billing.ingest.consumer import Consumer  # noqa: E402
from billing.services.publication import check_cold  # noqa: E402
from billing.services.upkeep import refresh_wallets, sweep_unposted  # noqa: E402
from turnpike.control.redis import redis_client  # noqa: E402
from turnpike.kernel import clock  # noqa: E402

CLAIM_IDLE_MS = 3_000
SWEEP_AFTER_MS = 5_000
ROUND_SECONDS = 2.0

logger = logging.getLogger(__name__)


def drain_abandoned(consumer: Consumer) -> int:
    """Post what dead consumers left behind."""
    return consumer.drain(until_seconds=clock.monotonic_seconds() + ROUND_SECONDS)


def main() -> None:
    """Run all tasks every two seconds until told to stop; a server that is away is no reason."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    consumer = Consumer(redis_client(), name="control", claim_idle_ms=CLAIM_IDLE_MS)
    tasks: tuple[Callable[[], object], ...] = (
        check_cold,
        refresh_wallets,
        lambda: sweep_unposted(after_ms=SWEEP_AFTER_MS),
        lambda: drain_abandoned(consumer),
    )
    while not stop.is_set():
        for task in tasks:
            try:
                task()
            except (redis.RedisError, Error):
                logger.warning("control.interrupted", exc_info=True)
                connection.close()
        stop.wait(ROUND_SECONDS)


if __name__ == "__main__":
    main()
