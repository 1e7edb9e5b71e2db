"""What a program on an old Python SDK does; runs in its environment and prints one JSON line."""

import json
import os
import sys
from typing import Any

import anthropic

MODEL = "claude-sonnet-4-6"
TOOL: Any = {
    "name": "get_lane",
    "input_schema": {
        "type": "object",
        "properties": {"plate": {"type": "string"}},
        "required": ["plate"],
    },
}


def turn(text: str) -> Any:
    return [{"role": "user", "content": text}]


def main() -> None:
    # Typed as the old SDK would type it, which is not the one that is checked here.
    options: dict[str, Any] = {"base_url": os.environ["TARGET_URL"], "max_retries": 0}
    client: Any = anthropic.Anthropic(api_key=os.environ["TARGET_KEY"], **options)
    told: dict[str, Any] = {"version": anthropic.__version__}
    said = client.messages.create(
        model=MODEL, max_tokens=100, messages=turn("[[say=Three euros.]]"), temperature=0.5
    )
    told["text"] = said.content[0].text
    with client.messages.stream(
        model=MODEL, max_tokens=100, messages=turn("[[tokens=20]]")
    ) as stream:
        told["streamed"] = "".join(stream.text_stream)
    asked = client.messages.create(
        model=MODEL, max_tokens=100, messages=turn("Use get_lane for `AB-1`."), tools=[TOOL]
    )
    told["input"] = asked.content[-1].input
    counted = client.messages.count_tokens(model=MODEL, messages=turn("four" * 10))
    told["counted"] = counted.input_tokens
    told["listed"] = [model.id for model in client.models.list(limit=1000)]
    stranger: Any = anthropic.Anthropic(api_key="sk-ant-api03-nobody", **options)
    try:
        stranger.messages.create(model=MODEL, max_tokens=10, messages=turn("Hi"))
    except anthropic.AuthenticationError as error:
        told["refused"] = error.status_code
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
