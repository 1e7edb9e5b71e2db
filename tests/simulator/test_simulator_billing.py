"""What the simulator bills, and how it misbehaves on demand."""

import json
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

Json = dict[str, Any]
Ask = Callable[..., httpx.Response]
Billed = Callable[[], list[Json]]


def test_every_answer_has_one_row_with_the_ids_of_both_sides(ask: Ask, billed: Billed) -> None:
    response = ask("Hi", headers={"x-turnpike-request-id": "req_01gateway"})

    (row,) = billed()
    assert row["upstream_request_id"] == response.headers["request-id"]
    assert row["turnpike_request_id"] == "req_01gateway"
    assert row["model"] == "claude-sonnet-4-6"
    assert row["usage"] == response.json()["usage"]
    assert row["complete"] is True


def test_a_finished_stream_is_billed_by_its_last_usage(ask: Ask, billed: Billed) -> None:
    text = ask("[[tokens=60]]", stream=True).text

    (row,) = billed()
    assert '"usage":{"output_tokens":60}' in text
    assert (row["usage"]["output_tokens"], row["stream"], row["complete"]) == (60, True, True)


def test_rows_can_be_asked_for_since_an_instant_and_forgotten(
    simulator: httpx.Client, ask: Ask, billed: Billed
) -> None:
    ask("one")
    at = billed()[0]["at"]
    ask("two")

    later = simulator.get("/_billed", params={"since": at}).json()
    simulator.post("/_reset")

    assert len(later) == 1
    assert billed() == []


@pytest.mark.parametrize("events", [0, 1, 2, 3, 5])
def test_a_cut_stream_is_billed_by_what_was_written(ask: Ask, billed: Billed, events: int) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        ask("[[tokens=100]]", stream=True, orders=f"cut_after_events={events}")

    tokens = [row["usage"]["output_tokens"] for row in billed()]
    # Five tokens a delta, which begin with the third event; the first one announces a token.
    assert tokens == {0: [], 1: [1], 2: [1], 3: [5], 5: [15]}[events]


def test_a_cut_json_answer_is_billed_whole(ask: Ask, billed: Billed) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        ask("[[tokens=100]]", orders="cut_after_events=0")

    assert [row["usage"]["output_tokens"] for row in billed()] == [100]


@pytest.mark.parametrize(
    ("orders", "status", "kind"),
    [
        ("status=529", 529, "overloaded_error"),
        ("429; retry_after=7", 429, "rate_limit_error"),
        ("status=500", 500, "api_error"),
        ("status=401", 401, "authentication_error"),
        ("nonsense=1", 400, "invalid_request_error"),
        ("usage=odd", 400, "invalid_request_error"),
    ],
)
def test_an_ordered_refusal_is_not_billed(
    ask: Ask, billed: Billed, orders: str, status: int, kind: str
) -> None:
    response = ask("Hi", orders=orders)

    assert (response.status_code, response.json()["error"]["type"]) == (status, kind)
    assert response.json()["request_id"] == response.headers["request-id"]
    assert response.headers.get("retry-after") == ("7" if status == 429 else None)
    assert billed() == []


def test_a_dropped_connection_is_not_billed(ask: Ask, billed: Billed) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        ask("Hi", orders="drop")

    assert billed() == []


def test_silence_lasts_until_the_client_leaves(
    simulator: httpx.Client, ask: Ask, billed: Billed
) -> None:
    simulator.timeout = httpx.Timeout(0.2)
    with pytest.raises(httpx.ReadTimeout):
        ask("Hi", orders="hang")
    with pytest.raises(httpx.ReadTimeout):
        ask("[[tokens=100]]", stream=True, orders="hang_after_events=4")

    assert [row["usage"]["output_tokens"] for row in billed()] == [10]
    assert billed()[0]["complete"] is False


def test_a_delay_comes_before_the_answer(ask: Ask) -> None:
    begun = time.monotonic()

    assert ask("Hi", orders="delay_ms=120").status_code == 200
    assert time.monotonic() - begun >= 0.12


def test_an_error_in_mid_stream_is_an_event(
    ask: Ask, billed: Billed, parse_events: Callable[[str], list[Json]]
) -> None:
    response = ask("[[tokens=100]]", stream=True, orders="error_after_events=3")

    last = parse_events(response.text)[-1]
    assert last["error"]["type"] == "overloaded_error"
    assert last["request_id"] == response.headers["request-id"]
    assert [row["usage"]["output_tokens"] for row in billed()] == [5]


def test_bad_json_is_bad_and_billed(ask: Ask, billed: Billed) -> None:
    with pytest.raises(json.JSONDecodeError):
        ask("Hi", orders="bad_json").json()
    text = ask("Hi", stream=True, orders="bad_json").text

    assert '"index":0,"del\n\n' in text
    assert len(billed()) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_misreported_usage_leaves_the_record_true(ask: Ask, billed: Billed, stream: bool) -> None:
    texts = {
        fault: ask("[[tokens=40]]", stream=stream, orders=f"usage={fault}").text
        for fault in ("missing", "negative", "inflated")
    }

    assert '"usage"' not in texts["missing"]
    assert '"output_tokens":-40' in texts["negative"]
    assert '"output_tokens":400' in texts["inflated"]
    assert [row["usage"]["output_tokens"] for row in billed()] == [40, 40, 40]


def test_decreasing_usage_falls_behind_what_it_said(
    ask: Ask, billed: Billed, parse_events: Callable[[str], list[Json]]
) -> None:
    events = parse_events(ask("[[tokens=40]]", stream=True, orders="usage=decreasing").text)

    totals = [e["usage"]["output_tokens"] for e in events if e["type"] == "message_delta"]
    assert totals == [40, 20]
    assert billed()[0]["usage"]["output_tokens"] == 40


def test_the_usage_report_sums_the_record_and_lies_on_demand(
    simulator: httpx.Client, ask: Ask
) -> None:
    ask("[[tokens=10]]")
    ask("[[tokens=30]]")
    path = "/v1/organizations/usage_report/messages"

    true = simulator.get(path).json()["data"][0]["results"]
    wrong = simulator.get(path, headers={"x-simulator": "report=wrong"}).json()["data"][0][
        "results"
    ]

    assert [row["output_tokens"] for row in true] == [40]
    assert [row["output_tokens"] for row in wrong] == [80]


def test_the_cost_report_prices_the_record_in_cents_and_lies_on_demand(
    simulator: httpx.Client, ask: Ask
) -> None:
    usage = ask("[[tokens=1000]]").json()["usage"]
    path = "/v1/organizations/cost_report"

    true = simulator.get(path).json()["data"][0]["results"]
    wrong = simulator.get(path, headers={"x-simulator": "report=wrong"}).json()["data"][0][
        "results"
    ]

    # A Sonnet's list prices: 3 dollars for a million tokens of input, 15 of output.
    cents = {
        "uncached_input_tokens": f"{usage['input_tokens'] * 3 / 10_000:.5f}",
        "output_tokens": "1.50000",
    }
    assert {row["token_type"]: row["amount"] for row in true} == cents
    assert {row["currency"] for row in true} == {"USD"}
    assert [float(row["amount"]) for row in wrong] == [2 * float(row["amount"]) for row in true]
    assert simulator.get(path, params={"bucket_width": "1h"}).status_code == 400


def test_a_stream_that_nobody_reads_stops_growing(simulator_url: str, billed: Billed) -> None:
    """What does not fit into the system's buffers is neither written nor billed."""
    address = urlsplit(simulator_url)
    turns = [{"role": "user", "content": "[[tokens=120000]]"}]
    body = {"model": "claude-opus-5", "max_tokens": 128_000, "stream": True, "messages": turns}
    content = json.dumps(body).encode()
    head = (
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: k\r\n"
        f"anthropic-version: 2026-10-21\r\ncontent-length: {len(content)}\r\n\r\n"
    )

    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.connect((address.hostname, address.port))
        client.sendall(head.encode() + content)
        client.recv(1)
        stuck = _settled(billed)

    left = _settled(billed)
    assert stuck["complete"] is left["complete"] is False
    assert 5 <= stuck["usage"]["output_tokens"] <= left["usage"]["output_tokens"]
    assert left["usage"]["output_tokens"] <= stuck["usage"]["output_tokens"] + 5


def _settled(billed: Billed) -> Json:
    """The only row, once it has not changed between two looks."""
    before: list[Json] = []
    for _ in range(200):
        now = billed()
        if now and now == before:
            return now[0]
        before = now
        time.sleep(0.03)
    pytest.fail("The record never came to rest.")
