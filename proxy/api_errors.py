"""ApiError: an answer that ends a request early, in the words of the API being spoken."""

from collections.abc import Mapping
from typing import Any

Headers = tuple[tuple[bytes, bytes], ...]


class ApiError(Exception):
    """A refusal or failure with its HTTP status, error type and message.

    `reason` is the word for the tenant's refusal log; `details` go into the body as they are, and
    `headers` stand beside the usual ones.
    """

    def __init__(
        self,
        status: int,
        error_type: str,
        message: str,
        *,
        reason: str = "",
        details: Mapping[str, Any] | None = None,
        headers: Headers = (),
        retry_after_seconds: int | None = None,
        should_retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.message = message
        self.reason = reason or error_type.removesuffix("_error")
        self.details = details
        extra: list[tuple[bytes, bytes]] = list(headers)
        if retry_after_seconds is not None:
            extra.append((b"retry-after", b"%d" % retry_after_seconds))
        if should_retry is not None:
            extra.append((b"x-should-retry", b"true" if should_retry else b"false"))
        self.headers = tuple(extra)


def overloaded(
    message: str, *, reason: str = "overloaded", retry_after_seconds: int = 2
) -> ApiError:
    """529: nothing was charged, and trying again later may work."""
    return ApiError(
        529,
        "overloaded_error",
        message,
        reason=reason,
        retry_after_seconds=retry_after_seconds,
        should_retry=True,
    )
