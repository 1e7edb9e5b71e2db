"""POST /v1/messages/count_tokens: free, and under a rate of its own."""

from proxy.admission import Admitter, Ask
from proxy.asgi import Send
from proxy.body import MessagesBody
from proxy.estimator import Estimator
from proxy.limiter.answers import rate_limit_headers
from proxy.responses import send_answer, upstream_response_headers
from proxy.snapshots import View
from proxy.upstreams.client import UpstreamResponse
from proxy.upstreams.forward import (
    Call,
    Forwarder,
    header_of,
    with_request_id,
)
from proxy.upstreams.selection import Hop
from proxy.upstreams.switchboard import Switchboard
from turnpike.contracts.measure import measure
from turnpike.contracts.snapshots import UPSTREAM_OPENAI

PATH = b"/v1/messages/count_tokens"
ANSWER_BYTES_MAX = 1024 * 1024
ANSWER_SECONDS = 30.0


class Counter:
    """Counts the input tokens of a body at an upstream. Nothing is journaled: nothing is billed."""

    def __init__(
        self,
        *,
        admitter: Admitter,
        forwarder: Forwarder,
        switchboard: Switchboard,
        estimator: Estimator,
    ) -> None:
        self._estimator = estimator
        self._admitter = admitter
        self._forwarder = forwarder
        self._switchboard = switchboard

    async def count_tokens(self, ask: Ask, view: View, body: MessagesBody, send: Send) -> None:
        """Serve one request. Raises ApiError while nothing has been sent to the client."""
        decision, view, admission = await self._admitter.admit_count(ask, view, body)
        headers = [
            (b"request-id", ask.request_id.encode()),
            (b"anthropic-organization-id", view.who.tenant_id.encode()),
            *rate_limit_headers(decision.spec, admission),
        ]
        hops = tuple(hop for hop in decision.route.hops if hop.upstream.kind != UPSTREAM_OPENAI)
        if not hops:
            # No upstream of this model can count: the same estimate that admission goes by.
            size = measure(body.parts())
            count = self._estimator.input_tokens(decision.route.model.model, size)
            tokens = b'{"input_tokens":%d}' % count
            await send_answer(send, 200, [(b"content-type", b"application/json"), *headers], tokens)
            return
        call = Call(path=PATH, headers=ask.headers, request_id=ask.request_id, is_stream=False)
        tries = self._switchboard.tries(hops)
        response, payload = await tries.first_answer(lambda hop: self._ask(hop, call, body))
        payload = with_request_id(
            payload,
            upstream_id=header_of(response.headers, b"request-id"),
            request_id=ask.request_id,
        )
        kept = upstream_response_headers(response.headers)
        await send_answer(send, response.status, [*kept, *headers], payload)

    async def _ask(
        self, hop: Hop, call: Call, body: MessagesBody
    ) -> tuple[UpstreamResponse, bytes]:
        response = await self._forwarder.open(hop, call, body.to_upstream(hop.upstream_model))
        return response, await response.read_all(ANSWER_BYTES_MAX, ANSWER_SECONDS)
