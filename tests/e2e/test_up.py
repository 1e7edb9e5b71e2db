"""`manage.py up`: from nothing to an answer, through falls and stops, with nothing left behind."""

import http.client
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from decimal import Decimal

import pytest

from tests.support import running
from tests.support.running import (
    Platform,
    clean_environment,
    post_message,
    processes_of,
    running_platform,
    state_directory,
)
from tests.support.servers import ROOT

pytestmark = pytest.mark.e2e

# The last line of what it says when it is ready: a terminal gives it out piece by piece.
GREETED = b"in another terminal."
# Longer than gunicorn would keep it by itself.
RESTED_SECONDS = 3.0


def test_a_first_request_is_answered_and_charged(platform: Platform) -> None:
    status, answer = post_message(platform.base_url, platform.api_key)

    assert (status, answer["type"]) == (200, "message")
    assert answer["usage"]["output_tokens"] > 0
    assert _wait(lambda: _balance(platform) < Decimal(100))


def test_bootstrap_prints_the_same_again(platform: Platform) -> None:
    first = running.read_last_json(platform.manage("bootstrap", "--json"))
    second = running.read_last_json(platform.manage("bootstrap", "--json"))

    assert first == second
    assert first["api_key"] == platform.api_key
    assert set(first) >= {
        *("base_url", "console_url", "simulator_url", "operator", "tenant"),
        *("api_key", "management_key"),
    }
    assert set(first["operator"]) == {"email", "password"}


def test_the_doctor_finds_nothing_wrong(platform: Platform) -> None:
    report = running.read_last_json(platform.manage("doctor", "--json"))

    wrong = [finding for finding in report["findings"] if finding["level"] == "error"]
    assert (report["ok"], wrong) == (True, [])


def test_the_start_page_says_that_the_simulator_answers(platform: Platform) -> None:
    with urllib.request.urlopen(f"{platform.base_url}/", timeout=10) as answer:
        page = answer.read().decode()

    assert answer.status == 200
    assert "The simulator answers." in page


def test_secrets_in_the_state_directory_are_for_its_owner_alone(platform: Platform) -> None:
    modes = {
        name: (platform.state_dir / name).stat().st_mode & 0o777
        for name in ("secrets.json", "demo.json", "env")
    }

    assert modes == {"secrets.json": 0o600, "demo.json": 0o600, "env": 0o600}


def test_a_connection_that_rested_is_still_there(platform: Platform) -> None:
    connection = http.client.HTTPConnection(platform.base_url.removeprefix("http://"), timeout=10)
    connection.request("GET", "/livez")
    connection.getresponse().read()
    socket = connection.sock

    time.sleep(RESTED_SECONDS)
    connection.request("GET", "/livez")

    assert connection.getresponse().read() == b"ok"
    assert connection.sock is socket
    connection.close()


def test_a_second_platform_on_the_same_state_is_refused(platform: Platform) -> None:
    answer = _up(platform.env)

    assert answer.returncode == 1
    assert f"already runs on {platform.state_dir}" in answer.stdout


def test_a_taken_port_is_named(platform: Platform) -> None:
    with state_directory() as state_dir:
        environment = clean_environment(state_dir, PORT=platform.env["PORT"])
        answer = _up(environment)

    assert answer.returncode == 1
    assert f"Port {platform.env['PORT']} on 127.0.0.1 is taken" in answer.stdout


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("SECRET_KEY", "short", "SECRET_KEY must be random"),
        ("KEY_PEPPERS", "", "KEY_PEPPERS"),
        ("PUBLIC_BASE_URL", "http://example.com", "plain http is accepted on loopback only"),
    ],
)
def test_the_web_server_refuses_an_unsafe_setting(
    platform: Platform, variable: str, value: str, complaint: str
) -> None:
    environment = {**_kept_environment(platform), variable: value}
    if not value:
        environment["STATE_DIR"] = "/nonexistent"

    answer = subprocess.run(
        [sys.executable, "-c", "import turnpike.asgi"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert answer.returncode == 1
    assert complaint in answer.stderr


def test_a_killed_web_server_is_started_again(platform: Platform) -> None:
    before = platform.child("web")

    os.kill(before, signal.SIGKILL)

    assert _wait(lambda: platform.child("web") != before)
    assert _wait(lambda: _is_ready(platform.base_url))
    assert post_message(platform.base_url, platform.api_key)[0] == 200


def test_ctrl_c_and_a_kill_leave_nothing_behind_and_the_next_start_keeps_the_data() -> None:
    with state_directory() as state_dir:
        environment = clean_environment(state_dir)

        code, screen = _run_in_terminal(environment)

        assert code == 0, screen[-2000:]
        key = re.search(r"tpk_live_\w+", screen)
        assert key is not None
        assert processes_of(state_dir) == []

        killed = running.start_platform(state_dir, environment)
        running.wait_until_ready(killed, state_dir)
        killed.kill()
        killed.wait()

        with running_platform(state_dir, environment) as platform:
            assert platform.api_key == key.group()
            assert post_message(platform.base_url, platform.api_key)[0] == 200
        assert processes_of(state_dir) == []


def _run_in_terminal(environment: dict[str, str]) -> tuple[int, str]:
    """Start in a terminal of its own, press Ctrl-C when it is ready; exit code and screen."""
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, [sys.executable, str(ROOT / "manage.py"), "up"], environment)
    screen, is_stopping = b"", False
    while True:
        try:
            data = os.read(terminal, 65_536)
        except OSError:  # the last process of the terminal is gone
            break
        if not data:
            break
        screen += data
        if GREETED in screen and not is_stopping:
            is_stopping = True
            os.write(terminal, b"\x03")
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), screen.decode(errors="replace")


def _balance(platform: Platform) -> Decimal:
    request = urllib.request.Request(
        f"{platform.base_url}/api/v1/balance", headers={"x-api-key": platform.management_key}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return Decimal(json.loads(answer.read())["balance"])


def _up(environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "up"],
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _kept_environment(platform: Platform) -> dict[str, str]:
    return {
        **platform.env,
        "PYTHONPATH": f"{ROOT / 'platform'}:{ROOT}",
        "DJANGO_SETTINGS_MODULE": "turnpike.settings",
    }


def _is_ready(base_url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{base_url}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _wait(condition: Callable[[], bool], *, seconds_max: float = 60) -> bool:
    deadline = time.monotonic() + seconds_max
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
