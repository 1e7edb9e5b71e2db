"""LiteLLM as an SDK, with both of its providers that may speak to us."""

import base64
import json
from functools import partial
from typing import Any

import litellm
from target import LANE, ORDER_HEADER, SCHEMA, URL, Call, Face, report

TOOL: Any = {"type": "function", "function": {"name": "get_lane", "parameters": SCHEMA}}
BASES = {"anthropic": URL, "openai": URL + "/v1"}
USUAL = Call()


def create(provider: str, messages: Any, call: Call = USUAL, **fields: Any) -> Any:
    if call.orders:
        fields["extra_headers"] = {ORDER_HEADER: call.orders}
    if call.retries:
        fields |= {"num_retries": call.retries, "retry_strategy": "exponential_backoff_retry"}
    return litellm.completion(
        model=f"{provider}/{call.model}",
        messages=messages,
        api_base=BASES[provider],
        api_key=call.key,
        max_tokens=200,
        max_retries=0,
        **fields,
    )


def turn(content: Any) -> Any:
    return [{"role": "user", "content": content}]


def ask(provider: str, call: Call) -> str:
    text: str = create(provider, turn(call.text), call).choices[0].message.content
    return text


def stream(provider: str, text: str) -> list[str]:
    chunks = create(provider, turn(text), stream=True)
    return [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]


def use_tool(provider: str, text: str) -> tuple[Any, str]:
    asked = create(provider, turn(text), tools=[TOOL]).choices[0].message
    call = asked.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call.id, "content": LANE}
    turns = [*turn(text), asked.model_dump(exclude_none=True), result]
    answer = create(provider, turns, tools=[TOOL]).choices[0].message.content
    return json.loads(call.function.arguments), answer


def look(provider: str, text: str, picture: bytes) -> str:
    url = "data:image/png;base64," + base64.b64encode(picture).decode()
    parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
    seen: str = create(provider, turn(parts)).choices[0].message.content
    return seen


def face(provider: str) -> Face:
    return Face(*(partial(act, provider) for act in (ask, stream, use_tool, look)))


if __name__ == "__main__":
    report(openai=face("openai"), anthropic=face("anthropic"))
