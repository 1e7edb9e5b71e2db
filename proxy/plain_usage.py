"""Usage with nothing odd about it, as nearly all is: checked by the decoder, and kept as it came.

What is counted and billed of it stands in the checked struct, and an event takes the very bytes, so
that the fields are decoded for those few who ask for others.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec

from proxy.usage_totals import COUNT_MAX

# A line of the journal is one line, and none is longer for what nobody meant to say.
TEXT_BYTES_MAX = 1024
_NEWLINE = ord("\n")

_Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]


class _CacheCreation(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    ephemeral_5m_input_tokens: _Count = 0
    ephemeral_1h_input_tokens: _Count = 0


class _ServerTools(msgspec.Struct, forbid_unknown_fields=True):
    web_search_requests: _Count = 0
    web_fetch_requests: _Count = 0


class PlainUsage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A usage object with nothing odd about it: then it is taken over as it came."""

    input_tokens: _Count
    output_tokens: _Count
    cache_creation_input_tokens: _Count | None = None
    cache_read_input_tokens: _Count | None = None
    cache_creation: _CacheCreation | None = None
    server_tool_use: _ServerTools | None = None
    service_tier: Literal["standard", "priority", "batch"] | None = None
    speed: Literal["standard", "fast"] | None = None
    inference_geo: Literal["global", "us", "not_available"] | None = None


class UsageText(Mapping[str, Any]):
    """A plain usage as the bytes that came, which can stand in an event as they are."""

    __slots__ = ("_fields", "plain", "raw")

    def __init__(self, raw: msgspec.Raw, plain: PlainUsage) -> None:
        self.raw = raw
        self.plain = plain
        self._fields: dict[str, Any] | None = None

    def __getitem__(self, name: str) -> Any:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def _read(self) -> dict[str, Any]:
        if self._fields is None:
            self._fields = _read_fields(self.raw)
        return self._fields


_read_fields = msgspec.json.Decoder(dict[str, Any]).decode
# Raises msgspec.ValidationError, or another error of the decoder's, for any usage that is odd.
read_plain = msgspec.json.Decoder(PlainUsage).decode


def usage_as_read(raw: msgspec.Raw, plain: PlainUsage) -> Mapping[str, Any]:
    """The usage that `read_plain` checked: the text where that can stand in an event."""
    if len(raw) <= TEXT_BYTES_MAX and _NEWLINE not in bytes(raw):
        return UsageText(raw, plain)
    return _read_fields(raw)


def written(usage: Mapping[str, Any]) -> Mapping[str, Any] | msgspec.Raw:
    """A usage as events have it: not decoded and encoded again where it need not be."""
    return usage.raw if type(usage) is UsageText else usage
