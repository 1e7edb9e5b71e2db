"""Decides whether to call a tool, and with what input: a rule that a test can foresee.

A client tool is called when the last user turn brings no tool result and either `tool_choice`
forces a call or the turn's last text names the tool as a word of its own. The input fits the
tool's schema; the first required text is what stands in `backticks` in the prompt.
"""

import re
from typing import Any

from simulator.prompt import last_user_text, tool_result_texts
from simulator.wire import Json

_QUOTED = re.compile(r"`([^`]+)`")
_DEPTH_MAX = 8


def choose_tool(request: Json) -> Json | None:
    """The client tool to call now, if any."""
    choice: Json = request.get("tool_choice") or {"type": "auto"}
    tools = [tool for tool in request.get("tools") or () if _is_client_tool(tool)]
    if not tools or choice["type"] == "none" or tool_result_texts(request["messages"]):
        return None
    if choice["type"] == "tool":
        return next((tool for tool in tools if tool["name"] == choice.get("name")), None)
    named = _named_tool(tools, last_user_text(request["messages"]))
    return named or (tools[0] if choice["type"] == "any" else None)


def searches_the_web(request: Json) -> bool:
    """Does the prompt ask the server tool `web_search` for something?"""
    has_tool = any(
        str(tool.get("type", "")).startswith("web_search_") for tool in request.get("tools") or ()
    )
    if not has_tool or tool_result_texts(request["messages"]):
        return False
    choice: Json = request.get("tool_choice") or {}
    if choice.get("type") == "none":
        return False
    return (
        choice.get("name") == "web_search"
        or "search" in last_user_text(request["messages"]).lower()
    )


def tool_input(tool: Json, *, prompt: str) -> Json:
    """An input that the tool's schema accepts, drawn from the prompt where it can be."""
    quoted = _QUOTED.findall(prompt)
    value = value_for(tool.get("input_schema") or {}, texts=quoted)
    return value if isinstance(value, dict) else {}


def value_for(schema: Json, *, texts: list[str], name: str = "value", depth: int = 0) -> Any:
    """The plainest value of a JSON schema; `texts` are used up in order by its strings."""
    for word in ("const", "default"):
        if word in schema:
            return schema[word]
    if schema.get("enum"):
        return schema["enum"][0]
    branches = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if branches:
        return value_for(branches[0], texts=texts, name=name, depth=depth)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    return _typed_value(
        schema, str(kind[0] if isinstance(kind, list) else kind), texts, name, depth
    )


def _typed_value(schema: Json, kind: str, texts: list[str], name: str, depth: int) -> Any:
    if kind == "object":
        return _object_for(schema, texts=texts, depth=depth) if depth < _DEPTH_MAX else {}
    if kind == "array":
        return _array_for(schema, texts=texts, name=name, depth=depth)
    if kind == "string":
        return texts.pop(0) if texts else f"example {name}"
    plain = {"integer": schema.get("minimum", 1), "number": schema.get("minimum", 1.5)}
    return plain.get(kind, False if kind == "boolean" else None)


def _object_for(schema: Json, *, texts: list[str], depth: int) -> Json:
    properties: dict[str, Json] = schema.get("properties") or {}
    required = schema.get("required") or []
    return {
        name: value_for(properties.get(name, {}), texts=texts, name=name, depth=depth + 1)
        for name in required
    }


def _array_for(schema: Json, *, texts: list[str], name: str, depth: int) -> list[Any]:
    if not schema.get("minItems"):
        return []
    items: Json = schema.get("items") or {}
    return [value_for(items, texts=texts, name=name, depth=depth + 1)]


def _is_client_tool(tool: Json) -> bool:
    kind = tool.get("type")
    return "name" in tool and (
        kind in (None, "custom") or str(kind).startswith(("bash_", "memory_"))
    )


def _named_tool(tools: list[Json], text: str) -> Json | None:
    """The tool that the text names first."""
    best: tuple[int, Json] | None = None
    for tool in tools:
        found = re.search(rf"(?<![\w-]){re.escape(tool['name'])}(?![\w-])", text, re.IGNORECASE)
        if found and (best is None or found.start() < best[0]):
            best = (found.start(), tool)
    return best[1] if best else None
