"""Calls of scripts that differ in one key's end and the arguments: all else is packed once.

Packing a call anew takes longer than anything else that is done to send it: each of a dozen names
is encoded and measured, and they are the same for all requests of a tenant.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Protocol


class Script(Protocol):
    """A Lua script and the hash by which the server knows it."""

    @property
    def sha(self) -> str:
        """SHA-1 of the source, in hex."""

    @property
    def source(self) -> str:
        """The Lua text."""


class PreparedCall:
    """A script, its keys but for the end of one of them, and how many arguments it takes."""

    __slots__ = ("_after", "_before", "_prefix", "_prefix_bytes", "_template", "script")

    def __init__(
        self,
        script: Script,
        *,
        before: Sequence[str],
        prefix: str,
        after: Sequence[str],
        args_count: int,
    ) -> None:
        self.script = script
        self._before, self._prefix, self._after = tuple(before), prefix, tuple(after)
        self._prefix_bytes = len(prefix.encode())
        keys_count = len(before) + 1 + len(after)
        start = b"*%d\r\n" % (3 + keys_count + args_count)
        head = (*_words("EVALSHA", script.sha, str(keys_count)), *_words(*before))
        record = b"$%d\r\n" + _literal(prefix.encode()) + b"%b\r\n"
        rest = (*_words(*after), *[b"$%d\r\n%b\r\n"] * args_count)
        self._template = b"".join((start, *head, record, *rest))

    def keys(self, name: str) -> tuple[str, ...]:
        """The keys of a call whose one key ends so."""
        return (*self._before, self._prefix + name, *self._after)

    def packed(self, name: str, args: Sequence[bytes]) -> bytes:
        """The whole call as it is sent to Redis."""
        end = name.encode()
        sized = chain.from_iterable(zip(map(len, args), args, strict=True))
        return self._template % (self._prefix_bytes + len(end), end, *sized)


def _words(*words: str) -> list[bytes]:
    """Words as Redis reads them, for use in a template."""
    return [b"$%d\r\n%b\r\n" % (len(word), _literal(word)) for word in map(str.encode, words)]


def _literal(word: bytes) -> bytes:
    return word.replace(b"%", b"%%")
