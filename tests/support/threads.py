"""at_once: the same work by many threads, each with a connection to the database of its own."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.db import connection

Given = TypeVar("Given")
SECONDS_MAX = 300


def at_once(
    work: Callable[[Given], Any], given: Iterable[Given], *, seconds_max: float = SECONDS_MAX
) -> list[Any]:
    """What the work returned for each of these, begun together. Raises the first one's error."""
    parts = list(given)
    start = threading.Barrier(len(parts))

    def run(part: Given) -> Any:
        start.wait(seconds_max)
        try:
            return work(part)
        finally:
            connection.close()

    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(run, parts, timeout=seconds_max))
