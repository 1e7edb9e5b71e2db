"""Runs the platform's processes: starts them in order, restarts the fallen, stops them in reverse.

One thread and one selector. Only the leader of each child is signalled; Celery and gunicorn look
after their own children, and a group is killed only when its leader has ended or run out of grace.
"""

import os
import selectors
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from turnpike.embedded import process
from turnpike.embedded.engines import EngineProblem
from turnpike.embedded.output import Lines, Output
from turnpike.embedded.process import Recipe
from turnpike.embedded.state import StateDir
from turnpike.kernel import clock

TICK_SECONDS = 0.05
IDLE_SECONDS = 0.5
RESTART_SECONDS_FIRST = 0.5
RESTART_SECONDS_MAX = 15.0
DEATHS_MAX = 5
DEATHS_WINDOW_SECONDS = 60.0
READ_BYTES = 65_536
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A child that is to run all the time."""

    recipe: Recipe
    is_ready: Callable[[], bool] | None = None
    ready_seconds_max: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A child that has to end well before the next stage starts."""

    recipe: Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A short piece of work of our own."""

    name: str
    run: Callable[[], None]


Step = Service | Task | Action
Stage = Sequence[Step]  # started together; the next stage waits until all are ready or done


class StopAsked(Exception):
    """A signal asked the supervisor to stop while it was starting."""


@dataclass(slots=True)
class _Child:
    service: Service | Task
    popen: "subprocess.Popen[bytes]"
    deaths: deque[float] = field(default_factory=deque)
    restart_at: float | None = None

    @property
    def name(self) -> str:
        return self.service.recipe.name


class Supervisor:
    """Runs stages of steps until a signal comes or a child cannot be kept alive."""

    def __init__(
        self,
        *,
        state: StateDir,
        output: Output,
        restart_seconds_first: float = RESTART_SECONDS_FIRST,
    ) -> None:
        self._state = state
        self._restart_seconds_first = restart_seconds_first
        self._output = output
        self._selector = selectors.DefaultSelector()
        self._children: list[_Child] = []
        self._stops_asked = 0

    def run(self, stages: Sequence[Stage], *, on_ready: Callable[[], None]) -> None:
        """Start everything, call `on_ready`, keep it running; return after a stop was asked for.

        Raises EngineProblem when something cannot be started or kept alive; all children are
        stopped then too.
        """
        with self._signals():
            try:
                for stage in stages:
                    self._start(stage)
                on_ready()
                self._watch()
            except StopAsked:
                pass
            finally:
                self._stop_all()

    # --- start ---

    def _start(self, stage: Stage) -> None:
        waiting: list[tuple[_Child, float]] = []
        for step in stage:
            if isinstance(step, Action):
                step.run()
                continue
            seconds = step.ready_seconds_max if isinstance(step, Service) else 600.0
            child = _Child(service=step, popen=self._spawn(step))
            self._children.append(child)
            waiting.append((child, clock.monotonic_seconds() + seconds))
        while waiting:
            self._pump(TICK_SECONDS)
            if self._stops_asked:
                raise StopAsked
            waiting = [entry for entry in waiting if not self._is_up(*entry)]

    def _is_up(self, child: _Child, deadline: float) -> bool:
        if isinstance(child.service, Service) and child.service.is_ready is None:
            return True
        name, ended = child.name, child.popen.poll()
        if isinstance(child.service, Task) and ended == 0:
            self._forget(child)
            return True
        if ended is not None:
            self._drain()
            raise EngineProblem(f"{name} ended with code {ended} while it was starting.")
        if clock.monotonic_seconds() > deadline:
            raise EngineProblem(f"{name} did not become ready in time.")
        ready = child.service.is_ready if isinstance(child.service, Service) else None
        return ready is not None and ready()

    def _spawn(self, service: Service | Task) -> "subprocess.Popen[bytes]":
        recipe = service.recipe
        popen = process.spawn(recipe, output=subprocess.PIPE)
        assert popen.stdout is not None
        os.set_blocking(popen.stdout.fileno(), False)
        self._selector.register(popen.stdout, selectors.EVENT_READ, (recipe.name, Lines()))
        self._state.note_process(recipe.name, popen.pid, recipe.stop_signal)
        return popen

    # --- run ---

    def _watch(self) -> None:
        while not self._stops_asked:
            is_waiting = any(child.restart_at is not None for child in self._children)
            self._pump(TICK_SECONDS if is_waiting else IDLE_SECONDS)
            for child in self._children:
                if child.restart_at is not None:
                    self._restart_if_due(child)
                elif child.popen.poll() is not None:
                    self._note_death(child)

    def _note_death(self, child: _Child) -> None:
        code, now = child.popen.returncode, clock.monotonic_seconds()
        # What the leader left behind would hold its port or its socket.
        process.kill_group(child.popen)
        child.deaths.append(now)
        while child.deaths[0] < now - DEATHS_WINDOW_SECONDS:
            child.deaths.popleft()
        if len(child.deaths) >= DEATHS_MAX:
            self._drain()
            raise EngineProblem(f"{child.name} died {DEATHS_MAX} times in a minute; giving up.")
        delay = self._restart_seconds_first * 2 ** (len(child.deaths) - 1)
        child.restart_at = now + min(delay, RESTART_SECONDS_MAX)
        self._output.say(f"{child.name} ended with code {code}; it starts again in {delay:g} s.")

    def _restart_if_due(self, child: _Child) -> None:
        assert child.restart_at is not None
        if clock.monotonic_seconds() >= child.restart_at:
            child.restart_at = None
            child.popen = self._spawn(child.service)

    # --- stop ---

    def _stop_all(self) -> None:
        if self._stops_asked:
            self._output.say("Stopping. Press Ctrl-C again to kill.")
        for child in reversed(self._children):
            self._stop(child)
        self._children.clear()
        self._drain()
        for key in [key for key in self._selector.get_map().values() if key.data is not None]:
            self._close(key)
        self._selector.close()

    def _stop(self, child: _Child) -> None:
        recipe = child.service.recipe
        if child.popen.poll() is None and not self._is_hurried:
            child.popen.send_signal(recipe.stop_signal)
            deadline = clock.monotonic_seconds() + recipe.grace_seconds
            while child.popen.poll() is None and not self._is_hurried:
                if clock.monotonic_seconds() > deadline:
                    self._output.say(f"{child.name} did not stop in {recipe.grace_seconds:g} s.")
                    break
                self._pump(TICK_SECONDS)
        process.kill_group(child.popen)
        self._state.forget_process(child.name)

    @property
    def _is_hurried(self) -> bool:
        return self._stops_asked > 1

    def _forget(self, child: _Child) -> None:
        self._children.remove(child)
        self._state.forget_process(child.name)

    # --- signals and output ---

    @contextmanager
    def _signals(self) -> Iterator[None]:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        os.set_blocking(reader, False)
        self._selector.register(reader, selectors.EVENT_READ, None)
        before = {number: signal.signal(number, self._note_signal) for number in STOP_SIGNALS}
        wakeup_before = signal.set_wakeup_fd(writer)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(reader)
            os.close(writer)

    def _note_signal(self, number: int, _frame: FrameType | None) -> None:
        # A terminal that closes may hang up more than once; only a person is in a hurry.
        if number == signal.SIGHUP and self._stops_asked:
            return
        # Nothing is said here: the signal may have come in the middle of a write.
        self._stops_asked += 1

    def _pump(self, timeout_seconds: float) -> bool:
        """Relay what the children wrote; False when nothing came."""
        ready = self._selector.select(timeout_seconds)
        for key, _events in ready:
            data = _read(key.fd)
            if key.data is None or data is None:
                continue
            name, lines = key.data
            for line in lines.feed(data) if data else [lines.rest()]:
                self._output.relay(name, line)
            if not data:
                self._close(key)
        return bool(ready)

    def _close(self, key: selectors.SelectorKey) -> None:
        self._selector.unregister(key.fileobj)
        key.fileobj.close()  # type: ignore[union-attr]  # the pipe that _spawn registered

    def _drain(self) -> None:
        while self._pump(0):
            pass


def _read(descriptor: int) -> bytes | None:
    try:
        return os.read(descriptor, READ_BYTES)
    except BlockingIOError:
        return None
