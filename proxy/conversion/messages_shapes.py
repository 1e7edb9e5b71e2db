"""The parts of the Messages API that conversions read or write, as they are on the wire."""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType


class Text(msgspec.Struct, tag="text", kw_only=True, omit_defaults=True):
    """A block of text."""

    text: str
    cache_control: msgspec.Raw | UnsetType = UNSET


class Base64Source(msgspec.Struct, tag="base64", kw_only=True):
    """Bytes in the request itself."""

    media_type: str
    data: str


class UrlSource(msgspec.Struct, tag="url", kw_only=True):
    """Bytes that the upstream fetches."""

    url: str


class Image(msgspec.Struct, tag="image", kw_only=True, omit_defaults=True):
    """A picture."""

    source: Base64Source | UrlSource
    cache_control: msgspec.Raw | UnsetType = UNSET


class Document(msgspec.Struct, tag="document", kw_only=True, omit_defaults=True):
    """A PDF."""

    source: Base64Source
    title: str | UnsetType = UNSET
    cache_control: msgspec.Raw | UnsetType = UNSET


class ToolUse(msgspec.Struct, tag="tool_use", kw_only=True):
    """A call of a client's tool; its input is the JSON that came."""

    id: str
    name: str
    input: msgspec.Raw


class ToolResult(msgspec.Struct, tag="tool_result", kw_only=True, omit_defaults=True):
    """What a tool gave."""

    tool_use_id: str
    content: "str | list[Text | Image] | UnsetType" = UNSET


Block = Text | Image | Document | ToolUse | ToolResult


class Turn(msgspec.Struct, kw_only=True):
    """One message of a conversation."""

    role: str
    content: str | list[Block]


class Tool(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A client's tool."""

    name: str
    description: str | UnsetType = UNSET
    input_schema: msgspec.Raw
    strict: bool | UnsetType = UNSET
    cache_control: msgspec.Raw | UnsetType = UNSET


class ToolChoice(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Which tools the model may or must call."""

    type: str
    name: str | UnsetType = UNSET
    disable_parallel_tool_use: bool | UnsetType = UNSET


class JsonFormat(msgspec.Struct, tag="json_schema", kw_only=True):
    """The schema that an answer must follow."""

    schema: msgspec.Raw


class OutputConfig(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How much effort, and which form."""

    effort: str | UnsetType = UNSET
    format: JsonFormat | UnsetType = UNSET


class Metadata(msgspec.Struct, kw_only=True):
    """Whose request it is."""

    user_id: str


class MessagesRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A body of /v1/messages."""

    model: msgspec.Raw
    max_tokens: int
    messages: list[Turn]
    system: str | list[Text] | UnsetType = UNSET
    stop_sequences: list[str] | UnsetType = UNSET
    stream: bool | UnsetType = UNSET
    temperature: float | UnsetType = UNSET
    top_p: float | UnsetType = UNSET
    top_k: int | UnsetType = UNSET
    tools: list[Tool] | UnsetType = UNSET
    tool_choice: ToolChoice | UnsetType = UNSET
    thinking: msgspec.Raw | UnsetType = UNSET
    output_config: OutputConfig | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    service_tier: str | UnsetType = UNSET


class OutputDetails(msgspec.Struct, kw_only=True):
    """What a part of the output was."""

    thinking_tokens: int


class Usage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What an answer used."""

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    output_tokens_details: OutputDetails | None = None


class Message(msgspec.Struct, tag="message", kw_only=True):
    """An answer, or the beginning of one."""

    id: str
    role: str = "assistant"
    model: str
    content: list[Text | ToolUse]
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Usage


class AnswerBlock(msgspec.Struct, kw_only=True):
    """A block of an answer as it is read: only what a chat completion can hold."""

    type: str = ""
    id: str = ""
    name: str = ""
    text: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")


class StopDetails(msgspec.Struct, kw_only=True):
    """Why an answer was refused."""

    explanation: str | None = None


class Answer(msgspec.Struct, kw_only=True):
    """An answer as it is read."""

    id: str
    type: str
    model: str = ""
    content: list[AnswerBlock] = []
    stop_reason: str | None = None
    stop_details: StopDetails | None = None
    usage: dict[str, Any] = {}
