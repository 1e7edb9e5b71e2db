"""An old Python SDK, the TypeScript SDK and Claude Code work by base URL and key alone."""

import json
import shutil
from pathlib import Path

import pytest

from tests.clients.conftest import Environments
from tests.clients.running_programs import PROGRAMS, Json, run
from tests.support.running import Platform


def target(platform: Platform) -> dict[str, str]:
    return {"TARGET_URL": platform.base_url, "TARGET_KEY": platform.api_key}


def test_the_last_old_python_sdk(
    platform: Platform, environments: Environments, tmp_path: Path
) -> None:
    interpreter = environments.python("anthropic-0")
    program = str(PROGRAMS / "old_anthropic_program.py")

    told: Json = json.loads(
        run([str(interpreter), program], cwd=tmp_path, environment=target(platform))
    )

    assert told["version"].startswith("0.")
    assert told["text"] == "Three euros."
    assert len(told["streamed"]) == 80
    assert told["input"] == {"plate": "AB-1"}
    assert told["counted"] == 10
    assert "claude-sonnet-4-6" in told["listed"]
    assert told["refused"] == 401


def test_the_typescript_sdk(platform: Platform, node_modules: Path) -> None:
    # Modules are found beside the program, not beside the working directory.
    program = shutil.copy(PROGRAMS / "anthropic_program.mjs", node_modules.parent)

    told: Json = json.loads(
        run(["node", str(program)], cwd=node_modules.parent, environment=target(platform))
    )

    assert told["text"] == "Three euros."
    assert told["requestId"].startswith("req_01")
    assert (len(told["streamed"]), told["pieces"], told["usage"]) == (80, 4, 20)
    assert told["kinds"] == ["thinking", "text", "tool_use"]
    assert told["input"] == {"plate": "AB-1"}
    assert told["answered"] == "The tool answered: Lane 4"
    assert told["counted"] == 10
    assert "claude-sonnet-4-6" in told["listed"]
    assert told["refusals"] == ["AuthenticationError", "BadRequestError", "NotFoundError"]


@pytest.mark.parametrize("key_variable", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"])
def test_claude_code_runs_a_tool(
    platform: Platform, node_modules: Path, tmp_path: Path, key_variable: str
) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    command = [str(node_modules / ".bin" / "claude"), "--print", "--output-format", "json"]
    prompt = "Use the Bash tool to run `echo toll-$((40+2))` and tell me what it prints."
    environment = {
        "HOME": str(home),
        "ANTHROPIC_BASE_URL": platform.base_url,
        key_variable: platform.api_key,
        # No word to anybody but the platform.
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_ERROR_REPORTING": "1",
    }

    output = run(
        [*command, "--allowedTools", "Bash(echo:*)", "--", prompt],
        cwd=work,
        environment=environment,
    )

    told: Json = json.loads(output)
    assert (told["subtype"], told["is_error"], told["num_turns"]) == ("success", False, 2)
    assert told["result"] == "The tool answered: toll-42"
