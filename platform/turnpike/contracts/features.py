"""What a request asks for beyond plain messages: what it may cost, and what it names upstream.

Tenants share an upstream account. So whatever lives there (files, containers, skills, messages of
a thread) must be known to be the tenant's own, and whatever costs without saying so in `usage` must
be held, or refused. This module reads bodies; it decides nothing about tenants or money.

What a platform does not serve unless its operator says so are the names in FEATURES.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

CODE_EXECUTION = "code_execution"
CUSTOM_SKILLS = "custom_skills"
SHARED_OBJECTS = "shared_objects"
THREADS = "threads"
DEFAULT_FALLBACKS = "default_fallbacks"
UNKNOWN_TOOLS = "unknown_tools"

# Off until an operator switches them on, for a tier or for the platform; and why.
FEATURES: Mapping[str, str] = {
    CODE_EXECUTION: "the time of its containers costs and is not reported",
    CUSTOM_SKILLS: "skills belong to the upstream's account, which tenants share",
    SHARED_OBJECTS: "files, containers and messages that no answer to the tenant has named",
    THREADS: "the upstream adds turns that cannot be seen, and bills them",
    DEFAULT_FALLBACKS: "the upstream chooses the model, and so the price",
    UNKNOWN_TOOLS: "tools of the upstream whose price is not known",
}

# Kinds of upstream objects.
FILE, CONTAINER, MESSAGE = "file", "container", "message"
OBJECTS_MAX = 1_000
OBJECT_ID_LENGTH_MAX = 200

# An upstream's loop of tools pauses after so many calls.
LOOP_CALLS_MAX = 10
USES_DEFAULT = 10
SEARCHES_MAX = 100
FALLBACKS_MAX = 10

# Fields that ask for nothing of this kind never reach the functions below.
GUARDED_FIELDS = frozenset(
    (
        "billing_policy",
        "compaction",
        "container",
        "context_management",
        "diagnostics",
        "fallbacks",
        "inference_geo",
        "mcp_servers",
        "speed",
        "thread",
    )
)
SPEEDS = ("standard", "fast")
GEOS = ("global", "us")

# Tools that the client runs: nothing happens upstream.
_CLIENT_TOOL = re.compile(
    r"(?:bash|text_editor|memory|computer|computer_toolset|browser_toolset)_\d{8}"
)
_SERVER_TOOL = re.compile(r"(web_search|web_fetch|code_execution|advisor)_(\d{8})")
_TOOL_SEARCH = re.compile(r"tool_search_tool_(?:regex|bm25)(?:_\d{8})?")
# From this version on the web tools may run code, in a container that is free with them.
_WEB_WITH_CODE = "20260209"

# Blocks in which an upstream names files that it made.
_NAMING_BLOCKS = frozenset(
    (
        "bash_code_execution_tool_result",
        "code_execution_tool_result",
        "container_upload",
        "text_editor_code_execution_tool_result",
    )
)
_UNDERSCORE = ord("_")
_NAMING = re.compile(rb'"(?:file_id|tool_addition)"')
# JSON may spell a letter as an escape, and hide a word from a search of the bytes.
_HIDDEN_LETTER = re.compile(rb"\\u00(?:3[0-9]|5[fF]|6[1-9a-fA-F]|7[0-9aA])")


class NotServed(ValueError):
    """A request asks for what is never served, or in a way that nobody can price."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wants:
    """What a body asks for. `objects`: kind and id of what it names upstream.

    `loops`: how many more model calls the upstream's tools may cause; `advisors`: model and uses;
    `names_objects`: the answer may name objects, which then are the tenant's.
    """

    features: frozenset[str] = frozenset()
    objects: frozenset[tuple[str, str]] = frozenset()
    fallbacks: tuple[str, ...] = ()
    advisors: tuple[tuple[str, int], ...] = ()
    loops: int = 0
    searches: int = 0
    is_compacted: bool = False
    names_objects: bool = False


NOTHING = Wants()


class _Tool(msgspec.Struct):
    type: str | None = None


_read_tool_types = msgspec.json.Decoder(list[_Tool]).decode


def read_wants(
    fields: Mapping[str, msgspec.Raw], messages: bytes = b"", *, has_escapes: bool = True
) -> Wants:
    """What a body asks for, from its top level's values as they came. Raises NotServed.

    A body that asks for nothing of this kind is searched, not decoded. `messages`: their bytes,
    from who has them already; `has_escapes`: whether a letter may be spelled as an escape.
    """
    wants = NOTHING
    if not GUARDED_FIELDS.isdisjoint(fields):
        names = [name for name in fields if name in GUARDED_FIELDS]
        wants = wants_of_fields({name: _decoded(fields, name) for name in names})
    if "tools" in fields and _has_other_tools(fields["tools"]):
        tools = _decoded(fields, "tools")
        wants = wants_of_tools(tools if isinstance(tools, list) else (), wants)
    if "messages" in fields:
        raw = messages or bytes(fields["messages"])
        # All these names have an underscore, and a search for one byte costs next to nothing.
        if (_UNDERSCORE in raw or has_escapes) and _may_name_files(raw, has_escapes=has_escapes):
            wants = wants_of_messages(_decoded(fields, "messages"), wants)
    return wants


def wants_of_fields(values: Mapping[str, Any]) -> Wants:
    """What the guarded top-level fields ask for; null counts as absent. Raises NotServed."""
    wants = NOTHING
    for name, value in values.items():
        if value is not None:
            wants = _FIELDS[name](wants, value)
    return wants


def wants_of_tools(tools: Iterable[Any], wants: Wants = NOTHING) -> Wants:
    """The same with what tools ask for, each a decoded object. Raises NotServed."""
    for tool in tools:
        kind = tool.get("type") if isinstance(tool, dict) else None
        if isinstance(kind, str) and kind != "custom":
            wants = _with_tool(wants, kind, tool)
    return replace(wants, loops=min(wants.loops, LOOP_CALLS_MAX)) if wants.loops else wants


def wants_of_messages(messages: Any, wants: Wants = NOTHING) -> Wants:
    """The same with files that messages name and tools that they add. Raises NotServed."""
    objects = set(wants.objects)
    added: list[Any] = []
    for block in _objects_in(messages):
        kind = block.get("type")
        ident = block.get("file_id")
        # What a tool put out is told again by every later turn, and opens nothing.
        if isinstance(ident, str) and not str(kind).endswith("_output"):
            objects.add((FILE, ident))
        if kind == "tool_addition":
            added += [inner for inner in _children(block) if isinstance(inner, dict)]
    if len(objects) > OBJECTS_MAX:
        raise NotServed(f"messages: at most {OBJECTS_MAX} files may be named")
    return wants_of_tools(added, replace(wants, objects=frozenset(objects)))


def objects_of(document: Any) -> Iterator[tuple[str, str]]:
    """Kind and id of the objects that an answer, or an event of a stream, names.

    Only where the upstream itself speaks: what a model wrote, the input of a tool say, names what
    it was asked to name.
    """
    if not isinstance(document, dict):
        return
    message = document.get("message", document)
    for part in (message, document.get("delta")):
        ident = _text_at(part, "container", "id")
        if ident:
            yield CONTAINER, ident
    if _text_at(message, "type") == "message" and _text_at(message, "id"):
        yield MESSAGE, message["id"]
    content = message.get("content") if isinstance(message, dict) else None
    for block in (*(content if isinstance(content, list) else ()), document.get("content_block")):
        if _text_at(block, "type") in _NAMING_BLOCKS:
            yield from ((FILE, ident) for item in _objects_in(block) if (ident := _file_of(item)))


def _file_of(item: Any) -> str:
    return _text_at(item, "file_id")


def _text_at(value: Any, *names: str) -> str:
    """The text under these names, one within the other; empty where there is none."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""


def _has_other_tools(raw: msgspec.Raw) -> bool:
    """Whether a list of tools has one that is not the client's own."""
    try:
        tools = _read_tool_types(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return True
    return any(tool.type is not None and tool.type != "custom" for tool in tools)


def _may_name_files(raw: bytes, *, has_escapes: bool) -> bool:
    if _NAMING.search(raw) is not None:
        return True
    return has_escapes and _HIDDEN_LETTER.search(raw) is not None


def _decoded(fields: Mapping[str, msgspec.Raw], name: str) -> Any:
    """A field's value. A key that stands twice is refused: parsers disagree about which counts."""
    try:
        return json.loads(bytes(fields[name]), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        if isinstance(error, NotServed):
            raise
        raise NotServed(f"{name}: Input should be valid JSON") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise NotServed(f"{max(names, key=names.count)[:80]}: Duplicate key")
    return found


def _with_billing_policy(_wants: Wants, _value: Any) -> Wants:
    raise NotServed("billing_policy: who pays is decided by this platform, not by a request")


def _with_compaction(wants: Wants, _value: Any) -> Wants:
    return replace(wants, is_compacted=True)


def _with_context_management(wants: Wants, value: Any) -> Wants:
    edits = value.get("edits") if isinstance(value, dict) else None
    kinds = [
        str(edit.get("type", "")) if isinstance(edit, dict) else ""
        for edit in (edits if isinstance(edits, list) else [])
    ]
    is_compacted = any(kind.startswith("compact") for kind in kinds)
    return replace(wants, is_compacted=True) if is_compacted else wants


def _with_container(wants: Wants, value: Any) -> Wants:
    ident = value.get("id") if isinstance(value, dict) else value
    wants = replace(wants, names_objects=True)
    if isinstance(ident, str) and ident:
        wants = replace(wants, objects=wants.objects | {(CONTAINER, ident)})
    skills = value.get("skills") if isinstance(value, dict) else None
    for skill in skills if isinstance(skills, list) else []:
        if not isinstance(skill, dict) or skill.get("type") != "anthropic":
            wants = _with_feature(wants, CUSTOM_SKILLS)
    return wants


def _with_diagnostics(wants: Wants, value: Any) -> Wants:
    return _with_message(wants, value)


def _with_thread(wants: Wants, value: Any) -> Wants:
    return _with_message(_with_feature(wants, THREADS), value)


def _with_message(wants: Wants, value: Any) -> Wants:
    ident = value.get("previous_message_id") if isinstance(value, dict) else None
    objects = wants.objects | ({(MESSAGE, ident)} if isinstance(ident, str) else frozenset())
    return replace(wants, objects=objects, names_objects=True)


def _with_fallbacks(wants: Wants, value: Any) -> Wants:
    if value == "default":
        return _with_feature(wants, DEFAULT_FALLBACKS)
    models = []
    for position, item in enumerate(value if isinstance(value, list) else [value]):
        name = item.get("model") if isinstance(item, dict) else item
        if not isinstance(name, str) or not name:
            raise NotServed(f"fallbacks.{position}.model: Field required")
        models.append(name)
    if len(models) > FALLBACKS_MAX:
        raise NotServed(f"fallbacks: at most {FALLBACKS_MAX} models may be named")
    return replace(wants, fallbacks=tuple(models))


def _with_geo(wants: Wants, value: Any) -> Wants:
    if value not in GEOS:
        raise NotServed("inference_geo: Input should be 'global' or 'us'")
    return wants


def _with_speed(wants: Wants, value: Any) -> Wants:
    if value not in SPEEDS:
        raise NotServed("speed: Input should be 'standard' or 'fast'")
    return wants


def _with_mcp(wants: Wants, value: Any) -> Wants:
    return replace(wants, loops=LOOP_CALLS_MAX) if value else wants


_FIELDS: Mapping[str, Callable[[Wants, Any], Wants]] = {
    "billing_policy": _with_billing_policy,
    "compaction": _with_compaction,
    "container": _with_container,
    "context_management": _with_context_management,
    "diagnostics": _with_diagnostics,
    "fallbacks": _with_fallbacks,
    "inference_geo": _with_geo,
    "mcp_servers": _with_mcp,
    "speed": _with_speed,
    "thread": _with_thread,
}


def _with_feature(wants: Wants, name: str) -> Wants:
    return replace(wants, features=wants.features | {name})


def _with_tool(wants: Wants, kind: str, tool: Mapping[str, Any]) -> Wants:
    found = _SERVER_TOOL.fullmatch(kind)
    if found is not None:
        return _with_server_tool(wants, found[1], found[2], tool)
    if _CLIENT_TOOL.fullmatch(kind):
        return wants
    if kind == "mcp_toolset" or _TOOL_SEARCH.fullmatch(kind):
        return replace(wants, loops=wants.loops + USES_DEFAULT)
    wants = _with_feature(wants, UNKNOWN_TOOLS)
    return replace(wants, loops=wants.loops + USES_DEFAULT, names_objects=True)


def _with_server_tool(wants: Wants, family: str, version: str, tool: Mapping[str, Any]) -> Wants:
    uses = _uses(tool)
    if family == "advisor":
        name = tool.get("model")
        if not isinstance(name, str) or not name:
            raise NotServed("tools.advisor.model: Field required")
        return replace(wants, advisors=(*wants.advisors, (name, min(uses, LOOP_CALLS_MAX))))
    if family == CODE_EXECUTION:
        wants = _with_feature(wants, CODE_EXECUTION)
        return replace(wants, loops=wants.loops + uses, names_objects=True)
    searches = wants.searches + (uses if family == "web_search" else 0)
    return replace(
        wants,
        loops=wants.loops + uses,
        searches=min(searches, SEARCHES_MAX),
        names_objects=wants.names_objects or version >= _WEB_WITH_CODE,
    )


def _uses(tool: Mapping[str, Any]) -> int:
    uses = tool.get("max_uses")
    is_number = isinstance(uses, int) and not isinstance(uses, bool) and uses >= 0
    return int(uses) if is_number and uses is not None else USES_DEFAULT


def _objects_in(document: Any) -> Iterator[dict[str, Any]]:
    """Every object within a document, however deep, without recursion."""
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _children(block: Mapping[str, Any]) -> Iterator[Any]:
    for value in block.values():
        if isinstance(value, list):
            yield from value
        else:
            yield value
