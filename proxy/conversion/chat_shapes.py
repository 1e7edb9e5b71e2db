"""The parts of Chat Completions that conversions read or write, as they are on the wire."""

import msgspec
from msgspec import UNSET, UnsetType


class TextPart(msgspec.Struct, tag="text", kw_only=True):
    """A part of text."""

    text: str


class ImageUrl(msgspec.Struct, kw_only=True):
    """Where a picture is; a data URL holds it."""

    url: str


class ImagePart(msgspec.Struct, tag="image_url", kw_only=True):
    """A picture."""

    image_url: ImageUrl


class FileData(msgspec.Struct, kw_only=True):
    """A file as a data URL."""

    filename: str
    file_data: str


class FilePart(msgspec.Struct, tag="file", kw_only=True):
    """A file."""

    file: FileData


Part = TextPart | ImagePart | FilePart


class Function(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A called function; in a stream its name comes once and its arguments in pieces."""

    name: str | UnsetType = UNSET
    arguments: str


class ToolCall(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A call of a tool. In a stream `index` counts the calls of the answer from 0."""

    index: int | UnsetType = UNSET
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    function: Function


class ChatMessage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One message of a request."""

    role: str
    content: str | list[Part] | UnsetType | None = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET
    tool_call_id: str | UnsetType = UNSET


class FunctionSpec(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a function is and takes."""

    name: str
    description: str | UnsetType = UNSET
    parameters: msgspec.Raw | UnsetType = UNSET
    strict: bool | UnsetType = UNSET


class FunctionTool(msgspec.Struct, tag="function", kw_only=True):
    """A tool."""

    function: FunctionSpec


class FunctionName(msgspec.Struct, kw_only=True):
    """Which function."""

    name: str


class FunctionChoice(msgspec.Struct, tag="function", kw_only=True):
    """The one function that must be called."""

    function: FunctionName


class StreamOptions(msgspec.Struct, kw_only=True):
    """What a stream says besides the answer."""

    include_usage: bool


class JsonSchema(msgspec.Struct, kw_only=True):
    """A named schema that an answer must follow."""

    name: str
    schema: msgspec.Raw
    strict: bool = True


class ResponseFormat(msgspec.Struct, tag="json_schema", kw_only=True):
    """The form of an answer."""

    json_schema: JsonSchema


class ChatRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A body of /v1/chat/completions."""

    model: str
    messages: list[ChatMessage]
    max_tokens: int | UnsetType = UNSET
    max_completion_tokens: int | UnsetType = UNSET
    stop: list[str] | UnsetType = UNSET
    stream: bool | UnsetType = UNSET
    stream_options: StreamOptions | UnsetType = UNSET
    temperature: float | UnsetType = UNSET
    top_p: float | UnsetType = UNSET
    tools: list[FunctionTool] | UnsetType = UNSET
    tool_choice: str | FunctionChoice | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    response_format: ResponseFormat | UnsetType = UNSET
    reasoning_effort: str | UnsetType = UNSET
    service_tier: str | UnsetType = UNSET


class PromptDetails(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What came from a cache, and what was written into one."""

    cached_tokens: int
    cache_write_tokens: int | None = None


class CompletionDetails(msgspec.Struct, kw_only=True):
    """What a part of the output was."""

    reasoning_tokens: int


class Usage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What an answer used; the prompt's count has what came from a cache."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class Delta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one chunk adds."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET


class ChunkChoice(msgspec.Struct, kw_only=True):
    """The one answer of a chunk."""

    index: int = 0
    delta: Delta
    finish_reason: str | None = None


class Chunk(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One chunk of a stream. `usage` is null in all but the last, or in none at all."""

    id: str
    object: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | UnsetType | None = UNSET


class Answer(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The message of an answer."""

    role: str
    content: str | None
    refusal: str | None
    tool_calls: list[ToolCall] | UnsetType = UNSET


class Choice(msgspec.Struct, kw_only=True):
    """The one answer."""

    index: int = 0
    message: Answer
    logprobs: None = None
    finish_reason: str


class Completion(msgspec.Struct, kw_only=True):
    """A chat completion."""

    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class ReadPromptDetails(msgspec.Struct, kw_only=True):
    """What came from a cache, as it is read."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class ReadCompletionDetails(msgspec.Struct, kw_only=True):
    """What a part of the output was, as it is read."""

    reasoning_tokens: int | None = None


class ReadUsage(msgspec.Struct, kw_only=True):
    """What an answer used, as it is read."""

    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: ReadPromptDetails | None = None
    completion_tokens_details: ReadCompletionDetails | None = None


class ReadFunction(msgspec.Struct, kw_only=True):
    """A called function as it is read; servers leave out what they like."""

    name: str | None = None
    arguments: str | None = None


class ReadToolCall(msgspec.Struct, kw_only=True):
    """A call, or a piece of one, as it is read."""

    index: int | None = None
    id: str | None = None
    function: ReadFunction = msgspec.field(default_factory=ReadFunction)


class ReadMessage(msgspec.Struct, kw_only=True):
    """A message, or what a chunk adds to it, as it is read."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ReadToolCall] | None = None
    function_call: ReadFunction | None = None


class ReadChoice(msgspec.Struct, kw_only=True):
    """An answer as it is read."""

    index: int = 0
    message: ReadMessage | None = None
    delta: ReadMessage | None = None
    finish_reason: str | None = None


class ReadAnswer(msgspec.Struct, kw_only=True):
    """A completion or a chunk as it is read."""

    model: str | None = None
    choices: list[ReadChoice] | None = None
    usage: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")
