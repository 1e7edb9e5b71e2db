"""Which Python `make` takes, from what it finds on PATH."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from turnpike.embedded import choose_python
from turnpike.embedded.choose_python import Python, choose, find, probe

OPTIMIZED = "'--enable-optimizations' '--with-lto'"


def python(
    prefix: str, *, version: tuple[int, ...] = (3, 11, 7), arguments: str = OPTIMIZED
) -> Python:
    return Python(f"{prefix}/bin/python3", prefix, version, arguments)


def install(folder: Path, name: str, says: str) -> str:
    """A program that answers the probe with these words."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{says}\nEND\n")
    path.chmod(0o755)
    return str(path)


def facts(prefix: str, *, version: tuple[int, ...] = (3, 11, 7)) -> str:
    return json.dumps(python(prefix, version=version)._asdict())


def test_the_first_is_taken_when_it_is_optimized_or_none_is() -> None:
    own, other = python("/home/own"), python("/opt/other")
    assert choose([own, other]) is own
    slow = [python(prefix, arguments="") for prefix in ("/home/own", "/opt/other")]
    assert choose(slow) is slow[0]


def test_one_that_is_optimized_goes_before_one_that_is_not() -> None:
    own, other = python("/home/own", arguments="'--prefix=/home/own'"), python("/opt/other")
    assert choose([own, other]) is other
    distribution = python("/usr", version=(3, 11, 2), arguments="")  # it does not say so
    assert choose([own, distribution]) is distribution


def test_another_minor_version_is_never_taken_instead() -> None:
    own, newer = python("/home/own", arguments=""), python("/opt/newer", version=(3, 12, 1))
    assert choose([own, newer]) is own


def test_what_cannot_run_turnpike_is_not_found(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    install(first, "python3", facts("/old", version=(3, 10, 12)))
    install(first, "python3.12", "python3.12: not installed")
    (first / "python3.13").write_text("no program")
    install(second, "python3", facts("/good"))
    install(second, "python3.11", facts("/good"))  # the same under its other name
    found = find([str(tmp_path / "missing"), str(first), str(second)])
    assert [python.prefix for python in found] == ["/good"]


def test_names_go_before_folders(tmp_path: Path) -> None:
    install(tmp_path / "a", "python3.11", facts("/precise"))
    install(tmp_path / "b", "python3", facts("/usual"))
    found = find([str(tmp_path / "a"), str(tmp_path / "b")])
    assert [python.prefix for python in found] == ["/usual", "/precise"]


def test_this_python_is_found_as_what_it_is() -> None:
    found = probe(sys.executable)
    assert found is not None
    assert (found.prefix, found.version) == (sys.base_prefix, sys.version_info[:3])


def run(path: str) -> subprocess.CompletedProcess[str]:
    script = choose_python.__file__
    return subprocess.run(
        [sys.executable, "-I", script], env={"PATH": path}, capture_output=True, text=True
    )


def test_make_reads_one_path_and_people_the_reason(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    own = python("/home/own", arguments="")._asdict()
    install(folder, "python3", json.dumps(own))
    install(folder, "python3.11", facts("/opt/other"))
    done = run(str(folder))
    assert (done.returncode, done.stdout) == (0, "/opt/other/bin/python3\n")
    assert "Using Python 3.11.7 of /opt/other" in done.stderr
    assert "Python 3.11.7 of /home/own, was built without" in done.stderr


@pytest.mark.parametrize("path", ["", "/nonexistent"])
def test_none_is_said_plainly(path: str) -> None:
    done = run(path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Turnpike needs Python 3.11 or newer")
