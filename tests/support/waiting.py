"""Waiting for what the platform does by itself."""

import time
from collections.abc import Callable

WAIT_SECONDS = 20
POLL_SECONDS = 0.1


def wait_until(condition: Callable[[], bool]) -> None:
    """Ask again and again, for some seconds at most."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "It did not happen in time."
        time.sleep(POLL_SECONDS)
