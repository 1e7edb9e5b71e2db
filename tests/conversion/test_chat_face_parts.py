"""What the chat face does with parts of answers that a whole data plane rarely sends."""

import json
from typing import Any

import pytest

from proxy.chat_face import ChatFace


class Client:
    """Keeps what is sent to it."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    async def __call__(self, message: Any) -> None:
        self.sent.append(message)


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def face(client: Client) -> ChatFace:
    return ChatFace(client)


def head(status: int = 200, content_type: bytes = b"application/json") -> Any:
    headers = [(b"content-type", content_type)]
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(data: bytes, *, more: bool = False) -> Any:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def test_answer_in_pieces_goes_out_whole(face: ChatFace, client: Client) -> None:
    message = b'{"id":"msg_1","type":"message","content":[]}'

    await face(head())
    await face(body(message[:9], more=True))
    assert client.sent == []
    await face(body(message[9:]))

    start, rest = client.sent
    assert json.loads(rest["body"])["object"] == "chat.completion"
    assert (b"content-length", b"%d" % len(rest["body"])) in start["headers"]


async def test_answer_that_cannot_be_converted_is_an_error(face: ChatFace, client: Client) -> None:
    await face(head())
    await face(body(b'{"id":5}'))

    assert client.sent[0]["status"] == 500
    assert json.loads(client.sent[1]["body"])["error"]["code"] == "internal_error"


async def test_pieces_of_an_event_wait_for_its_end(face: ChatFace, client: Client) -> None:
    await face(head(content_type=b"text/event-stream"))
    await face(body(b"event: ping\nda", more=True))
    await face(body(b'ta: {"type":"ping"}\n\n', more=True))
    await face(body(b""))

    assert [item.get("body") for item in client.sent[1:]] == [b": keep-alive\n\n", b""]
    assert client.sent[-1]["more_body"] is False


async def test_second_answer_is_left_to_the_server_to_refuse(
    face: ChatFace, client: Client
) -> None:
    await face(head(content_type=b"text/event-stream"))
    await face(head(status=500))

    assert [item["type"] for item in client.sent] == ["http.response.start"] * 2


async def test_what_is_no_part_of_an_answer_is_passed_over(face: ChatFace, client: Client) -> None:
    await face({"type": "http.response.trailers"})

    assert client.sent == []
