"""Other people's clients, each in an environment of its own, against a platform of its own.

Not part of `make test`: installing them needs package registries. `make test-clients` asks for this
folder by name, which is the only way to get it collected.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / "var" / "clients"
START_SECONDS_MAX = 180
STOP_SECONDS_MAX = 60
INSTALL_SECONDS_MAX = 600
# What the test session or a shell may have set, and a platform of its own must not see.
FOREIGN = frozenset(
    {"DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL", "CELERY_BROKER_URL", "CACHE_URL"}
    | {"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "PUBLIC_BASE_URL"}
    | {"JOURNAL_DIR", "SECRET_KEY", "KEY_PEPPERS", "MASTER_KEYS", "METRICS_TOKEN"}
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Collect this folder only where the command line names it."""
    is_named = any("tests/clients" in argument for argument in config.args)
    return None if is_named else True


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A platform that answers, and the demo's key."""

    base_url: str
    simulator_url: str
    api_key: str


@pytest.fixture(scope="session")
def platform() -> Iterator[Running]:
    """`manage.py up` with embedded servers, on free ports, with state that is thrown away."""
    with tempfile.TemporaryDirectory(prefix="tc-") as folder:
        os.chmod(folder, 0o755)  # PostgreSQL runs as a user of its own under root
        port = _free_port()
        environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        environment |= {"STATE_DIR": f"{folder}/state", "PORT": str(port), "LOG_JSON": "0"}
        environment |= {"SIMULATOR_PORT": str(_free_port())}
        log = Path(folder, "up.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "up"],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                _wait_until_ready(f"http://127.0.0.1:{port}/readyz", process, log)
                yield _credentials(environment)
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(timeout=STOP_SECONDS_MAX)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2) as response:
                if response.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.2)
    pytest.fail(f"The platform did not start:\n{log.read_text()[-4_000:]}")


def _credentials(environment: Mapping[str, str]) -> Running:
    command = [sys.executable, "manage.py", "bootstrap", "--json"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    printed = json.loads(done.stdout)
    return Running(
        base_url=printed["base_url"],
        simulator_url=printed["simulator_url"],
        api_key=printed["api_key"],
    )


@pytest.fixture(scope="session")
def old_python() -> Path:
    """The interpreter of an environment that holds the last 0.x of the Python SDK."""
    folder = ENVIRONMENTS / "anthropic-0"
    interpreter = folder / "bin" / "python"
    if not (folder / "ready").exists():
        _install([sys.executable, "-m", "venv", "--clear", str(folder)])
        _install([str(interpreter), "-m", "pip", "install", "--quiet", "anthropic<1"])
        (folder / "ready").touch()
    return interpreter


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """A folder with the current TypeScript SDK and Claude Code."""
    folder = ENVIRONMENTS / "node"
    modules = folder / "node_modules"
    if not (folder / "ready").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true, "type": "module"}\n')
        packages = ["@anthropic-ai/sdk", "@anthropic-ai/claude-code"]
        _install(["npm", "install", "--no-audit", "--no-fund", "--silent", *packages], cwd=folder)
        # Puts the program for this machine in place, where npm leaves install scripts out.
        _install(["node", "install.cjs"], cwd=modules / "@anthropic-ai" / "claude-code")
        (folder / "ready").touch()
    return modules


def _install(command: list[str], *, cwd: Path = ROOT) -> None:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX, check=False
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)} failed:\n{done.stdout[-2_000:]}\n{done.stderr[-2_000:]}")
