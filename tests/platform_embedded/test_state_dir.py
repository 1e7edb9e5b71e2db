"""The state directory: one owner, secrets that stay, and nothing left behind."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values

from turnpike.embedded import process
from turnpike.embedded.engines import EngineProblem
from turnpike.embedded.state import StateDir
from turnpike.kernel import hashing, sealing


def test_secrets_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    first = StateDir(path=tmp_path).secrets()
    second = StateDir(path=tmp_path).secrets()

    assert first == second
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600
    assert len(hashing.parse_peppers(first["KEY_PEPPERS"])) == 1
    assert len(sealing.parse_master_keys(first["MASTER_KEYS"])) == 1


def test_a_secret_that_a_newer_version_needs_is_added(tmp_path: Path) -> None:
    state = StateDir(path=tmp_path)
    before = state.secrets()
    state.write_private("secrets.json", json.dumps({"SECRET_KEY": before["SECRET_KEY"]}))

    after = state.secrets()

    assert after["SECRET_KEY"] == before["SECRET_KEY"]
    assert after["METRICS_TOKEN"]


def test_a_second_platform_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    state = StateDir(path=tmp_path)

    with (
        state.locked(),
        pytest.raises(EngineProblem, match=rf"already runs on .* \(process {os.getpid()}\)"),
        state.locked(),
    ):
        pass


def test_the_environment_survives_the_file(tmp_path: Path) -> None:
    variables = {"A": "plain", "B": 'it\'s \\ "odd" #1', "C": ""}

    StateDir(path=tmp_path).write_environment(variables)

    assert dotenv_values(tmp_path / "env", interpolate=False) == variables


def test_a_leftover_process_is_ended_and_a_stranger_with_its_number_is_not(tmp_path: Path) -> None:
    state = StateDir(path=tmp_path)
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    leftover = subprocess.Popen(command, start_new_session=True)
    stranger = subprocess.Popen(command, start_new_session=True)
    try:
        state.note_process("old", leftover.pid, signal.SIGTERM)
        note = {"pid": stranger.pid, "started": "1", "signal": int(signal.SIGTERM)}
        state.write_private("reused.pid", json.dumps(note))

        assert state.end_leftovers() == ["old"]

        assert leftover.wait(30) == -signal.SIGTERM
        assert process.started_at_ticks(stranger.pid) is not None
        assert list(tmp_path.glob("*.pid")) == []
    finally:
        for child in (leftover, stranger):
            child.kill()
            child.wait()
