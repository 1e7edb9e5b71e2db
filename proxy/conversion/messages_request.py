"""A body of /v1/messages as a request for an OpenAI-compatible upstream.

What the request depends on and the upstream cannot do is refused; what only steers is named for the
header `x-turnpike-ignored`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from msgspec import UNSET

from proxy.conversion.chat_shapes import (
    ChatRequest,
    FunctionChoice,
    FunctionName,
    FunctionSpec,
    FunctionTool,
    JsonSchema,
    ResponseFormat,
    StreamOptions,
)
from proxy.conversion.fields import Fields, Ignored
from proxy.conversion.messages_turns import read_turns
from proxy.conversion.traits import ModelTraits

SCHEMA_NAME = "answer"
# These refuse `max_tokens`; many other servers know no other name for it.
NEWER_LIMIT_MODELS = ("o1", "o3", "o4", "gpt-5")

# What becomes of each field; docs/conversion.md has the same rows.
CARRIED: Mapping[str, str] = {
    "model": "model",
    "max_tokens": "max_tokens or max_completion_tokens",
    "messages": "messages",
    "system": "messages",
    "stop_sequences": "stop",
    "stream": "stream, stream_options",
    "temperature": "temperature",
    "top_p": "top_p",
    "tools": "tools",
    "tool_choice": "tool_choice, parallel_tool_calls",
    "output_config": "reasoning_effort, response_format",
    "thinking": "reasoning_effort",
    "service_tier": "service_tier",
}
REFUSED = ("container", "mcp_servers", "thread", "compaction")
# JSON that asks for no more than its absence does.
NEUTRAL: Mapping[str, tuple[bytes, ...]] = {
    "container": (b'""',),
    "mcp_servers": (b"[]",),
    "speed": (b'"standard"',),
    "inference_geo": (b'"global"',),
    "metadata": (b"{}",),
    "stop_sequences": (b"[]",),
}
TOOL_CHOICES: Mapping[str, str] = {"none": "none", "auto": "auto", "any": "required"}
SERVICE_TIERS: Mapping[str, str] = {"auto": "auto", "standard_only": "default"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedBody:
    """A body of /v1/chat/completions, and what the client must be told."""

    body: bytes
    ignored: tuple[str, ...]


def chat_body_of(
    body: Mapping[str, msgspec.Raw], *, upstream_model: str, traits: ModelTraits
) -> ConvertedBody:
    """Convert a body's top level. Raises ApiError 400 for what cannot be carried over."""
    ignored = Ignored()
    fields = Fields(body)
    for name, neutral in NEUTRAL.items():
        fields.drop(name, *neutral)
    for name in REFUSED:
        if name in fields:
            raise fields.wrong(name, "the upstream of this model cannot do this")
    if "inference_geo" in fields:
        raise fields.wrong("inference_geo", "the upstream of this model cannot promise this")
    fields.raw("model")
    request = ChatRequest(
        model=upstream_model, messages=read_turns(fields, fields.objects("messages"), ignored)
    )
    _set_limits(request, fields, upstream_model)
    _set_stream(request, fields)
    _set_tools(request, fields, ignored)
    _set_thinking(request, fields, traits, ignored)
    _set_output(request, fields, traits, ignored)
    tier = fields.text("service_tier")
    if tier is not None:
        request.service_tier = SERVICE_TIERS.get(tier, UNSET)
    fields.tell(ignored)
    return ConvertedBody(body=msgspec.json.encode(request), ignored=ignored.names)


def _set_limits(request: ChatRequest, fields: Fields, upstream_model: str) -> None:
    limit = fields.integer("max_tokens")
    if limit is not None and upstream_model.startswith(NEWER_LIMIT_MODELS):
        request.max_completion_tokens = limit
    elif limit is not None:
        request.max_tokens = limit
    temperature, top_p = fields.number("temperature"), fields.number("top_p")
    if temperature is not None:
        request.temperature = temperature
    if top_p is not None:
        request.top_p = top_p
    stop = fields.take("stop_sequences", list[str], "list of strings")
    if stop:
        request.stop = stop


def _set_stream(request: ChatRequest, fields: Fields) -> None:
    is_stream = fields.flag("stream")
    if is_stream is not None:
        request.stream = is_stream
    if is_stream:
        # Without it there is nothing to bill by.
        request.stream_options = StreamOptions(include_usage=True)


def _set_tools(request: ChatRequest, fields: Fields, ignored: Ignored) -> None:
    tools = [_tool(tool, ignored) for tool in fields.objects("tools")]
    if tools:
        request.tools = tools
    choice = fields.object("tool_choice")
    if choice is None:
        return
    kind = choice.needed_text("type")
    is_single = choice.flag("disable_parallel_tool_use")
    if kind == "tool":
        name = FunctionName(name=choice.needed_text("name"))
        request.tool_choice = FunctionChoice(function=name)
    elif kind in TOOL_CHOICES:
        if tools or kind == "any":
            request.tool_choice = TOOL_CHOICES[kind]
    else:
        raise choice.wrong("type", "Input should be 'auto', 'any', 'tool' or 'none'")
    if is_single and tools:
        request.parallel_tool_calls = False
    choice.tell(ignored)


def _tool(tool: Fields, ignored: Ignored) -> FunctionTool:
    kind = tool.text("type")
    if kind not in (None, "custom"):
        raise tool.wrong("type", f"the upstream of this model has no tool `{kind[:60]}`")
    schema = tool.raw("input_schema")
    if schema is None:
        raise tool.missing("input_schema")
    spec = FunctionSpec(name=tool.needed_text("name"), parameters=schema)
    description, is_strict = tool.text("description"), tool.flag("strict")
    if description is not None:
        spec.description = description
    if is_strict is not None:
        spec.strict = is_strict
    tool.tell(ignored)
    return FunctionTool(function=spec)


def _set_thinking(
    request: ChatRequest, fields: Fields, traits: ModelTraits, ignored: Ignored
) -> None:
    thinking = fields.object("thinking")
    if thinking is None:
        return
    if thinking.needed_text("type") == "disabled" and traits.can_stop_thinking:
        request.reasoning_effort = "none"
    else:
        ignored.add("thinking")


def _set_output(
    request: ChatRequest, fields: Fields, traits: ModelTraits, ignored: Ignored
) -> None:
    config = fields.object("output_config")
    if config is None:
        return
    effort = config.text("effort")
    if effort is not None:
        if traits.efforts is None or effort in traits.efforts:
            request.reasoning_effort = effort
        else:
            ignored.add("output_config.effort")
    form = config.object("format")
    if form is not None:
        if form.needed_text("type") != "json_schema":
            raise form.wrong("type", "Input should be 'json_schema'")
        schema = form.raw("schema")
        if schema is None:
            raise form.missing("schema")
        request.response_format = ResponseFormat(
            json_schema=JsonSchema(name=SCHEMA_NAME, schema=schema)
        )
        form.tell(ignored)
    config.tell(ignored)
