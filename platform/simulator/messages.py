"""POST /v1/messages and /v1/messages/count_tokens."""

import asyncio
from collections.abc import Iterator

from simulator.answer import Answer, write_answer
from simulator.events import (
    Event,
    broken_event,
    chunk_count,
    error_event,
    events_of,
    message_of,
)
from simulator.exchange import CutShort, Exchange
from simulator.prompt import Prompt, read_prompt
from simulator.record import Row
from simulator.state import State
from simulator.validation import check_messages_request, check_version
from simulator.wire import Json, Refusal, decode_object, encode

_PIECES_WAITED_MAX = 8
TURNPIKE_REQUEST_ID = b"x-turnpike-request-id"


async def create_message(state: State, exchange: Exchange) -> None:
    """Answer a Messages request, as JSON or as a stream."""
    request, prompt = await _read(exchange)
    answer = answer_request(state, request, prompt=prompt, tokens=exchange.faults.tokens)
    row = Row(
        request_id=exchange.request_id,
        turnpike_request_id=exchange.header(TURNPIKE_REQUEST_ID),
        model=answer.model,
        usage=answer.usage,
        output_characters=0,
        is_stream=bool(request.get("stream")),
    )
    if request.get("stream"):
        await _stream(state, exchange, answer, row)
    else:
        await _reply(state, exchange, answer, row)


async def count_tokens(state: State, exchange: Exchange) -> None:
    """Count a prompt; free of charge."""
    _, prompt = await _read(exchange, is_counting=True)
    await exchange.reply(encode({"input_tokens": prompt.input_tokens}))


def answer_request(state: State, request: Json, *, prompt: Prompt, tokens: int = 0) -> Answer:
    """The answer to a validated request; its marked prefixes are in the cache from now on."""
    share = state.cache.share(model=request["model"], prompt=prompt)
    return write_answer(request, prompt=prompt, share=share, tokens=tokens)


def betas_of(exchange: Exchange) -> list[str]:
    """The values of `anthropic-beta`, of all its headers."""
    values = [value for name, value in exchange.scope["headers"] if name == b"anthropic-beta"]
    return [beta.strip() for beta in b",".join(values).decode("latin-1").split(",") if beta.strip()]


async def _read(exchange: Exchange, *, is_counting: bool = False) -> tuple[Json, Prompt]:
    version = check_version(exchange.header(b"anthropic-version"))
    request = decode_object(await exchange.body())
    check_messages_request(
        request, version=version, betas=betas_of(exchange), is_counting=is_counting
    )
    return request, read_prompt(request)


async def _reply(state: State, exchange: Exchange, answer: Answer, row: Row) -> None:
    pace_seconds = state.pace_seconds(exchange)
    if pace_seconds:
        await asyncio.sleep(pace_seconds * min(_PIECES_WAITED_MAX, chunk_count(answer)))
    faults = exchange.faults
    message_id = state.ids.next("msg")
    body = encode(message_of(answer, message_id=message_id, usage_fault=faults.usage))
    row.usage, row.output_characters = answer.final_usage, answer.output_characters
    state.record.bill(row)
    if faults.bad_json:
        body = body[: len(body) * 2 // 3]
    if faults.cut_after_events >= 0:
        await exchange.reply_in_part(body)
    await exchange.reply(body)


async def _stream(state: State, exchange: Exchange, answer: Answer, row: Row) -> None:
    message_id = state.ids.next("msg")
    events = events_of(answer, message_id=message_id, usage_fault=exchange.faults.usage)
    await exchange.start_stream()
    if await write_events(state, exchange, _with_faults(exchange, events), row, answer):
        await exchange.end()


async def write_events(
    state: State, exchange: Exchange, events: Iterator[Event], row: Row, answer: Answer
) -> bool:
    """Write a stream and bill each event before it goes out. False when the client left."""
    pace_seconds = state.pace_seconds(exchange)
    is_billed = False
    for event in events:
        await exchange.drain()
        if exchange.is_client_gone:
            return False
        # Who fails before the first word has written nothing, and bills nothing.
        if not (is_billed or event.is_error):
            is_billed = True
            state.record.bill(row)
        row.output_characters += event.characters
        if event.is_final_usage:
            row.usage = answer.final_usage
        await exchange.write(event.data)
        await asyncio.sleep(pace_seconds)
    row.is_complete = True
    return True


def _with_faults(exchange: Exchange, events: Iterator[Event]) -> Iterator[Event]:
    """Break a stream off where the request's orders say."""
    faults = exchange.faults
    for position, event in enumerate(events):
        if position == faults.cut_after_events:
            raise CutShort
        if position == faults.hang_after_events:
            raise Silence
        if position == faults.error_after_events:
            yield error_event(
                error_type="overloaded_error", message="Overloaded", request_id=exchange.request_id
            )
            return
        yield event
        if faults.bad_json and position == 1:
            yield broken_event()


class Silence(Exception):
    """Keep the connection open and say nothing more."""


def unserved(exchange: Exchange) -> Refusal:
    """What a path or method gets that nobody serves."""
    return Refusal(f"Not found: {exchange.method} {exchange.path}", status=404)
