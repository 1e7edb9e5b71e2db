"""simonw's llm: our models from its file of further OpenAI models, and through llm-anthropic.

It has no setting for retries: its SDKs' own are what people get.
"""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from target import KEY, LANE, MODEL, ORDER_HEADER, OVERLOADED, SAY, URL, Call, Face, report

HOME = Path(os.environ["LLM_USER_PATH"])
os.environ["ANTHROPIC_BASE_URL"] = URL
FILE = HOME / "extra-openai-models.yaml"
FILE.write_text(
    json.dumps(
        [
            {
                "model_id": name,
                "model_name": model,
                "api_base": URL + "/v1",
                "api_key_name": "turnpike",
                "headers": headers,
                "supports_tools": True,
                "vision": True,
            }
            for name, model, headers in (
                ("toll", MODEL, {}),
                ("toll-nope", "claude-nope-9", {}),
                ("toll-busy", MODEL, {ORDER_HEADER: OVERLOADED}),
            )
        ]
    )
)
(HOME / "keys.json").write_text(json.dumps({"turnpike": KEY}))

import llm  # noqa: E402 - reads the file above


def openai_model(call: Call) -> Any:
    names = {(MODEL, ""): "toll", (MODEL, OVERLOADED): "toll-busy"}
    return llm.get_model(names.get((call.model, call.orders), "toll-nope"))


def anthropic_model(call: Call) -> Any:
    os.environ["ANTHROPIC_CUSTOM_HEADERS"] = f"{ORDER_HEADER}: {call.orders}" if call.orders else ""
    model = llm.get_model(f"anthropic/{MODEL}")
    model.claude_model_id = call.model
    return model


def ask(make: Any, call: Call) -> str:
    return str(make(call).prompt(call.text, key=call.key, stream=False).text())


def stream(make: Any, text: str) -> list[str]:
    return [piece for piece in make(Call()).prompt(text, key=KEY, stream=True) if piece]


def use_tool(make: Any, text: str) -> tuple[Any, str]:
    asked: list[Any] = []

    def get_lane(plate: str) -> str:
        """The lane that a number plate may use."""
        asked.append({"plate": plate})
        return LANE

    answer = make(Call()).chain(text, tools=[get_lane], key=KEY, stream=False).text()
    return asked[0], str(answer)


def look(make: Any, text: str, picture: bytes) -> str:
    image = llm.Attachment(type="image/png", content=picture)
    return str(make(Call()).prompt(text, attachments=[image], key=KEY, stream=False).text())


def ask_by_command(call: Call) -> str:
    """As people do, where nothing but the prompt is unusual."""
    if call != Call():
        return ask(openai_model, call)
    program = Path(sys.executable).with_name("llm")
    command = [str(program), "prompt", "-m", "toll", "--no-stream", SAY]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    )
    return done.stdout.strip()


def face(make: Any, **other: Any) -> Face:
    acts = {"ask": ask, "stream": stream, "use_tool": use_tool, "look": look}
    return Face(**{name: partial(act, make) for name, act in acts.items()} | other)


if __name__ == "__main__":
    report(openai=face(openai_model, ask=ask_by_command), anthropic=face(anthropic_model))
