"""Loads the .lua files once; no Python file holds Lua in a string.

A line ``--@include name`` in a script stands for the file of that name: Redis knows no modules, and
no block of logic should stand twice.
"""

import hashlib
import re
from dataclasses import dataclass
from importlib import resources

_INCLUDE = re.compile(r"^--@include (\w+)\n", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A script, whole, and the hash by which Redis knows it."""

    name: str
    source: str
    sha: str


def load_script(name: str) -> Script:
    """The script of that file name, with what it includes."""
    source = _INCLUDE.sub(lambda match: _read(match[1]), _read(name))
    digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(name=name, source=source, sha=digest)


def _read(name: str) -> str:
    return resources.files("proxy.limiter").joinpath("lua", f"{name}.lua").read_text()


ADMIT = load_script("admit")
BEAT = load_script("beat")
SETTLE = load_script("settle")
POSTED = load_script("posted")
ONCE = load_script("once")
