"""The state directory of `manage.py up`: its lock, its secrets, its running processes."""

import contextlib
import fcntl
import json
import os
import secrets
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnpike.embedded import process
from turnpike.embedded.engines import EngineProblem
from turnpike.kernel import sealing

SECRETS_FILE = "secrets.json"
ENV_FILE = "env"
DEMO_FILE = "demo.json"  # what bootstrap made, for who has just started
LOCK_FILE = "up.lock"
LEFTOVER_SECONDS_MAX = 15.0
DATABASE_ROLES = ("turnpike", "turnpike_owner", "turnpike_app")


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDir:
    """A directory that belongs to one running platform at a time."""

    path: Path

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory. Raises EngineProblem when another process has it."""
        self.path.mkdir(mode=0o711, parents=True, exist_ok=True)
        with (self.path / LOCK_FILE).open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                owner = file.read().strip() or "unknown"
                raise EngineProblem(
                    f"Turnpike already runs on {self.path} (process {owner}). Stop it first, or "
                    "name another STATE_DIR."
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
            file.truncate(0)

    def secrets(self) -> dict[str, str]:
        """The platform's secrets, made at the first call and the same ever after."""
        known = self.read_json(SECRETS_FILE)
        complete = {**_new_secrets(), **known}
        if complete != known:
            self.write_private(SECRETS_FILE, json.dumps(complete, indent=1))
        return complete

    def write_environment(self, variables: Mapping[str, str]) -> None:
        """Keep the environment of the platform, for commands in another terminal."""
        lines = [f"{name}={_quoted(value)}\n" for name, value in sorted(variables.items())]
        self.write_private(ENV_FILE, "".join(lines))

    def read_json(self, name: str) -> dict[str, Any]:
        """An object kept under this name; empty when there is none."""
        try:
            found: dict[str, Any] = json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return {}
        return found

    def write_private(self, name: str, text: str) -> None:
        """Replace a file that only its owner may read, in one step."""
        new = self.path / f".{name}.new"
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path / name)

    def note_process(self, name: str, pid: int, stop_signal: signal.Signals) -> None:
        """Remember a running child, so that the next start can end it if we could not."""
        note = {"pid": pid, "started": process.started_at_ticks(pid), "signal": int(stop_signal)}
        self.write_private(f"{name}.pid", json.dumps(note))

    def forget_process(self, name: str) -> None:
        """The child has ended."""
        (self.path / f"{name}.pid").unlink(missing_ok=True)

    def end_leftovers(self) -> list[str]:
        """Stop what an earlier, killed supervisor left running; returns the names."""
        ended = []
        for path in sorted(self.path.glob("*.pid")):
            note = self.read_json(path.name)
            if _is_alive(note):
                _end(note)
                ended.append(path.stem)
            path.unlink()
        return ended


def _new_secrets() -> dict[str, str]:
    return {
        "SECRET_KEY": secrets.token_urlsafe(48),
        "KEY_PEPPERS": f"p1:{secrets.token_urlsafe(32)}",
        "MASTER_KEYS": f"m1:{sealing.new_master_key()}",
        "METRICS_TOKEN": secrets.token_urlsafe(32),
        **{f"password:{role}": secrets.token_urlsafe(24) for role in DATABASE_ROLES},
    }


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _is_alive(note: Mapping[str, Any]) -> bool:
    started = process.started_at_ticks(note["pid"])
    return started is not None and started == note["started"]


def _end(note: Mapping[str, Any]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(note["pid"], note["signal"])
        process.wait_until(lambda: not _is_alive(note), seconds_max=LEFTOVER_SECONDS_MAX)
        os.killpg(note["pid"], signal.SIGKILL)
