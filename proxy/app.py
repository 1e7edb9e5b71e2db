"""create_app() -> ASGI app: lifespan, /livez, /readyz, /metrics, the endpoints for the rest."""

import hmac
import ipaddress
import logging
from collections.abc import Awaitable, Callable

from proxy.asgi import Receive, Scope, Send
from proxy.config import ProxyConfig
from proxy.gateway import Gateway
from proxy.responses import send_answer

logger = logging.getLogger(__name__)

OWN_PATHS = frozenset(("/livez", "/readyz", "/metrics"))
TEXT = (b"content-type", b"text/plain; charset=utf-8")
METRICS_TYPE = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


class App:
    """The data plane as an ASGI app. Its parts are made when the server starts it."""

    def __init__(self, config: ProxyConfig | None = None) -> None:
        self._config = config
        self._gateway: Gateway | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        kind = scope["type"]
        if kind == "http":
            await self.respond(scope, receive, send)
        elif kind == "lifespan":
            await self._live(receive, send)

    def respond(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request, without a coroutine of its own around the answer's."""
        gateway = self._gateway
        if gateway is not None and scope["path"] not in OWN_PATHS:
            return gateway.endpoints.serve(scope, receive, send)
        return self._answer(scope, send)

    @property
    def is_ready(self) -> bool:
        """Whether requests can be admitted: Redis, the plane and the journal are there."""
        return self._gateway is not None and self._gateway.is_ready

    def begin_drain(self) -> None:
        """The server stops: running answers may end, within a time."""
        if self._gateway is not None:
            self._gateway.begin_drain()

    async def startup(self) -> None:
        """Make the parts and start the rounds. Raises ValueError for a bad environment."""
        self._gateway = Gateway(self._config or ProxyConfig.from_env())
        await self._gateway.start()

    async def shutdown(self) -> None:
        """Stop the rounds, and leave what is unconfirmed to the next worker."""
        if self._gateway is not None:
            await self._gateway.stop()
            self._gateway = None

    async def _answer(self, scope: Scope, send: Send) -> None:
        path = scope["path"]
        if path == "/livez":
            await send_answer(send, 200, [TEXT], b"ok")
        elif path == "/readyz":
            await send_answer(send, *_readiness(is_ready=self.is_ready))
        elif path == "/metrics":
            await self._metrics(scope, send)
        else:
            await send_answer(send, 503, [TEXT], b"not started")

    async def _metrics(self, scope: Scope, send: Send) -> None:
        gateway = self._gateway
        if gateway is None or not may_read_metrics(scope, token=gateway.config.metrics_token):
            await send_answer(send, 404, [TEXT], b"not found")
            return
        await send_answer(send, 200, [METRICS_TYPE], gateway.shared_metrics.render())

    async def _live(self, receive: Receive, send: Send) -> None:
        steps: dict[str, Callable[[], Awaitable[None]]] = {
            "lifespan.startup": self.startup,
            "lifespan.shutdown": self.shutdown,
        }
        while True:
            message = await receive()
            kind = message["type"]
            try:
                await steps[kind]()
            except (ValueError, OSError) as error:
                logger.exception("proxy.%s_failed", kind.partition(".")[2])
                await send({"type": f"{kind}.failed", "message": str(error)})
                return
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return


def may_read_metrics(scope: Scope, *, token: str) -> bool:
    """Whether figures may be shown: to loopback, or to who has the token."""
    headers = dict(scope["headers"])
    given = headers.get(b"authorization", b"").removeprefix(b"Bearer ")
    if token and hmac.compare_digest(given, token.encode()):
        return True
    peer = scope.get("client")
    is_forwarded = b"x-forwarded-for" in headers or b"forwarded" in headers
    if peer is None or is_forwarded:
        return False
    try:
        return ipaddress.ip_address(peer[0]).is_loopback
    except ValueError:
        return False


def _readiness(*, is_ready: bool) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    return (200, [TEXT], b"ready") if is_ready else (503, [TEXT], b"not ready")


def create_app(config: ProxyConfig | None = None) -> App:
    """The data plane's app; without a config the environment is read when the server starts it."""
    return App(config)


app = create_app()
