"""Every refusal of the data plane: its words are on the pages, and each can be had over HTTP."""

import asyncio
import json
import re
from typing import Any

import pytest

from tests.gateway.conftest import HELLO
from tests.gateway.refusal_cases import ASKED, CONVERTED, MESSAGES, NOT_ASKED_FOR
from tests.support.refusals import sentences_in_code
from tests.support.servers import ROOT


def documented(page: str, marker: str) -> dict[str, int]:
    text = (ROOT / "docs" / page).read_text()
    found = re.search(rf"<!-- table: {marker} -->\n\n((?:\|[^\n]*\n)+)", text)
    assert found is not None
    rows = [line.strip("| ").split(" | ", 1) for line in found[1].splitlines()[2:]]
    return {sentence.strip().removeprefix("«").removesuffix("»"): int(s) for s, sentence in rows}


PAGES = {**documented("conversion.md", "refusals"), **documented("errors.md", "refusals")}


def test_every_sentence_in_the_code_is_on_a_page_and_no_other() -> None:
    assert set(PAGES) == sentences_in_code()


def test_every_sentence_on_a_page_is_asked_for_below() -> None:
    assert set(PAGES) - {sentence for sentence, _ in ASKED + CONVERTED} == NOT_ASKED_FOR


@pytest.mark.parametrize(
    ("sentence", "asked"), ASKED + CONVERTED, ids=[f"{n}" for n in range(len(ASKED + CONVERTED))]
)
async def test_a_refusal_says_what_its_page_says(
    gateway: Any, world: Any, sentence: str, asked: dict[str, Any]
) -> None:
    asked = dict(asked)
    before, method = asked.pop("before", None), asked.pop("method", "POST")
    path, body = asked.pop("path", MESSAGES), asked.pop("body", HELLO)
    done = before(gateway, world) if before is not None else None
    if asyncio.iscoroutine(done):
        await done
    content = body if isinstance(body, bytes) else _compact(body)
    headers = gateway.headers(**asked)

    answer = await gateway.client.request(
        method, path, content=None if method == "GET" else content, headers=headers
    )

    words = ".*".join(re.escape(part) for part in sentence.split("…"))
    said = _message_of(answer)
    assert re.search(words, said, re.DOTALL), said
    is_stream = answer.headers["content-type"].startswith("text/event-stream")
    assert (200 if is_stream else answer.status_code) == PAGES[sentence]


def _compact(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _message_of(answer: Any) -> str:
    """The error's words, of an answer or of a stream's last event."""
    if answer.headers["content-type"].startswith("text/event-stream"):
        last = answer.text.strip().splitlines()[-1].removeprefix("data: ")
        return str(json.loads(last)["error"]["message"])
    assert answer.status_code >= 400, answer.text
    return str(answer.json()["error"]["message"])
