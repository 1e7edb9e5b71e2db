"""The tree of expected failures, each with a stable code and an HTTP status.

TurnpikeError
├── InvalidInput          400
├── NotAuthenticated      401
├── InsufficientCredit    402
├── PermissionDenied      403
├── NotFound              404
├── Conflict              409
├── LimitReached          429
└── Unavailable           503
"""

from typing import ClassVar


class TurnpikeError(Exception):
    """Something expected went wrong. The message is for the caller and holds no secret."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidInput(TurnpikeError):
    """What was sent cannot be accepted; the message names the field."""

    code = "invalid_input"
    status = 400

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class NotAuthenticated(TurnpikeError):
    """No credential, or one that is not in force."""

    code = "not_authenticated"
    status = 401


class InsufficientCredit(TurnpikeError):
    """The balance does not cover the amount."""

    code = "insufficient_credit"
    status = 402


class PermissionDenied(TurnpikeError):
    """The caller is known and may not do this."""

    code = "permission_denied"
    status = 403


class NotFound(TurnpikeError):
    """There is no such thing, or it belongs to another tenant."""

    code = "not_found"
    status = 404


class Conflict(TurnpikeError):
    """The state does not allow this now, or the same key came with other content."""

    code = "conflict"
    status = 409

    def __init__(self, message: str, *, error_code: str = "") -> None:
        """`error_code`: Anthropic's word for it, where its API has one."""
        super().__init__(message)
        self.error_code = error_code


class LimitReached(TurnpikeError):
    """There is no room for this now; there will be when what is under way has ended."""

    code = "limit_reached"
    status = 429


class Unavailable(TurnpikeError):
    """A part that this needs is away; trying again later may help."""

    code = "unavailable"
    status = 503
