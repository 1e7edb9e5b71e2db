"""Calls of scripts that differ in one key's end and the arguments: all else is packed once.

Packing a call anew takes longer than anything else that is done to send it: each of a dozen names
is encoded and measured, and they are the same for all requests of a tenant.
"""

from collections.abc import Sequence
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

    __slots__ = (
        "_after",
        "_before",
        "_prefix",
        "_prefix_bytes",
        "_template",
        "script",
    )

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
        words_count = 3 + keys_count + args_count
        head = _packed("EVALSHA", script.sha, str(keys_count), *before)
        start = b"*%d\r\n%b" % (words_count, head)
        self._template = b"%b$%%d\r\n%b%%b\r\n%b%b" % (
            *map(_literal, (start, prefix.encode(), _packed(*after))),
            b"$%d\r\n%b\r\n" * args_count,
        )

    def keys(self, name: str) -> tuple[str, ...]:
        """The keys of a call whose one key ends so."""
        return (*self._before, self._prefix + name, *self._after)

    def packed(self, name: str, args: Sequence[bytes]) -> bytes:
        """The whole call as it is sent to Redis."""
        end = name.encode()
        words: tuple[int | bytes, ...] = (self._prefix_bytes + len(end), end)
        if len(args) == 3:  # admission; a loop takes half as long again
            a, b, c = args
            return self._template % (*words, len(a), a, len(b), b, len(c), c)
        if len(args) == 4:  # settlement
            a, b, c, d = args
            return self._template % (*words, len(a), a, len(b), b, len(c), c, len(d), d)
        for arg in args:
            words += (len(arg), arg)
        return self._template % words


def _literal(text: bytes) -> bytes:
    """Text as it stands in a template."""
    return text.replace(b"%", b"%%")


def _packed(*words: str) -> bytes:
    """Words as Redis reads them."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in map(str.encode, words)])
