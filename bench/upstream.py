"""A static upstream: answers at once, with bytes made in advance. python -m bench.upstream PORT

A JSON request gets a message of about 1 KB. A request with ``"stream":true`` gets as many text
deltas as its `max_tokens` says, one every two milliseconds, so that each reaches the gateway alone.
"""

import asyncio
import re
import sys
from typing import cast

import uvloop

CHUNK_SECONDS = 0.002
_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
_TOKENS = re.compile(rb'"max_tokens":\s*(\d+)')
_STREAM = re.compile(rb'"stream":\s*true')
_TEXT = b"The toll for two axles is three euros and is due before the bridge. " * 10
_USAGE = (
    b'{"input_tokens":250,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,'
    b'"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},'
    b'"output_tokens":%d,"service_tier":"standard"}'
)
_HEAD = (
    b'{"id":"msg_01BenchBenchBenchBenchBe","type":"message","role":"assistant",'
    b'"model":"claude-sonnet-5",'
)
_BODY = (
    _HEAD
    + b'"content":[{"type":"text","text":"'
    + _TEXT
    + b'"}],"stop_reason":"end_turn","stop_sequence":null,"usage":'
    + _USAGE % (len(_TEXT) // 4)
    + b"}"
)
_COMMON = b"HTTP/1.1 200 OK\r\nrequest-id: req_01BenchBenchBenchBenchBe\r\n"
JSON_ANSWER = (
    _COMMON + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BODY) + _BODY
)
STREAM_HEAD = (
    _COMMON
    + b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    + b"transfer-encoding: chunked\r\n\r\n"
)


def _event(name: bytes, rest: bytes) -> bytes:
    event = b'event: %s\ndata: {"type":"%s"%s}\n\n' % (name, name, rest)
    return b"%x\r\n%s\r\n" % (len(event), event)


_START = _event(
    b"message_start",
    b',"message":' + _HEAD + b'"content":[],"stop_reason":null,"usage":' + _USAGE % 1 + b"}",
) + _event(b"content_block_start", b',"index":0,"content_block":{"type":"text","text":""}')
_DELTA = _event(
    b"content_block_delta",
    b',"index":0,"delta":{"type":"text_delta","text":"The toll for two axl"}',
)


def _end(chunks: int) -> bytes:
    reason = (
        b',"delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":%d}'
    )
    return (
        _event(b"content_block_stop", b',"index":0')
        + _event(b"message_delta", reason % (5 * chunks))
        + _event(b"message_stop", b"")
        + b"0\r\n\r\n"
    )


class Static(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._transport: asyncio.Transport
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an instance of it: uvloop has transports of its own.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            head_end = self._buffer.find(b"\r\n\r\n")
            if head_end < 0:
                return
            length = _LENGTH.search(self._buffer, 0, head_end)
            end = head_end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[head_end + 4 : end])
            del self._buffer[:end]
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        if not _STREAM.search(body):
            self._transport.write(JSON_ANSWER)
            return
        found = _TOKENS.search(body)
        chunks = int(found[1]) if found else 1
        self._transport.write(STREAM_HEAD + _START)
        self._loop.call_later(CHUNK_SECONDS, self._write_chunk, chunks, chunks)

    def _write_chunk(self, left: int, chunks: int) -> None:
        if self._transport.is_closing():
            return
        if left == 0:
            self._transport.write(_end(chunks))
            return
        self._transport.write(_DELTA)
        self._loop.call_later(CHUNK_SECONDS, self._write_chunk, left - 1, chunks)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Static, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
