"""The simulator's ASGI app: finds the endpoint, obeys the request's orders, shapes refusals."""

import asyncio
from collections.abc import Awaitable, Callable

from simulator.batches import BatchStore
from simulator.catalogue import get_model, list_models
from simulator.chat import create_chat_completion
from simulator.exchange import Exchange, Receive, Scope, Send
from simulator.faults import HEADER, parse_faults
from simulator.messages import Silence, count_tokens, create_message, unserved
from simulator.oracle import reset, show_billed, show_cost_report, show_usage_report
from simulator.state import State, state_from_env
from simulator.static import reply_static
from simulator.wire import (
    ERROR_MESSAGES,
    Refusal,
    anthropic_error,
    openai_error,
)

Endpoint = Callable[[State, Exchange], Awaitable[None]]

CHAT_PATH = "/v1/chat/completions"
_BATCHES = "/v1/messages/batches"


class Gone(Exception):
    """The connection was closed; there is nobody to answer."""


class Simulator:
    """An upstream that plays Anthropic and OpenAI, and writes down what it bills."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._batches = BatchStore(state)
        self._endpoints: dict[tuple[str, str], Endpoint] = {
            ("POST", "/v1/messages"): create_message,
            ("POST", "/v1/messages/count_tokens"): count_tokens,
            ("POST", CHAT_PATH): create_chat_completion,
            ("GET", "/v1/models"): list_models,
            ("GET", "/v1/organizations/usage_report/messages"): show_usage_report,
            ("GET", "/v1/organizations/cost_report"): show_cost_report,
            ("GET", "/_billed"): show_billed,
            ("POST", "/_reset"): self._reset,
            ("HEAD", "/api/hello"): hello,
            ("GET", "/api/hello"): hello,
            ("HEAD", "/"): hello,
            ("GET", "/livez"): hello,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send, request_id=self.state.ids.next("req"))
        try:
            await self._answer(exchange)
        except Refusal as refusal:
            await _refuse(exchange, refusal)
        except Gone:
            return
        except Silence:
            await exchange.wait_for_leave()
        finally:
            exchange.close()

    async def _answer(self, exchange: Exchange) -> None:
        if exchange.is_misdirected:
            try:
                exchange.faults = parse_faults(exchange.headers[HEADER])
            except ValueError as error:
                raise Refusal(str(error)) from error
            await _misbehave(exchange)
        if exchange.path.startswith("/v1/"):
            _check_credential(exchange)
        if exchange.path == "/v1/messages" and (self.state.is_static or exchange.faults.static):
            await reply_static(self.state, exchange)
            return
        await self._endpoint(exchange)(self.state, exchange)

    def _endpoint(self, exchange: Exchange) -> Endpoint:
        found = self._endpoints.get((exchange.method, exchange.path))
        if found is not None:
            return found
        if exchange.path == _BATCHES or exchange.path.startswith(_BATCHES + "/"):
            return self._batches.endpoint(exchange)
        if exchange.method == "GET" and exchange.path.startswith("/v1/models/"):
            return get_model
        if any(path == exchange.path for _, path in self._endpoints):
            raise Refusal("Method Not Allowed", status=405, error_type="invalid_request_error")
        raise unserved(exchange)

    async def _reset(self, state: State, exchange: Exchange) -> None:
        self._batches.reset()
        await reset(state, exchange)


async def hello(_state: State, exchange: Exchange) -> None:
    """Tell a client that somebody is here."""
    await exchange.reply(b"{}")


async def _misbehave(exchange: Exchange) -> None:
    """Carry out the orders that come before any answer; none of them is billed."""
    faults = exchange.faults
    if faults.delay_ms:
        await asyncio.sleep(faults.delay_ms / 1_000)
    if faults.drop:
        await exchange.body()
        await exchange.abort()
        raise Gone
    if faults.hang:
        await exchange.body()
        raise Silence
    if faults.status:
        await exchange.body()
        retry_after = faults.retry_after.encode("latin-1")
        headers = ((b"retry-after", retry_after),) if retry_after else ()
        message = ERROR_MESSAGES.get(faults.status, "The simulator was told to say this.")
        raise Refusal(message, status=faults.status, headers=headers)


def _check_credential(exchange: Exchange) -> None:
    if b"x-api-key" not in exchange.headers and b"authorization" not in exchange.headers:
        raise Refusal("x-api-key header is required", status=401)


async def _refuse(exchange: Exchange, refusal: Refusal) -> None:
    if exchange.path == CHAT_PATH:
        body = openai_error(error_type=refusal.error_type, message=refusal.message)
    else:
        body = anthropic_error(
            error_type=refusal.error_type,
            message=refusal.message,
            request_id=exchange.request_id,
        )
    should_retry = (
        b"true" if refusal.status in {408, 409, 429} or refusal.status >= 500 else b"false"
    )
    headers = ((b"content-type", b"application/json"), (b"x-should-retry", should_retry))
    await exchange.reply(body, status=refusal.status, headers=(*headers, *refusal.headers))


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


app = Simulator(state_from_env())
