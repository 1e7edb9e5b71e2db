"""Ports for servers of the tests, which nobody else takes between asking and listening."""

import os
import random
import socket
from collections.abc import Iterator
from itertools import islice

# Below those that kernels lend to outgoing connections; and each of xdist's workers has its own,
# none of which it gives twice in a row.
FIRST_PORT, PORTS_PER_WORKER, WORKERS = 12_000, 2_000, 10


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, now and until it is used."""
    for port in islice(_PORTS, PORTS_PER_WORKER):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise RuntimeError(f"None of {PORTS_PER_WORKER} ports is free.")


def _ports() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = FIRST_PORT + worker % WORKERS * PORTS_PER_WORKER
    at = random.randrange(PORTS_PER_WORKER)  # another run may be under way on this machine
    while True:
        at = (at + 1) % PORTS_PER_WORKER
        yield first + at


_PORTS = _ports()
