"""Writes the answer to a Messages request: the same request, the same words."""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from simulator import prose
from simulator.extras import Extras, code_blocks, extras_of
from simulator.prompt import (
    WEB_SEARCH_RESULT_TOKENS,
    CacheShare,
    Prompt,
    last_user_text,
    tool_result_texts,
)
from simulator.record import CHARACTERS_PER_TOKEN, tokens_of
from simulator.tooluse import choose_tool, searches_the_web, tool_input, value_for
from simulator.wire import Json, base58_of, encode, now_seconds

# A test may ask for a length, or for the very words, anywhere in its prompt.
_TOKENS_WANTED = re.compile(r"\[\[tokens=(\d+)\]\]")
_WORDS_WANTED = re.compile(r"\[\[say=(.*?)\]\]", re.DOTALL)
_GENERATION = re.compile(r"^claude-(?:[a-z]+-)?(\d+)(?:-(\d{1,2}))?(?!\d)")
_FIRST_HIDING_GENERATION = (4, 7)
_SHARE_OF_THINKING = 4
_QUOTED_CHARACTERS_MAX = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer. `hidden_characters` are thought but not shown, and billed like the rest."""

    model: str
    content: tuple[Json, ...]
    stop_reason: str
    stop_sequence: str | None
    usage: Json
    hidden_characters: int = 0
    thinking_tokens: int | None = None
    web_searches: int = 0
    extras: Extras | None = None

    @property
    def output_characters(self) -> int:
        """All that is billed as output."""
        return self.hidden_characters + sum(characters_of(block) for block in self.content)

    @property
    def final_usage(self) -> Json:
        """The usage of the whole answer, as a JSON reply or the last `message_delta` tells it."""
        usage = {**self.usage, "output_tokens": tokens_of(self.output_characters)}
        fetches = 0 if self.extras is None else self.extras.web_fetches
        if self.web_searches or fetches:
            usage["input_tokens"] += WEB_SEARCH_RESULT_TOKENS * (self.web_searches + fetches)
            usage["server_tool_use"] = {
                "web_search_requests": self.web_searches,
                "web_fetch_requests": fetches,
            }
        if self.thinking_tokens is not None:
            usage["output_tokens_details"] = {"thinking_tokens": self.thinking_tokens}
        calls = [] if self.extras is None else self.extras.iterations(usage)
        if calls:
            usage["iterations"] = calls
        return usage


def characters_of(block: Json) -> int:
    """The characters of a block that a stream would carry in its deltas."""
    kind = block["type"]
    if kind == "text":
        return len(block["text"])
    if kind == "thinking":
        return len(block["thinking"])
    return len(block_json(block)) if kind in {"tool_use", "server_tool_use"} else 0


def block_json(block: Json) -> str:
    """A tool's input as the pieces of a stream add up to it; nothing for no arguments."""
    return encode(block["input"]).decode() if block["input"] else ""


def write_answer(request: Json, *, prompt: Prompt, share: CacheShare, tokens: int = 0) -> Answer:
    """Answer a validated request. `tokens` sets the length, where the prompt does not."""
    extras = extras_of(request, seed=prompt.seed, now_seconds=now_seconds())
    return _Writer(request, prompt, tokens, extras).answer(share)


class _Writer:
    """Spends one request's `max_tokens` on blocks, in order, until they are used up."""

    def __init__(self, request: Json, prompt: Prompt, tokens: int, extras: Extras) -> None:
        self._extras = extras
        self._request = request
        self._prompt = prompt
        self._text = last_user_text(request["messages"])
        self._tokens = tokens
        self._left = request["max_tokens"] * CHARACTERS_PER_TOKEN
        self._hidden = 0
        self._thinking_tokens: int | None = None
        self._stop_reason = "end_turn"
        self._stop_sequence: str | None = None
        self._searches = 0

    def answer(self, share: CacheShare) -> Answer:
        if self._left:
            content = tuple(self._blocks())
        else:
            content, self._stop_reason = (), "max_tokens"
        return Answer(
            model=self._extras.answering_model,
            content=content,
            stop_reason=self._stop_reason,
            stop_sequence=self._stop_sequence,
            usage=_input_usage(self._request, self._prompt, share),
            hidden_characters=self._hidden,
            thinking_tokens=self._thinking_tokens,
            web_searches=self._searches,
            extras=self._extras,
        )

    def _blocks(self) -> Iterator[Json]:
        kind = (self._request.get("thinking") or {}).get("type", "disabled")
        if kind != "disabled":
            yield self._thinking(kind)
        if self._extras.runs_code:
            yield from code_blocks(self._prompt.seed)
        if searches_the_web(self._request):
            yield from self._web_search()
            return
        tool = choose_tool(self._request)
        if tool is None:
            yield self._text_block(self._words())
            return
        yield from self._tool_use(tool)

    def _thinking(self, kind: str) -> Json:
        text = prose.paragraph(self._prompt.seed ^ 0x5EED)[
            : max(1, self._left // _SHARE_OF_THINKING)
        ]
        self._left -= len(text)
        self._thinking_tokens = tokens_of(len(text))
        if hides_thinking(self._request, kind):
            self._hidden, text = len(text), ""
        seed = self._prompt.seed.to_bytes(16, "big")
        return {
            "type": "thinking",
            "thinking": text,
            "signature": base64.b64encode(seed * 4).decode(),
        }

    def _words(self) -> str:
        wanted = _WORDS_WANTED.search(self._text)
        if wanted:
            return wanted[1]
        length = _TOKENS_WANTED.search(self._text)
        tokens = int(length[1]) if length else self._tokens
        if tokens:
            characters = min(tokens * CHARACTERS_PER_TOKEN, self._left + 1)
            return prose.text_of_length(self._prompt.seed, characters=characters)
        form: Json = (self._request.get("output_config") or {}).get("format") or {}
        if form.get("type") == "json_schema":
            return encode(value_for(form.get("schema") or {}, texts=[])).decode()
        results = tool_result_texts(self._request["messages"])
        if results:
            return f"The tool answered: {results[0][:_QUOTED_CHARACTERS_MAX]}"
        return prose.paragraph(self._prompt.seed)

    def _text_block(self, text: str, *, citations: list[Json] | None = None) -> Json:
        for stop in self._request.get("stop_sequences") or ():
            head, found, _ = text.partition(stop)
            if found:
                text, self._stop_reason, self._stop_sequence = head, "stop_sequence", stop
        if len(text) > self._left:
            text, self._stop_reason, self._stop_sequence = text[: self._left], "max_tokens", None
        self._left -= len(text)
        return {"type": "text", "text": text, "citations": citations}

    def _tool_use(self, tool: Json) -> Iterator[Json]:
        block = {
            "type": "tool_use",
            "id": "toolu_01" + base58_of(self._prompt.seed, length=22),
            "name": tool["name"],
            "input": tool_input(tool, prompt=self._text),
        }
        lead = self._text_block(f"I will use {tool['name']} for this.")
        yield lead
        if self._stop_reason != "end_turn":
            return
        if len(block_json(block)) > self._left:
            self._stop_reason = "max_tokens"
            return
        self._stop_reason = "tool_use"
        yield block

    def _web_search(self) -> Iterator[Json]:
        ident = "srvtoolu_01" + base58_of(self._prompt.seed, length=22)
        query = {"query": self._text[:80]}
        self._searches = 1
        self._left -= min(self._left, len(encode(query)))
        yield {"type": "server_tool_use", "id": ident, "name": "web_search", "input": query}
        page = {"title": "Example page", "url": "https://example.org/page"}
        result = {
            "type": "web_search_result",
            **page,
            "encrypted_content": "ZXhhbXBsZQ==",
            "page_age": None,
        }
        yield {"type": "web_search_tool_result", "tool_use_id": ident, "content": [result]}
        text = self._words()
        location = {"type": "web_search_result_location", "encrypted_index": "aW5kZXg="}
        yield self._text_block(text, citations=[{**location, "cited_text": text[:40], **page}])


def hides_thinking(request: Json, kind: str) -> bool:
    """Is thinking billed without being shown? What `display` says, else what the model does."""
    display: Any = request["thinking"].get("display")
    if display is not None:
        return bool(display == "omitted")
    if kind == "between_tools":
        return False
    found = _GENERATION.match(request["model"])
    if not found:
        return False
    return (int(found[1]), int(found[2] or 0)) >= _FIRST_HIDING_GENERATION


def _input_usage(request: Json, prompt: Prompt, share: CacheShare) -> Json:
    written = share.written_5m + share.written_1h
    usage: Json = {
        "input_tokens": prompt.input_tokens - written - share.read,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": share.read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": share.written_5m,
            "ephemeral_1h_input_tokens": share.written_1h,
        },
        "output_tokens": 1 if request["max_tokens"] else 0,
        "service_tier": "standard",
        "inference_geo": request.get("inference_geo") or "global",
    }
    if request.get("speed"):
        usage["speed"] = request["speed"]
    return usage
