"""app: both planes on one port; control: Django alone. The data plane has its own, proxy.app."""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from importlib import import_module
from typing import Any

from django.conf import settings
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "turnpike.settings")
_django = get_asgi_application()
# All pages now and not with the first request, so that workers share them and nobody waits.
import_module(settings.ROOT_URLCONF)

from proxy.app import app as _proxy  # noqa: E402
from turnpike.checks import refuse_unsafe  # noqa: E402
from turnpike.contracts.paths import PROXY, plane_of  # noqa: E402
from turnpike.control.bounded_body import BoundedBody  # noqa: E402

refuse_unsafe()

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
# The libraries' own types of these three differ in ways that nobody relies on.
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]


class ControlApp:
    """Django with the lifespan that it does not handle itself."""

    def __init__(self, django: AsgiApp) -> None:
        self._django = django

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            await self._django(scope, receive, send)


class JoinedApp:
    """Both planes on one port: data goes to the proxy before any of Django's middleware."""

    def __init__(self, *, proxy: AsgiApp, control: AsgiApp) -> None:
        self._proxy = proxy
        self._control = control
        # The data plane answers without a coroutine around the answer's, where it is asked so.
        self._data: AsgiApp = getattr(proxy, "respond", proxy)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection; the lifespan is the proxy's."""
        if scope["type"] == "lifespan":
            await self._proxy(scope, receive, send)
        else:
            await self.respond(scope, receive, send)

    def respond(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request, without a coroutine of its own around the answer's."""
        path = _raw_path(scope)
        if path == "/readyz":
            return self._ready(scope, receive, send)
        if path == "/metrics":
            return self._metrics(scope, receive, send)
        if path == "/livez" or plane_of(path, scope["method"]) == PROXY:
            return self._data(scope, receive, send)
        return self._control(scope, receive, send)

    def begin_drain(self) -> None:
        """No new connections come; the proxy tells its clients to go elsewhere."""
        begin = getattr(self._proxy, "begin_drain", None)
        if begin is not None:
            begin()

    async def _ready(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ready when both are: the control plane's answer unless the proxy has a worse one."""
        data = _Recorder()
        await self._proxy(scope, receive, data)
        if data.status == 200:
            await self._control(scope, receive, send)
        else:
            await data.replay(send)

    async def _metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The figures of both planes as one text; the proxy says who may read them."""
        data, books = _Recorder(), _Recorder()
        await self._proxy(scope, receive, data)
        if data.status != 200:
            await data.replay(send)
            return
        await self._control(scope, receive, books)
        body = data.body + (books.body if books.status == 200 else b"")
        headers = [
            (b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class _Recorder:
    """Keeps an answer instead of sending it."""

    def __init__(self) -> None:
        self.status = 0
        self._messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        self._messages.append(message)

    @property
    def body(self) -> bytes:
        """What would have been sent after the headers."""
        return b"".join(message.get("body", b"") for message in self._messages)

    async def replay(self, send: Send) -> None:
        for message in self._messages:
            await send(message)


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _raw_path(scope: Scope) -> str:
    # The path as it came: a decoded one could name another plane than the bytes do.
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        path: str = scope["path"]
        return path
    return raw.split(b"?", 1)[0].decode("latin-1")


control = ControlApp(BoundedBody(_django))
app = JoinedApp(proxy=_proxy, control=control)
