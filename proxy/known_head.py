"""The head of a connection's last request, for the next one that has the same.

A client that keeps its connection sends the same bytes each time, but for the length of the body.
What the parser made of them once is then true again, and so is what others made of the headers. The
bytes themselves are compared, so no head can pass for another; and all of it is forgotten with the
connection. Whether a key may still be used is asked for each request, as ever.
"""

import re
from typing import Any

from proxy.asgi import Headers

# Far more places than a body has that comes in one read.
LENGTH_PLACES_MAX = 10

# One header line; the parser has refused whatever else could be meant by it.
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)[ \t]*\r\n", re.IGNORECASE)
_END = b"\r\n\r\n"
# With these a request is more than a head and a body of its length, as it stands.
_UNUSUAL = frozenset((b"transfer-encoding", b"content-encoding", b"expect", b"upgrade"))


class HeadMemo:
    """What was made of a head's headers, by those who would make it again for each request."""

    __slots__ = ("digests", "upstream_start")

    def __init__(self) -> None:
        self.digests: list[str] | None = None  # of the key that it carries
        # How the last request to an upstream began that went on with it: where to, and its lines.
        self.upstream_start: tuple[tuple[object, ...], bytes] | None = None


class KnownHead:
    """A head that was parsed, around the number of its content-length."""

    __slots__ = ("_after", "_before", "_start", "fields", "headers", "length_at", "memo", "scope")

    def __init__(
        self,
        before: bytes,
        after: bytes,
        *,
        scope: dict[str, Any],
        headers: Headers,
        fields: dict[bytes, bytes],
    ) -> None:
        self._before, self._start = before, len(before)
        self._after = after
        self.scope = scope
        self.headers = headers
        self.fields = fields
        self.length_at = [name for name, _ in headers].index(b"content-length")
        self.memo = HeadMemo()

    def read(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Length and body of a whole request with this head and nothing behind it; else None."""
        if not data.startswith(self._before):
            return None
        start, after = self._start, self._after
        end = data.find(b"\r", start, start + LENGTH_PLACES_MAX)
        if not data.startswith(after, end):
            return None
        length, body = data[start:end], data[end + len(after) :]
        return (length, body) if length == b"%d" % len(body) else None


def learn(
    data: bytes, *, scope: dict[str, Any], headers: Headers, fields: dict[bytes, bytes], body: bytes
) -> KnownHead | None:
    """The head of a request that was just parsed, and was all of `data`; None: it is unusual.

    `scope`: what an app is told of such a request but for its headers and body.
    """
    found = _LENGTH.search(data)
    end = data.find(_END)
    if found is None or found.end() > end + 2 or len(data) != end + len(_END) + len(body):
        return None
    is_plain = len(fields) == len(headers) and _UNUSUAL.isdisjoint(fields)
    if not is_plain or int(found[1]) != len(body):
        return None
    before, after = data[: found.start(1)], data[found.end(1) : end + len(_END)]
    return KnownHead(before, after, scope=scope, headers=headers, fields=fields)
