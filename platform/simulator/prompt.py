"""Reads a prompt: what it says, what it costs, and how much of it a cache already holds."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from simulator.record import tokens_of
from simulator.wire import Json, encode

# Flat prices for what has no characters to count.
IMAGE_TOKENS = 1_568
DOCUMENT_TOKENS = 2_000
WEB_SEARCH_RESULT_TOKENS = 500

CACHE_ENTRIES_MAX = 50_000
TTL_5M = "5m"
TTL_1H = "1h"


class Piece(NamedTuple):
    """One block of a prompt, in the order in which caches see them: tools, system, messages."""

    text: str
    extra_tokens: int = 0
    ttl: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt taken apart. `seed` follows from its text alone."""

    pieces: tuple[Piece, ...]
    input_tokens: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheShare:
    """How the input splits into what was read, what was written and what no cache keeps."""

    read: int = 0
    written_5m: int = 0
    written_1h: int = 0


def read_prompt(request: Json) -> Prompt:
    """Count and fingerprint a validated request."""
    pieces = tuple(_pieces(request))
    if request.get("cache_control") and pieces:
        last = pieces[-1]
        ttl = last.ttl or _ttl(request)
        pieces = (*pieces[:-1], Piece(last.text, last.extra_tokens, ttl))
    text = "\n".join(piece.text for piece in pieces)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16)
    digest.update(str(request.get("model")).encode())
    return Prompt(
        pieces=pieces,
        input_tokens=_cost(pieces),
        seed=int.from_bytes(digest.digest(), "big"),
    )


class PromptCache:
    """Remembers the prefixes it was told to keep, the most recent 50,000."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, None] = OrderedDict()

    def reset(self) -> None:
        """Forget every prefix."""
        self._kept.clear()

    def share(self, *, model: str, prompt: Prompt) -> CacheShare:
        """Look a prompt up and keep its marked prefixes; the second time they are read."""
        last = max((n for n, piece in enumerate(prompt.pieces) if piece.ttl), default=-1)
        if last < 0:
            return CacheShare()
        marked = prompt.pieces[: last + 1]
        digest = hashlib.blake2b(model.encode(), digest_size=16)
        characters = extra = read = counted = 0
        written = {TTL_5M: 0, TTL_1H: 0}
        pending: list[tuple[bytes, str, int]] = []
        for piece in marked:
            digest.update(b"\x00" + piece.text.encode("utf-8", "surrogatepass"))
            characters += len(piece.text)
            extra += piece.extra_tokens
            tokens, key = tokens_of(characters) + extra, digest.digest()
            if key in self._kept:
                read, pending = tokens, []
            elif piece.ttl:
                pending.append((key, piece.ttl, tokens))
        counted = read
        for key, ttl, tokens in pending:
            written[ttl] += tokens - counted
            counted = tokens
            self._keep(key)
        return CacheShare(read=read, written_5m=written[TTL_5M], written_1h=written[TTL_1H])

    def _keep(self, key: bytes) -> None:
        self._kept[key] = None
        if len(self._kept) > CACHE_ENTRIES_MAX:
            self._kept.popitem(last=False)


def last_user_text(messages: list[Json]) -> str:
    """What the person said last: the final text of the final user turn."""
    turn = last_user_turn(messages)
    content = turn.get("content", "")
    if isinstance(content, str):
        return content
    texts = [block["text"] for block in content if block.get("type") == "text"]
    return texts[-1] if texts else ""


def last_user_turn(messages: list[Json]) -> Json:
    """The final user message; later system messages do not count."""
    return next((message for message in reversed(messages) if message["role"] == "user"), {})


def tool_result_texts(messages: list[Json]) -> list[str]:
    """What the tools' results in the final user turn say; empty where it brings none."""
    content = last_user_turn(messages).get("content", "")
    if isinstance(content, str):
        return []
    return [_piece(block).text for block in content if block.get("type") == "tool_result"]


def _cost(pieces: Iterable[Piece]) -> int:
    characters = extra = 0
    for piece in pieces:
        characters += len(piece.text)
        extra += piece.extra_tokens
    return tokens_of(characters) + extra


def _pieces(request: Json) -> Iterator[Piece]:
    for tool in request.get("tools") or ():
        bare = {name: value for name, value in tool.items() if name != "cache_control"}
        yield Piece(encode(bare).decode(), 0, _ttl(tool))
    yield from _content(request.get("system") or "")
    for message in request.get("messages") or ():
        yield from _content(message.get("content") or "")


def _content(content: str | list[Json]) -> Iterator[Piece]:
    if isinstance(content, str):
        if content:
            yield Piece(content)
        return
    for block in content:
        yield _piece(block)


def _piece(block: Json) -> Piece:
    kind = block.get("type")
    if kind == "text":
        return Piece(block["text"], 0, _ttl(block))
    if kind == "image":
        return Piece("", IMAGE_TOKENS, _ttl(block))
    if kind == "document":
        return _document(block)
    if kind == "tool_result":
        inner = list(_content(block.get("content") or ""))
        text = "\n".join(piece.text for piece in inner)
        return Piece(text, sum(piece.extra_tokens for piece in inner), _ttl(block))
    if kind == "tool_use":
        text = str(block.get("name", "")) + encode(block.get("input") or {}).decode()
        return Piece(text, 0, _ttl(block))
    return Piece(_all_text(block), 0, _ttl(block))


def _document(block: Json) -> Piece:
    source: Json = block.get("source") or {}
    title = str(block.get("title") or "") + str(block.get("context") or "")
    if source.get("type") == "text":
        return Piece(title + str(source.get("data", "")), 0, _ttl(block))
    if source.get("type") == "content":
        inner = list(_content(source.get("content") or ""))
        extra = sum(piece.extra_tokens for piece in inner)
        return Piece(title + "\n".join(piece.text for piece in inner), extra, _ttl(block))
    return Piece(title, DOCUMENT_TOKENS, _ttl(block))


def _all_text(block: Json) -> str:
    bare = {name: value for name, value in block.items() if name not in {"cache_control", "type"}}
    return "".join(
        value if isinstance(value, str) else encode(value).decode() for value in bare.values()
    )


def _ttl(block: Json) -> str | None:
    control: Any = block.get("cache_control")
    if not isinstance(control, dict):
        return None
    return TTL_1H if control.get("ttl") == TTL_1H else TTL_5M
