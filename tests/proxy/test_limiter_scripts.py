"""The Lua files: small, with a header that tells what they take, and fit for a cluster."""

import re
from pathlib import Path

import pytest
import redis

from proxy.limiter.scripts import ADMIT, BEAT, POSTED, SETTLE, Script, load_script

FOLDER = Path(__file__).resolve().parents[2] / "proxy" / "limiter" / "lua"
FILES = sorted(FOLDER.glob("*.lua"))
# Admission is one decision in one order; parted, its reader would have to put it together again.
LINES_MAX = {"admit.lua": 130}


def test_these_are_all_the_scripts() -> None:
    assert [path.name for path in FILES] == [
        "admit.lua",
        "beat.lua",
        "caps.lua",
        "once.lua",
        "posted.lua",
        "settle.lua",
        "shared.lua",
        "true_up.lua",
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_script_is_small_and_its_header_says_what_it_takes(path: Path) -> None:
    text = path.read_text()
    header = re.match(r"(?:#!lua[^\n]*\n)?((?:--[^\n]*\n)+)", text)

    assert len(text.splitlines()) <= LINES_MAX.get(path.name, 100)
    assert header is not None
    for word in ("KEYS", "ARGV", "returns", "clock"):
        assert re.search(rf"^--   {word} +\S", header[1], re.MULTILINE), word
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.parametrize(
    ("script", "first_line"),
    [(ADMIT, "#!lua"), (BEAT, "#!lua flags=allow-oom"), (SETTLE, "#!lua flags=allow-oom")],
    ids=["admit", "beat", "settle"],
)
def test_only_admission_stops_when_memory_is_full(script: Script, first_line: str) -> None:
    assert script.source.splitlines()[0] == first_line
    assert "--@include" not in script.source


@pytest.mark.parametrize("script", [ADMIT, BEAT, SETTLE], ids=lambda script: script.name)
def test_scripts_write_whole_numbers_and_touch_declared_keys_alone(script: Script) -> None:
    code = re.sub(r"--[^\n]*", "", script.source)

    calls = re.findall(r"redis\.call\('(\w+)'(?:, *([^,)]+))?", code)

    assert "tostring" not in code
    assert {name for name, key in calls if not key} == {"TIME"}
    first = {key for _, key in calls if key}
    assert {key for key in first if not re.fullmatch(r"KEYS\[(\d|6 \+ i|i)\]", key)} <= {"key"}
    assert all("KEYS" in line for line in code.splitlines() if "local key " in line)


@pytest.mark.parametrize("script", [ADMIT, BEAT, POSTED, SETTLE], ids=lambda script: script.name)
def test_the_hash_is_the_servers(redis_client: redis.Redis, script: Script) -> None:
    assert redis_client.script_load(script.source) in (script.sha, script.sha.encode())


def test_a_script_that_is_not_there_cannot_be_loaded() -> None:
    with pytest.raises(FileNotFoundError):
        load_script("nothing")
