"""Other people's clients, each in an environment of its own, against a platform of their own.

Not part of `make test`: installing them needs package registries. `make test-clients` asks for this
folder by name, which is the only way to get it collected. All environments are made at once, and
what was made stays in var/clients for the next time.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.running import Platform
from tests.support.servers import ROOT

ENVIRONMENTS = ROOT / "var" / "clients"
INSTALL_SECONDS_MAX = 400
INSTALLS_AT_ONCE = 3
NODE = "node"
PYTHON_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "anthropic-0": ("anthropic<1",),
    "openai": ("openai",),
    "litellm": ("litellm", "mcp", "tenacity"),  # for tools and for retries
    "langchain": ("langchain-anthropic", "langchain-openai"),
    "pydantic-ai": ("pydantic-ai-slim[anthropic,openai]",),
    "llm": ("llm", "llm-anthropic"),
}
NODE_PACKAGES = ("@anthropic-ai/sdk", "@anthropic-ai/claude-code", "openai")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Collect this folder only where the command line names it."""
    is_named = any("tests/clients" in argument for argument in config.args)
    return None if is_named else True


class Environments:
    """Where each client is installed; a look waits until it is."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._made: dict[str, Future[Path]] = {
            # The largest first, so that nobody waits for it in the end.
            NODE: pool.submit(_make_node_modules),
            **{name: pool.submit(_make_python, name) for name in PYTHON_PACKAGES},
        }

    def python(self, name: str) -> Path:
        """The interpreter of an environment."""
        return self._made[name].result(INSTALL_SECONDS_MAX)

    def node_modules(self) -> Path:
        """The folder of Node's packages."""
        return self._made[NODE].result(INSTALL_SECONDS_MAX)


@pytest.fixture(scope="session")
def environments() -> Iterator[Environments]:
    """The environments, which are made while the platform starts."""
    with ThreadPoolExecutor(INSTALLS_AT_ONCE) as pool:
        yield Environments(pool)


@pytest.fixture(scope="session")
def node_modules(environments: Environments) -> Path:
    """A folder with the current TypeScript SDKs and Claude Code."""
    return environments.node_modules()


@pytest.fixture(scope="session")
def poor_key(platform: Platform) -> str:
    """A key without the credit for one answer."""
    return str(platform.issue_key(tenant="Poor", credit="0.0001")["api_key"])


@pytest.fixture(scope="session")
def busy_key(platform: Platform) -> str:
    """A key of the smallest tier, whose rate a program uses up."""
    return str(platform.issue_key(tenant="Busy", tier="basic", credit="50")["api_key"])


@pytest.fixture
def tenant(platform: Platform, request: pytest.FixtureRequest) -> dict[str, Any]:
    """A tenant of the test's own, so that its bill is one client's."""
    return platform.issue_key(tenant=request.node.name[:60], tier="enterprise", credit="50")


def _make_python(name: str) -> Path:
    folder = ENVIRONMENTS / name
    interpreter = folder / "bin" / "python"
    if not (folder / "ready").exists():
        uv = str(Path(sys.executable).with_name("uv"))
        _install([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
        packages = PYTHON_PACKAGES[name]
        # The machine's own authorities, as pip has them: a proxy may stand before the index.
        command = [uv, "pip", "install", "--quiet", "--system-certs", "--python", str(interpreter)]
        _install([*command, *packages])
        (folder / "ready").touch()
    return interpreter


def _make_node_modules() -> Path:
    folder = ENVIRONMENTS / NODE
    modules = folder / "node_modules"
    ready = folder / "ready"
    # What was made for another list of packages is made anew.
    if not ready.exists() or ready.read_text().split() != list(NODE_PACKAGES):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true, "type": "module"}\n')
        options = ["--no-audit", "--no-fund", "--silent"]
        _install(["npm", "install", *options, *NODE_PACKAGES], cwd=folder)
        # Puts the program for this machine in place, where npm leaves install scripts out.
        _install(["node", "install.cjs"], cwd=modules / "@anthropic-ai" / "claude-code")
        ready.write_text(" ".join(NODE_PACKAGES))
    return modules


def _install(command: list[str], *, cwd: Path = ROOT) -> None:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX, check=False
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)} failed:\n{done.stdout[-2_000:]}\n{done.stderr[-2_000:]}")
