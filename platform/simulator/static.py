"""An answer made in advance, for load tests: the body is not parsed, the bill is still written."""

import re

from simulator.exchange import Exchange
from simulator.messages import TURNPIKE_REQUEST_ID
from simulator.record import Row, tokens_of
from simulator.state import State
from simulator.wire import encode

_MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]+)"')
_STREAMS = re.compile(rb'"stream"\s*:\s*true')

_TEXT = ("The toll for two axles is three euros and is due before the bridge. " * 12)[:800]
_CHUNK_CHARACTERS = 20
_INPUT_TOKENS = 250
_USAGE = {
    "input_tokens": _INPUT_TOKENS,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": tokens_of(len(_TEXT)),
    "service_tier": "standard",
}
_HEAD = {"id": "msg_01StaticStaticStaticStati", "type": "message", "role": "assistant"}
_TAIL = encode(
    {
        "content": [{"type": "text", "text": _TEXT}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": _USAGE,
    }
)[1:]


async def reply_static(state: State, exchange: Exchange) -> None:
    """Answer any Messages request with the same words, at once."""
    body = await exchange.body()
    found = _MODEL.search(body, 0, 4_096)
    model = found[1].decode() if found else "claude-sonnet-5"
    row = Row(
        request_id=exchange.request_id,
        turnpike_request_id=exchange.header(TURNPIKE_REQUEST_ID),
        model=model,
        usage=_USAGE,
        output_characters=len(_TEXT),
        is_stream=False,
    )
    state.record.bill(row)
    head = encode({**_HEAD, "model": model})[:-1]
    if not _STREAMS.search(body):
        await exchange.reply(head + b"," + _TAIL)
        return
    row.is_stream = True
    await exchange.start_stream()
    await exchange.write(_stream_start(head))
    for chunk in _CHUNKS:
        await exchange.write(chunk)
    await exchange.end()


def _stream_start(head: bytes) -> bytes:
    usage = encode({**_USAGE, "output_tokens": 1})
    message = (
        head + b',"content":[],"stop_reason":null,"stop_sequence":null,"usage":' + usage + b"}"
    )
    return b'event: message_start\ndata: {"type":"message_start","message":' + message + b"}\n\n"


def _event(name: bytes, rest: bytes) -> bytes:
    return b'event: %s\ndata: {"type":"%s"%s}\n\n' % (name, name, rest)


def _chunks() -> list[bytes]:
    start = b',"index":0,"content_block":{"type":"text","text":""}'
    chunks = [_event(b"content_block_start", start)]
    for at in range(0, len(_TEXT), _CHUNK_CHARACTERS):
        text = encode(_TEXT[at : at + _CHUNK_CHARACTERS])
        delta = b',"index":0,"delta":{"type":"text_delta","text":' + text + b"}"
        chunks.append(_event(b"content_block_delta", delta))
    chunks.append(_event(b"content_block_stop", b',"index":0'))
    reason = (
        b',"delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":%d}'
    )
    chunks.append(_event(b"message_delta", reason % tokens_of(len(_TEXT))))
    chunks.append(_event(b"message_stop", b""))
    return chunks


_CHUNKS = _chunks()
