"""The meter: golden streams, any cutting of them, every prefix, and upstreams that misreport."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.metering import (
    FLAG_MALFORMED_ANSWER,
    FLAG_MALFORMED_EVENT,
    FLAG_MISSING,
    FLAG_SECOND_START,
    StreamMeter,
    meter_answer,
)
from proxy.plain_usage import UsageText
from proxy.sse import write_event
from proxy.usage_totals import (
    FLAG_DECREASING,
    FLAG_INVALID,
    FLAG_UNBILLED,
    FLAG_UNKNOWN_FIELD,
)
from turnpike.contracts import rating
from turnpike.contracts.snapshots import Price, PriceSet

SAMPLES = Path(__file__).parent / "samples"
EXPECTED: dict[str, dict[str, Any]] = json.loads((SAMPLES / "expected.json").read_text())
COUNTERS = (
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
)


def sample(name: str) -> bytes:
    return (SAMPLES / f"{name}.sse").read_bytes()


def metered(*chunks: bytes, max_tokens: int | None = None) -> StreamMeter:
    meter = StreamMeter(max_tokens)
    for chunk in chunks:
        meter.feed(chunk)
    return meter


def state_of(meter: StreamMeter) -> dict[str, Any]:
    return {name: value for name, value in vars(meter).items() if not name.startswith("_")}


def event(name: str, **fields: Any) -> bytes:
    return write_event(name.encode(), json.dumps({"type": name, **fields}).encode())


def start(**usage: Any) -> bytes:
    return event("message_start", message={"id": "msg_1", "model": "claude-x", "usage": usage})


def text(characters: str) -> bytes:
    return event("content_block_delta", index=0, delta={"type": "text_delta", "text": characters})


def end(reason: str | None = "end_turn", **usage: Any) -> bytes:
    return event("message_delta", delta={"stop_reason": reason}, usage=usage)


def price_set_of(prices: dict[str, dict[str, float]]) -> PriceSet:
    rows = {
        model: tuple(
            Price(component=name, nano_per_mtok=round(dollars * 1_000_000_000))
            for name, dollars in rates.items()
        )
        for model, rates in prices.items()
    }
    search = Price(component=rating.WEB_SEARCH, nano_per_unit=10_000_000)
    return PriceSet(price_set=1, book=1, from_us=0, prices={**rows, "*": (search,)})


@pytest.mark.parametrize("name", EXPECTED)
def test_a_golden_stream_gives_its_usage_and_bill(name: str) -> None:
    expected = EXPECTED[name]

    meter = metered(sample(name))

    usage = meter.observed_usage()
    assert {field: usage[field] for field in expected["counts"]} == expected["counts"]
    assert (meter.model, meter.message_id) == (expected["model"], expected["message_id"])
    assert meter.stop_reason == expected["stop_reason"]
    assert meter.output_chars == expected["output_chars"]
    assert meter.is_reported is meter.is_complete is expected["is_reported"]
    assert meter.flags == set()
    rated = rating.rate(
        usage,
        model=expected["model"],
        price_set=price_set_of(expected["prices"]),
        stop_reason=meter.stop_reason,
    )
    assert rated.is_complete
    assert rated.nanos == expected["bill_micro"] * 1_000


@pytest.mark.parametrize("name", EXPECTED)
@given(places=st.lists(st.integers(min_value=0, max_value=4000), max_size=40))
def test_any_cutting_of_a_stream_gives_the_same_usage(name: str, places: list[int]) -> None:
    stream = sample(name)
    edges = [0, *sorted(min(place, len(stream)) for place in places), len(stream)]
    chunks = [stream[a:b] for a, b in itertools.pairwise(edges)]

    assert state_of(metered(*chunks)) == state_of(metered(stream))


@pytest.mark.parametrize("name", EXPECTED)
def test_every_prefix_of_a_stream_has_at_most_its_usage(name: str) -> None:
    stream = sample(name)
    whole = metered(stream)
    meter, before = StreamMeter(), StreamMeter()

    for at in range(len(stream)):
        meter.feed(stream[at : at + 1])
        seen = meter.observed_usage()
        for counter in COUNTERS:
            assert (seen.get(counter) or 0) <= (whole.observed_usage().get(counter) or 0)
            assert (meter.usage.get(counter) or 0) >= (before.usage.get(counter) or 0)
        if (meter.usage, meter.output_chars) != (before.usage, before.output_chars):
            assert meter.version > before.version
        before.usage, before.output_chars = dict(meter.usage), meter.output_chars
        before.version = meter.version


pieces = st.lists(
    st.one_of(
        st.text(max_size=30).map(text),
        st.just(event("ping")),
        st.just(event("some_future_event", note="x")),
        st.builds(
            lambda output, reads: end(None, output_tokens=output, cache_read_input_tokens=reads),
            st.integers(min_value=-5, max_value=200),
            st.integers(min_value=-5, max_value=200),
        ),
        st.binary(max_size=30),
    ),
    max_size=20,
)


@given(parts=pieces, at=st.integers(min_value=0, max_value=20))
def test_a_prefix_of_any_stream_has_at_most_the_estimate_of_the_whole(
    parts: list[bytes], at: int
) -> None:
    stream = [start(input_tokens=9, output_tokens=1), *parts]
    whole = metered(*stream).observed_usage()
    part = metered(*stream[: at + 1]).observed_usage()

    assert all((part.get(name) or 0) <= (whole.get(name) or 0) for name in COUNTERS)


def test_usage_in_a_delta_replaces_what_is_not_null_and_keeps_the_rest() -> None:
    meter = metered(
        start(
            input_tokens=120, output_tokens=4, cache_read_input_tokens=7, service_tier="standard"
        ),
        end(input_tokens=2620, output_tokens=350, cache_read_input_tokens=None),
    )

    assert meter.usage == {
        "input_tokens": 2620,
        "output_tokens": 350,
        "cache_read_input_tokens": 7,
        "service_tier": "standard",
    }
    assert meter.is_reported


def test_nothing_is_used_before_the_message_starts() -> None:
    meter = metered(
        event("ping"), event("error", error={"type": "overloaded_error", "message": "No"})
    )

    assert meter.observed_usage() == {}
    assert not meter.has_started
    assert meter.error_event is not None
    assert meter.error_event.error_type == "overloaded_error"
    assert meter.error_event.message == "No"


def test_a_cut_stream_is_estimated_from_its_characters_up_to_max_tokens() -> None:
    chunks = (start(input_tokens=10, output_tokens=3), text("x" * 41))

    assert metered(*chunks).observed_usage()["output_tokens"] == 11
    assert metered(*chunks, max_tokens=8).observed_usage()["output_tokens"] == 8
    assert metered(chunks[0], text("xx")).observed_usage()["output_tokens"] == 3


def test_estimated_thinking_tokens_are_summed_where_thinking_is_not_shown() -> None:
    thought = {"type": "thinking_delta", "thinking": "", "estimated_tokens": 50}
    meter = metered(
        start(input_tokens=10, output_tokens=3),
        event("content_block_delta", index=0, delta=thought),
        event("content_block_delta", index=0, delta=thought),
        text("x" * 8),
    )

    assert meter.output_chars == 8
    assert meter.observed_usage()["output_tokens"] == 102


@pytest.mark.parametrize(
    ("last", "flag"),
    [
        (event("message_delta", delta={"stop_reason": "end_turn"}), FLAG_MISSING),
        (end(), FLAG_MISSING),
        (end(output_tokens=-7), FLAG_INVALID),
        (end(output_tokens="14"), FLAG_INVALID),
        (end(output_tokens=1.5), FLAG_INVALID),
        (end(output_tokens=True), FLAG_INVALID),
        (end(output_tokens=2**40), FLAG_INVALID),
        (end(output_tokens=2), FLAG_DECREASING),
    ],
)
def test_a_final_count_that_cannot_be_is_flagged_and_estimated(last: bytes, flag: str) -> None:
    meter = metered(
        start(input_tokens=10, output_tokens=3), text("x" * 40), last, event("message_stop")
    )

    assert flag in meter.flags
    assert meter.is_complete
    assert not meter.is_reported
    assert meter.observed_usage() == {"input_tokens": 10, "output_tokens": 10}


@pytest.mark.parametrize("usage", ["null", "7", '"x"', "[]", '{"input_tokens":{"a":1}}', "{"])
def test_a_start_without_usable_usage_still_starts_the_message(usage: str) -> None:
    data = '{"type":"message_start","message":{"id":"m","model":"x","usage":' + usage + "}}"
    meter = metered(write_event(b"message_start", data.encode()), text("x" * 8))

    if usage == "{":
        assert meter.flags == {FLAG_MALFORMED_EVENT}
        assert not meter.has_started
    else:
        assert FLAG_MISSING in meter.flags
        assert meter.has_started
        assert meter.observed_usage()["output_tokens"] == 2


def test_usage_too_large_to_be_usage_is_refused() -> None:
    meter = metered(
        start(input_tokens=10, output_tokens=3), end(output_tokens=9, junk="x" * 70_000)
    )

    assert meter.usage == {"input_tokens": 10, "output_tokens": 3}
    assert FLAG_INVALID in meter.flags


def test_unknown_fields_are_kept_and_flagged() -> None:
    meter = metered(start(input_tokens=1, output_tokens=1, gpu_seconds=3))

    assert meter.usage["gpu_seconds"] == 3
    assert meter.flags == {FLAG_UNKNOWN_FIELD, FLAG_UNBILLED + "gpu_seconds"}


def test_iterations_that_know_less_do_not_replace_those_that_know_more() -> None:
    more = [{"type": "message", "input_tokens": 300, "output_tokens": 100}]
    less = [{"type": "message", "input_tokens": 300, "output_tokens": 50}]
    meter = metered(
        start(input_tokens=1, output_tokens=1),
        end(None, output_tokens=100, iterations=more),
        end(output_tokens=100, iterations=less),
    )

    assert meter.usage["iterations"] == more
    assert FLAG_DECREASING in meter.flags


def test_a_second_start_is_flagged_and_lowers_nothing() -> None:
    meter = metered(start(input_tokens=9, output_tokens=5), start(input_tokens=4, output_tokens=1))

    assert meter.usage == {"input_tokens": 9, "output_tokens": 5}
    assert {FLAG_SECOND_START, FLAG_DECREASING} <= meter.flags


def test_events_without_names_are_known_by_their_data() -> None:
    stream = sample("text")
    nameless = b"\n".join(line for line in stream.split(b"\n") if not line.startswith(b"event:"))

    assert metered(nameless).observed_usage() == metered(stream).observed_usage()


def test_a_delta_the_typed_reader_refuses_is_counted_all_the_same() -> None:
    odd = b'{"type":"content_block_delta","delta":{"type":"text_delta","text":"abcd","content":7}}'
    meter = metered(
        start(input_tokens=1, output_tokens=1), write_event(b"content_block_delta", odd)
    )

    assert meter.output_chars == 4
    assert meter.flags == {FLAG_MALFORMED_EVENT}


@given(
    name=st.sampled_from(sorted(EXPECTED)),
    at=st.integers(min_value=0, max_value=3000),
    junk=st.binary(max_size=20),
)
def test_no_damage_makes_the_meter_fail(name: str, at: int, junk: bytes) -> None:
    stream = sample(name)
    meter = metered(stream[:at] + junk + stream[at + len(junk) :])

    for counter in COUNTERS:
        assert 0 <= (meter.observed_usage().get(counter) or 0) < 2**31


def test_deep_nesting_is_no_way_to_break_the_meter() -> None:
    deep = b'{"type":"message_delta","usage":{"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}}"
    meter = metered(start(input_tokens=1, output_tokens=1), write_event(b"message_delta", deep))

    assert meter.usage == {"input_tokens": 1, "output_tokens": 1}
    assert meter_answer(b"[" * 100_000).flags == {FLAG_MALFORMED_ANSWER}


ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [{"type": "text", "text": "Hello, you."}, {"type": "tool_use", "input": {"a": 1}}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 21, "output_tokens": 14, "service_tier": "standard"},
}


def test_an_answer_gives_its_usage() -> None:
    answer = meter_answer(json.dumps(ANSWER).encode())

    assert answer.usage == ANSWER["usage"]
    assert (answer.model, answer.message_id, answer.stop_reason) == (
        "claude-x",
        "msg_1",
        "end_turn",
    )
    assert answer.is_reported
    assert answer.flags == frozenset()
    assert answer.observed_usage(max_tokens=5) == ANSWER["usage"]


@pytest.mark.parametrize(
    ("usage", "flags"),
    [
        ({}, {FLAG_MISSING}),
        (None, {FLAG_MISSING}),
        ([], {FLAG_MISSING, FLAG_INVALID}),
        ({"input_tokens": 21, "output_tokens": -3}, {FLAG_MISSING, FLAG_INVALID}),
    ],
)
def test_an_answer_without_sane_usage_is_estimated(usage: Any, flags: set[str]) -> None:
    answer = meter_answer(json.dumps({**ANSWER, "usage": usage}).encode())

    assert answer.flags == flags
    assert not answer.is_reported
    assert answer.observed_usage(max_tokens=100)["output_tokens"] == 5  # 11 + 7 characters
    assert answer.observed_usage(max_tokens=4)["output_tokens"] == 4


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"<html>", b'{"type":"error","error":{}}', b'{"usage":1']
)
def test_what_is_no_message_is_flagged(body: bytes) -> None:
    answer = meter_answer(body)

    assert FLAG_MALFORMED_ANSWER in answer.flags
    assert not answer.is_reported
    assert answer.usage == {}


COUNT = st.none() | st.integers(0, 1_000)


@given(
    usage=st.fixed_dictionaries(
        {"input_tokens": st.integers(0, 1_000), "output_tokens": st.integers(0, 1_000)},
        optional={
            "cache_creation_input_tokens": COUNT,
            "cache_read_input_tokens": COUNT,
            "cache_creation": st.none()
            | st.fixed_dictionaries(
                {},
                optional={
                    "ephemeral_5m_input_tokens": st.integers(0, 1_000),
                    "ephemeral_1h_input_tokens": st.integers(0, 1_000),
                },
            ),
            "service_tier": st.sampled_from([None, "standard", "batch"]),
            "speed": st.sampled_from([None, "standard", "fast"]),
            "inference_geo": st.sampled_from([None, "us"]),
            "server_tool_use": st.sampled_from([None, {"web_search_requests": 2}]),
        },
    )
)
def test_the_counts_of_a_plain_usage_are_what_rating_reads_from_it(usage: dict[str, Any]) -> None:
    answer = meter_answer(json.dumps({**ANSWER, "usage": usage}).encode())
    (line,) = rating.usage_lines(answer.usage, model="m")

    if answer.counts is not None:
        assert answer.counts == line.counts
        assert line.variant == rating.STANDARD
    else:
        assert usage.keys() & {"service_tier", "speed", "inference_geo", "server_tool_use"}


PLAIN = {"input_tokens": 3, "output_tokens": 5, "service_tier": "standard"}


def test_a_plain_usage_may_be_written_down_as_it_came() -> None:
    answer = meter_answer(json.dumps({**ANSWER, "usage": PLAIN}).encode())

    assert type(answer.usage) is UsageText
    assert json.loads(bytes(answer.usage.raw)) == answer.usage == PLAIN


@pytest.mark.parametrize(
    "usage",
    [
        json.dumps(PLAIN, indent=2),  # a line of the journal is one line
        json.dumps(PLAIN).replace(" ", " " * 1_000),
        json.dumps({**PLAIN, "output_tokens": -1}),
        json.dumps({**PLAIN, "something_new": 1}),
    ],
    ids=["lines", "long", "odd", "unknown"],
)
def test_any_other_usage_is_read_and_written_anew(usage: str) -> None:
    answer = meter_answer(f'{{"type": "message", "usage": {usage}}}'.encode())

    assert type(answer.usage) is dict
    assert answer.usage["input_tokens"] == 3
