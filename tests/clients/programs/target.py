"""What every program asks of its client, and how it tells what came of it.

A program hands over a `Face`: how its client asks for a plain answer, a stream, a tool and a look
at a picture. What is asked is the same for all of them. Prints one JSON object.
"""

import base64
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

URL = os.environ["TARGET_URL"]
KEY = os.environ["TARGET_KEY"]
POOR_KEY = os.environ["TARGET_POOR_KEY"]
BUSY_KEY = os.environ["TARGET_BUSY_KEY"]
MODEL = "claude-sonnet-4-6"
SAY = "[[say=Three euros.]]"
LONG = "[[tokens=40]]"
USE_TOOL = "Use get_lane for `AB-1`."
LANE = "Lane 4"
# More than the smallest tier allows in a minute.
OVERSIZE = "Far too much. " * 60_000
ORDER_HEADER = "x-simulator"
OVERLOADED = "status=529"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"plate": {"type": "string"}},
    "required": ["plate"],
}
EXHAUSTED_AFTER_MAX = 300
# A client that is slow to begin may find that the moment has passed.
RETRIES_WATCHED_MAX = 4
WAITED_SECONDS = 0.4


@dataclass(frozen=True)
class Call:
    """How one call differs from the usual one."""

    text: str = SAY
    key: str = KEY
    model: str = MODEL
    orders: str = ""
    retries: int = 0


@dataclass(frozen=True)
class Face:
    """A client on one of the two APIs."""

    ask: Callable[[Call], str]
    stream: Callable[[str], list[str]]
    use_tool: Callable[[str], tuple[Any, str]]  # the input that the tool got, and the last answer
    look: Callable[[str, bytes], str]


def report(**faces: Face) -> None:
    """Try each face and print what came of it."""
    sys.stdout.write(json.dumps({name: try_all(face) for name, face in faces.items()}))


def try_all(face: Face) -> dict[str, Any]:
    """Everything that is asked of a client: five answers that are billed, and what is refused."""
    pieces = face.stream(LONG)
    tool_input, answered = face.use_tool(USE_TOOL)
    return {
        "plain": face.ask(Call()),
        "streamed": [len(pieces), len("".join(pieces))],
        "tool_input": tool_input,
        "answered": answered,
        "picture": bool(face.look("What is it?", PNG)),
        "errors": {
            "401": error_of(face, Call(key="sk-ant-api03-nobody")),
            "404": error_of(face, Call(model="claude-nope-9")),
            "402": error_of(face, Call(key=POOR_KEY)),
            "429": error_of(face, Call(key=BUSY_KEY, text=OVERSIZE)),
            "529": error_of(face, Call(orders=OVERLOADED)),
        },
        "retried": retry(face),
    }


def error_of(face: Face, call: Call) -> list[Any]:
    """The class of the error that a call ends in, and the status that it or its cause knows."""
    try:
        said = face.ask(call)
    except Exception as error:  # noqa: BLE001 - which class it is, is the question
        status = None
        cause: BaseException | None = error
        while cause is not None and status is None:
            status = getattr(cause, "status_code", None)
            cause = cause.__cause__ or cause.__context__
        return [type(error).__name__, status]
    return ["answered", said]


def retry(face: Face) -> dict[str, Any]:
    """Use a key's rate up, and let the client find out when it may come again."""
    said, seconds = "", 0.0
    for _ in range(RETRIES_WATCHED_MAX):
        exhaust()
        begun = time.monotonic()
        said = face.ask(Call(key=BUSY_KEY, retries=4))
        seconds = time.monotonic() - begun
        if seconds > WAITED_SECONDS:
            break
    return {"said": said, "has_waited": seconds > WAITED_SECONDS}


def exhaust() -> None:
    """Ask until the limiter refuses."""
    body = {"model": MODEL, "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
    headers = {
        "x-api-key": BUSY_KEY,
        "anthropic-version": "2023-06-01",
        "content-type": "application/json",
    }
    for _ in range(EXHAUSTED_AFTER_MAX):
        asked = urllib.request.Request(
            URL + "/v1/messages", data=json.dumps(body).encode(), headers=headers
        )
        try:
            urllib.request.urlopen(asked, timeout=30).read()
        except urllib.error.HTTPError as error:
            if error.code == 429:
                return
            raise
    raise AssertionError("the limiter refuses nobody")
