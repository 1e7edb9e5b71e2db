"""Relays a response chunk by chunk; handles a disconnect on either side.

Bytes go out as they come in, one send for one read from the socket. The journal's line is written
before the bytes it counts go to the client, so that nobody ever sees an answer that nobody noted.
"""

from collections.abc import Callable
from enum import Enum

from proxy.asgi import Receive, Send
from proxy.metering import StreamMeter
from proxy.sse import StreamTooLarge
from proxy.upstreams.client import ReadTimeout, UpstreamError, UpstreamResponse


class StreamEnd(Enum):
    """How the upstream's side of a stream ended."""

    CLEAN = "clean"
    LOST = "lost"
    SILENT = "silent"
    UNREADABLE = "unreadable"


async def relay(
    response: UpstreamResponse,
    first: bytes,
    *,
    meter: StreamMeter,
    send: Send,
    note: Callable[[], None],
    is_client_gone: Callable[[], bool],
    silence_seconds: float,
) -> StreamEnd:
    """Relay the stream, beginning with a chunk that the meter has read already.

    `note` writes down what the meter knows. Once the client is gone nothing is sent any more;
    whether reading goes on is decided by who closes the response.
    """
    chunk = first
    version = -1
    while chunk:
        if meter.version != version:
            note()
            version = meter.version
        if not is_client_gone():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        try:
            chunk = await response.read_chunk(silence_seconds)
            meter.feed(chunk)
        except ReadTimeout:
            return StreamEnd.SILENT
        except UpstreamError:
            return StreamEnd.LOST
        except StreamTooLarge:
            return StreamEnd.UNREADABLE
    return StreamEnd.CLEAN


async def wait_for_disconnect(receive: Receive, on_gone: Callable[[], None]) -> None:
    """Wait until the client hangs up, and say so. Runs beside the relay, cancelled at its end."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            on_gone()
            return
