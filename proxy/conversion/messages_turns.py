"""The conversation of a /v1/messages body as messages of Chat Completions."""

from collections.abc import Callable, Mapping

from proxy.api_errors import ApiError
from proxy.conversion.chat_shapes import (
    ChatMessage,
    FileData,
    FilePart,
    Function,
    ImagePart,
    ImageUrl,
    Part,
    TextPart,
    ToolCall,
)
from proxy.conversion.chat_turns import FILE_NAME_DEFAULT, PDF
from proxy.conversion.fields import Fields, Ignored

ERROR_PREFIX = "Error: "
# What is left out of a conversation, and named; docs/conversion.md has the same rows.
LEFT_OUT = frozenset(("thinking", "redacted_thinking"))


def read_turns(
    system: Fields | None, messages: list[Fields], ignored: Ignored
) -> list[ChatMessage]:
    """All messages. `system` is the whole body. Raises ApiError 400 for what cannot be said."""
    writer = _Writer(ignored)
    if system is not None and "system" in system:
        writer.add_system(_texts(system, "system", ignored))
    for message in messages:
        writer.add(message)
        message.tell(ignored)
    return writer.messages


class _Writer:
    def __init__(self, ignored: Ignored) -> None:
        self.messages: list[ChatMessage] = []
        self._ignored = ignored
        self._by_role: Mapping[str, Callable[[Fields], None]] = {
            "system": self._add_system_turn,
            "user": self._add_user,
            "assistant": self._add_assistant,
        }

    def add(self, message: Fields) -> None:
        role = message.needed_text("role")
        if role not in self._by_role:
            raise message.wrong("role", "Input should be 'user', 'assistant' or 'system'")
        self._by_role[role](message)

    def add_system(self, texts: list[str]) -> None:
        if texts:
            # Chat templates of many models take system text as one string alone.
            self.messages.append(ChatMessage(role="system", content="\n".join(texts)))

    def _add_system_turn(self, message: Fields) -> None:
        self.add_system(_texts(message, "content", self._ignored))

    def _add_user(self, message: Fields) -> None:
        if message.is_text("content"):
            self.messages.append(ChatMessage(role="user", content=message.needed_text("content")))
            return
        parts: list[Part] = []
        pictures: list[Part] = []
        for block in message.objects("content"):
            kind = block.needed_text("type")
            if kind == "tool_result":
                pictures += self._add_result(block)
            else:
                parts += _user_parts(kind, block, self._ignored)
            block.tell(self._ignored)
        if pictures or parts:
            self.messages.append(ChatMessage(role="user", content=_content(pictures + parts)))

    def _add_result(self, block: Fields) -> list[Part]:
        """A tool's message; its pictures are handed back, since tools may say text alone there."""
        call_id = block.needed_text("tool_use_id")
        is_error = block.flag("is_error")
        parts: list[Part] = []
        pictures: list[Part] = []
        if block.is_text("content"):
            parts.append(TextPart(text=block.needed_text("content")))
        for inner in block.objects("content"):
            kind = inner.needed_text("type")
            if kind not in ("text", "image"):
                raise _impossible(inner, kind)
            into = parts if kind == "text" else pictures
            into += _user_parts(kind, inner, self._ignored)
            inner.tell(self._ignored)
        if is_error:
            first = parts[0].text if parts and isinstance(parts[0], TextPart) else ""
            parts[:1] = [TextPart(text=ERROR_PREFIX + first)]
        content = _content(parts) if parts else ""
        self.messages.append(ChatMessage(role="tool", content=content, tool_call_id=call_id))
        return pictures

    def _add_assistant(self, message: Fields) -> None:
        if message.is_text("content"):
            text = message.needed_text("content")
            self.messages.append(ChatMessage(role="assistant", content=text))
            return
        parts: list[Part] = []
        calls: list[ToolCall] = []
        for block in message.objects("content"):
            kind = block.needed_text("type")
            if kind == "tool_use":
                calls.append(_call(block))
            elif kind in LEFT_OUT:
                self._ignored.add(f"messages.content.{kind}")
                continue
            elif kind == "text":
                parts += _user_parts(kind, block, self._ignored)
            else:
                raise _impossible(block, kind)
            block.tell(self._ignored)
        if not parts and not calls:
            return
        made = ChatMessage(role="assistant", content=_content(parts) if parts else None)
        if calls:
            made.tool_calls = calls
        self.messages.append(made)


def _content(parts: list[Part]) -> str | list[Part]:
    only = parts[0] if len(parts) == 1 else None
    return only.text if isinstance(only, TextPart) else parts


def _texts(holder: Fields, name: str, ignored: Ignored) -> list[str]:
    if holder.is_text(name):
        return [holder.needed_text(name)]
    texts = []
    for block in holder.objects(name):
        kind = block.needed_text("type")
        if kind != "text":
            raise _impossible(block, kind)
        texts.append(block.needed_text("text"))
        block.tell(ignored)
    return texts


def _user_parts(kind: str, block: Fields, ignored: Ignored) -> list[Part]:
    if kind == "text":
        return [TextPart(text=block.needed_text("text"))]
    if kind == "image":
        return [ImagePart(image_url=ImageUrl(url=_image_url(block.needed_object("source"))))]
    if kind == "document":
        return [_document(block, ignored)]
    raise _impossible(block, kind)


def _image_url(source: Fields) -> str:
    kind = source.needed_text("type")
    if kind == "base64":
        media_type = source.needed_text("media_type")
        return f"data:{media_type};base64,{source.needed_text('data')}"
    if kind == "url":
        return source.needed_text("url")
    raise _impossible(source, kind)


def _document(block: Fields, ignored: Ignored) -> Part:
    citations = block.object("citations")
    if citations is not None and citations.flag("enabled"):
        raise block.wrong("citations", "the upstream of this model cannot cite documents")
    source = block.needed_object("source")
    kind, title = source.needed_text("type"), block.text("title")
    if kind == "text":
        source.text("media_type")
        text = source.needed_text("data")
        return TextPart(text=f"{title}\n\n{text}" if title else text)
    if kind != "base64":
        raise _impossible(source, kind)
    media_type = source.needed_text("media_type")
    if media_type != PDF:
        raise source.wrong("media_type", f"Input should be '{PDF}'")
    data = f"data:{PDF};base64,{source.needed_text('data')}"
    return FilePart(file=FileData(filename=title or FILE_NAME_DEFAULT, file_data=data))


def _call(block: Fields) -> ToolCall:
    given = block.object("input")
    if given is None:
        raise block.missing("input")
    return ToolCall(
        id=block.needed_text("id"),
        type="function",
        function=Function(name=block.needed_text("name"), arguments=given.source.decode()),
    )


def _impossible(block: Fields, kind: str) -> ApiError:
    return block.wrong(
        "type", f"the upstream of this model cannot take `{kind[:60]}`; no other one serves it"
    )
