"""Other people's clients, each in an environment of its own, against a platform of their own.

Not part of `make test`: installing them needs package registries. `make test-clients` asks for this
folder by name, which is the only way to get it collected.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import ROOT

ENVIRONMENTS = ROOT / "var" / "clients"
INSTALL_SECONDS_MAX = 600


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Collect this folder only where the command line names it."""
    is_named = any("tests/clients" in argument for argument in config.args)
    return None if is_named else True


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
