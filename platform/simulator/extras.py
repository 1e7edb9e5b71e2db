"""What an answer costs beyond its own tokens: fallbacks, compaction, advice, code, fetched pages.

A test asks for each by the request's fields, and by a word in the prompt where the real API decides
by itself: `[[decline]]`, `[[decline=12]]` (after so many tokens), `[[compact]]`, `[[advice]]`,
`[[code]]`, `[[fetch]]`.
"""

import re
from dataclasses import dataclass

from simulator.prompt import last_user_text
from simulator.wire import Json, Refusal, base58_of, timestamp

COMPACTED_TOKENS = 90
ADVICE_TOKENS = 60
_DECLINED = re.compile(r"\[\[decline(?:=(\d+))?\]\]")
_CONTAINER = re.compile(r"container_01[1-9A-HJ-NP-Za-km-z]{22}")
_DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What happens beside the answer. `declined_tokens`: what the first model wrote; None: not."""

    model: str
    fallback: str | None = None
    declined_tokens: int | None = None
    is_compacted: bool = False
    advisor: str | None = None
    container: Json | None = None
    runs_code: bool = False
    web_fetches: int = 0

    @property
    def answering_model(self) -> str:
        """Who writes the answer."""
        return self.fallback or self.model

    def iterations(self, usage: Json) -> list[Json]:
        """Every model call, where there is more than the top-level counters tell; else empty."""
        if not (self.fallback or self.is_compacted or self.advisor):
            return []
        plain = {
            name: usage[name]
            for name in (
                "input_tokens",
                "output_tokens",
                "cache_creation_input_tokens",
                "cache_read_input_tokens",
                "cache_creation",
            )
        }
        calls: list[Json] = []
        if self.is_compacted:
            calls.append({"type": "compaction", **plain, "output_tokens": COMPACTED_TOKENS})
        if self.fallback:
            tokens = self.declined_tokens or 0
            calls.append({"type": "message", "model": self.model, **plain, "output_tokens": tokens})
            return [*calls, {"type": "fallback_message", "model": self.fallback, **plain}]
        if self.advisor:
            asked = {**plain, "output_tokens": ADVICE_TOKENS}
            calls.append({"type": "advisor_message", "model": self.advisor, **asked})
        return [*calls, {"type": "message", "model": self.model, **plain}]


def extras_of(request: Json, *, seed: int, now_seconds: float) -> Extras:
    """What a validated request causes beside its answer. Raises Refusal for a strange container."""
    text = last_user_text(request["messages"])
    fallbacks = request.get("fallbacks")
    declined = _DECLINED.search(text) if isinstance(fallbacks, list) and fallbacks else None
    runs_code = "[[code]]" in text and _has_tool(request, "code_execution_")
    return Extras(
        model=request["model"],
        fallback=fallbacks[0]["model"] if declined and fallbacks else None,
        declined_tokens=int(declined[1] or 0) if declined else None,
        is_compacted="[[compact]]" in text and _may_compact(request),
        advisor=_advisor(request) if "[[advice]]" in text else None,
        container=_container(request, seed, now_seconds, is_needed=runs_code),
        runs_code=runs_code,
        web_fetches=int("[[fetch]]" in text and _has_tool(request, "web_fetch_")),
    )


def code_blocks(seed: int) -> list[Json]:
    """A program that ran and left a file."""
    ident = "srvtoolu_01" + base58_of(seed + 1, length=22)
    output = {"type": "code_execution_output", "file_id": "file_01" + base58_of(seed, length=22)}
    result = {
        "type": "code_execution_result",
        "stdout": "done\n",
        "stderr": "",
        "return_code": 0,
        "content": [output],
    }
    call = {"code": "print('done')"}
    return [
        {"type": "server_tool_use", "id": ident, "name": "code_execution", "input": call},
        {"type": "code_execution_tool_result", "tool_use_id": ident, "content": result},
    ]


def _container(request: Json, seed: int, now_seconds: float, *, is_needed: bool) -> Json | None:
    asked = request.get("container")
    ident = asked.get("id") if isinstance(asked, dict) else asked
    if ident is not None and not _CONTAINER.fullmatch(str(ident)):
        raise Refusal(f"container: {ident} was not found", status=404)
    if ident is None and not is_needed:
        return None
    ident = ident or "container_01" + base58_of(seed, length=22)
    return {"id": ident, "expires_at": timestamp(now_seconds + _DAY_SECONDS), "skills": None}


def _has_tool(request: Json, prefix: str) -> bool:
    return any(str(tool.get("type", "")).startswith(prefix) for tool in request.get("tools") or ())


def _may_compact(request: Json) -> bool:
    edits = (request.get("context_management") or {}).get("edits") or ()
    by_edit = any(str(edit.get("type", "")).startswith("compact") for edit in edits)
    return bool(request.get("compaction")) or by_edit


def _advisor(request: Json) -> str | None:
    for tool in request.get("tools") or ():
        if str(tool.get("type", "")).startswith("advisor_"):
            return str(tool.get("model"))
    return None
