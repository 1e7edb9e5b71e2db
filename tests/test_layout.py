"""The shape of the code: what style pages ask for and a machine can check."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support.servers import ROOT

SOURCES = ("platform", "accounts", "billing", "proxy", "tests", "bench")
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
LUA_LINES_MAX = 130
VAGUE_NAMES = {"utils", "helpers", "common", "misc"}
HEADER_WORDS = ("KEYS", "ARGV", "returns")


def python_files() -> Iterator[Path]:
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*.py"):
            if "migrations" not in path.parts and "node_modules" not in path.parts:
                yield path


def lua_files() -> list[Path]:
    return [path for folder in SOURCES for path in (ROOT / folder).rglob("*.lua")]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


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
    sizes = {shown(path): len(path.read_text().splitlines()) for path in python_files()}

    assert {name: lines for name, lines in sizes.items() if lines > FILE_LINES_MAX} == {}


def test_functions_stay_small() -> None:
    long = {
        f"{shown(path)}:{node.name}": lines
        for path in python_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    }

    assert long == {}


def test_modules_say_what_they_are_for() -> None:
    silent = [
        shown(path)
        for path in python_files()
        if path.read_text().strip() and ast.get_docstring(tree_of(path)) is None
    ]

    assert silent == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [shown(path) for path in python_files() if path.stem in VAGUE_NAMES] == []


def test_scripts_have_a_header_and_stay_small() -> None:
    scripts = lua_files()

    assert scripts
    for path in scripts:
        lines = path.read_text().splitlines()
        header = " ".join(line for line in lines[:40] if line.startswith("--"))
        assert [word for word in HEADER_WORDS if word not in header] == [], shown(path)
        assert len(lines) <= LUA_LINES_MAX, shown(path)


def test_no_python_file_holds_a_script_in_a_string() -> None:
    holders = [
        shown(path)
        for path in python_files()
        if "tests" not in path.parts and "redis.call(" in path.read_text()
    ]

    assert holders == []


def test_nothing_unfinished_is_left() -> None:
    words = ("TO" + "DO", "FIX" + "ME", "NotImplemented" + "Error", "x" + "fail(")
    found = [
        f"{shown(path)}: {word}"
        for path in python_files()
        for word in words
        if word in path.read_text()
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
        for path in python_files()
        if not outside & set(path.parts) and path.name != "clock.py"
        for call in clock_calls(path)
    ]

    assert readers == []
