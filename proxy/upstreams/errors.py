"""What can go wrong between us and an upstream, and whether it may have done the work.

UpstreamError
├── ConnectFailed      no connection: refused, no name, bad certificate, too slow, too many
├── SendFailed         the connection broke before the whole request was out
├── HeadersTimeout     the request was sent and nothing came back in time
├── ReadTimeout        the answer began and then paused for too long
├── ConnectionLost     the connection broke before the answer was complete
├── ProtocolError      what came is not HTTP, or passes a bound
└── BodyTooLarge       the answer's body passes the caller's limit
"""

from typing import ClassVar


class UpstreamError(Exception):
    """An exchange failed. `is_reused` tells whether its connection had served others before."""

    # Whether the upstream may have worked on the request, and may bill it.
    may_be_processed: ClassVar[bool] = True

    def __init__(self, message: str, *, is_reused: bool = False) -> None:
        super().__init__(message)
        self.is_reused = is_reused


class ConnectFailed(UpstreamError):
    """No connection could be had; nothing was sent."""

    may_be_processed = False


class SendFailed(UpstreamError):
    """A part of the request never left, so the upstream cannot have acted on it."""

    may_be_processed = False


class HeadersTimeout(UpstreamError):
    """The request was sent, and no answer began in time."""


class ReadTimeout(UpstreamError):
    """The answer began, and its next bytes did not come in time."""


class ConnectionLost(UpstreamError):
    """The connection broke before the answer was complete."""

    def __init__(self, message: str, *, is_reused: bool = False, bytes_received: int = 0) -> None:
        super().__init__(message, is_reused=is_reused)
        self.bytes_received = bytes_received


class ProtocolError(UpstreamError):
    """The answer is not HTTP/1.1 as we speak it, or its head passes a bound."""


class BodyTooLarge(UpstreamError):
    """The body of the answer is longer than the caller takes."""
