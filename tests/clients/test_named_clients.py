"""The clients that people use get right answers, their own errors, and a right bill.

Each is asked the same by its program: a plain answer, a stream, a tool with its result, a picture,
five refusals, and patience where the limiter asks for it.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import Environments
from tests.clients.running_programs import PROGRAMS, Json, check_bill, run
from tests.support.running import Platform

# Plain, stream, tool, its result, picture.
ANSWERS_PER_FACE = 5
STATUSES = ("401", "404", "402", "429", "529")
# What each client calls the five refusals; of what an overloaded upstream is, OpenAI's say 503.
SDK = ("AuthenticationError", "NotFoundError", "APIStatusError", "RateLimitError")
PYDANTIC_AI = (
    "ModelAuthenticationError",
    "ModelNotFoundError",
    "ModelQuotaExceededError",
    "ModelRateLimitError",
    "ModelOverloadedError",
)
ERRORS: dict[str, dict[str, tuple[str, ...]]] = {
    "openai": {"openai": (*SDK, "InternalServerError")},
    "openai npm": {"openai": (*SDK[:2], "APIError", SDK[3], "InternalServerError")},
    "litellm": {
        "openai": (*SDK[:2], "APIError", SDK[3], "ServiceUnavailableError"),
        "anthropic": (*SDK[:2], "PaymentRequiredError", SDK[3], "InternalServerError"),
    },
    "langchain": {
        "openai": (
            "OpenAIAuthenticationError",
            "OpenAIModelNotFoundError",
            "APIStatusError",
            "OpenAIRateLimitError",
            "OpenAIAPIError",
        ),
        "anthropic": (
            "AnthropicAuthenticationError",
            "AnthropicModelNotFoundError",
            "PaymentRequiredError",
            "AnthropicRateLimitError",
            "AnthropicOverloadedError",
        ),
    },
    "pydantic-ai": {"openai": PYDANTIC_AI, "anthropic": PYDANTIC_AI},
    "llm": {
        "openai": (*SDK, "InternalServerError"),
        "anthropic": (*SDK, "OverloadedError"),
    },
}
OVERLOADED_STATUSES = {"openai": 503, "anthropic": 529}
# It has a number of its own for what it does not know.
LITELLM_OVERLOADED_STATUSES = {"openai": 503, "anthropic": 500}


@pytest.mark.parametrize("client", ["openai", "litellm", "langchain", "pydantic-ai", "llm"])
def test_a_client_in_python(
    client: str,
    platform: Platform,
    environments: Environments,
    tenant: dict[str, Any],
    poor_key: str,
    busy_key: str,
    tmp_path: Path,
) -> None:
    interpreter = environments.python(client)
    program = PROGRAMS / f"{client.replace('-', '_')}_program.py"

    output = run(
        [str(interpreter), "-W", "ignore", str(program)],
        cwd=tmp_path,
        environment=environment_of(platform, tenant, poor_key, busy_key, tmp_path),
    )

    told: Json = json.loads(output.splitlines()[-1])
    overloaded = LITELLM_OVERLOADED_STATUSES if client == "litellm" else OVERLOADED_STATUSES
    assert told.keys() == ERRORS[client].keys()
    for name, face in told.items():
        check_face(face, errors=ERRORS[client][name], overloaded=overloaded[name])
    check_bill(platform, tenant["management_key"], answers=ANSWERS_PER_FACE * len(told))


def test_the_openai_sdk_for_typescript(
    platform: Platform,
    node_modules: Path,
    tenant: dict[str, Any],
    poor_key: str,
    busy_key: str,
    tmp_path: Path,
) -> None:
    # Modules are found beside the program, not beside the working directory.
    program = shutil.copy(PROGRAMS / "openai_program.mjs", node_modules.parent)

    output = run(
        ["node", str(program)],
        cwd=node_modules.parent,
        environment=environment_of(platform, tenant, poor_key, busy_key, tmp_path),
    )

    told = json.loads(output)["openai"]
    check_face(told, errors=ERRORS["openai npm"]["openai"], overloaded=503)
    check_bill(platform, tenant["management_key"], answers=ANSWERS_PER_FACE)


def environment_of(
    platform: Platform, tenant: dict[str, Any], poor_key: str, busy_key: str, home: Path
) -> dict[str, str]:
    """What a program knows: where to ask, with which keys, and a home of its own."""
    return {
        "HOME": str(home),
        "LLM_USER_PATH": str(home),
        "TARGET_URL": platform.base_url,
        "TARGET_KEY": tenant["api_key"],
        "TARGET_POOR_KEY": poor_key,
        "TARGET_BUSY_KEY": busy_key,
        # No word to anybody but the platform.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LANGCHAIN_TRACING_V2": "false",
    }


def check_face(told: Json, *, errors: tuple[str, ...], overloaded: int) -> None:
    """What every client must have been told."""
    assert told["plain"] == "Three euros."
    pieces, characters = told["streamed"]
    assert characters == 160
    assert pieces > 1
    assert told["tool_input"] == {"plate": "AB-1"}
    assert told["answered"].endswith("The tool answered: Lane 4")
    assert told["picture"]
    names = {status: name for status, (name, _) in told["errors"].items()}
    assert names == dict(zip(STATUSES, errors, strict=True))
    known = {status: number for status, (_, number) in told["errors"].items()}
    assert known == {**{status: int(status) for status in STATUSES}, "529": overloaded}
    assert told["retried"] == {"said": "Three euros.", "has_waited": True}
