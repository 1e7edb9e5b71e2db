"""docs/conversion.md is true: its tables are the code's own."""

import re

import pytest

from proxy.conversion import (
    chat_errors,
    chat_request,
    chat_response,
    messages_request,
    messages_response,
    traits,
)
from tests.support.servers import ROOT

PAGE = (ROOT / "docs" / "conversion.md").read_text()


def table(name: str) -> list[tuple[str, ...]]:
    """The rows of the table that follows a marker, without back quotes."""
    found = re.search(rf"<!-- table: {name} -->\n\n((?:\|[^\n]*\n)+)", PAGE)
    assert found is not None
    lines = found[1].splitlines()[2:]
    return [tuple(cell.strip().strip("`") for cell in line[1:-1].split("|")) for line in lines]


def test_every_table_is_compared() -> None:
    assert re.findall(r"<!-- table: ([\w-]+)", PAGE) == [
        "chat-carried",
        "chat-refused",
        "chat-choices",
        "chat-efforts",
        "chat-tiers",
        "finish-reasons",
        "errors",
        "headers",
        "messages-carried",
        "stop-reasons",
        "refusals",
    ]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("chat-carried", chat_request.CARRIED),
        ("chat-refused", chat_request.REFUSED),
        ("chat-choices", chat_request.TOOL_CHOICES),
        ("chat-efforts", chat_request.EFFORTS),
        ("chat-tiers", chat_request.SERVICE_TIERS),
        ("finish-reasons", chat_response.FINISH_REASONS),
        ("messages-carried", messages_request.CARRIED),
        ("stop-reasons", messages_response.STOP_REASONS),
        ("headers", {k.decode(): v.decode() for k, v in chat_errors.RATE_HEADERS.items()}),
    ],
)
def test_table_is_the_codes(name: str, code: dict[str, str]) -> None:
    assert [row[:2] for row in table(name)] == list(code.items())


def test_errors_are_the_codes() -> None:
    rows = [
        (str(ours), str(row.status), row.error_type, row.code or "")
        for ours, row in chat_errors.ERRORS.items()
    ]

    assert table("errors") == rows


def test_numbers_and_names_in_the_text_are_the_codes() -> None:
    assert f"without either: {traits.MAX_TOKENS_DEFAULT:,}" in PAGE
    assert "`" + "`, `".join(messages_request.REFUSED) + "`" in PAGE
    for name in messages_request.NEWER_LIMIT_MODELS:
        assert f"`{name}`" in PAGE
