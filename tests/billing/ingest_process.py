"""A real ingest process that is killed where it is told: ``python ingest_process.py POINT``.

Without a point it works until the streams are empty. Takes over at once what others left.
"""

import os
import signal
import sys
import time

import django

django.setup()

from billing.ingest.consumer import Consumer, consumer_name  # noqa: E402
from turnpike.control.redis import redis_client  # noqa: E402

DEADLINE_SECONDS = 60.0


def main() -> None:
    """Run until killed or done."""
    point = sys.argv[1] if len(sys.argv) > 1 else ""

    def mark(reached: str) -> None:
        if reached == point:
            os.kill(os.getpid(), signal.SIGKILL)

    consumer = Consumer(redis_client(), name=consumer_name(), claim_idle_ms=0, mark=mark)
    consumer.drain(until_seconds=time.monotonic() + DEADLINE_SECONDS)


if __name__ == "__main__":
    main()
