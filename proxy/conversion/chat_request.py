"""A request of Chat Completions as a body of /v1/messages.

What cannot be carried over is refused, or named for the header `x-turnpike-ignored`. A field that
asks for nothing (`"n": 1`, `"store": false`) is passed over.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
from msgspec import UNSET

from proxy.api_errors import ApiError
from proxy.conversion.chat_turns import Conversation, read_conversation
from proxy.conversion.fields import Fields, Ignored, invalid, object_of
from proxy.conversion.messages_shapes import (
    JsonFormat,
    MessagesRequest,
    Metadata,
    OutputConfig,
    Text,
    Tool,
    ToolChoice,
)
from proxy.conversion.traits import ModelTraits

IGNORED_HEADER = b"x-turnpike-ignored"
JSON_INSTRUCTION = "Answer with one valid JSON object and nothing else."
EMPTY_SCHEMA = b'{"type":"object","properties":{}}'

# What becomes of each field; docs/conversion.md has the same rows.
CARRIED: Mapping[str, str] = {
    "model": "model",
    "messages": "system, messages",
    "max_completion_tokens": "max_tokens",
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "stop": "stop_sequences",
    "stream": "stream",
    "tools": "tools",
    "functions": "tools",
    "tool_choice": "tool_choice",
    "function_call": "tool_choice",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "response_format": "output_config.format",
    "reasoning_effort": "output_config.effort",
    "user": "metadata.user_id",
    "safety_identifier": "metadata.user_id",
    "service_tier": "service_tier",
    "thinking": "thinking",
    "top_k": "top_k",
}
REFUSED: Mapping[str, str] = {
    "audio": "audio answers are not supported",
    "modalities": "only text answers are supported",
    "n": "only one answer is supported",
}
# JSON that asks for no more than its absence does.
NEUTRAL: Mapping[str, tuple[bytes, ...]] = {
    "n": (b"1",),
    "modalities": (b'["text"]', b'[ "text" ]'),
    "logprobs": (b"false",),
    "top_logprobs": (b"0",),
    "logit_bias": (b"{}",),
    "presence_penalty": (b"0", b"0.0"),
    "frequency_penalty": (b"0", b"0.0"),
    "store": (b"false",),
    "metadata": (b"{}",),
    "tools": (b"[]",),
    "functions": (b"[]",),
    "verbosity": (b'"medium"',),
}
EFFORTS: Mapping[str, str] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
TOOL_CHOICES: Mapping[str, str] = {"none": "none", "auto": "auto", "required": "any"}
SERVICE_TIERS: Mapping[str, str] = {"auto": "auto", "default": "standard_only"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedRequest:
    """A body of /v1/messages, and what the client must be told."""

    body: bytes
    ignored: tuple[str, ...]
    has_usage_chunk: bool


def messages_body_of(raw: bytes, *, traits_of: Callable[[str], ModelTraits]) -> ConvertedRequest:
    """Convert a request. Raises ApiError 400, whose message begins with the field's path."""
    fields = _top_level(raw)
    ignored = Ignored()
    for name, neutral in NEUTRAL.items():
        fields.drop(name, *neutral)
    for name, reason in REFUSED.items():
        if name in fields:
            raise fields.wrong(name, reason)
    model = fields.raw("model")
    if model is None:
        raise fields.missing("model")
    traits = traits_of(_name_of(model))
    if "messages" not in fields:
        raise fields.missing("messages")
    conversation = read_conversation(fields.objects("messages"), ignored)
    request = MessagesRequest(
        model=model, max_tokens=_max_tokens(fields, traits), messages=list(conversation.turns)
    )
    instruction = _set_format(request, fields, ignored)
    _set_system(request, conversation, instruction)
    _set_sampling(request, fields, traits, ignored)
    _set_stop(request, fields, ignored)
    _set_tools(request, fields, ignored)
    _set_effort(request, fields, traits, ignored)
    _set_account(request, fields, ignored)
    has_usage_chunk = _set_stream(request, fields, ignored)
    fields.tell(ignored)
    return ConvertedRequest(
        body=msgspec.json.encode(request), ignored=ignored.names, has_usage_chunk=has_usage_chunk
    )


def _top_level(raw: bytes) -> Fields:
    if not raw.isascii():
        try:
            raw.decode()
        except UnicodeDecodeError as error:
            raise invalid(f"The request body is not valid JSON: {error}") from error
    return object_of(raw)


def _name_of(model: msgspec.Raw) -> str:
    try:
        return msgspec.json.decode(model, type=str)
    except msgspec.MsgspecError as error:
        raise invalid("model: Input should be a valid string") from error


def _max_tokens(fields: Fields, traits: ModelTraits) -> int:
    newer, older = fields.integer("max_completion_tokens"), fields.integer("max_tokens")
    wanted = older if newer is None else newer
    return traits.max_tokens_default if wanted is None else wanted


def _set_system(request: MessagesRequest, conversation: Conversation, instruction: str) -> None:
    blocks = list(conversation.system)
    if instruction:
        blocks.append(Text(text=instruction))
    if any(block.cache_control is not UNSET for block in blocks):
        request.system = blocks
    elif blocks:
        request.system = "\n".join(block.text for block in blocks)


def _set_sampling(
    request: MessagesRequest, fields: Fields, traits: ModelTraits, ignored: Ignored
) -> None:
    temperature, top_p = fields.number("temperature"), fields.number("top_p")
    top_k = fields.integer("top_k")
    if not traits.takes_sampling:
        for name, value in (("temperature", temperature), ("top_p", top_p), ("top_k", top_k)):
            if value not in (None, 1):
                ignored.add(name)
        return
    if temperature is not None:
        if temperature > 1:
            ignored.add("temperature")
        request.temperature = min(temperature, 1)
    if top_p is not None:
        request.top_p = top_p
    if top_k is not None:
        request.top_k = top_k


def _set_stop(request: MessagesRequest, fields: Fields, ignored: Ignored) -> None:
    if fields.is_text("stop"):
        wanted = [fields.needed_text("stop")]
    else:
        wanted = fields.take("stop", list[str], "list of strings") or []
    kept = [text for text in wanted if text.strip()]
    if len(kept) < len(wanted):
        ignored.add("stop")
    if kept:
        request.stop_sequences = kept


def _set_stream(request: MessagesRequest, fields: Fields, ignored: Ignored) -> bool:
    is_stream = fields.flag("stream")
    if is_stream is not None:
        request.stream = is_stream
    options = fields.object("stream_options")
    if options is None:
        return False
    has_usage_chunk = bool(options.flag("include_usage"))
    options.tell(ignored)
    return has_usage_chunk


def _set_format(request: MessagesRequest, fields: Fields, ignored: Ignored) -> str:
    """Ask for a form; returns the instruction where words must do."""
    wanted = fields.object("response_format")
    if wanted is None:
        return ""
    kind = wanted.needed_text("type")
    if kind == "json_object":
        return JSON_INSTRUCTION
    if kind == "json_schema":
        described = wanted.needed_object("json_schema")
        schema = described.raw("schema")
        if schema is None:
            raise described.missing("schema")
        for name in ("name", "strict", "description"):
            described.raw(name)
        described.tell(ignored)
        request.output_config = OutputConfig(format=JsonFormat(schema=schema))
    elif kind != "text":
        raise wanted.wrong("type", f"'{kind[:40]}' is not supported")
    return ""


def _set_effort(
    request: MessagesRequest, fields: Fields, traits: ModelTraits, ignored: Ignored
) -> None:
    thinking = fields.raw("thinking")
    if thinking is not None:
        request.thinking = thinking
    wanted = fields.text("reasoning_effort")
    if wanted is None:
        return
    if wanted == "none":
        if traits.can_stop_thinking and thinking is None:
            request.thinking = msgspec.Raw(b'{"type":"disabled"}')
        else:
            ignored.add("reasoning_effort")
        return
    if wanted not in EFFORTS:
        names = ", ".join(f"'{name}'" for name in ("none", *EFFORTS))
        raise fields.wrong("reasoning_effort", f"Input should be one of {names}")
    effort = EFFORTS[wanted]
    if traits.efforts is not None and effort not in traits.efforts:
        ignored.add("reasoning_effort")
        return
    known = None if request.output_config is UNSET else request.output_config
    config = OutputConfig(effort=effort)
    if known is not None:
        config.format = known.format
    request.output_config = config


def _set_account(request: MessagesRequest, fields: Fields, ignored: Ignored) -> None:
    user = fields.text("user")
    person = fields.text("safety_identifier") or user
    if person:
        # What a program calls its users may be an address; the upstream needs to tell them apart.
        request.metadata = Metadata(user_id=hashlib.sha256(person.encode()).hexdigest())
    tier = fields.text("service_tier")
    if tier is not None and tier not in SERVICE_TIERS:
        ignored.add("service_tier")
    elif tier is not None:
        request.service_tier = SERVICE_TIERS[tier]


def _set_tools(request: MessagesRequest, fields: Fields, ignored: Ignored) -> None:
    tools = [_tool(tool, ignored) for tool in fields.objects("tools")]
    tools += [_function(function, ignored) for function in fields.objects("functions")]
    choice = _tool_choice(fields, ignored)
    if isinstance(choice, _Allowed):
        tools = [tool for tool in tools if tool.name in choice.names]
        choice = ToolChoice(type=choice.type)
    if fields.flag("parallel_tool_calls") is False and tools:
        choice = choice or ToolChoice(type="auto")
        if choice.type != "none":
            choice.disable_parallel_tool_use = True
    if tools:
        request.tools = tools
    if choice is not None and (tools or choice.type in ("any", "tool")):
        request.tool_choice = choice


def _tool(tool: Fields, ignored: Ignored) -> Tool:
    kind = tool.needed_text("type")
    if kind != "function":
        raise tool.wrong("type", f"'{kind[:40]}' tools are not supported; use functions")
    made = _function(tool.needed_object("function"), ignored)
    marked = tool.raw("cache_control")
    if marked is not None:
        made.cache_control = marked
    tool.tell(ignored)
    return made


def _function(function: Fields, ignored: Ignored) -> Tool:
    schema = function.raw("parameters") or msgspec.Raw(EMPTY_SCHEMA)
    tool = Tool(name=function.needed_text("name"), input_schema=schema)
    description, is_strict = function.text("description"), function.flag("strict")
    if description is not None:
        tool.description = description
    if is_strict is not None:
        tool.strict = is_strict
    function.tell(ignored)
    return tool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Allowed:
    """A choice among some of the tools."""

    type: str
    names: frozenset[str]


def _tool_choice(fields: Fields, ignored: Ignored) -> ToolChoice | _Allowed | None:
    name = "tool_choice" if "tool_choice" in fields else "function_call"
    if name not in fields:
        return None
    if fields.is_text(name):
        word = fields.needed_text(name)
        if word not in TOOL_CHOICES:
            names = ", ".join(f"'{word}'" for word in TOOL_CHOICES)
            raise fields.wrong(name, f"Input should be one of {names}, or an object")
        return ToolChoice(type=TOOL_CHOICES[word])
    choice = fields.needed_object(name)
    kind = choice.text("type") or "function"
    if kind == "allowed_tools":
        return _allowed(choice.needed_object("allowed_tools"))
    if kind != "function":
        raise _not_supported(choice, kind)
    named = choice if name == "function_call" else choice.needed_object("function")
    chosen = ToolChoice(type="tool", name=named.needed_text("name"))
    choice.tell(ignored)
    return chosen


def _allowed(wanted: Fields) -> _Allowed:
    mode = wanted.text("mode") or "auto"
    if mode not in TOOL_CHOICES:
        raise wanted.wrong("mode", "Input should be one of 'auto', 'required'")
    names = set()
    for tool in wanted.objects("tools"):
        kind = tool.needed_text("type")
        if kind != "function":
            raise _not_supported(tool, kind)
        names.add(tool.needed_object("function").needed_text("name"))
    return _Allowed(type=TOOL_CHOICES[mode], names=frozenset(names))


def _not_supported(choice: Fields, kind: str) -> ApiError:
    return choice.wrong("type", f"'{kind[:40]}' tools are not supported; use functions")
