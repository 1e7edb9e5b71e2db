"""The OpenAI SDK."""

import base64
import json
from typing import Any

import openai
from target import LANE, ORDER_HEADER, SCHEMA, URL, Call, Face, report

USUAL = Call()
TOOL: Any = {"type": "function", "function": {"name": "get_lane", "parameters": SCHEMA}}


def client(call: Call) -> Any:
    headers = {ORDER_HEADER: call.orders} if call.orders else {}
    return openai.OpenAI(
        base_url=URL + "/v1", api_key=call.key, max_retries=call.retries, default_headers=headers
    )


def create(messages: Any, call: Call = USUAL, **fields: Any) -> Any:
    return client(call).chat.completions.create(
        model=call.model, messages=messages, max_tokens=200, **fields
    )


def turn(content: Any) -> Any:
    return [{"role": "user", "content": content}]


def ask(call: Call) -> str:
    text: str = create(turn(call.text), call).choices[0].message.content
    return text


def stream(text: str) -> list[str]:
    chunks = create(turn(text), stream=True, stream_options={"include_usage": True})
    return [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]


def use_tool(text: str) -> tuple[Any, str]:
    asked = create(turn(text), tools=[TOOL]).choices[0].message
    call = asked.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call.id, "content": LANE}
    turns = [*turn(text), asked.model_dump(exclude_none=True), result]
    answer = create(turns, tools=[TOOL]).choices[0].message.content
    return json.loads(call.function.arguments), answer


def look(text: str, picture: bytes) -> str:
    url = "data:image/png;base64," + base64.b64encode(picture).decode()
    parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
    seen: str = create(turn(parts)).choices[0].message.content
    return seen


if __name__ == "__main__":
    report(openai=Face(ask=ask, stream=stream, use_tool=use_tool, look=look))
