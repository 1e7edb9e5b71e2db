"""POST /v1/messages with a batch ticket: one item of a message batch, forwarded and nothing else.

The item was admitted with its batch and is charged by who sent it, so nothing is admitted, held or
journaled here; caps, health and failover are those of every request. docs/adr/0008 says why.
"""

from uuid import UUID

from proxy.admission import Ask, away, cold
from proxy.api_errors import ApiError
from proxy.asgi import Send
from proxy.body import MessagesBody, read_messages_body
from proxy.chat_upstream import ChatAnswer, with_chat_bodies
from proxy.config import ProxyConfig
from proxy.pricing import estimate_input_tokens
from proxy.redis_pipe import RedisAway
from proxy.responses import send_answer, upstream_response_headers
from proxy.routing import route_of_item
from proxy.snapshots import PlaneCold, SnapshotStore
from proxy.upstreams.client import UpstreamResponse
from proxy.upstreams.forward import (
    Call,
    Forwarder,
    header_of,
    with_request_id,
)
from proxy.upstreams.selection import Hop
from proxy.upstreams.switchboard import Switchboard
from turnpike.contracts import tickets
from turnpike.contracts.snapshots import UPSTREAM_OPENAI
from turnpike.kernel import clock, ids

HEADER = tickets.HEADER.encode()
PATH = b"/v1/messages"
ANSWER_BYTES_MAX = 64 * 1024 * 1024


class BatchItems:
    """Forwards items whose tickets are genuine."""

    def __init__(
        self,
        *,
        config: ProxyConfig,
        store: SnapshotStore,
        forwarder: Forwarder,
        switchboard: Switchboard,
    ) -> None:
        self._config = config
        self._store = store
        self._forwarder = forwarder
        self._switchboard = switchboard

    def ticket_of(self, ask: Ask) -> tickets.Ticket:
        """The request's ticket. Raises ApiError 401, before the body is read."""
        text = ask.headers[HEADER].decode("latin-1")
        ticket = tickets.read_ticket(text, peppers=self._config.peppers, at_us=clock.now_us())
        if ticket is None:
            raise _bad_ticket()
        return ticket

    async def answer(self, ask: Ask, ticket: tickets.Ticket, raw: bytes, send: Send) -> None:
        """Serve one item. Raises ApiError while nothing has been sent."""
        if not ticket.is_of(raw):
            raise _bad_ticket()
        body = read_messages_body(raw)
        if body.is_stream:
            raise ApiError(400, "invalid_request_error", "stream: Not supported in batches")
        try:
            plane = await self._store.read_plane()
        except PlaneCold as error:
            raise cold() from error
        except RedisAway as error:
            raise away() from error
        route = with_chat_bodies(route_of_item(plane, ticket.model), body)
        request_id = ids.public_id(ids.REQUEST, UUID(ticket.rid))
        call = Call(path=PATH, headers=ask.headers, request_id=request_id, is_stream=False)
        tries = self._switchboard.tries(route.hops)
        response, payload = await tries.first_answer(lambda hop: self._ask(hop, call, body))
        payload = with_request_id(
            payload,
            upstream_id=header_of(response.headers, b"request-id"),
            request_id=request_id,
        )
        hop = tries.hop
        headers = [
            *upstream_response_headers(response.headers),
            (b"request-id", request_id.encode()),
            (b"x-turnpike-upstream", b"%d" % hop.upstream.upstream),
            (b"x-turnpike-credential", b"%d" % (hop.credential or 0)),
        ]
        named = header_of(response.headers, b"request-id")
        if named is not None:
            headers.append((b"x-turnpike-upstream-request-id", named.encode("latin-1")))
        await send_answer(send, response.status, headers, payload)

    async def _ask(
        self, hop: Hop, call: Call, body: MessagesBody
    ) -> tuple[UpstreamResponse, bytes]:
        sent = body.to_upstream(hop.upstream_model) if hop.body is None else hop.body
        response = await self._forwarder.open(hop, call, sent)
        if hop.upstream.kind == UPSTREAM_OPENAI:
            response = ChatAnswer(
                response,
                model=hop.upstream_model,
                request_id=call.request_id,
                input_estimate=estimate_input_tokens(body.parts()),
            )
        payload = await response.read_all(ANSWER_BYTES_MAX, hop.upstream.answer_timeout_seconds)
        return response, payload


def _bad_ticket() -> ApiError:
    return ApiError(401, "authentication_error", "The ticket of this item is not valid.")
