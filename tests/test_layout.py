"""The shape of the code: what style pages ask for and a machine can check."""

import ast
import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.servers import ROOT

SOURCES = ("platform", "accounts", "billing", "proxy", "tests", "bench")
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
LUA_LINES_MAX = 130
NOT_OURS = {"migrations", "node_modules", "__pycache__"}
VAGUE_NAMES = {"utils", "helpers", "common", "misc"}
HEADER_WORDS = ("KEYS", "ARGV", "returns")


@cache
def files_of(ending: str) -> tuple[Path, ...]:
    """All of our own files of a kind; folders that are not ours are not even looked into."""
    found = []
    for source in SOURCES:
        for folder, inner, names in os.walk(ROOT / source):
            inner[:] = sorted(set(inner) - NOT_OURS)
            found += [Path(folder) / name for name in sorted(names) if name.endswith(ending)]
    return tuple(found)


@cache
def text_of(path: Path) -> str:
    return path.read_text()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path))


@pytest.fixture(autouse=True, scope="module")
def _trees_are_no_garbage() -> Iterator[None]:
    """To look through them again and again takes longer than to make them."""
    gc.disable()
    yield
    tree_of.cache_clear()
    gc.enable()


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_platform_is_no_package() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_pythons_own_platform_module_is_found_from_the_root() -> None:
    # A fresh interpreter: this one loaded the standard module long ago.
    program = "import platform; print(platform.python_implementation())"
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (answer.stdout.strip(), answer.returncode) == ("CPython", 0)


def test_files_stay_small() -> None:
    sizes = {shown(path): len(text_of(path).splitlines()) for path in files_of(".py")}

    assert {name: lines for name, lines in sizes.items() if lines > FILE_LINES_MAX} == {}


def test_functions_stay_small() -> None:
    long = {
        f"{shown(path)}:{node.name}": lines
        for path in files_of(".py")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    }

    assert long == {}


def test_modules_say_what_they_are_for() -> None:
    silent = [
        shown(path)
        for path in files_of(".py")
        if text_of(path).strip() and ast.get_docstring(tree_of(path)) is None
    ]

    assert silent == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [shown(path) for path in files_of(".py") if path.stem in VAGUE_NAMES] == []


def test_scripts_have_a_header_and_stay_small() -> None:
    scripts = files_of(".lua")

    assert scripts
    for path in scripts:
        lines = text_of(path).splitlines()
        header = " ".join(line for line in lines[:40] if line.startswith("--"))
        assert [word for word in HEADER_WORDS if word not in header] == [], shown(path)
        assert len(lines) <= LUA_LINES_MAX, shown(path)


def test_no_python_file_holds_a_script_in_a_string() -> None:
    holders = [
        shown(path)
        for path in files_of(".py")
        if "tests" not in path.parts and "redis.call(" in text_of(path)
    ]

    assert holders == []


def test_nothing_unfinished_is_left() -> None:
    words = ("TO" + "DO", "FIX" + "ME", "NotImplemented" + "Error", "x" + "fail(")
    found = [
        f"{shown(path)}: {word}"
        for path in files_of(".py")
        for word in words
        if word in text_of(path)
    ]

    assert found == []


CLOCK_CALLS = {("time", "time"), ("time", "time_ns"), ("time", "monotonic"), ("datetime", "now")}


def clock_calls(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
            continue
        if (node.value.id, node.attr) in CLOCK_CALLS:
            yield f"{shown(path)}:{node.lineno}"


def test_only_the_clock_reads_the_time() -> None:
    outside = {"tests", "bench", "simulator"}

    readers = [
        call
        for path in files_of(".py")
        if not outside & set(path.parts) and path.name != "clock.py"
        for call in clock_calls(path)
    ]

    assert readers == []
