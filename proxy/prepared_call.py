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
        "_middle",
        "_prefix",
        "_prefix_bytes",
        "_rest",
        "_start",
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
        self._start = b"*%d\r\n%b$" % (words_count, head)
        self._middle = b"\r\n" + prefix.encode()
        self._rest = b"\r\n" + _packed(*after)

    def keys(self, name: str) -> tuple[str, ...]:
        """The keys of a call whose one key ends so."""
        return (*self._before, self._prefix + name, *self._after)

    def packed(self, name: str, args: Sequence[bytes]) -> bytes:
        """The whole call as it is sent to Redis."""
        end = name.encode()
        size = b"%d" % (self._prefix_bytes + len(end))
        parts = [self._start, size, self._middle, end, self._rest]
        for arg in args:
            parts += (b"$%d\r\n" % len(arg), arg, b"\r\n")
        return b"".join(parts)


def _packed(*words: str) -> bytes:
    """Words as Redis reads them."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in map(str.encode, words)])
