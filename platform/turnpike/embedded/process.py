"""A child process that cannot outlive us: a session of its own, ended with its whole group."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from turnpike.embedded.places import ServerUser
from turnpike.kernel import clock

PR_SET_PDEATHSIG = 1
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to start a child, and how to ask it to stop."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    user: ServerUser | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = 10.0


def spawn(recipe: Recipe, *, output: int | IO[bytes]) -> "subprocess.Popen[bytes]":
    """Start a child without stdin in a session of its own; a Ctrl-C in our terminal misses it.

    When we die, however hard, the kernel sends it its stop signal. Call this from the main thread:
    the kernel watches the thread that made the child.
    """
    become = recipe.user.popen_arguments() if recipe.user else {}
    return subprocess.Popen(  # noqa: S603 -- commands of ours
        list(recipe.command),
        env=dict(recipe.environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_die_with_parent(recipe.stop_signal),
        **become,
    )


def stop(process: "subprocess.Popen[bytes]", recipe: Recipe) -> None:
    """Ask the leader to stop, wait out its grace, then kill its group."""
    if process.poll() is None:
        process.send_signal(recipe.stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(recipe.grace_seconds)
    kill_group(process)


def kill_group(process: "subprocess.Popen[bytes]") -> None:
    """Kill what is left of a child's group and reap the leader."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until(condition: Callable[[], bool], *, seconds_max: float) -> bool:
    """Poll until the condition holds; False when the time is over."""

    deadline = clock.monotonic_seconds() + seconds_max
    while not condition():
        if clock.monotonic_seconds() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def started_at_ticks(pid: int) -> str | None:
    """When a process began, in clock ticks since boot; with the pid its identity. None: gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    is_dead = fields[0] in {"Z", "X"}
    return None if is_dead else fields[19]


def _die_with_parent(stop_signal: signal.Signals) -> Callable[[], None] | None:
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (AttributeError, OSError):
        return None  # not Linux: the next start ends what is left over
    parent = os.getpid()

    def die_with_parent() -> None:
        prctl(PR_SET_PDEATHSIG, int(stop_signal), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return die_with_parent
