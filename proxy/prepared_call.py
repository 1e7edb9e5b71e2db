"""Calls of scripts that differ in one key's end and the arguments: all else is packed once.

Packing a call anew takes longer than anything else that is done to send it: each of a dozen names
is encoded and measured, and they are the same for all requests of a tenant.
"""

from collections.abc import Sequence
from typing import Protocol

# What stands before a word of so many bytes; that of a longer one is written when it comes.
_SIZES = [b"$%d\r\n" % size for size in range(4_096)]
_END = b"\r\n"


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

    __slots__ = ("_after", "_args_count", "_before", "_pieces", "_prefix", "script")

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
        self._args_count = args_count
        keys_count = len(before) + 1 + len(after)
        words_count = 3 + keys_count + args_count
        head = _packed("EVALSHA", script.sha, str(keys_count), *before)
        start = b"*%d\r\n%b" % (words_count, head)
        name_start = prefix.encode()
        self._pieces = start, len(name_start), name_start, _END + _packed(*after)

    def keys(self, name: str) -> tuple[str, ...]:
        """The keys of a call whose one key ends so."""
        return (*self._before, self._prefix + name, *self._after)

    def packed(self, name: str, args: Sequence[bytes]) -> bytes:
        """The whole call as it is sent to Redis. Raises ValueError for another count of arguments.

        Joined, with sizes that are text already: to fill in a template takes half as long again.
        """
        count = len(args)
        if count != self._args_count:  # the head says how many words follow
            raise ValueError(f"{count} arguments, where {self._args_count} were prepared for.")
        start, prefix_bytes, prefix, middle = self._pieces
        end, sizes, stop = name.encode(), _SIZES, _END
        try:
            size = sizes[prefix_bytes + len(end)]
            # Written out, since a loop takes half as long again.
            if count == 3:  # admission
                a, b, c = args
                x, y, z = sizes[len(a)], sizes[len(b)], sizes[len(c)]
                three = start, size, prefix, end, middle, x, a, stop, y, b, stop, z, c, stop
                return b"".join(three)
            if count == 4:  # settlement
                a, b, c, d = args
                w, x, y, z = sizes[len(a)], sizes[len(b)], sizes[len(c)], sizes[len(d)]
                d += stop
                four = start, size, prefix, end, middle, w, a, stop, x, b, stop, y, c, stop, z, d
                return b"".join(four)
        except IndexError:
            pass  # one is longer than the sizes that stand ready
        return b"".join(self._words(end, args))

    def _words(self, end: bytes, args: Sequence[bytes]) -> list[bytes]:
        start, prefix_bytes, prefix, middle = self._pieces
        words = [start, b"$%d\r\n" % (prefix_bytes + len(end)), prefix, end, middle]
        for arg in args:
            words += (b"$%d\r\n" % len(arg), arg, _END)
        return words


def _packed(*words: str) -> bytes:
    """Words as Redis reads them."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in map(str.encode, words)])
