"""Both planes on one port: who answers which path, and who hears about the lifespan."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from turnpike.asgi import ControlApp, JoinedApp

Message = dict[str, Any]


class Plane:
    """An app that answers with its own name and notes what reached it."""

    def __init__(self, name: str, *, ready_status: int = 200) -> None:
        self.name = name
        self.ready_status = ready_status
        self.seen: list[str] = []
        self.is_draining = False

    async def __call__(
        self,
        scope: Any,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        self.seen.append(scope.get("path", scope["type"]))
        if scope["type"] == "lifespan":
            await send({"type": f"{(await receive())['type']}.complete"})
            return
        status = self.ready_status if scope["path"] == "/readyz" else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": self.name.encode()})

    def begin_drain(self) -> None:
        self.is_draining = True


async def call(app: Any, path: str, *, method: str = "GET", raw: bytes | None = None) -> Message:
    sent: list[Message] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": raw if raw is not None else path.encode(),
        "headers": [],
    }
    await app(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    return {"status": sent[0]["status"], "body": sent[1]["body"].decode()}


@pytest.mark.parametrize(
    ("method", "path", "plane"),
    [
        ("POST", "/v1/messages", "proxy"),
        ("POST", "/v1/messages/count_tokens", "proxy"),
        ("GET", "/v1/models", "proxy"),
        ("POST", "/v1/chat/completions", "proxy"),
        ("GET", "/v1/nowhere", "proxy"),
        ("HEAD", "/", "proxy"),
        ("HEAD", "/api/hello", "proxy"),
        ("GET", "/metrics", "proxycontrol"),
        ("GET", "/livez", "proxy"),
        ("GET", "/", "control"),
        ("GET", "/api/v1/keys", "control"),
        ("POST", "/v1/messages/batches", "control"),
        ("GET", "/v1/organizations/usage_report/messages", "control"),
        ("POST", "/v1/messages/batches_of_mine", "proxy"),
    ],
)
async def test_each_path_has_one_plane(method: str, path: str, plane: str) -> None:
    app = JoinedApp(proxy=Plane("proxy"), control=Plane("control"))

    answer = await call(app, path, method=method)

    assert answer == {"status": 200, "body": plane}


async def test_the_bytes_decide_and_not_what_they_decode_to() -> None:
    app = JoinedApp(proxy=Plane("proxy"), control=Plane("control"))

    answer = await call(app, "/v1/messages", raw=b"/v1%2Fmessages")

    assert answer["body"] == "control"


@pytest.mark.parametrize(
    ("proxy_status", "control_status", "expected"),
    [
        (200, 200, {"status": 200, "body": "control"}),
        (503, 200, {"status": 503, "body": "proxy"}),
        (200, 503, {"status": 503, "body": "control"}),
    ],
)
async def test_the_joined_app_is_ready_when_both_are(
    proxy_status: int, control_status: int, expected: Message
) -> None:
    app = JoinedApp(
        proxy=Plane("proxy", ready_status=proxy_status),
        control=Plane("control", ready_status=control_status),
    )

    assert await call(app, "/readyz") == expected


async def test_the_lifespan_and_the_drain_are_the_proxys() -> None:
    proxy, control = Plane("proxy"), Plane("control")
    app = JoinedApp(proxy=proxy, control=control)
    sent: list[Message] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    await app({"type": "lifespan"}, receive, send)
    app.begin_drain()

    assert sent == [{"type": "lifespan.startup.complete"}]
    assert (proxy.seen, control.seen, proxy.is_draining) == (["lifespan"], [], True)


async def test_django_alone_lives_through_the_lifespan_that_it_does_not_know() -> None:
    django = Plane("django")
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[Message] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Message:
        return next(messages)

    await ControlApp(django)({"type": "lifespan"}, receive, send)

    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert django.seen == []
