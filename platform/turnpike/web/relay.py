"""relay: one request to the data plane, its answer passed on as it comes.

Threads of its own read the answers, a bounded number of them; whoever goes away closes the
connection, which is how the data plane learns that nobody listens any more.
"""

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

STREAMS_MAX = 32
CONNECT_SECONDS_MAX = 5.0
# The data plane pings silent streams far more often than this.
SILENCE_SECONDS_MAX = 180.0
CHUNK_BYTES_MAX = 65_536
PATH = "/v1/messages"
# Of the data plane's headers, those that the page shows.
PASSED_ON = ("request-id", "retry-after")

_threads = ThreadPoolExecutor(max_workers=STREAMS_MAX, thread_name_prefix="playground")
_places = threading.BoundedSemaphore(STREAMS_MAX)


async def relay(*, base_url: str, headers: Mapping[str, str], body: bytes) -> AsyncIterator[bytes]:
    """The answer as server-sent events: first one of ours with its status, then its own bytes.

    A stream has sent its status before it knows that of the data plane, hence the first event.
    """
    if not _places.acquire(blocking=False):
        yield opening(503, {})
        yield refusal("overloaded_error", "Too many playgrounds are running. Try again shortly.")
        return
    loop = asyncio.get_running_loop()
    connection, sock = _connection(base_url), None
    try:
        try:
            await loop.run_in_executor(_threads, connection.connect)
            # Kept beside the connection, which forgets it when the answer is the last one.
            sock = connection.sock
            sock.settimeout(SILENCE_SECONDS_MAX)
            answer = await loop.run_in_executor(_threads, _ask, connection, headers, body)
            yield opening(answer.status, {name: answer.headers.get(name) for name in PASSED_ON})
            while chunk := await loop.run_in_executor(_threads, answer.read1, CHUNK_BYTES_MAX):
                yield chunk
        except (OSError, http.client.HTTPException):
            yield opening(502, {})
            yield refusal("api_error", "The data plane cannot be reached. Nothing more is charged.")
    finally:
        _close(connection, sock)
        _places.release()


def opening(status: int, headers: Mapping[str, str | None]) -> bytes:
    """The first event: what the data plane answered, before it says more."""
    return _event("turnpike.answer", {"status": status, **headers})


def refusal(kind: str, message: str) -> bytes:
    """A refusal of our own, in the shape of the data plane's."""
    error = {"type": kind, "message": message}
    return json.dumps({"type": "error", "error": error}).encode()


def _event(name: str, data: Mapping[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _connection(base_url: str) -> http.client.HTTPConnection:
    parts = urlsplit(base_url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.netloc, timeout=CONNECT_SECONDS_MAX)


def _ask(
    connection: http.client.HTTPConnection, headers: Mapping[str, str], body: bytes
) -> http.client.HTTPResponse:
    connection.request("POST", PATH, body=body, headers=dict(headers))
    return connection.getresponse()


def _close(connection: http.client.HTTPConnection, sock: socket.socket | None) -> None:
    """End it even while a thread waits for more: shutting down wakes that thread."""
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
    connection.close()
