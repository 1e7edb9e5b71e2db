"""The conversation of a chat completion request as system text and turns of Messages."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from proxy.conversion.fields import Fields, Ignored, invalid
from proxy.conversion.messages_shapes import (
    Base64Source,
    Block,
    Document,
    Image,
    Text,
    ToolResult,
    ToolUse,
    Turn,
    UrlSource,
)

USER, ASSISTANT = "user", "assistant"
# Messages wants a user first; some programs begin with a greeting of the assistant.
OPENING = "(start)"
PDF = "application/pdf"
FILE_NAME_DEFAULT = "document.pdf"
_DATA_URL = re.compile(r"data:([\w.+/-]+)(?:;[\w.=-]+)*;base64,", re.IGNORECASE)
_MEDIA_TYPES = {"image/jpg": "image/jpeg"}
_NOTHING = (b"[]", b"{}", b'""')


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What was said, in the shape of Messages."""

    system: tuple[Text, ...]
    turns: tuple[Turn, ...]


@dataclass(slots=True)
class _Draft:
    """A turn that still grows: neighbours of one role are one turn."""

    role: str
    results: list[Block] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)


def read_conversation(messages: Sequence[Fields], ignored: Ignored) -> Conversation:
    """Read all messages. Raises ApiError 400 for what cannot be carried over."""
    reader = _Reader(ignored)
    for message in messages:
        reader.read(message)
    return reader.finish()


class _Reader:
    def __init__(self, ignored: Ignored) -> None:
        self._ignored = ignored
        self._system: list[Text] = []
        self._drafts: list[_Draft] = []
        self._functions = 0
        self._by_role: dict[str, Callable[[Fields], None]] = {
            "system": self._read_system,
            "developer": self._read_system,
            "user": self._read_user,
            "assistant": self._read_assistant,
            "tool": self._read_tool,
            "function": self._read_function,
        }

    def read(self, message: Fields) -> None:
        role = message.needed_text("role")
        if role not in self._by_role:
            names = ", ".join(f"'{name}'" for name in self._by_role)
            raise message.wrong("role", f"Input should be one of {names}")
        self._by_role[role](message)
        message.tell(self._ignored)

    def finish(self) -> Conversation:
        turns = [
            Turn(role=draft.role, content=content)
            for draft in self._drafts
            if (content := _content_of(draft))
        ]
        if not turns:
            raise invalid("messages: at least one message of a user is required")
        if turns[0].role == ASSISTANT:
            turns.insert(0, Turn(role=USER, content=OPENING))
        return Conversation(system=tuple(self._system), turns=tuple(turns))

    def _draft(self, role: str) -> _Draft:
        if not self._drafts or self._drafts[-1].role != role:
            self._drafts.append(_Draft(role))
        return self._drafts[-1]

    def _read_system(self, message: Fields) -> None:
        for block in _blocks(message, self._ignored):
            if not isinstance(block, Text):
                raise message.wrong("content", "only text is possible here")
            self._system.append(block)

    def _read_user(self, message: Fields) -> None:
        blocks = _blocks(message, self._ignored)
        if not blocks:
            raise message.wrong("content", "must not be empty")
        self._draft(USER).blocks += blocks

    def _read_assistant(self, message: Fields) -> None:
        draft = self._draft(ASSISTANT)
        message.drop("annotations", *_NOTHING)
        draft.blocks += _blocks(message, self._ignored)
        for call in message.objects("tool_calls"):
            kind = call.text("type")
            if kind not in (None, "function"):
                raise call.wrong("type", f"'{kind}' calls are not supported; use functions")
            function = call.needed_object("function")
            draft.blocks.append(_tool_use(call.needed_text("id"), function))
            call.drop("index", *(b"%d" % number for number in range(128)))
            function.tell(self._ignored)
            call.tell(self._ignored)
        function_call = message.object("function_call")
        if function_call is not None:
            self._functions += 1
            draft.blocks.append(_tool_use(self._function_id(), function_call))

    def _read_tool(self, message: Fields) -> None:
        self._add_result(message.needed_text("tool_call_id"), message)

    def _read_function(self, message: Fields) -> None:
        message.text("name")
        self._add_result(self._function_id(), message)

    def _function_id(self) -> str:
        """The id of the last call in the old form, which had none."""
        return f"call_function_{self._functions}"

    def _add_result(self, call_id: str, message: Fields) -> None:
        is_text = message.is_text("content")
        blocks = _blocks(message, self._ignored)
        result = ToolResult(tool_use_id=call_id)
        parts = [block for block in blocks if isinstance(block, Text | Image)]
        if len(parts) < len(blocks):
            raise message.wrong("content", "only text and images are possible here")
        if is_text and blocks:
            result.content = parts[0].text if isinstance(parts[0], Text) else parts
        elif blocks:
            result.content = parts
        self._draft(USER).results.append(result)


def _content_of(draft: _Draft) -> str | list[Block]:
    blocks = draft.results + draft.blocks
    only = blocks[0] if len(blocks) == 1 else None
    if isinstance(only, Text) and only.cache_control is msgspec.UNSET:
        return only.text
    return blocks


def _blocks(message: Fields, ignored: Ignored) -> list[Block]:
    """The blocks of a message's content; empty texts, which Messages refuses, are none."""
    if not message.is_list("content"):
        text = message.text("content")
        return [Text(text=text)] if text else []
    blocks: list[Block] = []
    for part in message.objects("content"):
        block = _block(part, ignored)
        if block is not None:
            blocks.append(block)
        part.tell(ignored)
    return blocks


def _block(part: Fields, ignored: Ignored) -> Block | None:
    kind = part.needed_text("type")
    if kind == "text":
        text = part.needed_text("text")
        return Text(text=text, cache_control=_cache_control(part)) if text else None
    if kind == "image_url":
        return _image(part, ignored)
    if kind == "file":
        return _document(part, ignored)
    if kind == "refusal":
        return Text(text=refusal) if (refusal := part.needed_text("refusal")) else None
    raise part.wrong("type", f"'{kind[:40]}' parts are not supported; use text, image_url or file")


def _image(part: Fields, ignored: Ignored) -> Image:
    place = part.needed_object("image_url")
    url = place.needed_text("url")
    place.drop("detail", b'"auto"')
    place.tell(ignored)
    cache_control = _cache_control(part)
    found = _DATA_URL.match(url)
    if found is not None:
        media_type = found[1].lower()
        source = Base64Source(
            media_type=_MEDIA_TYPES.get(media_type, media_type), data=url[found.end() :]
        )
        return Image(source=source, cache_control=cache_control)
    if not url.startswith(("https://", "http://")):
        raise place.wrong("url", "Input should be an http(s) URL or a base64 data URL")
    return Image(source=UrlSource(url=url), cache_control=cache_control)


def _document(part: Fields, ignored: Ignored) -> Document:
    file = part.needed_object("file")
    if "file_id" in file:
        raise file.wrong("file_id", "uploaded files are not supported; send file_data")
    url = file.needed_text("file_data")
    found = _DATA_URL.match(url)
    if found is None or found[1].lower() != PDF:
        raise file.wrong("file_data", "Input should be a PDF as a base64 data URL")
    source = Base64Source(media_type=PDF, data=url[found.end() :])
    document = Document(source=source, cache_control=_cache_control(part))
    name = file.text("filename")
    if name and name != FILE_NAME_DEFAULT:
        document.title = name
    file.tell(ignored)
    return document


def _cache_control(part: Fields) -> msgspec.Raw | msgspec.UnsetType:
    """Where to cache is no field of OpenAI's, but many programs send it to whoever can."""
    raw = part.raw("cache_control")
    return msgspec.UNSET if raw is None else raw


def _tool_use(call_id: str, function: Fields) -> ToolUse:
    arguments = function.text("arguments") or ""
    name = function.needed_text("name")
    return ToolUse(id=call_id, name=name, input=_input_of(arguments, function))


def _input_of(arguments: str, function: Fields) -> msgspec.Raw:
    if not arguments.strip():
        return msgspec.Raw(b"{}")
    encoded = arguments.encode()
    try:
        msgspec.json.decode(encoded, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise function.wrong("arguments", "Input should be a JSON object as a string") from error
    return msgspec.Raw(encoded)
