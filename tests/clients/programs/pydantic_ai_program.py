"""pydantic-ai, with both of its providers that may speak to us."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic_ai import Agent, BinaryContent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from target import LANE, ORDER_HEADER, URL, Call, Face, report

Make = Callable[[Call], Any]
USUAL = Call()


def options(call: Call) -> Any:
    headers = {ORDER_HEADER: call.orders} if call.orders else {}
    return {"api_key": call.key, "max_retries": call.retries, "default_headers": headers}


def openai(call: Call) -> Any:
    client = AsyncOpenAI(base_url=URL + "/v1", **options(call))
    return OpenAIChatModel(call.model, provider=OpenAIProvider(openai_client=client))


def anthropic(call: Call) -> Any:
    client = AsyncAnthropic(base_url=URL, **options(call))
    return AnthropicModel(call.model, provider=AnthropicProvider(anthropic_client=client))


def agent(make: Make, call: Call = USUAL) -> Any:
    return Agent(make(call), model_settings={"max_tokens": 200}, retries=0)


def ask(make: Make, call: Call) -> str:
    return str(agent(make, call).run_sync(call.text).output)


def stream(make: Make, text: str) -> list[str]:
    async def read() -> list[str]:
        async with agent(make).run_stream(text) as result:
            return [piece async for piece in result.stream_text(delta=True, debounce_by=None)]

    return asyncio.run(read())


def use_tool(make: Make, text: str) -> tuple[Any, str]:
    asked: list[Any] = []
    one = agent(make)

    @one.tool_plain
    def get_lane(plate: str) -> str:
        """The lane that a number plate may use."""
        asked.append({"plate": plate})
        return LANE

    answer = str(one.run_sync(text).output)
    return asked[0], answer


def look(make: Make, text: str, picture: bytes) -> str:
    image = BinaryContent(data=picture, media_type="image/png")
    return str(agent(make).run_sync([text, image]).output)


def face(make: Make) -> Face:
    return Face(*(partial(act, make) for act in (ask, stream, use_tool, look)))


if __name__ == "__main__":
    report(openai=face(openai), anthropic=face(anthropic))
