"""Runs a client's program, and compares what its tenant was charged with what was billed for it."""

import json
import os
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from tests.support.running import Platform
from turnpike.embedded import process

PROGRAMS = Path(__file__).parent / "programs"
PROGRAM_SECONDS_MAX = 120
POSTED_SECONDS_MAX = 30.0
Json = dict[str, Any]


def run(command: list[str], *, cwd: Path, environment: dict[str, str]) -> str:
    """The output of a program that ends well; nothing of this process's environment but PATH."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PROGRAM_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3_000:]}\n{done.stderr[-3_000:]}"
    return done.stdout


def requests_of(platform: Platform, management_key: str) -> list[Json]:
    """A tenant's requests as it sees them, by the management API."""
    asked = urllib.request.Request(
        platform.base_url + "/api/v1/requests?limit=1000", headers={"x-api-key": management_key}
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        rows: list[Json] = json.loads(answer.read())["data"]
    return rows


def billed_by_request(platform: Platform) -> dict[str, list[Json]]:
    """What the simulator billed, by our ids of requests: the usages of all attempts."""
    with urllib.request.urlopen(platform.simulator_url + "/_billed", timeout=30) as answer:
        rows = json.loads(answer.read())
    found: dict[str, list[Json]] = {}
    for row in rows:
        found.setdefault(row["turnpike_request_id"], []).append(row["usage"])
    return found


def check_bill(platform: Platform, management_key: str, *, answers: int) -> None:
    """So many answers are on the tenant's bill, each once, with the tokens that were billed."""
    seen: list[Json] = []

    def has_all() -> bool:
        seen[:] = requests_of(platform, management_key)
        return len([row for row in seen if row["status"] == "reported"]) >= answers

    assert process.wait_until(has_all, seconds_max=POSTED_SECONDS_MAX), seen
    billed = billed_by_request(platform)
    charged = [row for row in seen if row["status"] != "void"]
    assert len(charged) == answers
    for row in charged:
        (usage,) = billed[row["request_id"]]
        for name in ("input_tokens", "output_tokens"):
            assert row["usage"][name] == usage[name]
        assert float(row["amount"]) > 0
    for row in seen:
        if row["status"] == "void":
            assert row["request_id"] not in billed
            assert float(row["amount"]) == 0
