"""`manage.py ingest`: the ingest as a process of its own."""

import logging
import signal
import threading
from argparse import ArgumentParser
from typing import Any

import redis
from django.core.management.base import BaseCommand
from django.db import InterfaceError, OperationalError, connection

from billing.ingest.consumer import Consumer, consumer_name
from turnpike.control.redis import redis_client
from turnpike.kernel import clock

logger = logging.getLogger(__name__)

IDLE_SECONDS = 0.2
RETRY_SECONDS = 1.0
TURN_SECONDS = 25.0


class Command(BaseCommand):
    """Posts usage events until it is told to stop; several may run at once."""

    help = "Post usage events from Redis to PostgreSQL. Ends after its batch on SIGTERM or Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The command line."""
        parser.add_argument(
            "--once", action="store_true", help="end as soon as the streams are empty"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run until stopped."""
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        consumer = Consumer(redis_client(), name=consumer_name())
        while not stop.is_set():
            handled = _drain(consumer, stop)
            if handled is None:
                stop.wait(RETRY_SECONDS)
            elif handled == 0:
                if options["once"]:
                    break
                stop.wait(IDLE_SECONDS)


def _drain(consumer: Consumer, stop: threading.Event) -> int | None:
    """How many entries were handled; None where a server is away."""
    try:
        return consumer.drain(
            until_seconds=clock.monotonic_seconds() + TURN_SECONDS,
            keep_on=lambda: not stop.is_set(),
        )
    except (OperationalError, InterfaceError, redis.RedisError):
        # What was in hand is read again; a broken connection must not be used again.
        logger.warning("ingest.interrupted", exc_info=True)
        connection.close()
        return None
