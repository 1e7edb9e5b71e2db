"""The real platform as `manage.py up` runs it, on free ports and with a state of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.commands import CommandProcess, command_process
from tests.support.ports import free_port
from tests.support.servers import ROOT

READY_SECONDS_MAX = 90
STOP_SECONDS_MAX = 60
COMMAND_SECONDS_MAX = 60
POLL_SECONDS = 0.05
READY_LINE = "Turnpike is ready."


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """A running platform and how to reach it."""

    base_url: str
    simulator_url: str
    api_key: str
    management_key: str
    tenant: str
    state_dir: Path
    pid: int
    env: Mapping[str, str]
    commands: CommandProcess

    def command(self, *arguments: str) -> str:
        """Have a management command run against it; returns what it printed."""
        return self.commands.run(*arguments)

    def manage(self, *arguments: str) -> str:
        """The same by a process of its own, as people start it."""
        answer = subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), *arguments],
            env=dict(self.env),
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS_MAX,
        )
        assert answer.returncode == 0, f"{arguments}: {answer.stdout}{answer.stderr}"
        return answer.stdout

    def issue_key(self, *, tenant: str, tier: str = "pro", credit: str = "10") -> dict[str, Any]:
        """A tenant with credit: `tenant`, `api_key` and `management_key`."""
        return read_last_json(
            self.command(
                *("issue_key", "--tenant-name", tenant, "--tier", tier),
                *("--credit", credit, "--json"),
            )
        )

    def child(self, name: str) -> int:
        """The pid of one of the supervisor's children, for example ``web`` or ``valkey``."""
        pid: int = json.loads((self.state_dir / f"{name}.pid").read_text())["pid"]
        return pid

    def log(self) -> str:
        """What the supervisor and its children wrote so far."""
        return (self.state_dir / "up.log").read_text()


def read_last_json(text: str) -> dict[str, Any]:
    """The object on the last line."""
    found: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    return found


@contextmanager
def state_directory() -> Iterator[Path]:
    """A short path that the servers' user can reach; pytest's own folders are closed to it."""
    path = Path(tempfile.mkdtemp(prefix="tp-"))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def clean_environment(state_dir: Path, **extra: str) -> dict[str, str]:
    """The environment of a person who just opened a terminal, and what names this platform."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "STATE_DIR": str(state_dir),
        "PORT": str(free_port()),
        "SIMULATOR_PORT": str(free_port()),
        "SIMULATOR_CONTROL": "1",
        **extra,
    }


@contextmanager
def running_platform(state_dir: Path, environment: Mapping[str, str]) -> Iterator[Platform]:
    """Start the platform, wait until it is ready, and stop it with Ctrl-C afterwards."""
    starts = starts_so_far(state_dir)
    process = start_platform(state_dir, environment)
    try:
        wait_until_ready(process, state_dir, starts=starts + 1)
        with command_process(environment) as commands:
            yield describe(process, state_dir, environment, commands)
    finally:
        stop_platform(process)


def starts_so_far(state_dir: Path) -> int:
    """How often a platform has become ready on this state."""
    log = state_dir / "up.log"
    return log.read_text().count(READY_LINE) if log.exists() else 0


def start_platform(state_dir: Path, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start `manage.py up` without waiting for it."""
    with (state_dir / "up.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "up"],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_until_ready(
    process: "subprocess.Popen[bytes]", state_dir: Path, *, starts: int = 1
) -> None:
    """Wait for the supervisor's word, of the first start or of a later one on the same state."""
    log, deadline = state_dir / "up.log", time.monotonic() + READY_SECONDS_MAX
    while log.read_text().count(READY_LINE) < starts:
        tail = "\n".join(log.read_text().splitlines()[-40:])
        assert process.poll() is None, f"`manage.py up` ended:\n{tail}"
        assert time.monotonic() < deadline, f"`manage.py up` is not ready:\n{tail}"
        time.sleep(POLL_SECONDS)


def describe(
    process: "subprocess.Popen[bytes]",
    state_dir: Path,
    environment: Mapping[str, str],
    commands: CommandProcess,
) -> Platform:
    """The platform by what bootstrap kept."""
    demo = json.loads((state_dir / "demo.json").read_text())
    return Platform(
        base_url=demo["base_url"],
        simulator_url=demo["simulator_url"],
        api_key=demo["api_key"],
        management_key=demo["management_key"],
        tenant=demo["tenant"],
        state_dir=state_dir,
        pid=process.pid,
        env=environment,
        commands=commands,
    )


def stop_platform(process: "subprocess.Popen[bytes]") -> int:
    """Ask it to stop as Ctrl-C does; its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        return process.wait(STOP_SECONDS_MAX)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def processes_of(state_dir: Path) -> list[str]:
    """The command lines of all processes that belong to a state directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes().decode(errors="replace")
            command = (path / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if int(path.name) != os.getpid() and str(state_dir) in environment + command:
            found.append(f"{path.name} {command}")
    return found


def post_message(base_url: str, api_key: str, **fields: Any) -> tuple[int, dict[str, Any]]:
    """Send a small message; the status and the decoded body."""
    body = {
        "model": "claude-sonnet-4-5",
        "max_tokens": 32,
        "messages": [{"role": "user", "content": "Hello"}],
        **fields,
    }
    request = urllib.request.Request(
        f"{base_url}/v1/messages",
        data=json.dumps(body).encode(),
        headers={
            "x-api-key": api_key,
            "anthropic-version": "2023-06-01",
            "content-type": "application/json",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())
