"""One request from top to bottom: authenticate, admit, hold, forward, settle."""

import asyncio
import logging
from collections.abc import Awaitable
from functools import partial

from proxy.admission import Admitter, Ask
from proxy.api_errors import ApiError, overloaded
from proxy.asgi import Headers, Receive, Send
from proxy.body import MessagesBody
from proxy.chat_upstream import ChatAnswer, is_estimated
from proxy.conversion.chat_request import IGNORED_HEADER
from proxy.ending import Ending
from proxy.estimator import Estimator
from proxy.events import Outcome
from proxy.exchange import Exchange
from proxy.http_cycle import DONE
from proxy.journal import Journal, JournalUnwritable
from proxy.keeper import Keeper
from proxy.limiter.answers import rate_limit_headers
from proxy.metering import FLAG_MALFORMED_ANSWER, FLAG_MISSING, StreamMeter, meter_answer
from proxy.metrics import METRICS
from proxy.ownership import NamingAnswer, Owners
from proxy.plain_usage import written
from proxy.responses import error_event, send_answer, upstream_response_headers
from proxy.settlement import Settlement
from proxy.snapshots import View
from proxy.sse import StreamTooLarge
from proxy.streaming import Pulse, Relay, StreamEnd, wait_for_disconnect
from proxy.upstreams.client import ConnectionLost, UpstreamError, UpstreamResponse
from proxy.upstreams.forward import (
    AttemptFailed,
    Blame,
    Call,
    Forwarder,
    failure_of,
    header_of,
    read_answer,
    unreadable,
    with_request_id,
)
from proxy.upstreams.selection import Hop
from proxy.upstreams.switchboard import Switchboard
from proxy.upstreams.tries import Tries
from turnpike.contracts import usage as words
from turnpike.kernel import clock

logger = logging.getLogger(__name__)

ANSWER_BYTES_MAX = 64 * 1024 * 1024
# A stream may take as long as an answer, and so much more for each token that it may have.
SLOWEST_TOKEN_SECONDS = 0.1
MESSAGES_PATH = b"/v1/messages"


class Pipeline:
    """Answers /v1/messages. Whatever was admitted is ended here, exactly once."""

    def __init__(
        self,
        *,
        admitter: Admitter,
        forwarder: Forwarder,
        journal: Journal,
        settlement: Settlement,
        ending: Ending,
        keeper: Keeper,
        switchboard: Switchboard,
        owners: Owners,
        estimator: Estimator,
    ) -> None:
        self._owners = owners
        self._estimator = estimator
        self._admitter = admitter
        self._forwarder = forwarder
        self._journal = journal
        self._settlement = settlement
        self._ending = ending
        self._keeper = keeper
        self._switchboard = switchboard
        # Kept, since asking for the running loop costs a system call each time.
        self._loop = asyncio.get_running_loop()

    async def messages(
        self, ask: Ask, view: View, body: MessagesBody, receive: Receive, send: Send
    ) -> None:
        """Serve one request. Raises ApiError while nothing has been sent to the client."""
        if not (self._journal.is_writable and self._settlement.has_room()):
            raise overloaded("The service cannot record usage at the moment.", reason="journal")
        admitted = await self._admitter.admit(ask, view, body)
        exchange = self._admitter.begin(ask, body, admitted)
        self._keeper.add(exchange)
        try:
            if body.is_stream:
                await self._watch_client(ask, exchange, body, receive, send)
            else:
                await self._try_hops(ask, exchange, body, send)
        except ApiError as error:
            exchange.outcome.http_status = error.status
            exchange.outcome.error_type = error.error_type
            await self._ending.end(exchange)
            error.headers = (*error.headers, *self._headers(exchange))
            raise
        except Exception:
            # A mistake of ours must not leak a slot or a hold, nor lose what the upstream bills.
            logger.exception("request.broken", extra={"rid": exchange.rid})
            await self._end_broken(exchange)
            raise
        finally:
            self._keeper.remove(exchange)

    async def _watch_client(
        self, ask: Ask, exchange: Exchange, body: MessagesBody, receive: Receive, send: Send
    ) -> None:
        """A stream ends when its client leaves. A JSON answer, billed in full, is read on."""
        watch = asyncio.ensure_future(wait_for_disconnect(receive, lambda: exchange.stop(None)))
        try:
            await self._try_hops(ask, exchange, body, send)
        finally:
            watch.cancel()

    async def _try_hops(self, ask: Ask, exchange: Exchange, body: MessagesBody, send: Send) -> None:
        begun_at = clock.monotonic_seconds()
        call = Call(
            path=MESSAGES_PATH,
            headers=ask.headers,
            request_id=exchange.request_id,
            is_stream=body.is_stream,
            begun_at=begun_at,
            memo=ask.memo,
        )
        tries = exchange.tries = self._switchboard.tries(
            exchange.route.hops,
            body,
            key=exchange.view.key.key,
            model=exchange.model,
            begun_at=begun_at,
        )
        hop = tries.begin_now() or await _begin(tries, exchange)
        while True:
            try:
                payload = self._begin_attempt(hop, call, exchange, body)
                response = await self._open(hop, call, exchange, payload)
                await self._deliver(hop, body, exchange, response, send)
            except AttemptFailed as error:
                failure = error
                exchange.end_attempt(
                    failure.outcome, upstream_request_id=failure.upstream_request_id
                )
                if not tries.may_go_on(failure):
                    exchange.is_given_back = True
                    raise failure.error from failure
            else:
                tries.note_served()
                return
            finally:
                tries.end()
            hop = await _begin(tries, exchange, failure)
            METRICS.retries.inc()

    def _begin_attempt(self, hop: Hop, call: Call, exchange: Exchange, body: MessagesBody) -> bytes:
        """Count and write down one more try; the body that it sends."""
        number = exchange.begin_attempt(hop.upstream.upstream, hop.credential)
        self._write_begin(exchange)
        if number == 1:
            METRICS.own_seconds.observe(call.begun_at - exchange.begun_at)
        if hop.ignored is not exchange.ignored:
            exchange.ignored = hop.ignored
        return body.to_upstream(hop.upstream_model) if hop.body is None else hop.body

    def _deliver(
        self,
        hop: Hop,
        body: MessagesBody,
        exchange: Exchange,
        response: UpstreamResponse,
        send: Send,
    ) -> Awaitable[None]:
        """Bring an attempt's answer to the client."""
        if response.status >= 400:
            exchange.outcome.http_status = response.status
            return self._relay_refusal(exchange, response, send)
        if body.is_stream and _is_event_stream(response):
            exchange.outcome.http_status = response.status
            return self._stream(hop, exchange, response, send)
        return self._answer(hop, exchange, response, send)

    async def _open(
        self, hop: Hop, call: Call, exchange: Exchange, body: bytes
    ) -> UpstreamResponse:
        """Open the attempt; a client that leaves, or a stop, ends the wait for its answer."""
        task = asyncio.current_task(self._loop)
        assert task is not None
        if call.is_stream:  # other answers are read on, whoever has left
            exchange.set_disconnect_policy(hop.upstream)
        exchange.close_upstream = task.cancel
        try:
            response = await self._forwarder.send(hop, call, body)
            if response.status >= 400:
                await self._forwarder.refuse_ours(hop.upstream, response)
        except UpstreamError as error:
            raise failure_of(error) from error
        except asyncio.CancelledError:
            if not exchange.is_stopped:
                raise
            task.uncancel()
            raise _given_up(exchange) from None
        finally:
            exchange.close_upstream = None
        exchange.close_upstream = response.close
        if hop.body is None:
            names = exchange.wants.names_objects
            return self._watched(response, hop, exchange) if names else response
        return ChatAnswer(
            response,
            model=exchange.model,
            request_id=exchange.request_id,
            input_estimate=exchange.spec.input_estimate,
        )

    def _watched(
        self, response: UpstreamResponse, hop: Hop, exchange: Exchange
    ) -> UpstreamResponse:
        """An answer that may name upstream objects as one that notes whose they are."""
        tenant, upstream = exchange.spec.tenant, hop.upstream.upstream
        return NamingAnswer(response, partial(self._owners.note, tenant, upstream))

    async def _answer(
        self, hop: Hop, exchange: Exchange, response: UpstreamResponse, send: Send
    ) -> None:
        """A JSON answer: read whole, metered and written down before the client sees a byte.

        Reading goes on when the client has left, since the upstream bills in full.
        """
        payload = response.take_whole(ANSWER_BYTES_MAX)
        if payload is None:
            seconds = hop.upstream.answer_timeout_seconds
            payload = await read_answer(response, ANSWER_BYTES_MAX, seconds)
        meter = meter_answer(payload)
        is_reported = True
        if meter.flags:
            METRICS.note_flags(meter.flags)
            if FLAG_MALFORMED_ANSWER in meter.flags:
                raise unreadable(response)
            is_reported = meter.is_reported
        usage = meter.usage
        if not is_reported:
            ratio = self._estimator.output_ratio(exchange.model)
            usage = meter.observed_usage(max_tokens=exchange.max_tokens, ratio=ratio)
        if hop.body is not None and is_estimated(response):
            is_reported = False
            METRICS.note_flags((FLAG_MISSING,))
        exchange.counts = meter.counts
        # Made at once: to set the fields one by one takes four times as long.
        exchange.outcome = Outcome(
            rank=words.RANK_REPORTED if is_reported else words.RANK_OBSERVED,
            usage=usage,
            http_status=response.status,
            stop_reason=meter.stop_reason,
            upstream_model=meter.model,
            ttft_us=self._first_byte_us(exchange),
        )
        exchange.end_attempt(
            words.OUTCOME_ANSWERED,
            header_of(response.headers, b"request-id"),
            written(usage),
        )
        ended = self._ending.write_now(exchange) or await self._ending.hold_more(exchange)
        headers = upstream_response_headers(response.headers)
        headers += self._headers(exchange)
        sent = send_answer(send, response.status, headers, payload)
        if sent is not DONE:
            await sent
        self._settlement.settle_soon(ended)

    async def _relay_refusal(
        self, exchange: Exchange, response: UpstreamResponse, send: Send
    ) -> None:
        """The upstream judged the request itself: its words go out as they are, under our id."""
        try:
            payload = await response.read_all(ANSWER_BYTES_MAX, 30.0)
        except UpstreamError as error:
            raise failure_of(error) from error
        upstream_id = header_of(response.headers, b"request-id")
        exchange.outcome.error_type = "upstream_refusal"
        exchange.end_attempt(words.OUTCOME_REFUSED, upstream_request_id=upstream_id)
        ended = await self._ending.write_down(exchange)
        headers = [*upstream_response_headers(response.headers), *self._headers(exchange)]
        payload = with_request_id(payload, upstream_id=upstream_id, request_id=exchange.request_id)
        await send_answer(send, response.status, headers, payload)
        await self._settlement.settle(ended)

    async def _stream(
        self,
        hop: Hop,
        exchange: Exchange,
        response: UpstreamResponse,
        send: Send,
    ) -> None:
        meter = exchange.meter = StreamMeter(
            exchange.max_tokens,
            self._estimator.output_ratio(exchange.model),
            is_input_estimated=is_estimated(response),
        )
        silence_seconds = hop.upstream.silence_timeout_seconds
        seconds_max = hop.upstream.answer_timeout_seconds
        seconds_max += exchange.max_tokens * SLOWEST_TOKEN_SECONDS
        overdue = asyncio.get_running_loop().call_later(seconds_max, exchange.overrun)
        try:
            first = await _first_chunk(response, meter, silence_seconds)
        except AttemptFailed:
            overdue.cancel()
            if exchange.is_stopped:
                raise _given_up(exchange) from None
            raise
        exchange.outcome.ttft_us = self._first_byte_us(exchange)
        headers = [*upstream_response_headers(response.headers), *self._headers(exchange)]
        try:
            await send(
                {"type": "http.response.start", "status": response.status, "headers": headers}
            )
            exchange.pulse = Pulse(send)
            relay = Relay(
                response,
                meter=meter,
                send=send,
                note=lambda: self._note_progress(exchange),
                is_client_gone=lambda: exchange.is_client_gone,
                silence_seconds=silence_seconds,
                pulse=exchange.pulse,
            )
            end = await relay.run(first)
        finally:
            overdue.cancel()
            exchange.pulse = None
            response.close()
        is_final = _is_final(meter, end)
        if is_estimated(response):
            is_final = False
            meter.flags.add(FLAG_MISSING)
        self._conclude(exchange, response, is_final=is_final)
        ended = await self._ending.write_down(exchange)
        if not exchange.is_client_gone:
            tail = _tail(exchange, end)
            await send({"type": "http.response.body", "body": tail, "more_body": False})
        self._settlement.settle_soon(ended)

    async def _end_broken(self, exchange: Exchange) -> None:
        meter = exchange.meter
        if exchange.outcome.rank == words.RANK_VOID and meter is not None and meter.has_started:
            exchange.outcome.rank = words.RANK_OBSERVED
            exchange.outcome.usage = meter.observed_usage()
            exchange.end_attempt(words.OUTCOME_CUT, usage=exchange.outcome.usage)
        exchange.outcome.error_type = "api_error"
        await self._ending.end(exchange)

    def _conclude(self, exchange: Exchange, response: UpstreamResponse, *, is_final: bool) -> None:
        meter = exchange.meter
        assert meter is not None
        METRICS.note_flags(meter.flags)
        outcome = exchange.outcome
        outcome.stop_reason = meter.stop_reason
        outcome.upstream_model = meter.model
        outcome.output_chars = meter.output_chars
        if is_final:
            outcome.rank, outcome.usage = words.RANK_REPORTED, dict(meter.usage)
        elif meter.has_started:
            outcome.rank, outcome.usage = words.RANK_OBSERVED, meter.observed_usage()
            METRICS.cut_streams.inc()
        # Bytes that never became an event are no answer either.
        if exchange.tries is not None:
            if is_final or meter.is_complete:
                exchange.tries.note_streamed()
            elif not exchange.is_stopped:
                exchange.tries.note_broken()
        exchange.end_attempt(
            words.OUTCOME_ANSWERED
            if is_final
            else words.OUTCOME_CUT
            if meter.has_started
            else words.OUTCOME_UNKNOWN,
            upstream_request_id=header_of(response.headers, b"request-id"),
            usage=outcome.usage,
        )

    def _write_begin(self, exchange: Exchange) -> None:
        try:
            place = self._journal.append(exchange.rid, exchange.attempt_line())
        except JournalUnwritable as error:
            METRICS.journal_errors.inc()
            exchange.is_given_back = True
            raise overloaded(
                "The service cannot record usage at the moment.", reason="journal"
            ) from error
        if len(exchange.attempts) == 1:
            exchange.admitted_at = place

    def _note_progress(self, exchange: Exchange) -> None:
        try:
            self._journal.append(exchange.rid, exchange.progress_line())
        except JournalUnwritable:
            # The stream goes on: its end settles through Redis, and new requests are refused.
            METRICS.journal_errors.inc()

    def _headers(self, exchange: Exchange) -> Headers:
        headers: Headers = [
            (b"request-id", exchange.request_id.encode()),
            *exchange.route.answer_headers,
            *rate_limit_headers(exchange.spec, exchange.admission),
        ]
        if exchange.ignored:
            headers.append((IGNORED_HEADER, ", ".join(exchange.ignored).encode()))
        return headers

    def _first_byte_us(self, exchange: Exchange) -> int:
        seconds = clock.monotonic_seconds() - exchange.begun_at
        METRICS.first_byte_seconds.observe(seconds)
        if exchange.tries is not None:
            exchange.tries.note_served()
        return int(seconds * 1_000_000)


async def _first_chunk(
    response: UpstreamResponse, meter: StreamMeter, silence_seconds: float
) -> bytes:
    """The first bytes of a stream. While nothing has gone out, a failure may be tried elsewhere."""
    try:
        chunk = await response.read_chunk(silence_seconds)
        meter.feed(chunk)
    except UpstreamError as error:
        raise failure_of(error) from error
    except StreamTooLarge as error:
        response.close()
        raise unreadable(response) from error
    if not chunk:
        raise failure_of(ConnectionLost("The stream ended before it began."))
    if meter.error_event is not None and not meter.has_started:
        response.close()
        raise AttemptFailed(
            overloaded(
                "The model is overloaded at the moment. Nothing was charged.", reason="upstream"
            ),
            outcome=words.OUTCOME_REFUSED,
            upstream_request_id=header_of(response.headers, b"request-id"),
            blame=Blame.UPSTREAM,
        )
    return chunk


def _given_up(exchange: Exchange) -> AttemptFailed:
    """The attempt was ended from our side before anything came: it may have been billed to us."""
    error = exchange.stopped_by or overloaded("The request was given up.", reason="given_up")
    return AttemptFailed(error, outcome=words.OUTCOME_UNKNOWN, may_try_next=False)


async def _begin(tries: Tries, exchange: Exchange, failure: AttemptFailed | None = None) -> Hop:
    """The hop of the next attempt. Raises ApiError when nobody is left to try."""
    try:
        return await tries.begin(failure)
    except ApiError:
        exchange.is_given_back = True
        raise


def _is_final(meter: StreamMeter, end: StreamEnd) -> bool:
    """Whether the upstream gave its own final usage, and the stream came to its end."""
    return meter.is_reported and (meter.is_complete or end is StreamEnd.CLEAN)


def _tail(exchange: Exchange, end: StreamEnd) -> bytes:
    """What ends the client's stream: nothing after a whole answer, else an error event.

    SDKs take a stream that just stops for a complete answer, so it must never just stop.
    """
    meter = exchange.meter
    assert meter is not None
    if meter.is_complete or meter.error_event is not None:
        return b""
    stopped = exchange.stopped_by
    if stopped is not None:
        return error_event(stopped.error_type, stopped.message, exchange.request_id)
    if exchange.is_overdue:
        return error_event(
            "timeout_error",
            "The model took too long. What it wrote is charged.",
            exchange.request_id,
        )
    if end is StreamEnd.SILENT:
        return error_event(
            "timeout_error", "The model fell silent. What it wrote is charged.", exchange.request_id
        )
    return error_event(
        "api_error", "The model's answer broke off. What it wrote is charged.", exchange.request_id
    )


def _is_event_stream(response: UpstreamResponse) -> bool:
    content_type = header_of(response.headers, b"content-type") or ""
    return content_type.startswith("text/event-stream")
