"""Tells conversations apart by how they began, so that each keeps the upstream with its cache.

The clients send the whole history each time, so all turns of a conversation share what came before
the first answer. Marks of caching wander through the history and are not looked at.
"""

import re
from dataclasses import dataclass
from hashlib import blake2b

import msgspec

from proxy.body import MessagesBody

TEXT_BYTES_MAX = 16 * 1024
MESSAGE_BYTES_MAX = 64 * 1024
OPENING_MESSAGES_MAX = 8

_TEXT = re.compile(rb'"(?:text|content)"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)')
_MARK = re.compile(rb',?\s*"cache_control"\s*:\s*\{[^{}]*\}')
_ANSWER = b'"assistant"'
_messages = msgspec.json.Decoder(list[msgspec.Raw]).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A conversation's number of 64 bits, and whether it has no answer yet."""

    number: int
    is_new: bool


def conversation_of(body: MessagesBody, *, key: int, model: str) -> Conversation:
    """The conversation that a body belongs to: the same for each of its turns, key and model."""
    opening, is_new = _opening(bytes(body.fields["messages"]))
    digest = blake2b(b"%d\n%b\n" % (key, model.encode()), digest_size=8)
    digest.update(bytes(body.fields.get("metadata", b"")) + b"\n")
    digest.update(opening)
    return Conversation(number=int.from_bytes(digest.digest(), "big"), is_new=is_new)


def _opening(raw: bytes) -> tuple[bytes, bool]:
    """What was said before the first answer, bounded, and whether there is no answer yet."""
    is_new = _ANSWER not in raw
    try:
        messages = _messages(raw)
    except (msgspec.DecodeError, RecursionError):
        return raw[:TEXT_BYTES_MAX], is_new
    texts: list[bytes] = []
    length = 0
    for item in messages[:OPENING_MESSAGES_MAX]:
        message = bytes(item)
        if _ANSWER in message or length >= TEXT_BYTES_MAX:
            break
        found = _texts_of(message[:MESSAGE_BYTES_MAX])
        texts.append(found)
        length += len(found)
    return b"\n".join(texts)[:TEXT_BYTES_MAX], is_new


def _texts_of(message: bytes) -> bytes:
    texts = _TEXT.findall(message)
    return b"\n".join(texts) if texts else _MARK.sub(b"", message)
