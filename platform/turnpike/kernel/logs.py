"""Structured logging (structlog, here alone), set up the same in every process.

Records are written through the standard library: ``logger.info("hold.settled", extra={...})``. A
filter masks whatever looks like a key, as the last line of defence.
"""

import logging
import re
import sys
from typing import Any, TextIO

import structlog

_SECRET = re.compile(r"(tp[km]_(?:live|test)_|sk-ant-|Bearer\s+)[0-9A-Za-z_\-]{6,}")
_PLAIN = (
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
)


def set_up_logs(*, level: str = "INFO", is_json: bool = True, stream: TextIO | None = None) -> None:
    """Send every record of this process to one stream, as JSON lines or as readable text."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if is_json
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_PLAIN, structlog.processors.TimeStamper(fmt="iso", utc=True)],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _mask_event,
            renderer,
        ],
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def mask_secrets(text: str) -> str:
    """The text with everything that looks like a key replaced by its prefix and stars."""
    return _SECRET.sub(r"\1***", text)


def _mask_event(
    _logger: Any, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return {
        key: mask_secrets(value) if isinstance(value, str) else value
        for key, value in event.items()
    }
