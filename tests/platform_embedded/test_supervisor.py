"""The supervisor with small children: order, restarts, giving up, and who gets which signal."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from turnpike.embedded import process
from turnpike.embedded.engines import EngineProblem
from turnpike.embedded.output import Output
from turnpike.embedded.process import Recipe
from turnpike.embedded.state import StateDir
from turnpike.embedded.supervisor import Service, Stage, Supervisor, Task

LIVE = 'trap "echo stop $0 >> log; exit 0" TERM; echo start $0 >> log; while :; do sleep 0.02; done'


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(path=tmp_path)


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def supervise(
    state: StateDir, output: io.StringIO
) -> Callable[[Sequence[Stage], Callable[[], None]], None]:
    def run(stages: Sequence[Stage], on_ready: Callable[[], None]) -> None:
        supervisor = Supervisor(state=state, output=Output(output), restart_seconds_first=0.01)
        supervisor.run(stages, on_ready=on_ready)

    return run


Supervise = Callable[[Sequence[Stage], Callable[[], None]], None]


def recipe(state: StateDir, name: str, script: str, *, grace_seconds: float = 5) -> Recipe:
    return Recipe(
        name=name,
        command=["/bin/sh", "-c", f"cd {state.path}; {script}", name],
        environment={"PATH": os.defpath},
        grace_seconds=grace_seconds,
    )


def live(state: StateDir, name: str) -> Service:
    def has_started() -> bool:
        return f"start {name}" in log_of(state)

    return Service(recipe=recipe(state, name, LIVE), is_ready=has_started)


def log_of(state: StateDir) -> list[str]:
    path = state.path / "log"
    return path.read_text().splitlines() if path.exists() else []


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_children_start_in_order_and_stop_in_reverse(state: StateDir, supervise: Supervise) -> None:
    task = Task(recipe=recipe(state, "migrate", "echo run migrate >> log"))

    supervise([(live(state, "a"),), (task,), (live(state, "b"),)], press_ctrl_c)

    assert log_of(state) == ["start a", "run migrate", "start b", "stop b", "stop a"]
    assert list(state.path.glob("*.pid")) == []


def test_what_children_write_comes_out_with_their_name(
    state: StateDir, supervise: Supervise, output: io.StringIO
) -> None:
    talker = Task(recipe=recipe(state, "talker", "echo one; echo two >&2; printf three"))

    supervise([(talker,), (live(state, "a"),)], press_ctrl_c)

    lines = [line for line in output.getvalue().splitlines() if line.startswith("talker")]
    assert lines == ["talker    | one", "talker    | two", "talker    | three"]


def test_a_fallen_child_starts_again(
    state: StateDir, supervise: Supervise, output: io.StringIO
) -> None:
    # Falls once; the second time it asks the supervisor to stop.
    script = "echo start fragile >> log; test -e fell && kill -INT $PPID && sleep 9; touch fell"
    fragile = Service(recipe=recipe(state, "fragile", f"{script}; exit 3"))

    supervise([(live(state, "a"),), (fragile,)], lambda: None)

    assert log_of(state) == ["start a", "start fragile", "start fragile", "stop a"]
    assert "fragile ended with code 3" in output.getvalue()


def test_a_child_that_dies_five_times_stops_everything(
    state: StateDir, supervise: Supervise
) -> None:
    hopeless = Service(recipe=recipe(state, "hopeless", "echo start hopeless >> log; exit 1"))

    with pytest.raises(EngineProblem, match="hopeless died 5 times in a minute"):
        supervise([(live(state, "a"),), (hopeless,)], lambda: None)

    assert log_of(state) == ["start a", *["start hopeless"] * 5, "stop a"]


def test_a_task_that_fails_stops_the_start(state: StateDir, supervise: Supervise) -> None:
    failing = Task(recipe=recipe(state, "migrate", "exit 7"))

    with pytest.raises(EngineProblem, match="migrate ended with code 7"):
        supervise([(live(state, "a"),), (failing,), (live(state, "b"),)], press_ctrl_c)

    assert log_of(state) == ["start a", "stop a"]


def test_a_child_that_will_not_stop_is_killed_with_its_group(
    state: StateDir, supervise: Supervise, output: io.StringIO
) -> None:
    script = "trap '' TERM; sleep 60 & echo $! > helper; touch up; while :; do sleep 0.02; done"
    deaf = Service(
        recipe=recipe(state, "deaf", script, grace_seconds=0.1),
        is_ready=(state.path / "up").exists,
    )

    supervise([(deaf,)], press_ctrl_c)

    assert "deaf did not stop in 0.1 s" in output.getvalue()
    helper = int((state.path / "helper").read_text())
    assert process.wait_until(lambda: process.started_at_ticks(helper) is None, seconds_max=30)


def test_a_second_ctrl_c_kills_at_once(state: StateDir, supervise: Supervise) -> None:
    script = "trap 'kill -INT $PPID' TERM; touch up; while :; do sleep 0.02; done"
    deaf = Service(
        recipe=recipe(state, "deaf", script, grace_seconds=3_600),
        is_ready=(state.path / "up").exists,
    )

    supervise([(live(state, "a"),), (deaf,)], press_ctrl_c)

    assert log_of(state) == ["start a"]


def test_children_die_with_a_supervisor_that_was_killed(state: StateDir) -> None:
    program = f"""
import os, signal, subprocess
from turnpike.embedded.process import Recipe, spawn
command = ["/bin/sh", "-c", "trap 'echo stopped > {state.path}/log; exit' TERM; echo up; "
           "while :; do sleep 0.02; done"]
child = spawn(Recipe(name="a", command=command, environment={{}}), output=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30
    )

    assert answer.returncode == -signal.SIGKILL
    child = int(answer.stdout)
    assert process.wait_until(lambda: process.started_at_ticks(child) is None, seconds_max=30)
    assert log_of(state) == ["stopped"]
