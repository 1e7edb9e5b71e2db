"""Print the Python that `make` builds .venv with: `python3 -I choose_python.py`.

That is the first python3 on PATH that can run Turnpike, unless it was compiled without the
interpreter's own optimisations, as happens where people compile theirs, and another one of the same
minor version was not. Everything takes a fifth to a third longer without them.

It runs before anything is installed, so it needs nothing, and it speaks to old versions too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

OLDEST = (3, 11)
NAMES = ("python3", "python3.11", "python3.12", "python3.13", "python3.14")
PROBE_SECONDS_MAX = 20
# Distributions optimise the Python that they live on, and do not say so in its configuration.
DISTRIBUTION_PREFIX = "/usr"
NONE_FOUND = "Turnpike needs Python 3.11 or newer with venv and ensurepip; none is on PATH."
PROBE = """
import ensurepip, json, sys, sysconfig, venv

print(json.dumps({
    "path": sys.executable,
    "prefix": sys.base_prefix,
    "version": sys.version_info[:3],
    "arguments": sysconfig.get_config_var("CONFIG_ARGS") or "",
}))
"""


class Python(NamedTuple):
    """An interpreter that could run Turnpike, and how it was configured."""

    path: str
    prefix: str
    version: tuple[int, ...]
    arguments: str

    def __str__(self) -> str:
        return "Python {} of {}".format(".".join(map(str, self.version)), self.prefix)

    @property
    def is_optimized(self) -> bool:
        """Whether it was compiled with its profile (--enable-optimizations)."""
        return "--enable-optimizations" in self.arguments or self.prefix == DISTRIBUTION_PREFIX


def choose(found: Sequence[Python]) -> Python:
    """The first, or the first that is optimised of those that have its minor version."""
    peers = [python for python in found if python.version[:2] == found[0].version[:2]]
    return next((python for python in peers if python.is_optimized), found[0])


def find(folders: Sequence[str]) -> list[Python]:
    """Each usable interpreter of the folders once, those that are called python3 first."""
    found: dict[str, Python] = {}
    for path in _paths(folders):
        python = probe(path)
        if python is not None:
            found.setdefault(python.prefix, python)
    return list(found.values())


def probe(path: str) -> Python | None:
    """What a file is, or None where it cannot run Turnpike.

    No Python, too old, without what makes an environment: all the same to us.
    """
    try:
        done = subprocess.run(  # noqa: S603 -- programs on the PATH of whoever asks
            [path, "-I", "-c", PROBE], capture_output=True, timeout=PROBE_SECONDS_MAX, check=True
        )
        facts: dict[str, Any] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    python = Python(**{**facts, "version": tuple(facts["version"])})
    return python if python.version >= OLDEST else None


def _paths(folders: Iterable[str]) -> Iterator[str]:
    for name in NAMES:
        for folder in folders:
            path = Path(folder) / name
            if os.access(path, os.X_OK):
                yield str(path)


def main() -> int:
    """Print the path on standard output, and on the other why it is not python3's."""
    found = find(os.environ.get("PATH", os.defpath).split(os.pathsep))
    if not found:
        sys.stderr.write(f"{NONE_FOUND}\n")
        return 1
    chosen = choose(found)
    if chosen is not found[0]:
        reason = "was built without its optimisations"
        sys.stderr.write(f"Using {chosen}: python3 here, {found[0]}, {reason}.\n")
    sys.stdout.write(f"{chosen.path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
