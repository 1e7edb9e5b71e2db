"""Starts and ends the processes of a run, and reads their CPU time from the operating system."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS_MAX = 20.0
STOP_SECONDS_MAX = 10.0
LOAD_SECONDS_MAX = 120
FIRST_PORT, PORTS, PORT_TRIES_MAX = 10_000, 2_000, 100


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below those that the kernel lends to outgoing connections.

    Raises RuntimeError where nearly all are taken.
    """
    ports: list[int] = []
    with ExitStack() as stack:
        for _ in range(PORT_TRIES_MAX):
            if len(ports) == count:
                return ports
            probe = stack.enter_context(socket.socket())
            with suppress(OSError):  # taken
                probe.bind(("127.0.0.1", FIRST_PORT + secrets.randbelow(PORTS)))
                ports.append(probe.getsockname()[1])
    raise RuntimeError(f"No {count} free ports from {FIRST_PORT} on.")


@contextmanager
def running(
    command: list[str],
    *,
    environment: Mapping[str, str] | None = None,
    is_ready: Callable[[], bool],
    log: Path,
) -> Iterator[psutil.Process]:
    """A child process, from the moment it is ready until the block ends.

    Raises RuntimeError where it does not start, or ended before the block did: what was measured
    without it means nothing.
    """
    with log.open("wb") as output:
        child = subprocess.Popen(  # noqa: S603  # the commands are this package's own
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_until(is_ready, child, log)
            yield psutil.Process(child.pid)
            if child.poll() is not None:
                raise RuntimeError(f"{child.args!r} ended too early:\n{_tail_of(log)}")
        finally:
            child.terminate()
            try:
                child.wait(timeout=STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def listens_on(port: int) -> Callable[[], bool]:
    """A probe: does somebody accept connections there?"""

    def probe() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    return probe


def _wait_until(is_ready: Callable[[], bool], child: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while not is_ready():
        if child.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{child.args!r} did not start:\n{_tail_of(log)}")
        time.sleep(0.05)


def _tail_of(log: Path) -> str:
    return log.read_text()[-3_000:]


def cpu_us(process: psutil.Process) -> float:
    """Microseconds of CPU that a process and its children have used, user and system."""
    return sum(_own_cpu_us(member.pid) for member in [process, *process.children(recursive=True)])


def _own_cpu_us(pid: int) -> float:
    """From the scheduler where it tells nanoseconds, else from the coarser clock ticks."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1_000
    except (OSError, ValueError, IndexError):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system) * 1_000_000


def send_load(order: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out one load in a process of its own. Raises RuntimeError unless all came back 200."""
    done = subprocess.run(  # the command is this package's own
        [sys.executable, "-m", "bench.load"],
        cwd=ROOT,
        input=json.dumps(order) + "\n",
        capture_output=True,
        text=True,
        timeout=order["seconds_max"] + START_SECONDS_MAX,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"The load failed:\n{done.stderr[-3_000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    if result["statuses"] != {"200": order["requests"]}:
        asked = order["requests"]
        raise RuntimeError(f"Of {asked} answers: {result['statuses']}; {result['oddity']}")
    return result
