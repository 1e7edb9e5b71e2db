"""Declines what the Messages API declines, in its words; two API versions differ here.

Rules that depend on the model's generation are left out on purpose: every `claude-` id answers to
everything, so that a test needs no particular model.
"""

import re
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from simulator.wire import VERSION_2026, VERSIONS, Json, Refusal

MAX_TOKENS_CAP = 128_000
MESSAGES_MAX = 100_000
BREAKPOINTS_MAX = 4
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")

_SAMPLING = frozenset({"temperature", "top_p", "top_k"})
# fmt: off
_FIELDS = frozenset({
    "model", "max_tokens", "messages", "system", "stop_sequences", "stream", "temperature",
    "top_p", "top_k", "tools", "tool_choice", "thinking", "output_config", "cache_control",
    "metadata", "service_tier", "speed", "inference_geo", "container", "diagnostics",
})
# fmt: on
# Fields that exist only together with a beta: any value of `anthropic-beta` that begins like this.
_BETA_FIELDS = {
    "context_management": ("context-management-", "compact-"),
    "mcp_servers": ("mcp-client-",),
    "fallbacks": ("server-side-fallback-",),
    "fallback_credit_token": ("server-side-fallback-",),
    "compaction": ("compact-",),
    "thread": ("message-threads-",),
    "billing_policy": ("user-profiles-billing-",),
}
# fmt: off
_BLOCKS = frozenset({
    "text", "image", "document", "search_result", "tool_result", "tool_use", "thinking",
    "redacted_thinking", "server_tool_use", "web_search_tool_result", "web_fetch_tool_result",
    "code_execution_tool_result", "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result", "tool_search_tool_result", "container_upload",
    "mcp_tool_use", "mcp_tool_result", "mcp_tool_listing", "compaction", "fallback",
    "tool_addition", "tool_removal", "advisor_tool_result", "connector_text",
})
# fmt: on


def check_version(version: str | None) -> str:
    """The API version of a request."""
    if version is None:
        raise Refusal("anthropic-version: header is required")
    if version not in VERSIONS:
        raise Refusal(f'anthropic-version: "{version}" is not a valid version')
    return version


def check_messages_request(
    request: Json, *, version: str, betas: Iterable[str] = (), is_counting: bool = False
) -> None:
    """Raise the Refusal that the Messages API would answer, if any."""
    _check_fields(request, version=version, betas=tuple(betas))
    _check_model(request)
    if not is_counting:
        _check_max_tokens(request)
    _check_flags(request)
    _check_messages(request, version=version)
    _check_system(request)
    _check_tools(request)
    _check_thinking(request)
    _check_breakpoints(request)


def _check_fields(request: Json, *, version: str, betas: tuple[str, ...]) -> None:
    for name in ("model", "messages"):
        if name not in request:
            raise Refusal(f"{name}: Field required")
    for name in request:
        is_known = name in _FIELDS and not (version == VERSION_2026 and name in _SAMPLING)
        if not is_known and not _is_beta_field(name, betas):
            raise Refusal(f"{name}: Extra inputs are not permitted")


def _is_beta_field(name: str, betas: tuple[str, ...]) -> bool:
    heads = _BETA_FIELDS.get(name, ())
    return any(beta.startswith(heads) for beta in betas) if heads else False


def _check_model(request: Json) -> None:
    model = request["model"]
    if not isinstance(model, str):
        raise Refusal("model: Input should be a valid string")
    if not is_model(model):
        raise Refusal(f"model: {model}", status=404)


def is_model(model: str) -> bool:
    """Every name of the family is served."""
    return model.startswith("claude-") and len(model) > len("claude-")


def _check_max_tokens(request: Json) -> None:
    if "max_tokens" not in request:
        raise Refusal("max_tokens: Field required")
    value = request["max_tokens"]
    if not _is_int(value):
        raise Refusal("max_tokens: Input should be a valid integer")
    if value < 0:
        raise Refusal("max_tokens: Input should be greater than or equal to 0")
    if value > MAX_TOKENS_CAP:
        raise Refusal(
            f"max_tokens: {value} > {MAX_TOKENS_CAP}, which is the maximum allowed number of "
            f"output tokens for {request['model']}"
        )
    if value == 0 and request.get("stream"):
        raise Refusal("max_tokens: 0 cannot be combined with stream")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number_up_to_one(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_text_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_SHAPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "stream": (lambda v: isinstance(v, bool), "Input should be a valid boolean"),
    "temperature": (_is_number_up_to_one, "range: 0..1"),
    "top_p": (_is_number_up_to_one, "range: 0..1"),
    "top_k": (lambda v: _is_int(v) and v >= 0, "Input should be a valid integer"),
    "stop_sequences": (_is_text_list, "Input should be a valid list"),
    "metadata": (lambda v: isinstance(v, dict), "Input should be a valid dictionary"),
    "service_tier": (
        lambda v: v in {"auto", "standard_only"},
        "Input should be 'auto' or 'standard_only'",
    ),
    "speed": (lambda v: v in {"standard", "fast"}, "Input should be 'standard' or 'fast'"),
    "inference_geo": (lambda v: v in {"global", "us"}, "Input should be 'global' or 'us'"),
    "output_config": (lambda v: isinstance(v, dict), "Input should be a valid dictionary"),
}


def _check_flags(request: Json) -> None:
    for name, (is_right, message) in _SHAPES.items():
        if request.get(name) is not None and not is_right(request[name]):
            raise Refusal(f"{name}: {message}")
    for position, text in enumerate(request.get("stop_sequences") or ()):
        if not text.strip():
            raise Refusal(
                f"stop_sequences.{position}: each stop sequence must contain non-whitespace"
            )
    for name in request.get("metadata") or {}:
        if name != "user_id":
            raise Refusal(f"metadata.{name}: Extra inputs are not permitted")


def _check_messages(request: Json, *, version: str) -> None:
    messages = request["messages"]
    if not isinstance(messages, list):
        raise Refusal("messages: Input should be a valid list")
    if not messages:
        raise Refusal("messages: at least one message is required")
    if len(messages) > MESSAGES_MAX:
        raise Refusal(f"messages: at most {MESSAGES_MAX} messages are allowed")
    for position, message in enumerate(messages):
        _check_message(message, path=f"messages.{position}", version=version)
    if messages[0]["role"] != "user":
        raise Refusal('messages: first message must use the "user" role')
    _check_tool_pairs(messages)


def _check_message(message: object, *, path: str, version: str) -> None:
    if not isinstance(message, dict):
        raise Refusal(f"{path}: Input should be a valid dictionary")
    for name in ("role", "content"):
        if name not in message:
            raise Refusal(f"{path}.{name}: Field required")
    role, content = message["role"], message["content"]
    if role not in ("user", "assistant", "system"):
        raise Refusal(f"{path}.role: Input should be 'user', 'assistant' or 'system'")
    if not content and role != "assistant":
        raise Refusal(f"{path}: {role} messages must have non-empty content")
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise Refusal(f"{path}.content: Input should be a valid list")
    _check_blocks(content, role=role, path=path, version=version)


def _check_blocks(content: list[Any], *, role: str, path: str, version: str) -> None:
    for position, block in enumerate(content):
        where = f"{path}.content.{position}"
        _check_block(block, path=where)
        if version == VERSION_2026:
            _check_block_of_2026(block, role=role, path=where)


def _check_block(block: object, *, path: str) -> None:
    if not isinstance(block, dict):
        raise Refusal(f"{path}: Input should be a valid dictionary")
    kind = block.get("type")
    if kind not in _BLOCKS:
        expected = ", ".join(f"'{name}'" for name in sorted(_BLOCKS))
        raise Refusal(
            f"{path}: Input tag '{kind}' found using 'type' does not match any of the expected "
            f"tags: {expected}"
        )
    if kind == "text":
        _check_text(block, path=path)
    if kind in {"image", "document"} and not isinstance(block.get("source"), dict):
        raise Refusal(f"{path}.{kind}.source: Field required")
    if kind == "tool_result" and not isinstance(block.get("tool_use_id"), str):
        raise Refusal(f"{path}.tool_result.tool_use_id: Field required")
    if kind == "tool_use" and not isinstance(block.get("id"), str):
        raise Refusal(f"{path}.tool_use.id: Field required")


def _check_text(block: Json, *, path: str) -> None:
    if not isinstance(block.get("text"), str):
        raise Refusal(f"{path}.text.text: Field required")
    if not block["text"]:
        raise Refusal("messages: text content blocks must be non-empty")


def _check_block_of_2026(block: Json, *, role: str, path: str) -> None:
    if role == "assistant" and block["type"] == "document":
        raise Refusal(f"{path}: document blocks are not permitted in assistant messages")
    if role == "user" and block["type"] == "text" and block.get("citations"):
        raise Refusal(f"{path}.text.citations: citations are not permitted in user messages")


def _blocks(message: Json) -> list[Json]:
    return message["content"] if isinstance(message["content"], list) else []


def _check_tool_pairs(messages: list[Json]) -> None:
    spoken = [(n, message) for n, message in enumerate(messages) if message["role"] != "system"]
    asked: set[str] = set()
    # Neighbours of one role count as one turn.
    for role, turn in groupby(spoken, key=lambda item: item[1]["role"]):
        parts = list(turn)
        blocks = [block for _, message in parts for block in _blocks(message)]
        if role == "assistant":
            asked = {block["id"] for block in blocks if block["type"] == "tool_use"}
        else:
            answered = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
            _check_pair(asked, answered, position=parts[0][0])


def _check_pair(asked: set[str], answered: set[str], *, position: int) -> None:
    for orphan in sorted(answered - asked):
        raise Refusal(
            f"messages.{position}.content.0: unexpected `tool_use_id` found in `tool_result` "
            f"blocks: {orphan}. Each `tool_result` block must have a corresponding `tool_use` "
            "block in the previous message."
        )
    if asked - answered:
        raise Refusal(
            f"messages.{position}: `tool_use` ids were found without `tool_result` blocks "
            f"immediately after: {', '.join(sorted(asked - answered))}. Each `tool_use` block must "
            "have a corresponding `tool_result` block in the next message."
        )


def _check_system(request: Json) -> None:
    system = request.get("system")
    if system is None or isinstance(system, str):
        return
    if not isinstance(system, list):
        raise Refusal("system: Input should be a valid list")
    for position, block in enumerate(system):
        if not isinstance(block, dict) or block.get("type") != "text":
            raise Refusal(f"system.{position}.type: Input should be 'text'")
        if not isinstance(block.get("text"), str):
            raise Refusal(f"system.{position}.text: Field required")


def _check_tools(request: Json) -> None:
    tools = request.get("tools") or []
    if not isinstance(tools, list):
        raise Refusal("tools: Input should be a valid list")
    names = []
    for position, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise Refusal(f"tools.{position}: Input should be a valid dictionary")
        if tool.get("type") in (None, "custom"):
            _check_custom_tool(tool, path=f"tools.{position}.custom")
        names.append(tool.get("name", tool.get("type")))
    if len(set(names)) != len(names):
        raise Refusal("tools: Tool names must be unique.")
    choice = request.get("tool_choice")
    if choice is not None and not isinstance(choice, dict):
        raise Refusal("tool_choice: Input should be a valid dictionary")
    if choice and choice.get("type") == "tool" and choice.get("name") not in names:
        raise Refusal(f"tool_choice.tool.name: tool '{choice.get('name')}' not found in tools")


def _check_custom_tool(tool: Json, *, path: str) -> None:
    name = tool.get("name")
    if not isinstance(name, str):
        raise Refusal(f"{path}.name: Field required")
    if not TOOL_NAME.fullmatch(name):
        raise Refusal(f"{path}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
    if not isinstance(tool.get("input_schema"), dict):
        raise Refusal(f"{path}.input_schema: Field required")


def _check_thinking(request: Json) -> None:
    thinking = request.get("thinking")
    if thinking is None:
        return
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if kind not in ("enabled", "adaptive", "between_tools", "disabled"):
        raise Refusal(
            f"thinking: Input tag '{kind}' found using 'type' does not match any of the expected "
            "tags: 'adaptive', 'between_tools', 'disabled', 'enabled'"
        )
    if kind == "enabled":
        _check_budget(thinking.get("budget_tokens"), max_tokens=request.get("max_tokens"))


def _check_budget(budget: object, *, max_tokens: int | None) -> None:
    if not isinstance(budget, int):
        raise Refusal("thinking.enabled.budget_tokens: Field required")
    if budget < 1_024:
        raise Refusal(
            "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
        )
    if max_tokens is not None and budget >= max_tokens:
        raise Refusal("`max_tokens` must be greater than `thinking.budget_tokens`.")


def _check_breakpoints(request: Json) -> None:
    marked = [request] if isinstance(request.get("cache_control"), dict) else []
    system = request.get("system")
    groups = [request.get("tools") or [], system if isinstance(system, list) else []]
    groups += [_blocks(message) for message in request["messages"]]
    marked += [block for group in groups for block in group if block.get("cache_control")]
    for block in marked:
        if block["cache_control"].get("ttl", "5m") not in ("5m", "1h"):
            raise Refusal("cache_control.ttl: Input should be '5m' or '1h'")
    if len(marked) > BREAKPOINTS_MAX:
        raise Refusal(
            f"A maximum of 4 blocks with cache_control may be provided. Found {len(marked)}."
        )
