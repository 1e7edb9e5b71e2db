"""What clients send is bounded before Django keeps it."""

import json
from typing import Any

import pytest

from turnpike.asgi import control
from turnpike.control.bounded_body import BATCHES_PATH, BODY_BYTES_MAX, MIB, BoundedBody

ENDLESS = 10**6


class Client:
    """Sends so many pieces of a mebibyte, and keeps the answer."""

    def __init__(self, pieces: int = ENDLESS) -> None:
        self.pieces = pieces
        self.sent = 0
        self.status = 0
        self.body = b""

    async def receive(self) -> dict[str, Any]:
        if self.sent == self.pieces:
            return {"type": "http.request", "body": b"", "more_body": False}
        self.sent += 1
        return {"type": "http.request", "body": bytes(MIB), "more_body": True}

    async def send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")


def scope(path: str = "/api/v1/keys", **headers: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [
            (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
        ],
    }


async def test_an_endless_body_ends_at_the_bound() -> None:
    client = Client()

    await control(scope(content_type="application/json"), client.receive, client.send)

    assert (client.status, client.sent) == (413, BODY_BYTES_MAX // MIB + 1)
    assert json.loads(client.body)["error"]["type"] == "request_too_large"


async def test_a_declared_size_is_believed_at_once() -> None:
    client = Client()

    await control(scope(content_length=str(BODY_BYTES_MAX + 1)), client.receive, client.send)

    assert (client.status, client.sent) == (413, 0)


@pytest.mark.parametrize(
    ("path", "pieces", "status"),
    [("/api/v1/keys", 32, 200), ("/api/v1/keys", 33, 413), (BATCHES_PATH, 33, 200)],
)
async def test_what_is_within_the_bound_arrives_whole(path: str, pieces: int, status: int) -> None:
    read = 0

    async def app(_: Any, receive: Any, send: Any) -> None:
        nonlocal read
        while (message := await receive()).get("more_body"):
            read += len(message["body"])
        if message["type"] == "http.request":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    client = Client(pieces)

    await BoundedBody(app)(scope(path), client.receive, client.send)

    assert client.status == status
    assert read == min(pieces, 32 if status == 413 else pieces) * MIB
