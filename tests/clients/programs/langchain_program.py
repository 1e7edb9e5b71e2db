"""LangChain, with both of its packages that may speak to us."""

import base64
from collections.abc import Callable
from functools import partial
from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from target import LANE, ORDER_HEADER, URL, Call, Face, report

Make = Callable[[Call], Any]
USUAL = Call()


@tool
def get_lane(plate: str) -> str:
    """The lane that a number plate may use."""
    return LANE if plate else ""


def openai(call: Call) -> Any:
    return ChatOpenAI(base_url=URL + "/v1", **options(call))


def anthropic(call: Call) -> Any:
    return ChatAnthropic(base_url=URL, **options(call))


def options(call: Call) -> Any:
    return {
        "model": call.model,
        "api_key": call.key,
        "max_retries": call.retries,
        "max_tokens": 200,
        "default_headers": {ORDER_HEADER: call.orders} if call.orders else None,
    }


def text_of(message: Any) -> str:
    """The text of an answer."""
    return str(message.text)


def ask(make: Make, call: Call) -> str:
    return text_of(make(call).invoke(call.text))


def stream(make: Make, text: str) -> list[str]:
    return [said for chunk in make(USUAL).stream(text) if (said := text_of(chunk))]


def use_tool(make: Make, text: str) -> tuple[Any, str]:
    model = make(USUAL).bind_tools([get_lane])
    asked = model.invoke(text)
    call = asked.tool_calls[0]
    result = ToolMessage(content=get_lane.invoke(call["args"]), tool_call_id=call["id"])
    return call["args"], text_of(model.invoke([HumanMessage(text), asked, result]))


def look(make: Make, text: str, picture: bytes) -> str:
    image = {
        "type": "image",
        "base64": base64.b64encode(picture).decode(),
        "mime_type": "image/png",
    }
    message = HumanMessage(content_blocks=[{"type": "text", "text": text}, image])
    return text_of(make(USUAL).invoke([message]))


def face(make: Make) -> Face:
    return Face(*(partial(act, make) for act in (ask, stream, use_tool, look)))


if __name__ == "__main__":
    report(openai=face(openai), anthropic=face(anthropic))
