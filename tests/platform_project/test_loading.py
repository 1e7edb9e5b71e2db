"""What is loaded where: before workers fork, and in the process that watches the others."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.support.servers import ROOT

# Each prints one JSON object about a fresh interpreter.
SHARED_BY_A_FORK = """
import json, threading, psutil
from importlib import import_module
import_module("{module}")
sockets = psutil.Process().net_connections("all")
print(json.dumps({{"threads": threading.active_count(), "sockets": len(sockets)}}))
"""
LOADED_BY_UP = """
import json, sys
from turnpike.management.commands.up import Command
print(json.dumps(sorted({"accounts.models", "billing.models", "celery"} & set(sys.modules))))
"""


def _ask(program: str) -> Any:
    answer = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout.splitlines()[-1])


@pytest.mark.parametrize("module", ["turnpike.asgi", "proxy.app"])
def test_loading_an_app_makes_nothing_that_forked_workers_must_not_share(module: str) -> None:
    assert _ask(SHARED_BY_A_FORK.format(module=module)) == {"threads": 1, "sockets": 0}


def test_the_supervisor_loads_no_models() -> None:
    assert _ask(LOADED_BY_UP) == []
